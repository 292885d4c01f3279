"""The files and columns of the datasets of the Hugging Face hub.

A new dataset of the hub needs a row in `table.py` and one `HubFiles` per kind of file here. Paths
are those of the data files in the repositories (parquet, json.gz, csv): no dataset script is run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

HUB_SPLITS = {"train": "train", "validation": "val"}


@dataclass(frozen=True)
class HubFiles:
    """Files of one repository with the same columns.

    `files`: path pattern per split ("" where a hash of the text decides the split). `{code}` in a
    pattern is replaced by `codes[language]`, or by the language itself without `codes`; a pattern
    without `{code}` serves one language or all together. `texts`: the text columns, each with its
    language ("" for the requested one). `keep`: small enough to be downloaded completely into the
    hub's cache, where the hash is checked and offline runs find it; other files are streamed.
    """

    repository: str
    files: Mapping[str, str]
    texts: Mapping[str, str] = field(default_factory=lambda: {"text": ""})
    codes: Mapping[str, str] | None = None
    score: str = ""  # the column of the educational value, 0 to 5
    perplexity: str = ""  # the column of the perplexity
    subsets: Mapping[str, str] = field(default_factory=dict)  # --subset: replaces `files`
    scripts: bool = False  # --lang may also be a language and script, such as kor_Hang
    keep: bool = False
    unique: bool = False  # rows repeat texts: use each text once
    articles: bool = False  # a row is a line: join the lines of an article
    revision: str = "main"
    licence: str = ""  # if it differs from the dataset's
    listing: str = ""  # URL of a list of file names, for files outside the hub
    address: str = ""  # URL of such a file, with `{name}`

    @property
    def by_language(self) -> bool:
        """Whether each language has files of its own."""
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
"""FineWeb-2's names (ISO 639-3 and script) of its largest languages."""

_FINEWEB_SUBSETS = {
    "sample-10BT": "sample/10BT/*.parquet",
    "sample-100BT": "sample/100BT/*.parquet",
    "sample-350BT": "sample/350BT/*.parquet",
    "default": "data/*/*.parquet",  # everything, a folder per crawl
}

_REDPAJAMA = "https://data.together.xyz/redpajama-data-v2/v1.0.0"
_REDPAJAMA_LANGUAGES = {code: code for code in ("en", "de", "fr", "es", "it")}


def _wikitext(config: str) -> tuple[HubFiles, ...]:
    return (
        HubFiles(
            "Salesforce/wikitext",
            {split: f"{config}/{name}-*.parquet" for name, split in HUB_SPLITS.items()},
            texts={"text": "en"},
            keep=True,
            articles=True,
        ),
    )


def _klue(folder: str, *columns: str) -> HubFiles:
    return HubFiles(
        "klue/klue",
        {"": f"{folder}/train-*.parquet"},
        texts=dict.fromkeys(columns, "ko"),
        keep=True,
        unique=True,
        licence="CC BY-SA 4.0",
    )


_WIKIPEDIA = HubFiles("wikimedia/wikipedia", {"": "20231101.{code}/train-*.parquet"})

PARTS: Mapping[str, tuple[HubFiles, ...]] = {
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
        HubFiles(
            "KorQuAD/squad_kor_v1",
            {"": "squad_kor_v1/train-*.parquet"},
            texts={"context": "ko"},
            keep=True,
            unique=True,
            licence="CC BY-ND 4.0: no distribution of derivatives",
        ),
        HubFiles(
            "Moo/korean-parallel-corpora",
            {"": "train.csv"},
            texts={"ko": "ko", "en": "en"},
            keep=True,
            unique=True,
            licence="CC BY-SA 3.0",
        ),
    ),
    "openwebtext": (
        HubFiles(
            "Skylion007/openwebtext", {"": "plain_text/train-*.parquet"}, texts={"text": "en"}
        ),
    ),
    "bookcorpusopen": (
        HubFiles("lucadiliello/bookcorpusopen", {"": "data/train-*.parquet"}, texts={"text": "en"}),
    ),
    "c4": (
        HubFiles("allenai/c4", {"": "{code}/c4-train.*.json.gz"}, codes={"en": "en"}),
        HubFiles("allenai/c4", {"": "multilingual/c4-{code}.tfrecord-*.json.gz"}),
    ),
    "fineweb": (
        HubFiles(
            "HuggingFaceFW/fineweb",
            {"": _FINEWEB_SUBSETS["sample-10BT"]},
            texts={"text": "en"},
            subsets=_FINEWEB_SUBSETS,
        ),
    ),
    "fineweb-edu": (
        HubFiles(
            "HuggingFaceFW/fineweb-edu",
            {"": _FINEWEB_SUBSETS["sample-10BT"]},
            texts={"text": "en"},
            score="score",
            subsets=_FINEWEB_SUBSETS,
        ),
    ),
    "fineweb2": (
        HubFiles(
            "HuggingFaceFW/fineweb-2",
            {"": "data/{code}/train/*.parquet"},
            codes=FINEWEB2,
            scripts=True,
        ),
    ),
    "redpajama": (
        HubFiles(
            "togethercomputer/RedPajama-Data-V2",
            {"": "documents/*/*/{code}_*.json.gz"},  # in a local copy, or in the repository
            texts={"raw_content": ""},
            codes=_REDPAJAMA_LANGUAGES,
            perplexity="perplexity",
            listing=f"{_REDPAJAMA}/listings/{{code}}-2023-06-head_middle.txt",
            address=f"{_REDPAJAMA}/documents/{{name}}.json.gz",
        ),
    ),
}
"""The parts of each dataset of the hub, by its name in the table."""

DEFAULT_LANGUAGES: Mapping[str, tuple[str, ...]] = {
    "simple": ("ko", "en"),
    "c4": ("en",),
    "redpajama": ("en",),
}
"""Default languages of datasets with files per language."""

BALANCED = {"simple"}
"""Datasets with equal bytes of each language, until the shortest ends."""


def short_code(language: str) -> str:
    """The language code of documents: ko for kor_Hang, gsw for gsw_Latn, others unchanged."""
    if not LANGUAGE_AND_SCRIPT.fullmatch(language):
        return language
    known = {name: code for code, name in FINEWEB2.items()}
    return known.get(language, language.partition("_")[0])
