"""`holo eval --tasks`: adapter from a checkpoint to lm-evaluation-harness.

lm-evaluation-harness provides tasks, prompts and metrics and requests likelihoods of continuations,
rolling likelihoods of whole texts, and generation up to a stop string (`likelihood.py`). It is an
optional dependency (extra `eval`), so this module is imported only when tasks are run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from holo_cli.data.sources.hub.errors import reason, transfer_errors
from holo_cli.errors import DataError, UsageError, nearest
from holo_cli.inference.evaluation.likelihood import continuations, generate_until, rolling
from holo_cli.inference.generation.loaded_model import LoadedModel


class HoloLM(LM):
    """A checkpoint with the model interface of lm-evaluation-harness.

    `rows` requests form a batch (0: as many as fit). Characters of prompts that the tokenizer lacks
    are skipped and reported to `warn`, each once.
    """

    def __init__(
        self, loaded: LoadedModel, rows: int = 0, warn: Callable[[str], None] = lambda text: None
    ) -> None:
        super().__init__()
        self.loaded, self.rows = loaded, rows
        self._warn, self._reported = warn, set[str]()

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """(log-probability, whether greedy decoding gives it) of each (context, continuation)."""
        self._report_unknown([r.args[0] for r in requests])
        found = continuations(self.loaded, [r.args for r in requests], self.rows)
        return [(one.logprob, one.greedy) for one in found]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Log-probability of each (text,) as a document of its own."""
        return rolling(self.loaded, [r.args[0] for r in requests], self.rows)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The continuation of each (context, options) up to, not including, `options["until"]`."""
        self._report_unknown([r.args[0] for r in requests])
        return [self._generate(*r.args) for r in requests]

    def _report_unknown(self, prompts: Sequence[str]) -> None:
        missing = set(self.loaded.tokenizer.unknown("".join(prompts))) - self._reported
        if missing:
            characters = " ".join(sorted(missing))
            self._warn(
                f"Skipped characters of prompts that the tokenizer cannot encode: {characters}"
            )
        self._reported |= missing

    def _generate(self, prompt: str, options: dict[str, Any]) -> str:
        asked = dict(options)
        stop = asked.pop("until", None) or ()
        return generate_until(
            self.loaded, prompt, (stop,) if isinstance(stop, str) else stop, asked
        )


def run_tasks(
    loaded: LoadedModel,
    names: Sequence[str],
    *,
    folder: Path | None = None,
    limit: int | None = None,
    shots: int | None = None,
    rows: int = 0,
    warn: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """{"tasks": {task: {measure: value}}, "lm_eval": version}. `folder` has additional tasks.

    Most tasks download their data from the hub. `rows` and `warn` are those of `HoloLM`. Raises
    UsageError for an unknown task or one that this checkpoint does not support, and DataError if a
    task's data cannot be downloaded.
    """
    manager = TaskManager(include_path=None if folder is None else str(folder))
    for name in names:
        if name not in manager.all_tasks:
            raise UsageError(
                f"lm-evaluation-harness has no task '{name}'.",
                next_step=_hint(name, manager.all_tasks),
            )
    try:
        found = simple_evaluate(
            model=HoloLM(loaded, rows, warn),
            tasks=list(names),
            num_fewshot=shots,
            limit=limit,
            task_manager=manager,
            log_samples=False,
            bootstrap_iters=1000,
        )
    except transfer_errors() as error:
        raise DataError(
            f"The data of {', '.join(names)} could not be downloaded: {reason(error)}.",
            next_step="Check the network and try again. --suite minimal-pairs needs no network.",
        ) from error
    assert found is not None, "simple_evaluate returns None only on ranks other than 0"
    tasks = {name: _measures(measures) for name, measures in found["results"].items()}
    return {"tasks": tasks, "lm_eval": version("lm_eval")}


def _hint(name: str, known: Sequence[str]) -> str:
    hint = nearest(name, known)
    if hint.startswith("Did"):
        return hint
    # Without a near name the hint would list thousands of tasks.
    return "List the tasks with: lm-eval ls tasks. Add your own with --task-folder FOLDER."


def _measures(found: dict[str, Any]) -> dict[str, Any]:
    """ "acc,none" -> "acc", "acc_stderr,none" -> "acc_stderr"; a filter's name is kept."""
    measures = {}
    for key, value in found.items():
        name, _, way = key.partition(",")
        if isinstance(value, int | float) and name != "alias":
            measures[name if way in ("", "none") else f"{name} ({way})"] = value
    return measures
