"""English for `stories`: people, places and things; the plots are in `english.txt`.

The hero and the second character of a story have opposite genders, so that "he" and "she" are
unambiguous. `grammar.py` explains the format of the grammar.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path


def _names(text: str) -> list[str]:
    return text.split()


def _phrases(text: str) -> list[str]:
    return text.replace("\n", "").split("|")


GIRLS = _names("""Anna Clara Daisy Ella Emma Hazel Ivy June Lily Lucy Maya Mina Nora
Olive Pearl Poppy Rosa Ruth Sara Tess Willow Wren Zoe""")
BOYS = _names("""Adam Basil Ben Bruno Eli Finn Hugo Jack Jonas Kai Leo Max Moss Noah
Oscar Otto Owen Paul Pip Sam Theo Tom Will""")
ANIMALS = _names("fox rabbit hedgehog mouse squirrel badger otter bear mole raccoon")
WORKERS = _names("baker farmer tailor gardener potter shoemaker weaver carpenter")
MANNERS = _names("brave cheerful quiet curious clever shy gentle careful lively patient")
FRIENDLY = _names("tall merry freckled friendly bold")
ELDERS = _phrases("""old miller|old shepherd|schoolteacher|postman|blacksmith|old sailor|
beekeeper|wise owl|village doctor|old weaver""")
RELATIVES = (
    ("grandmother", "mother", "aunt", "sister"),
    ("grandfather", "father", "uncle", "brother"),
)
PRONOUNS = (("she", "her", "her", "herself"), ("he", "him", "his", "himself"))
HOMES = _phrases("""in a small village by the sea|at the edge of a pine forest|
on top of a green hill|near an old mill|beside a wide lake|in a little house with a red door|
in a warm green valley|at the end of a long road|under a tall pine tree|near a stone bridge|
at the foot of a mountain|in a cottage full of flowers""")
TIMES = _phrases("""one bright spring morning|one hot summer day|one cool autumn morning|
one windy afternoon|early one morning|one sunny day|one gray morning|
on the first day of spring|on the last day of summer|one fine day in autumn|
one quiet afternoon|on market day""")

_THINGS = {
    "food": """basket of pears|pot of soup|loaf of warm bread|jar of honey|bag of walnuts|
bowl of berries|round cheese|basket of eggs|piece of cake|pot of tea""",
    "cake": "apple pie|plum cake|nut cake|berry pie|carrot cake|cherry pie|ginger cake",
    "feast": "the village fair|the great dance|the wedding of a friend|the lantern feast|the feast",
    "plant": """sunflower|rose bush|pear tree|bean plant|tomato plant|cherry tree|pumpkin plant|
apple tree|lemon tree|strawberry plant""",
    "prize": "golden cup|silver medal|big pumpkin|honey cake|red ribbon|new kite|wooden crown",
    "stock": "nuts|acorns|dried berries|seeds|apples|mushrooms|grain|chestnuts",
    "boats": "fishing boats|little boats|sailing boats|herring boats",
    "name": "Dot|Button|Star|Lucky|Pebble|Biscuit|Cloud",
    "reason": """the old house had burned down|there was no more work at home|
the river had risen too high|the old house had become too small""",
}
THINGS = {key: _phrases(fillers) for key, fillers in _THINGS.items()}

GRAMMAR = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8")
STYLES = 1  # Korean has three


def _one(rng: random.Random, options: Sequence[str]) -> str:
    return options[int(rng.random() * len(options))]


def cast(rng: random.Random, hero: str) -> dict[str, str]:
    """The people and the scene of one story, by slot name."""
    gender = int(rng.random() * 2)
    names, others = (GIRLS, BOYS) if gender == 0 else (BOYS, GIRLS)
    animal = hero == "animal"
    if animal:
        kind = _one(rng, ANIMALS)
    elif hero == "child":
        kind = ("girl", "boy")[gender]
    else:
        kind = "lighthouse keeper" if hero == "keeper" else _one(rng, WORKERS)
    size = ("young ", "little ", "") if hero in ("child", "animal") else ("old ", "young ", "")
    friend = _one(rng, others)
    if animal:
        fkind = _one(rng, [other for other in ANIMALS if other != kind])
    else:
        fkind = f"{_one(rng, FRIENDLY)} {('boy', 'girl')[gender]}"
    they, them, their, themself = PRONOUNS[gender]
    fthey, fthem, ftheir, _ = PRONOUNS[1 - gender]
    return {
        "hero": _one(rng, names),
        "kind": kind,
        "who": f"{_one(rng, MANNERS)} {_one(rng, size)}{kind}",
        "they": they,
        "them": them,
        "their": their,
        "themself": themself,
        "hand": "paw" if animal else "hand",
        "friend": friend,
        "fkind": fkind,
        "fname": f"{friend} the {fkind}" if animal else friend,
        "fthey": fthey,
        "fthem": fthem,
        "ftheir": ftheir,
        "rthey": fthey,
        "rthem": fthem,
        "rtheir": ftheir,
        "rel": _one(rng, RELATIVES[1 - gender]),
        "elder": _one(rng, ELDERS),
        "home": _one(rng, HOMES),
        "when": _one(rng, TIMES),
        **{key: _one(rng, fillers) for key, fillers in THINGS.items()},
    }


def inflect(words: dict[str, str], slot: str) -> str:
    """`{Key}` is the filler with a capital, `{a:key}` with its indefinite article."""
    if slot.startswith("a:"):
        return article(words[slot[2:]])
    if slot[0].isupper():
        value = words[slot[0].lower() + slot[1:]]
        return value[0].upper() + value[1:]
    raise KeyError(slot)


def article(noun: str) -> str:
    """The noun phrase with "a" or "an"; no filler begins with a silent h or a "you" sound."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def finish(sentence: str) -> str:
    """A capital at the start, inside the quotation mark if the sentence begins with one."""
    sentence = sentence.strip()
    at = 1 if sentence.startswith('"') else 0
    return sentence[:at] + sentence[at].upper() + sentence[at + 1 :]
