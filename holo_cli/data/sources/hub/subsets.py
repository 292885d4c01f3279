"""Which files of the Hugging Face hub each dataset is made of, and what their columns mean.

This is the part of the table of sources that a new dataset on the hub needs: one `Part` per kind
of file. Paths are those of the repositories themselves (parquet, json.gz, csv), so nothing depends
on dataset scripts, which `datasets` no longer runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

HUB_SPLITS = {"train": "train", "validation": "val"}


@dataclass(frozen=True)
class Part:
    """Files of one repository whose rows become documents in one way.

    `files`: pattern of paths per split ("" where a hash of the text decides), in which `{code}`
    is replaced by what `codes` gives for a language asked for; without `codes` the language
    itself is the code, and a pattern without `{code}` serves one language or all at once.
    `texts`: the columns that hold text, each with the language it is in ("" for the one asked
    for). `keep`: small enough to be fetched whole into the hub's cache, where it is checked
    against its hash and found again without a network; other files are streamed.
    """

    repository: str
    files: Mapping[str, str]
    texts: Mapping[str, str] = field(default_factory=lambda: {"text": ""})
    codes: Mapping[str, str] | None = None
    score: str = ""  # the column with the source's own educational value of a text, 0 to 5
    perplexity: str = ""  # the column with the source's own perplexity of a text
    subsets: Mapping[str, str] = field(default_factory=dict)  # --subset: pattern in place of files
    scripts: bool = False  # folders are named by language and script, and --lang may name them
    keep: bool = False
    unique: bool = False  # rows repeat their text: give each once
    articles: bool = False  # one line a row: rebuild articles from their titles
    revision: str = "main"
    licence: str = ""  # where it is not the whole dataset's
    listing: str = ""  # a list of file names on the web, in place of a repository of the hub
    address: str = ""  # of such a file, with `{name}`

    @property
    def by_language(self) -> bool:
        """Whether the files of each language lie apart."""
        return any("{code}" in pattern for pattern in (*self.files.values(), self.listing))


LANGUAGE_AND_SCRIPT = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")

FINEWEB2 = {
    "ar": "arb_Arab", "bg": "bul_Cyrl", "bn": "ben_Beng", "ca": "cat_Latn", "cs": "ces_Latn",
    "da": "dan_Latn", "de": "deu_Latn", "el": "ell_Grek", "es": "spa_Latn", "et": "ekk_Latn",
    "fa": "fas_Arab", "fi": "fin_Latn", "fr": "fra_Latn", "he": "heb_Hebr", "hi": "hin_Deva",
    "hr": "hrv_Latn", "hu": "hun_Latn", "id": "ind_Latn", "it": "ita_Latn", "ja": "jpn_Jpan",
    "ko": "kor_Hang", "lt": "lit_Latn", "lv": "lvs_Latn", "ms": "zsm_Latn", "nb": "nob_Latn",
    "nl": "nld_Latn", "pl": "pol_Latn", "pt": "por_Latn", "ro": "ron_Latn", "ru": "rus_Cyrl",
    "sk": "slk_Latn", "sl": "slv_Latn", "sr": "srp_Cyrl", "sv": "swe_Latn", "sw": "swh_Latn",
    "ta": "tam_Taml", "te": "tel_Telu", "th": "tha_Thai", "tr": "tur_Latn", "uk": "ukr_Cyrl",
    "ur": "urd_Arab", "vi": "vie_Latn", "zh": "cmn_Hani",
}  # fmt: skip
"""FineWeb-2's names, ISO 639-3 and script, of the languages it holds most of."""

_FINEWEB_SUBSETS = {
    "sample-10BT": "sample/10BT/*.parquet",
    "sample-100BT": "sample/100BT/*.parquet",
    "sample-350BT": "sample/350BT/*.parquet",
    "default": "data/*/*.parquet",  # everything, a folder for each crawl
}

_REDPAJAMA = "https://data.together.xyz/redpajama-data-v2/v1.0.0"
_REDPAJAMA_LANGUAGES = {code: code for code in ("en", "de", "fr", "es", "it")}


