"""Tasks: what the harness is asked, how it is answered, and how its measures are read."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from holo_cli import inference
from holo_cli.data.tokenizers.char import CharTokenizer
from holo_cli.errors import DataError, UsageError
from holo_cli.inference.evaluation.likelihood import continuations, generate_until, rolling
from holo_cli.inference.generation.loaded_model import LoadedModel
from tests.inference.evaluation.stand_in_lm_eval import PAGE, QUESTIONS, Evaluation, modules
from tests.inference.inference_fakes import Chain, make_loaded

NAME = "holo_cli.inference.evaluation.lm_eval_adapter"


@pytest.fixture
def evaluation() -> Evaluation:
    return Evaluation()


@pytest.fixture
def harness(evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The adapter, imported anew on top of the stand-in, and forgotten afterwards."""
    for name, module in modules(evaluation).items():
        monkeypatch.setitem(sys.modules, name, module)
    # set before it is imported, so that what is put back afterwards is what was there
    monkeypatch.setitem(sys.modules, NAME, ModuleType(NAME))
    monkeypatch.setattr(inference, "harness", None, raising=False)
    del sys.modules[NAME]
    found = importlib.import_module(NAME)
    monkeypatch.setattr(found, "version", lambda package: f"of {package}")
    return found


@pytest.fixture
def loaded() -> LoadedModel:
    return make_loaded(Chain(), CharTokenizer("\n abc"))


def test_every_kind_of_question_is_answered(
    harness: ModuleType, evaluation: Evaluation, loaded: LoadedModel
) -> None:
    asked: dict[str, Any] = {"limit": 3, "shots": 2, "rows": 2}
    found = harness.run_tasks(loaded, ["choosing", "paging", "writing"], **asked)
    assert evaluation.called == {
        "tasks": ["choosing", "paging", "writing"], "num_fewshot": 2, "limit": 3,
    }  # fmt: skip
    pairs = [(question, f" {choice}") for question, _ in QUESTIONS for choice in "abc"]
    expected = continuations(loaded, pairs)
    answers = evaluation.answers
    assert [one for one, _ in answers["choosing"]] == pytest.approx([e.logprob for e in expected])
    assert [greedy for _, greedy in answers["choosing"]] == [e.greedy for e in expected]
    assert answers["paging"] == pytest.approx(rolling(loaded, [PAGE]))
    written = [
        generate_until(loaded, question, ["\n"], {"max_gen_toks": 3}) for question, _ in QUESTIONS
    ]
    assert answers["writing"][:3] == written
    assert "a" not in answers["writing"][3]  # a stop may come bare, without a list
    assert found["lm_eval"] == "of lm_eval"


def test_measures_lose_the_harness_s_marks(harness: ModuleType, loaded: LoadedModel) -> None:
    tasks = harness.run_tasks(loaded, ["choosing", "paging", "writing"])["tasks"]
    # an error that was not estimated ("N/A") and the name to be shown are no measures
    assert set(tasks["choosing"]) == {"sample_len", "acc", "acc_stderr", "acc_norm"}
    assert set(tasks["paging"]) == {"bits_per_byte"}
    assert set(tasks["writing"]) == {
        "exact_match (strict-match)", "exact_match (flexible-extract)",
    }  # fmt: skip
    assert 0 <= tasks["choosing"]["acc"] <= 1
    assert tasks["paging"]["bits_per_byte"] > 0


def test_data_that_cannot_be_had(
    harness: ModuleType, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(**asked: Any) -> None:
        raise ConnectionError("Couldn't reach the hub\nand more")

    monkeypatch.setattr(harness, "simple_evaluate", no_network)
    with pytest.raises(
        DataError, match="The data of choosing could not be downloaded: Couldn't reach"
    ):
        harness.run_tasks(loaded, ["choosing"])


def test_tasks_of_a_folder_and_those_there_are_not(
    harness: ModuleType, loaded: LoadedModel
) -> None:
    with pytest.raises(UsageError, match="no task 'chosing'") as error:
        harness.run_tasks(loaded, ["chosing"])
    assert "Did you mean 'choosing'?" in error.value.next_step
    with pytest.raises(UsageError, match="no task 'zzz'") as error:
        harness.run_tasks(loaded, ["zzz"])
    assert "List the tasks with: lm-eval ls tasks." in error.value.next_step
    with pytest.raises(UsageError, match="no task 'tasks/ow'") as error:
        harness.run_tasks(loaded, ["tasks/ow"], folder=Path("tasks"))
    assert "'tasks/own'" in error.value.next_step


def test_characters_of_a_prompt_that_are_skipped_are_named_once(
    harness: ModuleType, evaluation: Evaluation, loaded: LoadedModel
) -> None:
    evaluation.questions = (("a강", "b"), ("물 b", "c"), ("강 c", "a"))
    warned: list[str] = []
    found = harness.run_tasks(loaded, ["choosing", "writing"], warn=warned.append)
    assert warned == ["Skipped characters of prompts that the tokenizer cannot encode: 강 물"]
    assert 0 <= found["tasks"]["choosing"]["acc"] <= 1


def test_a_page_the_model_cannot_write_has_no_figure(
    harness: ModuleType, evaluation: Evaluation, loaded: LoadedModel
) -> None:
    evaluation.page = "abc 한글"
    with pytest.raises(UsageError, match="contains 글 한, which the tokenizer cannot"):
        harness.run_tasks(loaded, ["paging"])
