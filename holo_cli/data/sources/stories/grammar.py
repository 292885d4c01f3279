"""`stories`: the embedded default dataset, original short stories in English and Korean.

A plot (lost thing, washed-away bridge, broken vase ...) fixes the goal, the obstacle, its cause and
the solution; the beats of a plot are worded with hand-written variants. `english.py` and
`korean.py` have people and things, `english.txt` and `korean.txt` the plots and their wording:

    rule NAME            a list of interchangeable phrases, used as {@NAME}
    plot NAME            one kind of story
    hero child animal    the kinds of hero it can have
    case TAG: k=a|b; ... facts that belong together (cause, cure, place); one case per story and
                         one filler per key, so that the thing lost is the thing found
    beat [0.5] [para]    a step of the plot, with a probability; `para`: may begin a paragraph
    - text               a variant; `-(tag tag) text` only for these cases or kinds of hero;
                         a line that starts with a space continues the line before

In a variant `{slot}` is a filler, `[a|b|]` a random choice, ` / ` ends a sentence, and in Korean
`~` is the sentence ending of the story's speech level and `<a/b/c>` has one form per speech level.

Story n of a language depends on (seed, language, n) alone, so every set is a prefix of a larger
one. The same code can also print the shape of a story, its sentences with masked fillers, which is
used to count the variety of the grammar.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol, TypeVar

from holo_cli.data.document import Document
from holo_cli.data.sources.stories import english, korean

LANGUAGES = ("en", "ko")

_T = TypeVar("_T")


class Language(Protocol):
    """The interface of a language module; `english.py` is the simpler one."""

    GRAMMAR: str
    STYLES: int

    def cast(self, rng: random.Random, hero: str) -> dict[str, str]:
        """The people and the scene of one story, by slot name."""

    def inflect(self, words: dict[str, str], slot: str) -> str:
        """The text of a slot with an article, a capital or a particle."""

    def finish(self, sentence: str) -> str:
        """Post-processing of a sentence."""


_MODULES: dict[str, Language] = {"en": english, "ko": korean}


# -- the grammar ----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Variant:
    tags: frozenset[str]
    text: str


@dataclass(slots=True)
class _Beat:
    chance: float
    paragraph: bool
    variants: list[_Variant] = field(default_factory=list)


@dataclass(slots=True)
class _Plot:
    name: str
    heroes: tuple[str, ...] = ()
    cases: list[tuple[str, list[tuple[str, list[str]]]]] = field(default_factory=list)
    beats: list[_Beat] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Slot:
    name: str


@dataclass(frozen=True, slots=True)
class _Choice:
    options: tuple[Nodes, ...]


@dataclass(frozen=True, slots=True)
class _Style:
    forms: tuple[str, ...]


Nodes = tuple["str | _Slot | _Choice | _Style", ...]
_Step = tuple[float, bool, tuple[Nodes, ...]]

_TOKEN = re.compile(r"\{[^{}]*\}|<[^<>]*>|[\[\]|~]|[^\[\]|~{}<>]+")
SIDES = " :: "  # between a question and its answer
_SPEECH_LEVELS = ("다", "어요", "습니다")  # what `~` stands for after a past stem


def _logical_lines(text: str) -> Iterator[str]:
    """The lines of the grammar, with continuation lines joined."""
    line = ""
    for raw in text.splitlines():
        if raw.startswith(" "):
            line += ("" if line.endswith("|") else " ") + raw.strip()
        else:
            if line and not line.startswith("#"):
                yield line
            line = raw.rstrip()
    if line and not line.startswith("#"):
        yield line


class Grammar:
    """The plots of one language; scripts are compiled on first use per (plot, case, hero)."""

    def __init__(self, language: Language, text: str = "") -> None:
        """`text`: a grammar about the stories of `language` (default: that of the stories)."""
        self.language = language
        self.rules: dict[str, list[_Variant]] = {}
        self.plots: list[_Plot] = []
        self._scripts: dict[tuple[str, str, str], list[_Step]] = {}
        self._questions: dict[tuple[str, str, str], list[tuple[Nodes, frozenset[str]]]] = {}
        self._phrases: dict[tuple[str, str, str], tuple[Nodes, ...]] = {}
        variants: list[_Variant] = []
        for line in _logical_lines(text or language.GRAMMAR):
            head, _, rest = line.partition(" ")
            if head.startswith("-"):
                tags: frozenset[str] = frozenset()
                if line.startswith("-("):
                    inner, _, rest = line[2:].partition(") ")
                    tags = frozenset(inner.split())
                variants.append(_Variant(tags, rest))
            elif head == "rule":
                variants = self.rules.setdefault(rest, [])
            elif head == "plot":
                self.plots.append(_Plot(rest))
            elif head == "hero":
                self.plots[-1].heroes = tuple(rest.split())
            elif head == "case":
                tag, _, facts = rest.partition(": ")
                pairs = [fact.strip().partition("=") for fact in facts.split(";")]
                self.plots[-1].cases.append((tag, [(k, v.split("|")) for k, _, v in pairs]))
            elif head == "beat":
                numbers = [word for word in rest.split() if word != "para"]
                beat = _Beat(float(numbers[0]) if numbers else 1.0, "para" in rest)
                self.plots[-1].beats.append(beat)
                variants = beat.variants
            else:
                raise ValueError(f"story grammar: cannot read the line {line!r}")

    def questions(self, plot: str, story: Story) -> list[tuple[Nodes, frozenset[str]]]:
        """The variants of one of the plots that fit a story, with the slots of each."""
        key = (plot, story.case, story.hero)
        if key not in self._questions:
            found = next(one for one in self.plots if one.name == plot)
            self._questions[key] = [
                (nodes, frozenset(_slots(nodes)))
                for _, _, variants in self.script(found, story.case, story.hero)
                for nodes in variants
            ]
        return self._questions[key]

    def phrase(self, rule: str, rng: random.Random, story: Story) -> str:
        """One of a rule's phrases that fit a story."""
        tags = frozenset((story.case, story.hero))
        if (rule, story.case, story.hero) not in self._phrases:
            self._phrases[rule, story.case, story.hero] = self._fitting(self.rules[rule], tags)
        return say(_pick(rng, self._phrases[rule, story.case, story.hero]), rng, story)

    def script(self, plot: _Plot, case: str, hero: str) -> list[_Step]:
        """The beats of a plot with the variants for this case and this kind of hero."""
        key = (plot.name, case, hero)
        if key not in self._scripts:
            tags = frozenset((case, hero))
            steps: list[_Step] = []
            for beat in plot.beats:
                fitting = self._fitting(beat.variants, tags)
                if fitting:
                    steps.append((beat.chance, beat.paragraph, fitting))
            self._scripts[key] = steps
        return self._scripts[key]

    def _fitting(self, variants: list[_Variant], tags: frozenset[str]) -> tuple[Nodes, ...]:
        return tuple(self._compile(v.text, tags) for v in variants if not v.tags or v.tags & tags)

    def _compile(self, text: str, tags: frozenset[str]) -> Nodes:
        tokens = _TOKEN.findall(text)
        if "".join(tokens) != text:
            raise ValueError(f"story grammar: unbalanced marks in {text!r}")
        nodes, end = self._sequence(tokens, 0, tags)
        if end != len(tokens):
            raise ValueError(f"story grammar: stray mark in {text!r}")
        return nodes

    def _sequence(self, tokens: list[str], at: int, tags: frozenset[str]) -> tuple[Nodes, int]:
        nodes: list[str | _Slot | _Choice | _Style] = []
        while at < len(tokens) and tokens[at] not in ("|", "]"):
            token = tokens[at]
            if token == "[":
                options: list[Nodes] = []
                while tokens[at] != "]":
                    option, at = self._sequence(tokens, at + 1, tags)
                    options.append(option)
                nodes.append(_Choice(tuple(options)))
            elif token == "~":
                nodes.append(_Style(_SPEECH_LEVELS))
            elif token.startswith("{@"):
                nodes.append(_Choice(self._fitting(self.rules[token[2:-1]], tags)))
            elif token.startswith("{"):
                nodes.append(_Slot(token[1:-1]))
            elif token.startswith("<"):
                nodes.append(_Style(tuple(token[1:-1].split("/"))))
            else:
                nodes.append(token)
            at += 1
        return tuple(nodes), at


