"""Byte-level BPE trained by holo, and any other `tokenizer.json`, with the `tokenizers` library.

The alphabet is all 256 bytes, so that every text can be encoded and decoded. Pre-tokenization keeps
Hangul and other letters apart ("AI는" is "AI" + "는": the particle is the same token after a Latin
word as after a Korean one), splits digits into groups of at most three, and attaches a space to the
word after it.

Other files are changed in one respect when loaded: adding or removing a space before the first word
is switched off, because it breaks `decode(encode(text)) == text` and drops the first space of a
continuation. `encode` never produces the file's special tokens.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holo_cli.data.document import utf8_length
from holo_cli.data.tokenizers.base import FILE, SPECIAL, Tokenizer, append_specials, well_formed
from holo_cli.data.tokenizers.streaming import StreamDecoder, TextStreamDecoder
from holo_cli.errors import DataError, UsageError
from holo_cli.files import atomic_write_text
from holo_cli.parsing import parse_object
from holo_cli.wording import counted

if TYPE_CHECKING:
    import tokenizers

WORDS = "|".join(
    [
        r"['’](?i:s|t|re|ve|m|ll|d)(?!\p{L})",  # English contractions
        r" ?\p{Hangul}+",
        r" ?[\p{L}\p{M}&&[^\p{Hangul}]]+",
        r" ?\p{N}{1,3}",
        r" ?[^\s\p{L}\p{M}\p{N}]+",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
SAMPLE_BYTES = 64 * 2**20  # text for learning merges; more text changes them little
SMALLEST = 257  # all bytes and one special token


def byte_alphabet() -> dict[str, int]:
    """The byte of each printable character in byte-level files (GPT-2, 2019).

    Printable Latin-1 bytes stand for themselves; the others, in order, for U+0100, U+0101, ...
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in set(plain)]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


