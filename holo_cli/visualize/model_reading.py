"""The text as the model reads it: tokens, each readable alone, each with its language.

A token may be a part of a character. Pages name such tokens by their character, as in "배 1/3", and
never by bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

from holo_cli.data.language import HANGUL_SHARE, detect, hangul_share
from holo_cli.data.normalize import to_nfc
from holo_cli.errors import UsageError
from holo_cli.inference.generation.prompt import ENOUGH_LETTERS
from holo_cli.visualize.page import Section
from holo_cli.wording import counted

if TYPE_CHECKING:
    from holo_cli.data.tokenizers import Tokenizer
    from holo_cli.inference.generation.loaded_model import LoadedModel

# Read where no text is given, in each of these languages that the model knows.
SENTENCES = {
    "en": "The hungry cat found a small fish by the river and gave half of it to her brother.",
    "ko": "배고픈 고양이가 강가에서 작은 물고기를 찾아 동생에게 반을 주었다.",
    "de": "Die hungrige Katze fand am Fluss einen kleinen Fisch und gab ihrem Bruder die Hälfte.",
    "es": "La gata hambrienta encontró un pez pequeño en el río y le dio la mitad a su hermano.",
    "fr": "Le chat affamé trouva un petit poisson près du fleuve et en donna la moitié à sa sœur.",
    "it": "La gatta affamata trovò un piccolo pesce nel fiume e ne diede metà a suo fratello.",
    "ja": "お腹を空かせた猫が川辺で小さな魚を見つけ、弟に半分あげました。",
    "pt": "A gata faminta encontrou um peixe pequeno no rio e deu metade dele ao seu irmão.",
    "ru": "Голодная кошка нашла у реки маленькую рыбку и отдала половину своему брату.",
    "zh": "饥饿的猫在河边找到了一条小鱼，把一半分给了弟弟。",
}
OWN_LETTERS = ("ko", "ja", "zh")  # languages that their script gives away, however short the text
SPECIAL = "special"  # the language of tokens that are no text
CONTEXT = 24  # characters shown before and after a token
BLANKS = {"\n": "⏎", "\t": "⇥"}
WORD = re.compile(r"\w+")
UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")  # kana and Han: words are not told apart


@dataclass(frozen=True)
class TokenGroup:
    """The fewest tokens in a row that make whole characters: nearly always one."""

    text: str
    pieces: list[str]  # each token readable alone
    special: bool = False


@dataclass(frozen=True)
class Reading:
    """What the model was given."""

    ids: list[int]
    groups: list[TokenGroup]
    languages: list[str]  # per token: "en", "ko", ..., "" where unknown, SPECIAL for specials
    whole: int  # tokens of the whole text; more than len(ids) where it was cut
    unknown: list[str]  # characters of the text that the tokenizer cannot write
    notes: tuple[str, ...] = ()  # sentences on the choice of the text
    texts: int = 1

    @cached_property
    def labels(self) -> list[str]:
        """Each token in a word: without the spaces around it, blank ones by a sign."""
        return [label for group in self.groups for label in _labels(group)]

    @cached_property
    def in_words(self) -> list[str]:
        """The labels for sentences: a part of a word in brackets inside its word, as "hu[ngry]"."""
        texts = ["" if group.special else group.text for group in self.groups]
        words = _words(texts)
        found, end = [], 0
        for group, own in zip(self.groups, texts, strict=True):
            begin, end = end, end + len(own)
            labels = _labels(group)
            inner = own.strip()
            first = begin + own.find(inner) if inner else begin
            word = next((w for w in words if w[0] <= first and first + len(inner) <= w[1]), None)
            if inner and word and (word[0], word[1]) != (first, first + len(inner)):
                before, after = word[2][: first - word[0]], word[2][first + len(inner) - word[0] :]
                labels = [f"{before}[{label}]{after}" for label in labels]
            labels = [label.replace(" ", "\u00a0") for label in labels]  # "배 1/3" on one line
            found += labels
        return found

    @cached_property
    def contexts(self) -> list[tuple[str, str]]:
        """The text before and after each token, on one line."""
        texts = ["" if group.special else group.text for group in self.groups]
        text = "".join(texts)
        found, end = [], 0
        for group, own in zip(self.groups, texts, strict=True):
            begin, end = end, end + len(own)
            lead = group.text[: len(group.text) - len(group.text.lstrip())]
            tail = group.text[len(group.text.rstrip()) :] if group.text.strip() else ""
            before = _one_line(text[max(0, begin - 2 * CONTEXT) : begin] + lead)[-CONTEXT:]
            after = _one_line(tail + text[end : end + 2 * CONTEXT])[:CONTEXT]
            found += [(before, after)] * len(group.pieces)
        return found

    def data(self) -> dict[str, Any]:
        """What every figure of tokens needs of them, one entry per token."""
        faces = [
            face
            for group in self.groups
            for face in (group.text, *(f"·{k}" for k in range(2, len(group.pieces) + 1)))
        ]
        return {
            "tokens": self.labels,
            "faces": faces,  # running text, one piece a token
            "parts": [k for group in self.groups for k in range(len(group.pieces))],
            "contexts": self.contexts,
            "languages": self.languages,
        }

    def section(self) -> Section:
        """The text itself, and what of it the model does not see."""
        notes = [f"The model reads {counted(len(self.ids), 'token')}."]
        if self.whole > len(self.ids):
            whole = counted(self.whole, "token")
            notes = [
                f"The first {len(self.ids)} of {whole}."
                if self.texts == 1
                else f"{len(self.ids)} of {whole}, the beginning of each text."
            ]
        if any(len(group.pieces) > 1 for group in self.groups):
            notes.append("A character that takes several tokens has a line under it for each.")
        if self.unknown:
            notes.append(f"This tokenizer cannot write: {' '.join(self.unknown[:20])}")
        pieces = [(group.text, len(group.pieces)) for group in self.groups]
        return Section("What the model reads", " ".join([*notes, *self.notes]), pieces=pieces)


def read_text(
    loaded: LoadedModel, text: str | None, most: int, least: int = 0, *, twice: bool = False
) -> Reading:
    """Encode a text the way the model's documents begin, cut to `most` tokens and its context.

    Without a text: a sentence in each language of the training data, each cut to its share of the
    room, and repeated until there are `least` tokens; with `twice` each sentence stands twice in
    its document. Raises UsageError for an empty text.
    """
    if text is not None and not text.strip():
        raise UsageError("There is no text to read.", next_step='Give one: --text "..."')
    known = tuple(sorted(code for code in loaded.header.data.languages if code))
    tokenizer = loaded.tokenizer
    limit = min(most, loaded.model.context_limit or most)
    if text is None:
        codes = [code for code in known if code in SENTENCES] or ["en"]
        texts = [" ".join([SENTENCES[code]] * (1 + twice)) for code in codes]
        notes = _sample_notes(known)
    else:
        texts = [to_nfc(text)]
        notes = _text_notes(texts[0], known)
    if not loaded.only_continues:
        notes += ("The model was trained on conversations, and reads plain text here.",)
    parts = [loaded.prompts.encode(part) for part in texts]
    if text is None and least:
        parts *= max(1, -(-min(least, limit) // sum(map(len, parts))))
    ids = [i for part in _fitted(parts, limit) for i in part]
    special = set(tokenizer.specials.values())
    return Reading(
        ids=ids,
        groups=token_groups(tokenizer, ids),
        languages=token_languages(
            [tokenizer.token_bytes(i) for i in ids], [i in special for i in ids], known
        ),
        whole=sum(map(len, parts)),
        unknown=[c for part in texts for c in tokenizer.unknown(part)],
        notes=notes,
        texts=len(parts),
    )


def _fitted(parts: Sequence[list[int]], limit: int) -> list[list[int]]:
    """Token ids of texts, at most `limit` in all: what short texts leave of their share of the room
    goes to the longer ones."""
    room, kept = limit, dict.fromkeys(range(len(parts)), 0)
    for left, at in enumerate(sorted(kept, key=lambda i: len(parts[i]))):
        kept[at] = min(len(parts[at]), room // (len(parts) - left))
        room -= kept[at]
    return [part[: kept[at]] for at, part in enumerate(parts)]


def _sample_notes(known: Sequence[str]) -> tuple[str, ...]:
    """Where the sample does not speak all languages of the data."""
    silent = [code for code in known if code not in SENTENCES]
    if not silent:
        return ()
    return (f"There is no sample sentence for {', '.join(silent)}: give a text with --text.",)


def _text_notes(text: str, known: Sequence[str]) -> tuple[str, ...]:
    """Where a text is in a language that the data did not have."""
    found = detect(text)
    if not known or found in known or found not in OWN_LETTERS:
        return ()
    return (f"The model was trained on {', '.join(known)}, and this text is in {found}.",)


def token_groups(tokenizer: Tokenizer, ids: Iterable[int]) -> list[TokenGroup]:
    """Tokens gathered until they are whole characters; what was cut off at the end stays bytes."""
    special = set(tokenizer.specials.values())
    groups: list[TokenGroup] = []
    waiting: list[int] = []

    def leave() -> None:
        groups.extend(TokenGroup(piece, [piece]) for piece in tokenizer.pieces(waiting))
        waiting.clear()

    for i in ids:
        if i in special:
            leave()
            name = tokenizer.pieces([i])[0]
            groups.append(TokenGroup(name, [name], special=True))
            continue
        waiting.append(i)
        try:
            text = b"".join(map(tokenizer.token_bytes, waiting)).decode("utf-8")
        except UnicodeDecodeError:
            continue
        groups.append(TokenGroup(text, tokenizer.pieces(waiting)))
        waiting.clear()
    leave()
    return groups


def _labels(group: TokenGroup) -> list[str]:
    text = group.text.strip() or next((BLANKS[c] for c in group.text if c in BLANKS), "␣")
    count = len(group.pieces)
    return [text] if count == 1 else [f"{text} {k}/{count}" for k in range(1, count + 1)]


def _words(texts: Sequence[str]) -> list[tuple[int, int, str]]:
    """(begin, end, text) of each word in the joined text of several tokens. A token without a
    text, such as one between two documents, ends a word."""
    found: list[tuple[int, int, str]] = []
    begin = 0
    for _, group in groupby(texts, key=bool):
        text = "".join(group)
        found += [
            (begin + match.start(), begin + match.end(), match[0])
            for match in WORD.finditer(text)
            if not UNSPACED.search(match[0])
        ]
        begin += len(text)
    return found


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def token_languages(
    pieces: Sequence[bytes], special: Sequence[bool], known: Sequence[str]
) -> list[str]:
    """The language of each token: that of the word of its first letter.

    Tokens are bytes, since one may be a part of a character. Documents are read apart: a special
    token ends a word and a line.
    """
    found: list[str] = []
    begin = 0
    for at in range(len(pieces) + 1):
        if at == len(pieces) or special[at]:
            found += _document(pieces[begin:at], known)
            if at < len(pieces):
                found.append(SPECIAL)
            begin = at + 1
    return found


def _document(pieces: Sequence[bytes], known: Sequence[str]) -> list[str]:
    # only the last character can be cut; its replacement is no shorter than what is left of it
    text = b"".join(pieces).decode("utf-8", errors="replace")
    whole = _detect(text, known)
    per_byte: list[str] = []
    for line in text.splitlines(keepends=True):
        enough = sum(map(str.isalpha, line)) >= ENOUGH_LETTERS
        others = _detect(line, known) if enough else whole
        if others == "ko":  # then what of the words in it that have no Hangul?
            others = _detect(re.sub(r"\S*[가-힣]\S*", "", line), known) or "ko"
        for word in re.findall(r"\s*\S+|\s+", line):
            language = "ko" if hangul_share(word) >= HANGUL_SHARE else others
            per_byte += [language] * len(word.encode("utf-8"))
    languages, at = [], 0
    for piece in pieces:
        # the space before a word belongs to that word, and so does a token that begins with it
        languages.append(per_byte[at])
        at += len(piece)
    return languages


def _detect(text: str, known: Sequence[str]) -> str:
    return detect(text, among=known) if any(map(str.isalpha, text)) else ""
