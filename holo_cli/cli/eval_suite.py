"""`holo eval --suite`: the suites, and the table of minimal pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holo_cli.cli import options
from holo_cli.errors import UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable

    from holo_cli.cli.output import Output
    from holo_cli.inference.generation.loaded_model import LoadedModel

PAIRS = "minimal-pairs"
# names for groups of lm-evaluation-harness tasks
TASKS_OF = {
    "blimp": ["blimp"],
    "korean": [f"kobest_{name}" for name in ("boolq", "copa", "hellaswag", "sentineg", "wic")],
}
SUITES = (PAIRS, *TASKS_OF)
DEFAULT_PAIRS = 500


def check_suite(
    suite: str | None, tasks: str | None, pairs: int | None, given: dict[str, Any]
) -> None:
    """Raises UsageError for an unknown suite, and for options (`given`) that it does not use."""
    if suite is None:
        if pairs is not None:
            raise UsageError(
                f"--pairs needs --suite {PAIRS}.", next_step="Add it, or omit --pairs."
            )
        return
    if suite not in SUITES:
        raise UsageError(f"There is no suite '{suite}'.", next_step=nearest(suite, SUITES))
    if tasks is not None:
        raise UsageError("--suite and --tasks cannot be combined.", next_step="Omit one of them.")
    unused = options.given(**given)
    if suite != PAIRS and pairs is not None:
        unused = {"--pairs": pairs, **unused}
    if unused:
        raise UsageError(
            f"--suite {suite} does not use: {', '.join(unused)}", next_step="Omit these options."
        )
    if pairs is not None and (pairs < 2 or pairs % 2):
        raise UsageError(
            f"--pairs must be an even number of at least 2, not {pairs}.",
            next_step="Pairs come in couples, so that each form is right as often as it is wrong.",
        )


def run_pairs(
    loaded: LoadedModel,
    lang: str | None,
    pairs: int | None,
    rows: int,
    progress: Callable[[int, int], None],
) -> list[dict[str, Any]]:
    """The scores of each phenomenon and the total of each language, as plain rows."""
    from holo_cli.inference.minimal_pairs.score import (
        languages_to_score,
        model_scorer,
        score_pairs,
        token_counts,
    )

    languages = languages_to_score(loaded, lang)
    count = DEFAULT_PAIRS if pairs is None else pairs
    scorer, lengths = model_scorer(loaded, rows), token_counts(loaded)
    scores = score_pairs(scorer, lengths, languages, count, progress=progress)
    return [score.to_dict() for score in scores]


def show_pairs(rows: list[dict[str, Any]], out: Output) -> None:
    """The table of scores, with an explanation of its columns."""
    out.table(
        ("language", "phenomenon", "right", "95 % interval", "both", "by length", "pairs"),
        [
            (row["language"], row["phenomenon"], f"{row['accuracy']:.1%}",
             f"{row['low']:.1%} to {row['high']:.1%}", f"{row['both_right']:.1%}",
             f"{row['shorter']:.1%}", f"{row['pairs']:,}")
            for row in rows
        ],
    )  # fmt: skip
    out.note(
        "right: pairs whose right sentence is the more likely one (chance: 50 %). both: couples "
        "with both pairs right (chance: 25 %). by length: accuracy of always choosing the sentence "
        "with fewer tokens."
    )


def lm_eval(option: str) -> Callable[..., dict[str, Any]]:
    """The adapter to lm-evaluation-harness. Raises UsageError, naming the option that needs it, if
    it is not installed."""
    try:
        from holo_cli.inference.evaluation.lm_eval_adapter import run_tasks
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "lm_eval":
            raise
        raise UsageError(
            f"{option} needs lm-evaluation-harness, which is not installed.",
            next_step="Install it with: pip install 'holo-cli[eval]'",
        ) from None
    return run_tasks


def task_rows(tasks: dict[str, dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    """Table rows of task results: task, metric, value, standard error."""
    rows = []
    for task, measures in tasks.items():
        for name, value in measures.items():
            if isinstance(value, int | float) and not name.endswith("_stderr"):
                error = measures.get(f"{name}_stderr")
                shown = f"{error:.4f}" if isinstance(error, float) else ""
                rows.append((task, name, f"{value:.4f}", shown))
    return rows
