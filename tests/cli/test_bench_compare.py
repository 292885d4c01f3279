"""`holo bench compare` and `holo bench recall` in their smallest form, recall by a real process."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from holo_cli.visualize.browser import find_browser
from tests.cli.conftest import Holo
from tests.forked_workers import forked_workers

__all__ = ["forked_workers"]  # the fixture

TEXT = "the old fox ran over a quiet hill and saw the sea before night fell"
WORDS = TEXT.split()


@pytest.fixture
def prepared(holo: Holo, tmp_path: Path) -> str:
    texts = (" ".join(WORDS[(i * j) % len(WORDS)] for j in range(1, 25)) for i in range(30))
    (tmp_path / "words.txt").write_text("\n\n".join(texts), encoding="utf-8")
    ran = holo("prepare", "words", "--source", "words.txt", "--tokenizer", "char")
    assert ran.code == 0, ran.err
    return "words"


@pytest.mark.usefixtures("forked_workers", "prepared")
def test_compare_with_a_model_that_fails(holo: Holo, request: pytest.FixtureRequest) -> None:
    """One entry learns, one diverges: both have rows, and the page opens."""
    command = (
        "bench", "compare", "--preset", "tiny", "--models", "vanilla", "--variant",
        "wild=vanilla,training.lr=1e30,training.warmup=0", "--steps", "6", "--rates", "1",
        "--seeds", "1", "--dtype", "float32", "--out", "here/page.html", "--json",
    )  # fmt: skip
    ran = holo(*command)
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    vanilla, wild = document["entries"]
    assert (vanilla["entry"], vanilla["status"], vanilla["seeds"]) == ("vanilla", "done", 1)
    assert 0 < vanilla["val_loss"] < 10
    assert vanilla["peak_rss_bytes"] > 10_000_000
    assert (wild["status"], wild["val_loss"]) == ("failed", None)
    assert "diverged" in wild["note"]
    assert len(document["rows"]) == 2
    assert document["differences"] == []  # of an entry that failed nothing is said
    assert document["page"] == "here/page.html"
    assert Path("here/page.jsonl").exists()
    assert not Path("here/page.work").exists()
    again = holo(*command[:-1])
    assert "not run" in again.out  # wild's figures, as a person reads them
    assert "0 runs to do" in again.err
    report = holo(*command[:-1], "--report-only", "--markdown").out
    assert re.search(
        r"^\| model \| bits/byte \| .*\| verdict \|\n\|---\|---\|", report, re.MULTILINE
    )
    assert re.search(r"^\| vanilla \| .*\|$", report, re.MULTILINE)
    assert re.search(r"^- wild: ", report, re.MULTILINE)
    assert re.search(r"^Machine: .* torch .*Z?\.$", report, re.MULTILINE)
    Path("data").rename("away")  # a report needs the rows alone, also to know which text it was
    assert holo(*command[:-1], "--report-only", "--markdown").out == report
    ran = holo(*command[:-1])
    assert (ran.code, "There is no prepared set." in ran.err) == (2, True)
    ran = holo(*command[:-1], "--report-only", "--data", "others")
    assert (ran.code, "has no runs on 'others'; it has runs on: words." in ran.err) == (2, True)
    ran = holo("bench", "compare", "--report-only", "--data", "words", "--out", "empty.html")
    assert (ran.code, "There are no finished runs in empty.jsonl" in ran.err) == (2, True)
    if find_browser() is not None:
        seen = request.getfixturevalue("visit")(Path("here/page.html"))
        assert [line for line in seen.console if "willReadFrequently" not in line] == []
        assert seen.dom.count('class="plot low js-plotly-plot"') == 3


def test_compare_says_what_it_would_do(holo: Holo, prepared: str) -> None:
    ran = holo("bench", "compare", "--preset", "tiny", "--dry-run", "--parameters", "20000")
    assert ran.code == 0, ran.err
    assert "parameters matched to 20k within 2%" in ran.err
    assert ran.err.count("2 heads") == 0
    assert "Runs of at most 100 steps are not measured beforehand" in ran.err
    assert not Path("bench").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--models", "vanila"), 2, "Did you mean 'vanilla'?"),
        (
            ("--models", "checkpoints/ngt_best.safetensors"),
            2,
            "new models are built, by their names",
        ),
        (("--variant", "ngt"), 2, "NAME=MODEL"),
        (("--variant", "x=ngt,corods=8"), 2, "model.coords"),
        (("--preset", "3m"), 2, "no plan '3m'"),
        (("--plan", "mine.toml"), 2, "no plan file"),
        (("--preset", "tiny", "--plan", "mine.toml"), 2, "Leave one out"),
        (("--json", "--markdown"), 2, "Leave one out"),
        (("--rates", "fast"), 2, "not numbers"),
        (("--rates", "-1"), 2, "rates"),
        (("--match", "size"), 2, "match 'size'"),
        (("--match", "time"), 2, "--time-limit"),
        (("--match", "time", "--time-limit", "nan"), 2, "--time-limit"),
        (("--models", ""), 2, "--models names no model."),
        (("--models", "words.txt"), 2, "'words.txt' is a path"),
        (("--plan", "data"), 2, "'data' is a folder, not a plan file."),
        (("--out", "data"), 2, "The page would be the folder 'data'."),
        (("--out", ""), 2, "The page would be the folder '.'."),
        (("--rates-from", "data"), 2, "The page would be the folder 'data'."),
        (("--jobs", "0"), 2, "--jobs must be at least 1, not 0."),
        (("--data", "nothing"), 1, "no prepared set 'nothing'"),
        (("--context", "90000"), 1, "a context of 90000"),
        (("--parameters", "10"), 2, "cannot have 10 parameters"),
        (("--redo", "x"), 2, "no entry 'x'"),
        (("--tune", "0"), 2, "at least one trial"),
        (("--tune", "-3"), 2, "at least one trial"),
        (("--tune", "4", "--rates-from", "page.html"), 2, "Leave one out"),
    ],
)
def test_compare_refuses_in_one_sentence(
    holo: Holo, prepared: str, arguments: tuple[str, ...], code: int, says: str
) -> None:
    preset = () if "--preset" in arguments or "--plan" in arguments else ("--preset", "tiny")
    ran = holo("bench", "compare", *preset, *arguments)
    assert ran.code == code, ran.err
    assert says in ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""


def test_a_page_of_another_version_is_refused(holo: Holo, prepared: str) -> None:
    Path("page.jsonl").write_text('{"bench": "compare", "format": 99}\n', encoding="utf-8")
    ran = holo("bench", "compare", "--preset", "tiny", "--out", "page.html")
    assert ran.code == 1
    assert "format 99" in ran.err
    Path("page.jsonl").write_text('{"bench": "recall", "format": 1}\n', encoding="utf-8")
    assert "holo bench recall" in holo("bench", "compare", "--out", "page.html").err


def test_nothing_prepared_is_said(holo: Holo) -> None:
    ran = holo("bench", "compare")
    assert ran.code == 2
    assert "holo prepare" in ran.err


def test_recall(holo: Holo) -> None:
    ran = holo(
        "bench", "recall", "--preset", "tiny", "--models", "attention", "--tasks", "mqar",
        "--steps", "5", "--dtype", "float32", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    scores = document["scores"]
    assert [(s["length"], s["items"], s["trained"]) for s in scores] == [
        (16, 2, True), (32, 2, False),
    ]  # fmt: skip
    assert all(0 <= s["accuracy"] <= 1 and s["state_bytes"] > 0 for s in scores)
    assert document["page"] == "bench/recall-tiny.html"
    assert document["rows"][0]["machine"]["gflops_float32"] > 0
    assert document["rows"][0]["dtype"] == "float32"
    left = holo("bench", "recall", "--preset", "tiny", "--steps", "5", "--dry-run", "--json")
    assert left.code == 0, left.err
    tasks = {row["task"]: row for row in json.loads(left.out)["estimates"]}
    assert (tasks["mqar"]["runs"], tasks["all"]["runs"]) == (2, 10)
    assert not Path("bench/other.html").exists()
    dry = holo("bench", "recall", "--preset", "tiny", "--dry-run", "--out", "bench/other.html")
    assert "not known" in dry.out
    assert "Nothing was trained" in dry.err
    assert not Path("bench/other.html").exists()
    report = holo("bench", "recall", "--preset", "tiny", "--report-only")
    assert report.code == 0
    assert "not run" in report.out  # the entries and tasks that were left out above


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--tasks", "mqra"), "Did you mean 'mqar'?"),
        (("--models", "x.safetensors"), "new models are built, by their names"),
        (("--preset", "huge"), "no plan 'huge'"),
        (("--seeds", "0"), "above 0"),
    ],
)
def test_recall_refuses_in_one_sentence(holo: Holo, arguments: tuple[str, ...], says: str) -> None:
    ran = holo("bench", "recall", *arguments)
    assert ran.code == 2
    assert says in ran.err


def test_help_of_the_benches_loads_no_torch() -> None:
    code = (
        "import sys\nfrom holo_cli.__main__ import main\n"
        "main(['bench', 'compare', '--help']); main(['bench', 'recall', '--help'])\n"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
