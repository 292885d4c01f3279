"""`holo eval --tasks`: a checkpoint as a model of lm-evaluation-harness.

The harness brings tasks, prompts and metrics; it asks for likelihoods of continuations, rolling
likelihoods of whole texts, and generation up to a stop (`likelihood.py`). It is not needed for
anything else, so it comes with the extra `eval`, and this file is imported when tasks are run.
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
from holo_cli.inference.evaluation.likelihood import continuations, rolling, until
from holo_cli.inference.generation.loaded_model import LoadedModel


class HoloLM(LM):
    """A checkpoint as the harness sees it. Answers come in the order of the requests.

    `rows` requests go through the model at a time (0: as many as fit). Characters of questions that
    the model's alphabet lacks are left out, and told to `warn`, each once.
    """

    def __init__(
        self, loaded: LoadedModel, rows: int = 0, warn: Callable[[str], None] = lambda text: None
    ) -> None:
        super().__init__()
        self.loaded, self.rows = loaded, rows
        self._warn, self._told = warn, set[str]()

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """(log-probability, whether greedy decoding would give it) of each (context, text)."""
        self._tell_unknown([r.args[0] for r in requests])
        found = continuations(self.loaded, [r.args for r in requests], self.rows)
        return [(one.logprob, one.greedy) for one in found]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Log-probability of each (text,), from the beginning of a document."""
        return rolling(self.loaded, [r.args[0] for r in requests], self.rows)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """What follows each (context, options), `options["until"]` left out."""
        self._tell_unknown([r.args[0] for r in requests])
        return [self._write(*r.args) for r in requests]

    def _tell_unknown(self, questions: Sequence[str]) -> None:
        missing = set(self.loaded.tokenizer.unknown("".join(questions))) - self._told
        if missing:
            characters = " ".join(sorted(missing))
            self._warn(f"the model's alphabet lacks {characters}: left out of the questions.")
        self._told |= missing

    def _write(self, prompt: str, options: dict[str, Any]) -> str:
        asked = dict(options)
        stop = asked.pop("until", None) or ()
        return until(self.loaded, prompt, (stop,) if isinstance(stop, str) else stop, asked)


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
    """{"tasks": {task: {measure: value}}, "lm_eval": version}. `folder` holds tasks of one's own.

    Most tasks fetch their data from the hub. `rows` and `warn` are those of `HoloLM`. Raises
    UsageError for a task there is not, or one that this checkpoint cannot be asked, and DataError
    where the data cannot be had.
    """
    manager = TaskManager(include_path=None if folder is None else str(folder))
    for name in names:
        if name not in manager.all_tasks:
            raise UsageError(
                f"lm-evaluation-harness has no task '{name}'.",
                next_step=f"{_hint(name, manager.all_tasks)} --task-folder adds tasks of your own.",
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
            f"The data of {', '.join(names)} could not be read: {reason(error)}.",
            next_step="Tasks fetch their data from the hub: check the network and try again. "
            "--suite minimal-pairs needs none.",
        ) from error
    assert found is not None, "there is one process"
    tasks = {name: _measures(measures) for name, measures in found["results"].items()}
    return {"tasks": tasks, "lm_eval": version("lm_eval")}


def _hint(name: str, known: Sequence[str]) -> str:
    hint = nearest(name, known)  # without a near one it would list thousands
    return hint if hint.startswith("Did") else "`lm-eval ls tasks` lists them."


def _measures(found: dict[str, Any]) -> dict[str, Any]:
    """ "acc,none" -> "acc", "acc_stderr,none" -> "acc_stderr"; a filter's name is kept."""
    measures = {}
    for key, value in found.items():
        name, _, way = key.partition(",")
        if isinstance(value, int | float) and name != "alias":
            measures[name if way in ("", "none") else f"{name} ({way})"] = value
    return measures
