"""Messages in the user's language. English text in the code is the key.

Code raises and prints plain English. Where text leaves the program (stderr, help, tables, chat,
pages) `translate` looks for the English template that the text was made from and fills the
placeholders into the Korean one. So no call site has to know about languages, and text without a
translation stays English.

Templates are in `ko/*.toml`, one line each: the English text with `{0}`, `{1}`, ... for what an
f-string inserts, and its Korean form. A Korean placeholder may ask for a particle that fits what is
inserted: `{0:을}` becomes "모델을" or "나무를". `python -m holo_cli.translation.extract` lists the
templates of the code that have no translation; a test holds that there are none.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path

from holo_cli.parsing import read_toml
from holo_cli.translation.particles import with_particle

FOLDER = Path(__file__).parent
LANGUAGES = ("en", "ko")
PLACEHOLDER = re.compile(r"\{(\d+)(?::([가-힣]+))?\}")
SENTENCE_END = re.compile(r"(?<=[.!?]) +(?=[A-Z0-9'\"`(])")
QUANTITY = re.compile(r"\{0\}(?: [a-zA-Z/]+){1,3}")  # "{0} tokens", of which {0} is a number,
LEADS = ("Error: ", "Warning: ", "Next: ")  # what begins a line of stderr
TERM = r"\S+(?: [\w²%/]{1,4})?"  # what templates of few letters take: "{0} of {1}", "vs {0}"
MIN_LETTERS = 3  # with fewer a template would fit into any sentence
NUMBER = r"[-+]?\d\S*(?: [\w²%]{1,4})*?"  # perhaps with a unit, but never a part of a sentence
COLUMNS = re.compile(r"( {2,})")  # between the facts of a line and the columns of a help page
BRACKETED = re.compile(r"\([^()]+\)|\[[^\[\]]+\]")
COLON = re.compile(r"(: )")
SEPARATORS = re.compile(r"(; |: |, )")
WORDS = re.compile(r"[A-Za-z]{2,} +[a-z]{2,}")  # English, and no name
QUOTES = tuple("'\"`")
COUNTED = re.compile(r"(\{\d+\}(?: [a-z]+)?? [a-z]+?)(ies|s)\b")  # a number and its noun
MAX_COUNTED = 4  # of them in one template, singular or plural each
MOST_KNOWN = 1 << 14  # texts whose translation is remembered
GRAM = 4  # letters by which templates are looked up
MAX_DEPTH = 4  # a placeholder's value may itself be a message, as after "Error: "


def language() -> str:
    """The language of messages: `HOLO_LANG`, else the locale's (LC_ALL, LC_MESSAGES, LANG).

    Anything but Korean is English: a mistyped setting must not stop a command.
    """
    for name in ("HOLO_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(name, "")
        if value:
            return "ko" if re.split(r"[_.\-@]", value.lower())[0] in ("ko", "korean") else "en"
    return "en"


def translate(text: str, into: str | None = None) -> str:
    """The text in the user's language, or `into` another; as it is in English, and where no
    template fits.

    Leading and trailing space is kept. Text of several lines is translated as a whole if a template
    of that form exists, else line by line.
    """
    into = language() if into is None else into
    if into == "en" or not text or text.isspace():
        return text
    return _catalogue(into).translate(text)


def template(key: str, into: str) -> str:
    """A template's own form in another language, its placeholders kept; the key where it has none.

    For what fills them elsewhere: the scripts of pages.
    """
    return _catalogue(into).entries.get(key, key)


@cache
def _catalogue(name: str) -> Catalogue:
    entries: dict[str, str] = {}
    for path in sorted((FOLDER / name).glob("*.toml")):
        entries.update(read_toml(path))
    return Catalogue(entries)


class Catalogue:
    """Translations by template."""

    def __init__(self, entries: dict[str, str]) -> None:
        self.entries = entries
        self._known: dict[tuple[str, int], str] = {}  # a page has the same few words in many cells
        self.exact = {key: value for key, value in entries.items() if not PLACEHOLDER.search(key)}
        keys = {lead: f"{lead}{{0}}" for lead in LEADS}
        self.leads = {lead: entries[key] for lead, key in keys.items() if key in entries}
        # the most specific template first: the one with most letters of its own
        self.templates = sorted(
            (
                _Template(form, value)
                for key, value in entries.items()
                if PLACEHOLDER.search(key)
                for form in (key, *_singulars(key))
            ),
            key=lambda template: -sum(map(len, template.literals)),
        )
        self._index = _index(self.templates)

    def translate(self, text: str, depth: int = MAX_DEPTH) -> str:
        known = self._known.get((text, depth))
        if known is None:
            known = self._translated(text, depth)
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[text, depth] = known
        return known

    def _translated(self, text: str, depth: int) -> str:
        body = text.strip()
        if not body or depth == 0 or body.startswith(("$ ", "holo ")):  # to be typed
            return text
        found = self._lead(body, depth) or self._find(body, depth, strict=True)
        if found is None and "\n" in body:
            return "\n".join(self.translate(line, depth) for line in text.split("\n"))
        if found is None:
            found = self._sentences(body, depth) or self._find(body, depth)
        if found is None:
            found = self._pieces(body, depth)
        if found is None and BRACKETED.fullmatch(body):
            found = f"{body[0]}{self.translate(body[1:-1], depth - 1)}{body[-1]}"
        if found is None and COLUMNS.search(body):
            return self._columns(text, depth)
        if found is None:
            return text
        start = text.index(body)
        return text[:start] + found + text[start + len(body) :]

    def _lead(self, body: str, depth: int) -> str | None:
        """The line of stderr that begins with its kind, translated apart from it."""
        for lead, value in self.leads.items():
            if body.startswith(lead) and "\n" not in body:
                return value.replace("{0}", self.translate(body[len(lead) :], depth - 1))
        return None

    def _sentences(self, body: str, depth: int) -> str | None:
        """Sentences that different places of the code put together, if each is known."""
        sentences = SENTENCE_END.split(body)
        if len(sentences) == 1:
            return None
        found = [self._find(s, depth) or self._pieces(s, depth) for s in sentences]
        return None if None in found else " ".join(filter(None, found))

    def _pieces(self, body: str, depth: int) -> str | None:
        """Facts that the code joins by commas and the like, if each is known, a name or a number.

        None where a piece would stay English."""
        for separators in (COLON, SEPARATORS):
            made = self._joined(separators, body.removesuffix("."), depth)
            if made is not None:
                return made + ("." if body.endswith(".") else "")
        return None

    def _joined(self, separators: re.Pattern[str], body: str, depth: int) -> str | None:
        pieces = separators.split(body)
        found = [self._find(piece, depth) for piece in pieces[::2]]
        # a list of single words is one of names to type: "Known: coords, training."
        if len(found) == 1 or not any(
            f and " " in p for p, f in zip(pieces[::2], found, strict=True)
        ):
            return None
        made = []
        for piece, translated in zip(pieces[::2], found, strict=True):
            if translated is None and WORDS.search(piece):
                return None
            made.append(translated or piece)
        marks = [mark.replace(";", ",") for mark in pieces[1::2]]
        return "".join(a + b for a, b in zip(made, [*marks, ""], strict=True))

    def _columns(self, text: str, depth: int) -> str:
        """Facts apart by two spaces or more; a word alone is a name, as in a list of commands."""
        parts = COLUMNS.split(text)
        return "".join(
            self.translate(part, depth) if " " in part.strip() or part[:1] in "([" else part
            for part in parts
        )

    def _find(self, body: str, depth: int, strict: bool = False) -> str | None:
        """The translation by one template; with `strict`, no value holds the end of a sentence."""
        for form in (body, body[:1].lower() + body[1:]):  # "Loss" at an axis, "loss" in a table
            if form in self.exact:
                return self.exact[form]
        for template in self.candidates(body):
            if "\n" in body and "\n" not in template.key:
                continue  # a value would reach over the lines of other messages
            values = template.match(body)
            if values is not None and not (strict and any(map(SENTENCE_END.search, values))):
                return template.fill(
                    value if template.is_quoted[index] else self.translate(value, depth - 1)
                    for index, value in enumerate(values)
                )
        return None

    def candidates(self, body: str) -> Iterator[_Template]:
        """The templates that may fit, in their order: all but those of which a part is lacking."""
        grams = {body[at : at + GRAM] for at in range(max(1, len(body) - GRAM + 1))} | {""}
        places = chain.from_iterable(self._index[gram] for gram in grams & self._index.keys())
        return map(self.templates.__getitem__, sorted(places))


def _index(templates: list[_Template]) -> dict[str, list[int]]:
    """The places of templates by a few letters that each has, the rarest among all templates.

    Under "" are those whose literals are all shorter."""
    found = [
        {part[at : at + GRAM] for part in t.literals for at in range(len(part) - GRAM + 1)}
        for t in templates
    ]
    times = Counter(chain.from_iterable(found))
    index: dict[str, list[int]] = {}
    for place, grams in enumerate(found):
        rarest = min(grams, key=lambda gram: (times[gram], gram), default="")
        index.setdefault(rarest, []).append(place)
    return index


def _singulars(key: str) -> Iterator[str]:
    """The forms of a template in which some of its counted nouns are singular."""
    found = list(COUNTED.finditer(key))[:MAX_COUNTED]
    for chosen in range(1, 2 ** len(found)):
        made, end = "", 0
        for index, noun in enumerate(found):
            if chosen >> index & 1:
                made += key[end : noun.end(1)] + ("y" if noun[2] == "ies" else "")
                end = noun.end()
        yield made + key[end:]


class _Template:
    """One English template with its Korean form."""

    def __init__(self, key: str, value: str) -> None:
        self.key, self.value = key, value
        # literal, index, particle, literal, index, ...: what `split` gives for two groups
        parts = PLACEHOLDER.split(key)
        self.literals = parts[0::3]
        self.order = [int(index) for index in parts[1::3]]
        # what stands in quotes is a name or a value that was typed: never translated
        around = zip(self.order, self.literals, self.literals[1:], strict=False)
        quoted = {i: a[-1:] in QUOTES and b[:1] in QUOTES for i, a, b in around}
        self.is_quoted = [quoted[index] for index in sorted(quoted)]

    @property
    def _pattern(self) -> re.Pattern[str]:
        if QUANTITY.fullmatch(self.key):
            return _compiled(self.key, NUMBER)
        letters = sum(map(str.isalpha, "".join(self.literals)))
        return _compiled(self.key, TERM if letters < MIN_LETTERS else ".*?")

    def match(self, text: str) -> list[str] | None:
        """The placeholders' values in the order of their numbers, or None."""
        # most templates fail here, without a regular expression
        if not (text.startswith(self.literals[0]) and text.endswith(self.literals[-1])):
            return None
        if not all(literal in text for literal in self.literals):
            return None
        found = self._pattern.fullmatch(text)
        if found is None:
            return None
        values = dict(zip(self.order, found.groups(), strict=True))
        return [values[index] for index in sorted(values)]

    def fill(self, given: Iterable[str]) -> str:
        values = list(given)

        def insert(found: re.Match[str]) -> str:
            value = values[int(found[1])]
            return with_particle(value, found[2]) if found[2] else value

        return PLACEHOLDER.sub(insert, self.value)


@cache
def _compiled(key: str, value: str) -> re.Pattern[str]:
    literals = PLACEHOLDER.split(key)[0::3]
    return re.compile(f"({value})".join(map(re.escape, literals)), re.DOTALL)
