"""Stands in for lm-evaluation-harness, which is too large to be installed for the tests.

It has the parts that `holo_cli.inference.evaluation.lm_eval_adapter` uses, under their names and
with the harness's shapes (version 0.4.13): requests are `Instance`s whose `args` are a tuple,
answers come back in the order of the requests, results are
{"results": {task: {"measure,filter": value}}}. Three tasks ask all three kinds of questions.
tests/cli/test_eval.py runs the real one wherever it is installed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

PAGE = "abc cab\n"
QUESTIONS = (("a", "b"), ("b", "c"), ("c a", "a"))  # and what is right; the choices are CHOICES
CHOICES = ("a", "b", "c")


@dataclass
class Instance:
    """One request. A single argument may come bare; `args` is a tuple all the same."""

    arguments: Any

    @property
    def args(self) -> tuple[Any, ...]:
        return self.arguments if isinstance(self.arguments, tuple) else (self.arguments,)


class LM:
    """The base of a model; `rank` and `world_size` are its only state."""

    def __init__(self) -> None:
        self.rank, self.world_size = 0, 1


class TaskManager:
    """Knows the tasks of the three kinds, and those of a folder by their files' names."""

    def __init__(self, include_path: str | None = None) -> None:
        own = [] if include_path is None else [f"{include_path}/own"]
        self.all_tasks = ["choosing", "paging", "writing", *own]


class Evaluation:
    """`simple_evaluate`, which keeps what it was called with."""

    def __init__(self, questions: tuple[tuple[str, str], ...] = QUESTIONS) -> None:
        self.questions, self.page = questions, PAGE
        self.called: dict[str, Any] = {}
        self.answers: dict[str, list[Any]] = {}

    def __call__(
        self, model: Any, tasks: list[str], num_fewshot: int | None, limit: int | None,
        task_manager: TaskManager, log_samples: bool, bootstrap_iters: int,
    ) -> dict[str, Any]:  # fmt: skip
        assert isinstance(model, LM)
        self.called = {"tasks": tasks, "num_fewshot": num_fewshot, "limit": limit}
        return {"results": {name: getattr(self, name)(model) for name in tasks}}

    def choosing(self, model: Any) -> dict[str, Any]:
        requests = [Instance((q, f" {c}")) for q, _ in self.questions for c in CHOICES]
        found = self.answers["choosing"] = model.loglikelihood(requests)
        right = 0
        for n, (_, answer) in enumerate(self.questions):
            likelihoods = [logprob for logprob, _ in found[3 * n : 3 * n + 3]]
            right += CHOICES[likelihoods.index(max(likelihoods))] == answer
        accuracy = right / len(self.questions)
        return {
            "alias": "choosing", "sample_len": len(self.questions), "acc,none": accuracy,
            "acc_stderr,none": 0.1, "acc_norm,none": accuracy, "acc_norm_stderr,none": "N/A",
        }  # fmt: skip

    def paging(self, model: Any) -> dict[str, Any]:
        found = self.answers["paging"] = model.loglikelihood_rolling([Instance(self.page)])
        bits = -found[0] / len(self.page.encode()) / math.log(2)
        return {"alias": "paging", "bits_per_byte,none": bits, "bits_per_byte_stderr,none": "N/A"}

    def writing(self, model: Any) -> dict[str, Any]:
        options = {"until": ["\n"], "max_gen_toks": 3, "do_sample": False}
        requests = [Instance((q, options)) for q, _ in self.questions]
        requests.append(Instance((PAGE, {"until": "a", "max_gen_toks": 2})))
        found = self.answers["writing"] = model.generate_until(requests)
        assert options["until"] == ["\n"], "the options are the harness's own, not to be changed"
        right = sum(text == a for text, (_, a) in zip(found, self.questions, strict=False))
        return {"exact_match,strict-match": right / 3, "exact_match,flexible-extract": 0.0}


def modules(evaluation: Evaluation) -> dict[str, ModuleType]:
    """What is to stand in `sys.modules`, by name."""
    parts: dict[str, dict[str, Any]] = {
        "lm_eval": {"simple_evaluate": evaluation},
        "lm_eval.api": {},
        "lm_eval.api.instance": {"Instance": Instance},
        "lm_eval.api.model": {"LM": LM},
        "lm_eval.tasks": {"TaskManager": TaskManager},
    }
    made = {name: ModuleType(name) for name in parts}
    for name, module in made.items():
        vars(module).update(parts[name])
    return made
