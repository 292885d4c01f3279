"""All commands: help, version, completion, lists, and the thin ones over faked libraries."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import holo_cli
from holo_cli.cli import complete as offers
from tests.cli.conftest import Fake, Holo

SHARED = "--json --verbose --quiet --debug"
FLAGS = {
    "demo": SHARED,
    "prepare": "--tokenizer --vocab-size --source --lang --max-docs --max-bytes --val-fraction "
    "--out --offline --workers --force --encoding --text-field --mix --filter --tokenizer-only "
    "--chat --shard --merge " + SHARED,
    "train": "--model --data --preset --config --set --run --steps --batch-size --grad-accum "
    "--context --lr --recipe --eval-every --target-loss --time-limit --grad-checkpoint --compile "
    "--dry-run --stop-at --seed --device --dtype " + SHARED,
    "resume": "--steps --stop-at " + SHARED,
    "generate": "--prompt --file --max-new-tokens --temperature --top-k --top-p --min-p "
    "--repetition-penalty --no-repeat-ngram-size --stop --num-samples --seed --lang --checkpoint "
    "--device --dtype " + SHARED,
    "chat": "--checkpoint --device --dtype --seed --temperature --lang --debug",
    "serve": "--checkpoint --host --port --api-key --batch-size --queue --max-tokens "
    "--memory-budget --prefix-cache --grace --device --dtype --verbose --quiet --debug",
    "models": "--plan --gpus --memory --gpu --gpu-tflops --link --utilization --preset --set "
    "--tokens-per-second " + SHARED,
    "check": "--case --markdown " + SHARED,
    "new-model": "--out " + SHARED,
    "datasets": SHARED,
    "inspect": SHARED,
    "export": "--to --out --force " + SHARED,
    "import": "--run --force " + SHARED,
    "pull": "--table --base-url --offline --force " + SHARED,
    "compare": "--data --file --max-docs --prompt --max-new-tokens --temperature --seed --out "
    "--device " + SHARED,
    "compress": "--checkpoint --out --force --context --carry --chunk-size --lang --device "
    + SHARED,
    "decompress": "--checkpoint --out --force --chunk --device " + SHARED,
    "visualize": "--checkpoint --text --out --open " + SHARED,
    "eval": "--checkpoint --data --split --file --lang --max-docs --context --stride --carry "
    "--tasks --task-folder --limit --shots --batch-size --device --dtype " + SHARED,
    "runs": "--yes " + SHARED,
    "bench": "",
}


@pytest.mark.parametrize("command", FLAGS)
def test_every_command_explains_its_flags(holo: Holo, command: str) -> None:
    ran = holo(command, "--help")
    assert (ran.code, ran.err) == (0, "")
    shown = set(re.findall(r"--[a-z][a-z-]*", ran.out))
    assert set(FLAGS[command].split()) <= shown
    assert holo(command, "-h").out == ran.out


def test_help_lists_every_command(holo: Holo) -> None:
    ran = holo("--help")
    assert ran.code == 0
    listed = re.findall(r"^  ([a-z-]+)  ", ran.out.partition("Commands:")[2], flags=re.MULTILINE)
    assert listed == list(FLAGS)
    assert "..." not in ran.out.partition("Commands:")[2].partition("Examples:")[0]


def test_version(holo: Holo) -> None:
    assert holo("--version").out == f"holo {holo_cli.__version__}\n"


def test_running_it_as_a_module() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "holo_cli", "tran"], capture_output=True, text=True, timeout=300
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "Usage: holo" in ran.stderr
    assert "Did you mean 'train'" in ran.stderr


# -- completion -----------------------------------------------------------------------------------


def complete(words: str, folder: Path) -> list[str]:
    environment = {
        **os.environ,
        "_HOLO_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    ran = subprocess.run(
        [sys.executable, "-m", "holo_cli"],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return ran.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("holo gen", ["generate"]),
        ("holo train --model van", ["vanilla"]),
        ("holo resume my", ["myrun"]),
        ("holo visualize attention -c nothing", []),
    ],
)
def test_completion(tmp_path: Path, words: str, expected: list[str]) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "myrun_best.safetensors").touch()
    assert complete(words, tmp_path) == expected


def test_completion_of_sources_and_prepared_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert offers.prepared("") == []
    for name in ("mine", "other"):
        Path("data", name).mkdir(parents=True)
        Path("data", name, "meta.json").touch()
    Path("data", "unfinished").mkdir()
    assert offers.prepared("") == ["mine", "other"]
    assert offers.prepared("m") == ["mine"]
    assert offers.sources("stor") == ["stories"]
    assert offers.runs("") == []


def test_completion_of_presets_and_recipes(configs: Path) -> None:
    context: Any = SimpleNamespace(params={"model": "vanilla"})
    assert offers.presets(context, "") == ["tiny", "mini", "demo"]
    assert offers.presets(context, "m") == ["mini"]
    assert offers.recipes("c") == ["classic"]


def test_the_completion_script_names_holo(holo: Holo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    ran = subprocess.run(
        [sys.executable, "-m", "holo_cli", "--show-completion", "bash"],
        env={**os.environ},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "_HOLO_COMPLETE" in ran.stdout


def test_the_tour_refuses_what_it_cannot_train_before_it_prepares_anything(holo: Holo) -> None:
    for arguments, says in (
        (("--model", "vanila"), "There is no model 'vanila'"),
        (("--time-limit", "-1"), "--time-limit must be above 0 seconds, not -1."),
        (("--time-limit", "nan"), "--time-limit must be above 0 seconds, not nan."),
    ):
        ran = holo("demo", *arguments)
        assert (ran.code, says in ran.err) == (2, True), ran.err
        assert not Path("data").exists()


@pytest.mark.parametrize("flag", ["--source", "--chat"])
def test_an_empty_source_is_not_this_folder(holo: Holo, flag: str) -> None:
    Path("words.txt").write_text("some words", encoding="utf-8")
    ran = holo("prepare", "mine", flag, "")
    assert (ran.code, f"{flag} names nothing." in ran.err) == (2, True), ran.err
    assert not Path("data").exists()


# -- lists ----------------------------------------------------------------------------------------


def test_models(holo: Holo, configs: Path) -> None:
    ran = holo("models")
    assert ran.out.splitlines()[0].split() == ["model", "mechanism", "presets"]
    assert re.search(r"^vanilla +softmax attention +tiny, mini, demo$", ran.out, re.MULTILINE)
    (row, *_) = json.loads(holo("models", "--json").out)["models"]
    assert row == {
        "name": "vanilla",
        "mechanism": "softmax attention",
        "presets": ["tiny", "mini", "demo"],
    }


def test_one_model_with_its_costs(holo: Holo, configs: Path, fake: Fake) -> None:
    fake("holo_cli.training.row_memory", train_memory_bytes=lambda r, v, full, measure: 3_000_000)
    ran = holo("models", "vanilla", "--vocab-size", "100", "--json")
    assert ran.code == 0, ran.err
    (row,) = json.loads(ran.out)["models"]
    assert list(row["costs"]) == ["tiny", "mini", "demo"]
    tiny = row["costs"]["tiny"]
    assert {
        "parameters", "active_parameters", "train_flops_per_token", "decode_flops_per_token",
        "state_bytes", "train_memory_bytes",
    } <= set(tiny)  # fmt: skip
    assert 0 < tiny["parameters"] < row["costs"]["mini"]["parameters"]
    largest = max(row["costs"], key=lambda preset: row["costs"][preset]["parameters"])
    assert set(row["fits"].values()) == {largest}  # each of them takes 3 MB
    assert "memory to train" in holo("models", "vanilla").out


def test_presets_that_this_machine_cannot_train_are_listed_too(
    holo: Holo, configs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holo_cli.training.capacity.capacity", lambda device: 1000)
    ran = holo("models", "vanilla", "--vocab-size", "100", "--json")
    assert ran.code == 0, ran.err
    (row,) = json.loads(ran.out)["models"]
    assert list(row["costs"]) == row["presets"]


def test_the_largest_preset_that_fits_a_memory() -> None:
    from holo_cli.cli.models import fits

    costs = {
        "big": {"parameters": 20, "train_memory_bytes": 2_800_000_000},
        "small": {"parameters": 10, "train_memory_bytes": 450_000_001},
    }
    assert fits(costs) == {"0.5": None, "3": "small", "6": "big", "12": "big", "24": "big"}


def test_what_presets_cost_does_not_depend_on_the_environment(
    holo: Holo, configs: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(
        "holo_cli.training.row_memory",
        train_memory_bytes=lambda r, v, full, measure: r.model.width + measure,
    )
    command = ("models", "vanilla", "--vocab-size", "100", "--json")
    before = json.loads(holo(*command).out)
    monkeypatch.setenv("HOLO_MODEL_WIDTH", "128")
    assert json.loads(holo(*command).out) == before
    assert json.loads(holo(*command, "--measure").out) != before


def test_datasets(holo: Holo) -> None:
    ran = holo("datasets")
    assert "stories" in ran.out
    names = [row["name"] for row in json.loads(holo("datasets", "--json").out)["datasets"]]
    assert "shakespeare" in names
    (row,) = json.loads(holo("datasets", "stories", "--json").out)["datasets"]
    assert row["languages"] == ["en", "ko"]
    assert "licence" in holo("datasets", "stories").out
    ran = holo("datasets", "storys")
    assert ran.code == 2
    assert "Did you mean 'stories'?" in ran.err


# -- thin commands --------------------------------------------------------------------------------


def test_prepare_on_a_real_small_file(holo: Holo) -> None:
    text = "\n\n".join(f"글 {n}: the quick brown fox said hello." for n in range(200))
    Path("mine.txt").write_text(text, encoding="utf-8")
    ran = holo("prepare", "mine", "--source", "mine.txt", "--tokenizer", "char", "--json")
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    assert set(document) == {
        "data", "tokens", "bytes", "docs", "vocab_size", "tokenizer", "dropped",
        "passed_over", "seconds",
    }  # fmt: skip
    assert set(document["tokens"]) == {"train", "val"}
    assert "Next: holo train --model vanilla --data" in ran.err
    again = holo("prepare", "mine", "--source", "mine.txt", "--tokenizer", "char")
    assert "is already prepared" in again.err
    assert "tokenizer" in again.out


def test_shards_and_their_merge(holo: Holo) -> None:
    text = "\n\n\n".join(f"Fox {n} said hello to hen {n}." for n in range(40))
    Path("mine.txt").write_text(text, encoding="utf-8")
    given = ("prepare", "mine", "--source", "mine.txt", "--tokenizer", "char")
    ran = holo(*given, "--shard", "1/1", "--json")
    assert ran.code == 0, ran.err
    made = json.loads(ran.out)["shard"]
    assert (made["shard"], made["files"]) == ("1/1", 1)
    wrong = holo("prepare", "mine", "--merge", "--tokenizer", "char")
    assert wrong.code == 2
    assert "--merge takes its settings from the shards" in wrong.err
    ran = holo("prepare", "mine", "--merge")
    assert ran.code == 0, ran.err
    assert "train tokens" in ran.out
    assert holo("prepare", "mine", "--merge").code == 1  # nothing is left to merge
    assert holo(*given, "--shard", "2/1").code == 2


def test_a_plan_for_several_gpus(holo: Holo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holo_cli.training.device_plan.row_bytes", lambda *_: 1_000_000)
    plan = ("models", "vanilla", "--plan", "--preset", "tiny", "--gpus", "2", "--memory", "1")
    ran = holo(*plan, "--tokens-per-second", "1000", "--json")
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    assert document["plan"]["best"] == "plain"
    assert document["plan"]["seconds"] > 0
    shown = holo(*plan)
    assert "--shard --grad-checkpoint" in shown.out
    assert "torchrun --nproc-per-node 2" in shown.err
    timed = holo(*plan, "--gpu", "l4", "--link", "3")
    assert timed.code == 0, timed.err
    assert "tokens/s" in timed.out
    assert "computed, not measured: 40% of 121 Tflop/s, sending 3 GB/s" in timed.err
    assert holo(*plan, "--gpu", "l44").code == 2
    assert holo(*plan, "--link", "3").code == 2
    assert holo("models", "--plan").code == 2
    assert holo("models", "vanilla", "--preset", "tiny").code == 2
    assert holo("models", "vanilla", "--plan", "--gpus", "0").code == 2


def test_prepare_hands_on_only_what_was_given(holo: Holo, fake: Fake) -> None:
    seen: dict[str, Any] = {}

    def prepare(names: list[str], **kwargs: Any) -> Any:
        seen.update(kwargs, names=names)
        raise FileNotFoundError(2, "no", "x")

    fake("holo_cli.data.prepare.prepare", prepare=prepare)
    assert holo("prepare", "a", "b", "--lang", "ko, en", "--max-docs", "5", "--offline").code == 1
    for told in ("progress", "notice", "warn"):
        assert callable(seen.pop(told))
    assert seen == {
        "names": ["a", "b"], "lang": ["ko", "en"], "max_docs": 5, "offline": True, "force": False,
    }  # fmt: skip


def test_visualize(holo: Holo, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def make_page(*arguments: Any, **kwargs: Any) -> dict[str, Any]:
        seen.append((arguments, kwargs))
        return {"page": "pages/p.html", "bytes": 1000, "seconds": 0.5}

    fake("holo_cli.visualize", make_page=make_page)
    ran = holo("visualize", "coords", "-c", "r", "--text", "글", "--out", "p.html", "--json")
    assert json.loads(ran.out) == {"page": "pages/p.html", "bytes": 1000, "seconds": 0.5}
    assert seen == [(("coords", "r", "글", Path("p.html")), {"device": "auto"})]
    assert holo("visualize", "attention", "r").code == 0
    assert seen[-1][0][:2] == ("attention", "r")
    assert holo("visualize", "training", "a", "b", "--run", "c").code == 0
    assert seen[-1][1]["runs"] == ["a", "b", "c"]
    for names in (("a", "b"), ("a", "-c", "b")):
        refused = holo("visualize", "coords", *names)
        assert refused.code == 2
        assert "one checkpoint" in refused.err


def test_demo(holo: Holo, fake: Fake, configs: Path) -> None:
    """The tour's own logic; its parts are tested where they live."""
    seen: dict[str, Any] = {"prepared": 0, "trained": []}

    def prepare(names: list[str], *, out: Path, **_: Any) -> None:
        seen["prepared"] += 1
        out.mkdir(parents=True)
        (out / "meta.json").touch()

    def train(resolved: Any, **kwargs: Any) -> dict[str, Any]:
        seen["trained"].append((resolved, kwargs["run"], kwargs["force"]))
        kwargs["events"]({"event": "start", "run": kwargs["run"]})
        return {"best": "checkpoints/demo-vanilla_best.safetensors", "last": None}

    def generate_full(prompt: str, **_: Any) -> dict[str, Any]:
        return {"samples": [{"text": "그리고...", "tokens": 3}], "prompt_tokens": 2}

    def make_page(what: str, checkpoint: str, text: str, out: Path) -> dict[str, Any]:
        return {"page": str(out), "bytes": 1, "seconds": 0.0}

    fake("holo_cli.data.prepare.prepare", prepare=prepare)
    fake("holo_cli.training.run", train=train)
    fake("holo_cli.inference.generation.samples", sample_text=None)
    fake("holo_cli.training.calibrate", steps_within=lambda resolved, seconds: 7)
    fake(
        "holo_cli.inference.generation.loaded_model",
        load=lambda checkpoint: SimpleNamespace(generate_full=generate_full),
    )
    fake("holo_cli.visualize", make_page=make_page)
    ran = holo("demo", "--json", "--time-limit", "5")
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    assert set(document) == {"data", "checkpoint", "samples", "pages", "seconds"}
    assert [s["lang"] for s in document["samples"]] == ["en", "ko"]
    assert document["data"] == "data/demo"
    assert "Next:" in ran.err
    again = holo("demo")
    assert again.code == 0
    assert "그리고" in again.out
    assert seen["prepared"] == 1  # the second tour finds the stories there
    for resolved, run, force in seen["trained"]:
        assert (resolved.preset, run, force) == ("demo", "demo-vanilla", True)
    training = seen["trained"][0][0].training
    assert (training.steps, training.time_limit) == (7, 7.5)  # a time that was asked for is kept
    # without one the text counts: 7 steps fit 115 s, and words come whole after 300
    training = seen["trained"][1][0].training
    assert training.steps == 300
    assert training.time_limit == pytest.approx(1.5 * 115 * 300 / 7)
    assert "words come whole after about 300, so training takes longer" in again.err