class _Words(dict[str, str]):
    """Fillers of one story; inflected slots are computed on first use."""

    def __init__(self, words: dict[str, str], language: Language) -> None:
        super().__init__(words)
        self.language = language

    def __missing__(self, slot: str) -> str:
        value = self[slot] = self.language.inflect(self, slot)
        return value


class _Mask(dict[str, str]):
    """Replaces the fillers for the shape of a sentence."""

    def __missing__(self, slot: str) -> str:
        value = self[slot] = f"<{slot}>"
        return value


_MASK = _Mask()


def _choose(nodes: Nodes, rng: random.Random, chosen: list[str | _Slot | _Style]) -> None:
    """Resolve the choices of a variant; text, slots and sentence endings remain."""
    for node in nodes:
        if type(node) is _Choice:
            _choose(_pick(rng, node.options), rng, chosen)
        else:
            chosen.append(node)  # type: ignore[arg-type]  # mypy does not narrow by `type() is`


def _slots(nodes: Nodes) -> Iterator[str]:
    """The names of all slots of a variant, without capitals, articles and particles."""
    for node in nodes:
        if isinstance(node, _Choice):
            for option in node.options:
                yield from _slots(option)
        elif isinstance(node, _Slot):
            yield base_slot(node.name)


def base_slot(name: str) -> str:
    """The filler that an inflected slot names: "a:item", "Item" and "item:을" are "item"."""
    bare = name.removeprefix("a:").partition(":")[0]
    return bare[0].lower() + bare[1:]