class JsonTokenizer(Tokenizer):
    """A tokenizer in the format of the `tokenizers` library; kind "bpe" if trained by holo."""

    def __init__(self, text: str) -> None:
        """`text`: the content of a tokenizer.json. DataError if it is invalid."""
        import tokenizers

        try:
            data = _without_first_space(parse_object(text))
            library = tokenizers.Tokenizer.from_str(json.dumps(data, ensure_ascii=False))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"This is not a tokenizer.json: {error}.") from error
        except Exception as error:  # the library raises nothing more specific for a bad file
            raise DataError(f"The `tokenizers` library rejects this file: {error}.") from error
        self.kind = "bpe" if _trained_by_holo(data) else "tokenizer.json"
        self._library: tokenizers.Tokenizer = library
        self._library.encode_special_tokens = True  # "<|end|>" inside a text stays text
        self._library.no_truncation()
        self._library.no_padding()
        self._added = {a["id"]: a for a in data.get("added_tokens") or []}
        vocabulary = library.get_vocab(with_added_tokens=True)
        special = {
            a["content"]: i for i, a in self._added.items() if SPECIAL.fullmatch(a["content"])
        }
        self.ordinary = (
            max((i for i in vocabulary.values() if i not in special.values()), default=-1) + 1
        )
        self.specials = append_specials(self.ordinary, (), special)
        self._data = data
        self._lost: dict[str, bool] = {}

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int, special_names: Sequence[str] = ()
    ) -> JsonTokenizer:
        """Learn merges from at most `SAMPLE_BYTES` of `texts`.

        `vocab_size` includes the special tokens; a small text gives a smaller vocabulary.
        """
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

        count = len(append_specials(0, special_names))
        if vocab_size < SMALLEST - 1 + count:
            raise UsageError(
                f"A byte-level vocabulary of {vocab_size} is too small: there are 256 bytes "
                f"and {counted(count, 'special token')}.",
                next_step=f"Use at least --vocab-size {SMALLEST - 1 + count}.",
            )
        library = Tokenizer(models.BPE())
        library.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(WORDS), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        library.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - count,
            min_frequency=2,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        library.train_from_iterator(_sample(texts), trainer)
        return cls(library.to_str()).with_specials(special_names)

    def with_specials(self, names: Iterable[str]) -> JsonTokenizer:
        wanted = append_specials(self.ordinary, names, self.specials)
        data = dict(self._data)
        listed = {a["content"] for a in self._added.values()}
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        data["added_tokens"] = [
            *(data.get("added_tokens") or []),
            *(
                {"id": i, "content": name, **flags, "special": True}
                for name, i in wanted.items()
                if name not in listed
            ),
        ]
        return JsonTokenizer(json.dumps(data, ensure_ascii=False))

    # -- encoding ---------------------------------------------------------------------------------

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._library.encode(text, add_special_tokens=False).ids
        # what is unknown is left out of a prompt, and refused in a set
        return ids if self._complete else [i for i in ids if i != self._unk]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        encode = partial(self._library.encode_batch_fast, add_special_tokens=False)
        try:
            done = encode(list(texts))
        except TypeError:  # a lone surrogate; checking for them beforehand would be slow
            done = encode([well_formed(text) for text in texts])
        return [encoding.ids for encoding in done]

    # -- what cannot be encoded --------------------------------------------------------------------

    def unknown(self, text: str) -> list[str]:
        if self._complete:
            return []
        lost = {c for c in set(text) if self._is_lost(c)}
        encoding = self._library.encode(well_formed(text), add_special_tokens=False)
        # a word can be unknown although each of its characters is known
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if token == self._unk and not lost.intersection(text[start:end]):
                lost.update(c for c in text[start:end] if not c.isspace())
        return sorted(lost)

    @cached_property
    def _complete(self) -> bool:
        """Whether the vocabulary has all 256 bytes, so that every text can be encoded."""
        vocabulary = self._library.get_vocab(with_added_tokens=False)
        if _style(self._data) == "bytes":
            return all(c in vocabulary for c in byte_alphabet())
        fallback = bool(self._data["model"].get("byte_fallback"))
        return fallback and all(f"<0x{b:02X}>" in vocabulary for b in range(256))

    @cached_property
    def _unk(self) -> int | None:
        """The id of the token for unknown text, if the model has one."""
        model = self._data["model"]
        if model.get("unk_id") is not None:  # Unigram
            return int(model["unk_id"])
        name = model.get("unk_token")
        return None if name is None else self._library.token_to_id(name)

    def _is_lost(self, character: str) -> bool:
        """Whether a character leaves no token, or one for unknown text; cached.

        White space and marks may be removed by the file's own rules, control characters as well.
        """
        found = self._lost.get(character)
        if found is None:
            normalizer = self._library.normalizer
            character = well_formed(character)
            parts = normalizer.normalize_str(character) if normalizer else character
            found = any(map(self._leaves_nothing, parts or character))
            self._lost[character] = found
        return found

    def _leaves_nothing(self, character: str) -> bool:
        if unicodedata.category(character)[0] in "ZCM":
            return False
        ids = self._library.encode(character, add_special_tokens=False).ids
        if not ids or self._unk in ids:
            return True
        # without all bytes only some of a character's may be left
        return _style(self._data) == "bytes" and character not in self.decode(ids)

    def text_bytes(self, text: str, ids: Iterable[int]) -> int:
        if self._keeps_text:
            return utf8_length(text)
        return utf8_length(self.decode(int(i) for i in ids))

    @cached_property
    def _keeps_text(self) -> bool:
        """Whether `decode(encode(text))` is the text, by the kinds of the file's parts."""
        changing = [
            part
            for part in _parts(self._data.get("normalizer"))
            if part["type"] != "NFC"
            and (part["type"], part.get("pattern")) != ("Replace", {"String": " "})
        ]
        return _style(self._data) is not None and not changing

    # -- decoding ---------------------------------------------------------------------------------

    @cached_property
    def _table(self) -> list[bytes] | None:
        """The bytes of each id for byte-level and SentencePiece-like files, else None."""
        style = _style(self._data)
        if style is None:
            return None
        table = [b""] * self.vocab_size
        alphabet = byte_alphabet()
        for piece, i in self._library.get_vocab(with_added_tokens=True).items():
            if i in self._added:
                special = self._added[i].get("special", False)
                table[i] = b"" if special else piece.encode("utf-8")
            elif style == "bytes" and all(c in alphabet for c in piece):
                table[i] = bytes(alphabet[c] for c in piece)
            elif style == "pieces" and len(piece) == 6 and piece.startswith("<0x"):
                table[i] = bytes([int(piece[3:5], 16)])
            else:
                table[i] = piece.replace("▁", " ").encode("utf-8")
        return table

    def _bytes(self, token: int) -> bytes:
        if self._table is not None:
            return self._table[token]
        text: str = self._library.decode([token], skip_special_tokens=True)
        return text.encode("utf-8")

    def decode(self, ids: Iterable[int]) -> str:
        if self._table is not None:
            return super().decode(ids)
        ordinary = [i for i in ids if i not in self._special_ids]
        for token in ordinary:
            self._check(token)
        text: str = self._library.decode(ordinary, skip_special_tokens=True)
        return text

    def stream(self) -> StreamDecoder:
        return super().stream() if self._table is not None else TextStreamDecoder(self.decode)

    # -- storage ----------------------------------------------------------------------------------

    def save(self, folder: Path) -> Path:
        """Write the file in the format of the `tokenizers` and `transformers` libraries."""
        path = folder / FILE
        text = json.dumps(self._data, ensure_ascii=False)
        atomic_write_text(path, text)
        return path

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "specials": self.specials, "json": self._data}


