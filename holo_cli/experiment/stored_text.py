"""The text of an experiment as its rows describe it: enough for a report, not for a run.

Each row of a training run names its prepared set, with fingerprint, vocabulary and the size of the
validation part. So finished runs can be reported on a machine that has not got the set, as with the
rows that come with the sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from holo_cli.data.dataset import PreparedData
from holo_cli.errors import DataError, UsageError
from holo_cli.experiment.result_log import ResultLog, Row


@dataclass(frozen=True)
class StoredTokenizer:
    vocab_size: int
    fingerprint: str


@dataclass(frozen=True)
class StoredText:
    """A prepared set as one row describes it. It has what a report reads of a `PreparedData`."""

    name: str
    fingerprint: str
    tokenizer: StoredTokenizer
    tokens: Mapping[str, int]  # by split; rows of earlier versions know those of "val" only
    val_bytes: int

    @classmethod
    def of_row(cls, row: Row) -> StoredText | None:
        """None for a row that does not describe its text: of a failed run, or of another bench."""
        data = row.get("data")
        if not isinstance(data, dict):
            return None
        keys = ("vocab_size", "val_tokens", "val_bytes")
        if not all(isinstance(data.get(key), int) and data[key] > 0 for key in keys):
            return None
        vocab, val_tokens, val_bytes = (data[key] for key in keys)
        tokens = {"val": val_tokens}
        if isinstance(data.get("train_tokens"), int):
            tokens["train"] = data["train_tokens"]
        tokenizer = StoredTokenizer(vocab, str(data.get("tokenizer", "")))
        name, fingerprint = str(data.get("name")), str(data.get("fingerprint"))
        return cls(name, fingerprint, tokenizer, tokens, val_bytes)

    @property
    def path(self) -> Path:
        """Its name: the folder may be on another machine."""
        return Path(self.name)

    def matches_fingerprint(self, fingerprint: str) -> bool:
        return fingerprint == self.fingerprint

    def token_count(self, split: str) -> int:
        return self.tokens[split]

    def byte_count(self, split: str) -> int:
        assert split == "val"
        return self.val_bytes


ExperimentText = PreparedData | StoredText


def train_tokens(text: ExperimentText) -> int | None:
    """Tokens to train on; None where the rows do not say."""
    return text.tokens.get("train") if isinstance(text, StoredText) else text.token_count("train")


def stored_texts(rows: ResultLog) -> list[StoredText]:
    """The texts that rows are of, each once, that of the newest row last."""
    found: dict[str, StoredText] = {}
    for row in rows:
        if (text := StoredText.of_row(row)) is not None:
            found.pop(text.fingerprint, None)
            found[text.fingerprint] = text
    return list(found.values())


def open_text(name: str, rows: ResultLog, *, report_only: bool) -> ExperimentText:
    """The prepared set of an experiment. For a report, where the set is not here or has changed
    since, the text of that name as the rows describe it.

    Raises DataError for a set that is not here, or for damage; UsageError where there is nothing to
    report.
    """
    if not report_only:
        return PreparedData.open(name)
    known = stored_texts(rows)
    try:
        # nothing is read of its tokens
        data: PreparedData | None = PreparedData.open(name, verify=False)
    except DataError:
        data = None
    if data is not None and any(data.matches_fingerprint(text.fingerprint) for text in known):
        return data
    named = [text for text in known if text.name == Path(name).name]
    if named:
        return named[-1]
    if data is not None:
        return data
    if known:
        names = ", ".join(dict.fromkeys(text.name for text in reversed(known)))
        raise UsageError(
            f"{rows.path} has no runs on '{name}'; it has runs on: {names}.",
            next_step=f"Add --data {known[-1].name}, or name another page with --out.",
        )
    raise UsageError(
        f"There are no finished runs in {rows.path}, so there is nothing to report.",
        next_step="Name the page of finished runs with --out PAGE, or leave --report-only out to "
        "train.",
    )