def say(nodes: Nodes, rng: random.Random, story: Story) -> str:
    """A variant about a story, its sentences begun as the language does."""
    chosen: list[str | _Slot | _Style] = []
    _choose(nodes, rng, chosen)
    finish = _grammar(story.language).language.finish
    parts = " / ".join(_spell(chosen, story.words, story.style)).split(SIDES)
    return SIDES.join(" ".join(map(finish, part.split(" / "))) for part in parts)


def _spell(chosen: list[str | _Slot | _Style], words: dict[str, str], style: int) -> list[str]:
    """The sentences of a variant; style -1 marks a sentence ending without choosing one."""
    out: list[str] = []
    for node in chosen:
        if isinstance(node, str):
            out.append(node)
        elif isinstance(node, _Slot):
            out.append(words[node.name])
        else:
            out.append(node.forms[style] if style >= 0 else f"~{node.forms[0]}")
    return "".join(out).split(" / ")


def _pick(rng: random.Random, options: Sequence[_T]) -> _T:
    # three times faster than `rng.choice`; `random()` is stable across versions of Python
    return options[int(rng.random() * len(options))]


# -- stories --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Story:
    """One story and its choices; `shapes` is empty without `with_shapes`."""

    language: str
    plot: str
    case: str
    hero: str
    style: int
    words: dict[str, str]
    paragraphs: list[list[str]]
    shapes: list[str]

    @property
    def text(self) -> str:
        """The story as plain text, paragraphs separated by an empty line."""
        return "\n\n".join(" ".join(sentences) for sentences in self.paragraphs)


@lru_cache(maxsize=len(LANGUAGES))
def _grammar(language: str) -> Grammar:
    if language not in _MODULES:
        known = ", ".join(LANGUAGES)
        raise ValueError(f"stories exist in {known}, not in {language!r}")
    return Grammar(_MODULES[language])


def plots(language: str) -> tuple[str, ...]:
    """Names of the plots a language has."""
    return tuple(plot.name for plot in _grammar(language).plots)


def tell_story(number: int, language: str, seed: int = 0, with_shapes: bool = False) -> Story:
    """Story `number` of a language, a function of the arguments alone."""
    grammar = _grammar(language)
    rng = random.Random(f"{seed}:{language}:{number}")
    plot = _pick(rng, grammar.plots)
    case, facts = _pick(rng, plot.cases)
    hero = _pick(rng, plot.heroes)
    style = int(rng.random() * grammar.language.STYLES)
    split = rng.random() < 0.5

    words = _Words(grammar.language.cast(rng, hero), grammar.language)
    for key, fillers in facts:
        filler = _pick(rng, fillers)
        if "{" in filler:
            filler = re.sub(r"\{([^{}]+)\}", lambda match: words[match[1]], filler)
        words[key] = filler

    story = Story(language, plot.name, case, hero, style, words, [[]], [])
    finish = grammar.language.finish
    for chance, paragraph, variants in grammar.script(plot, case, hero):
        if chance < 1.0 and rng.random() >= chance:
            continue
        chosen: list[str | _Slot | _Style] = []
        _choose(_pick(rng, variants), rng, chosen)
        if with_shapes:
            story.shapes += [shape.strip() for shape in _spell(chosen, _MASK, -1)]
        if paragraph and split:
            story.paragraphs.append([])
        story.paragraphs[-1] += map(finish, _spell(chosen, words, style))
    return story


def generate(seed: int = 0, languages: Sequence[str] = LANGUAGES) -> Iterator[Document]:
    """An endless sequence of stories, the languages alternating."""
    if not languages:
        raise ValueError("stories need at least one language")
    for language in languages:
        _grammar(language)  # an unknown language raises before the first story
    number = 0
    while True:
        for language in languages:
            yield Document(tell_story(number, language, seed).text, language, "stories")
        number += 1


def stories(
    count: int | None = None,
    max_bytes: int | None = None,
    seed: int = 0,
    languages: Sequence[str] = LANGUAGES,
) -> Iterator[Document]:
    """The first `count` stories, at most `max_bytes` of UTF-8; whole stories only.

    A smaller set is a prefix of a larger one with the same seed and languages.
    """
    total = 0
    for number, document in enumerate(generate(seed, languages)):
        total += len(document.text.encode())
        if (count is not None and number >= count) or (max_bytes is not None and total > max_bytes):
            return
        yield document
