"""English: agreement of verbs and determiners in number, of pronouns in gender, and a/an."""

from __future__ import annotations

from holo_cli.data.sources.stories.english import BOYS, GIRLS
from holo_cli.inference.minimal_pairs.base import Phenomenon, WordForms, choices

_NUMBERS = [
    ("boat", "boats"), ("stone", "stones"), ("tree", "trees"), ("bird", "birds"),
    ("friend", "friends"), ("sailor", "sailors"), ("hen", "hens"), ("flower", "flowers"),
    ("egg", "eggs"), ("coin", "coins"), ("basket", "baskets"), ("star", "stars"),
    ("animal", "animals"), ("walnut", "walnuts"), ("pear", "pears"), ("rock", "rocks"),
    ("child", "children"), ("mouse", "mice"), ("fox", "foxes"), ("rabbit", "rabbits"),
    ("box", "boxes"), ("neighbor", "neighbors"),
]  # fmt: skip
_VERBS = [("was", "were"), ("is", "are")]
_DETERMINERS = [("a", "two"), ("one", "three"), ("this", "two"), ("a", "three")]
_WHEN = choices("|then|at last|that day|in the evening|one day|today|after a while|now")
_HOW = choices("""gone|very old|very small|still there|lost|beautiful|near the road|on the hill|
not far away|under the old tree|in the garden|by the river""")
_NAMES = tuple(zip(GIRLS, BOYS, strict=False))
_VOWELS = choices("old|empty|odd|open|orange|ugly|angry|early|even|icy")
_CONSONANTS = choices("young|little|small|new|big|quiet|red|warm|brave|long")


def _in_number(
    verbs: list[tuple[str, str]], away: bool = False
) -> tuple[tuple[WordForms, WordForms], ...]:
    """Singular and plural subjects; `away` adds a noun of the other number after them."""
    sides = []
    for n, (one, many) in enumerate(_NUMBERS):
        between = [_NUMBERS[(n + step) % len(_NUMBERS)] for step in ((2, 5, 9) if away else (0,))]
        for far_one, far_many in between:
            for is_one, is_many in verbs:
                left: WordForms = {"noun": one, "away": far_many, "gap": is_one}
                right: WordForms = {"noun": many, "away": far_one, "gap": is_many}
                sides.append((left, right))
    return tuple(sides)


def _by_gender(female: str, male: str) -> tuple[tuple[WordForms, WordForms], ...]:
    return tuple(({"name": g, "gap": female}, {"name": b, "gap": male}) for g, b in _NAMES)


ENGLISH: tuple[Phenomenon, ...] = (
    Phenomenon(
        "subject-verb",
        "the verb agrees with its subject in number",
        "{when} the {noun} {gap} {how}.",
        {"when": _WHEN, "how": _HOW},
        _in_number(_VERBS),
    ),
    Phenomenon(
        "subject-verb-distractor",
        "the same with a noun of the other number between them",
        "{when} the {noun} {where} the {away} {gap} {how}.",
        {"when": _WHEN, "where": choices("near|behind|by|next to"), "how": _HOW},
        _in_number(_VERBS, away=True),
    ),
    Phenomenon(
        "determiner-noun",
        "a determiner agrees with its noun in number",
        "{when} {who} {found} {gap} {adjective} {noun} {where}.",
        {
            "when": _WHEN[:5],
            "who": choices("Anna|Leo|the baker|her brother|the old miller"),
            "found": choices("found|saw|took|lost"),
            "adjective": choices("small|red|shiny|little|beautiful"),
            "where": choices("|on the road|in the garden|near the well"),
        },
        tuple(
            ({"noun": one, "gap": single}, {"noun": many, "gap": several})
            for one, many in _NUMBERS
            for single, several in _DETERMINERS
        ),
    ),
    Phenomenon(
        "article",
        "an before a vowel, a before a consonant",
        "{when} {who} {found} {gap} {adjective} {noun} {where}.",
        {
            "when": _WHEN[:5],
            "who": choices("Anna|Leo|the baker|her brother|the old miller"),
            "found": choices("found|saw|bought|had|wanted"),
            "noun": choices("basket|boat|house|box|tree|bell|ring|cake"),
            "where": choices("|that day|in the end|by the sea"),
        },
        tuple(
            ({"adjective": v, "gap": "an"}, {"adjective": c, "gap": "a"})
            for v, c in zip(_VOWELS, _CONSONANTS, strict=True)
        ),
    ),
    Phenomenon(
        "pronoun-gender",
        "he or she, by the name that it stands for",
        "{when} {name} {did}, because {gap} {cause}.",
        {
            "when": _WHEN,
            "did": choices("was happy|went home|sat down|could not sleep|laughed|ran away|smiled"),
            "cause": choices("""was tired|had found it|was afraid of the dark|had no coat|
            wanted to help|had lost everything|was very brave|knew the way"""),
        },
        _by_gender("she", "he"),
    ),
    Phenomenon(
        "possessive-gender",
        "his or her, by the name that it stands for",
        "{when} {name} {did} {gap} {thing} {where}.",
        {
            "when": _WHEN,
            "did": choices("closed|opened|washed|looked at|thought of|put down"),
            "thing": choices("eyes|hands|basket|coat|bag|door"),
            "where": choices("|again|with a smile|at last|in the house"),
        },
        _by_gender("her", "his"),
    ),
    Phenomenon(
        "reflexive-gender",
        "himself or herself, by the subject",
        "{when} {name} {did} {gap} {how}.",
        {
            "when": _WHEN,
            "did": choices("""said to|looked at|made a cake for|told|asked|laughed at|
            was angry with|was proud of|believed in"""),
            "how": choices("|again|in the mirror|that night|in the end"),
        },
        _by_gender("herself", "himself"),
    ),
)
