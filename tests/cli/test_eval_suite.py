"""`holo eval --suite`: minimal pairs, shorthands for tasks, and what does not go together."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from holo_cli.inference.minimal_pairs import PHENOMENA
from tests.cli import checkpoints
from tests.cli.checkpoints import make_checkpoint
from tests.cli.conftest import Fake, Holo

CHECKPOINT = Path("checkpoints/small_best.safetensors")


@pytest.fixture
def able(holo: Holo, monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrained checkpoint that can write all sentences."""
    drawn = {c for own in PHENOMENA.values() for p in own for pair in p.draw(400) for c in pair.bad}
    letters = "".join(sorted(drawn | set("".join(map(chr, range(32, 127))))))
    monkeypatch.setattr(checkpoints, "ALPHABET", "\n" + letters)
    make_checkpoint(CHECKPOINT)


def test_minimal_pairs(holo: Holo, able: None) -> None:
    ran = holo("eval", "--suite", "minimal-pairs", "--pairs", "6", "--lang", "en", "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert (found["suite"], found["model"], found["run"]) == ("minimal-pairs", "vanilla", "small")
    scores = found["scores"]
    assert [s["phenomenon"] for s in scores] == [*(p.name for p in PHENOMENA["en"]), "all"]
    assert all(s["pairs"] == 6 for s in scores[:-1])
    assert scores[-1]["pairs"] == 6 * (len(scores) - 1)
    assert set(scores[0]) == {
        "language", "phenomenon", "pairs", "accuracy", "low", "high", "chance", "both_right",
        "shorter",
    }  # fmt: skip
    assert all(s["low"] <= s["accuracy"] <= s["high"] for s in scores)
    assert json.loads(
        holo("eval", "--suite", "minimal-pairs", "--pairs", "6", "--lang", "en", "--json",
             "--batch-size", "5").out
    )["scores"] == scores  # fmt: skip


def test_a_table_for_a_reader(holo: Holo, able: None) -> None:
    ran = holo("eval", "--suite", "minimal-pairs", "--pairs", "2", "--lang", "ko")
    assert ran.code == 0, ran.err
    assert "object 을/를" in ran.out
    assert "95 % interval" in ran.out
    assert "chance: 50 %" in ran.err


def test_an_alphabet_that_is_too_small(holo: Holo) -> None:
    make_checkpoint(CHECKPOINT)
    ran = holo("eval", "--suite", "minimal-pairs")
    assert (ran.code, ran.out) == (2, "")
    assert "The pairs in 'en' contain" in ran.err
    assert "--tokenizer bpe" in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--suite", "blimpp"), "There is no suite 'blimpp'. Did you mean 'blimp'?"),
        (("--suite", "blimp", "--tasks", "x"), "--suite and --tasks cannot be combined"),
        (("--suite", "minimal-pairs", "--pairs", "3"), "an even number of at least 2, not 3"),
        (("--suite", "minimal-pairs", "--pairs", "0"), "an even number of at least 2, not 0"),
        (("--suite", "minimal-pairs", "--lang", "fr"), "no minimal pairs in the language 'fr'"),
        (("--suite", "minimal-pairs", "--limit", "3"), "does not use: --limit"),
        (("--suite", "minimal-pairs", "--file", "x"), "does not use: --file"),
        (("--suite", "korean", "--pairs", "4"), "--suite korean does not use: --pairs"),
        (("--suite", "blimp", "--lang", "en"), "does not use: --lang"),
        (("--pairs", "4"), "--pairs needs --suite minimal-pairs"),
    ],
)
def test_what_makes_no_sense(
    holo: Holo, able: None, arguments: tuple[str, ...], message: str
) -> None:
    ran = holo("eval", *arguments)
    assert (ran.code, ran.out) == (2, ""), ran.err
    assert message in " ".join(ran.err.split())


@pytest.mark.parametrize("suite", ["blimp", "korean"])
def test_shorthands_for_tasks(holo: Holo, fake: Fake, suite: str) -> None:
    make_checkpoint(CHECKPOINT)
    called: dict[str, Any] = {}

    def run_tasks(loaded: object, names: list[str], **options: Any) -> dict[str, Any]:
        called.update(names=names, limit=options["limit"])
        return {"tasks": {names[0]: {"acc": 0.5}}, "lm_eval": "0"}

    fake("holo_cli.inference.evaluation.lm_eval_adapter", run_tasks=run_tasks)
    ran = holo("eval", "--suite", suite, "--limit", "7", "--json")
    assert ran.code == 0, ran.err
    assert called["limit"] == 7
    assert called["names"][0] == {"blimp": "blimp", "korean": "kobest_boolq"}[suite]
    assert json.loads(ran.out)["suite"] == suite


@pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is not None, reason="lm-evaluation-harness is installed"
)
def test_a_suite_without_the_harness(holo: Holo) -> None:
    make_checkpoint(CHECKPOINT)
    ran = holo("eval", "--suite", "blimp")
    assert ran.code == 2
    assert "--suite blimp needs lm-evaluation-harness, which is not installed." in ran.err
    assert "pip install 'holo-cli[eval]'" in ran.err