def _sample(texts: Iterable[str]) -> Iterator[str]:
    """The first `SAMPLE_BYTES` of the texts."""
    seen = 0
    for text in texts:
        yield text
        seen += len(text.encode("utf-8"))
        if seen >= SAMPLE_BYTES:
            return


def _parts(node: Any) -> list[dict[str, Any]]:
    """The components of a tokenizer.json entry as a flat list, sequences expanded."""
    if not node:
        return []
    inner = node.get("pretokenizers") or node.get("normalizers") or node.get("decoders")
    return [p for part in inner for p in _parts(part)] if inner is not None else [node]


def _trained_by_holo(data: dict[str, Any]) -> bool:
    """Whether the file has the pre-tokenization of `JsonTokenizer.train`."""
    patterns = [p.get("pattern") for p in _parts(data.get("pre_tokenizer"))]
    return {"Regex": WORDS} in patterns


def _style(data: dict[str, Any]) -> str | None:
    """How tokens encode bytes: "bytes" (byte-level), "pieces" (▁ and <0xNN>), or None."""
    kinds = {p["type"] for p in _parts(data.get("decoder"))}
    if "ByteLevel" in kinds:
        return "bytes"
    underscores = any(
        p["type"] == "Metaspace" or (p["type"] == "Replace" and p.get("content") == " ")
        for p in _parts(data.get("decoder"))
    )
    return "pieces" if underscores else None


def _without_first_space(data: dict[str, Any]) -> dict[str, Any]:
    """Switch off whatever adds or removes a space at the beginning."""
    if data.get("model") is None:
        raise KeyError("it has no 'model'")
    for part in [*_parts(data.get("pre_tokenizer")), *_parts(data.get("decoder"))]:
        if part["type"] == "Metaspace":
            part["prepend_scheme"] = "never"
            part.pop("add_prefix_space", None)
        elif part["type"] == "ByteLevel":
            part["add_prefix_space"] = False
    normalizer = data.get("normalizer")
    if normalizer and any(p["type"] == "Prepend" for p in _parts(normalizer)):
        kept = [p for p in _parts(normalizer) if p["type"] != "Prepend"]
        data["normalizer"] = {"type": "Sequence", "normalizers": kept}
    decoder = data.get("decoder")
    if decoder and any(p["type"] == "Strip" for p in _parts(decoder)):
        kept = [p for p in _parts(decoder) if p["type"] != "Strip"]
        data["decoder"] = {"type": "Sequence", "decoders": kept}
    return data