def _wikitext(config: str) -> tuple[Part, ...]:
    return (
        Part(
            "Salesforce/wikitext",
            {split: f"{config}/{name}-*.parquet" for name, split in HUB_SPLITS.items()},
            texts={"text": "en"},
            keep=True,
            articles=True,
        ),
    )


def _klue(folder: str, *columns: str) -> Part:
    return Part(
        "klue/klue",
        {"": f"{folder}/train-*.parquet"},
        texts=dict.fromkeys(columns, "ko"),
        keep=True,
        unique=True,
        licence="CC BY-SA 4.0",
    )


_WIKIPEDIA = Part("wikimedia/wikipedia", {"": "20231101.{code}/train-*.parquet"})

PARTS: Mapping[str, tuple[Part, ...]] = {
    "wikitext2": _wikitext("wikitext-2-raw-v1"),
    "wikitext103": _wikitext("wikitext-103-raw-v1"),
    "wikipedia": (_WIKIPEDIA,),
    "simple": (_WIKIPEDIA,),
    "korean": (
        _klue("mrc", "context"),
        _klue("dp", "sentence"),
        _klue("ynat", "title"),
        _klue("nli", "premise", "hypothesis"),
        _klue("sts", "sentence1", "sentence2"),
        Part(
            "KorQuAD/squad_kor_v1",
            {"": "squad_kor_v1/train-*.parquet"},
            texts={"context": "ko"},
            keep=True,
            unique=True,
            licence="CC BY-ND 4.0: no derivatives may be passed on",
        ),
        Part(
            "Moo/korean-parallel-corpora",
            {"": "train.csv"},
            texts={"ko": "ko", "en": "en"},
            keep=True,
            unique=True,
            licence="CC BY-SA 3.0",
        ),
    ),
    "c4": (
        Part("allenai/c4", {"": "{code}/c4-train.*.json.gz"}, codes={"en": "en"}),
        Part("allenai/c4", {"": "multilingual/c4-{code}.tfrecord-*.json.gz"}),
    ),
    "fineweb": (
        Part(
            "HuggingFaceFW/fineweb",
            {"": _FINEWEB_SUBSETS["sample-10BT"]},
            texts={"text": "en"},
            subsets=_FINEWEB_SUBSETS,
        ),
    ),
    "fineweb-edu": (
        Part(
            "HuggingFaceFW/fineweb-edu",
            {"": _FINEWEB_SUBSETS["sample-10BT"]},
            texts={"text": "en"},
            score="score",
            subsets=_FINEWEB_SUBSETS,
        ),
    ),
    "fineweb2": (
        Part(
            "HuggingFaceFW/fineweb-2",
            {"": "data/{code}/train/*.parquet"},
            codes=FINEWEB2,
            scripts=True,
        ),
    ),
    "redpajama": (
        Part(
            "togethercomputer/RedPajama-Data-V2",
            {"": "documents/*/*/{code}_*.json.gz"},  # in a copy on the disk, or in the repository
            texts={"raw_content": ""},
            codes=_REDPAJAMA_LANGUAGES,
            perplexity="perplexity",
            listing=f"{_REDPAJAMA}/listings/{{code}}-2023-06-head_middle.txt",
            address=f"{_REDPAJAMA}/documents/{{name}}.json.gz",
        ),
    ),
}
"""The parts of each dataset of the hub, by its name here."""

DEFAULT_LANGUAGES: Mapping[str, tuple[str, ...]] = {
    "simple": ("ko", "en"),
    "c4": ("en",),
    "redpajama": ("en",),
}
"""Languages of datasets that come apart by language, where nothing is asked for."""

BALANCED = {"simple"}
"""Datasets whose languages are kept in balance: they end with the shortest."""


def short_code(language: str) -> str:
    """The code that documents carry: ko for kor_Hang, gsw for gsw_Latn, others as they are."""
    if not LANGUAGE_AND_SCRIPT.fullmatch(language):
        return language
    known = {name: code for code, name in FINEWEB2.items()}
    return known.get(language, language.partition("_")[0])
