"""Scenarios of what strangers leave: archive bombs, code in caches, absurd sizes, junk variables.

A scenario is a function of a `Place` that returns what is wrong, "" for nothing.
"""

from __future__ import annotations

import gzip
import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.faults import verdict
from benchmarks.faults.place import WAIT_SECONDS, Place, clean
from benchmarks.faults.sandbox import HANG_SECONDS, CommandLine
from benchmarks.faults.targets import header_rewritten

Scenario = Callable[[Place], str]
BOMB_BYTES = 2 << 30  # unpacked
CHUNK = 1 << 20
MARKER = "code-was-run"


# -- archives -------------------------------------------------------------------------------------


def _write_bomb(path: Path, line: bytes) -> None:
    """A small archive of many equal lines, or of one endless line where `line` has no end."""
    chunk = line * (CHUNK // len(line))
    if path.suffix == ".zst":
        import zstandard

        with path.open("wb") as file, zstandard.ZstdCompressor().stream_writer(file) as stream:
            for _ in range(BOMB_BYTES // CHUNK):
                stream.write(chunk)
        return
    member = gzip.compress(chunk, 9, mtime=0)  # a gzip file may have many members
    with path.open("wb") as file:
        for _ in range(BOMB_BYTES // CHUNK):
            file.write(member)


def _bomb(place: Place, name: str, line: bytes) -> str:
    """Preparing it stays small; it ends, or stops when it is asked to."""
    place.bring()
    _write_bomb(place.folder / name, line)
    command = place.holo("prepare", "new", "--source", name, "--tokenizer", "bpe",
                         "--vocab-size", "300")  # fmt: skip
    with command.start() as child:
        end = time.monotonic() + HANG_SECONDS - 1
        while child.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        asked = time.monotonic()
        child.kill(signal.SIGINT)
        outcome = child.wait(2 * HANG_SECONDS)
    if time.monotonic() - asked > HANG_SECONDS:
        return f"hang: Ctrl-C took {time.monotonic() - asked:.0f} s"
    if outcome.grown > verdict.MEMORY_BYTES:
        return f"memory: {outcome.grown >> 20} MiB"
    return "" if outcome.code in (130, 3) else clean(outcome, 0, 1, 2)


def bomb_of_lines_gz(place: Place) -> str:
    """2 GiB of short lines in 2 MB of gzip."""
    return _bomb(place, "lines.txt.gz", b"the same line again\n")


def bomb_of_lines_zst(place: Place) -> str:
    """2 GiB of short lines in some kB of zstd."""
    return _bomb(place, "lines.txt.zst", b"the same line again\n")


def bomb_of_one_line_gz(place: Place) -> str:
    """2 GiB without a line end in 2 MB of gzip."""
    return _bomb(place, "line.txt.gz", b"abcdefgh")


def bomb_of_one_line_zst(place: Place) -> str:
    """2 GiB without a line end in some kB of zstd."""
    return _bomb(place, "line.txt.zst", b"abcdefgh")


def bomb_of_json_gz(place: Place) -> str:
    """2 GiB of an unfinished JSON line."""
    return _bomb(place, "line.jsonl.gz", b'{"text":')


def bomb_of_json_zst(place: Place) -> str:
    """2 GiB of an unfinished JSON array."""
    return _bomb(place, "list.json.zst", b'[{"a":[')


def bomb_of_parquet(place: Place) -> str:
    """A dictionary in parquet: 2,000 references to one text of 1 MB."""
    import pyarrow
    import pyarrow.parquet

    place.bring()
    text = "a word and another " * (CHUNK // 19)
    array = pyarrow.DictionaryArray.from_arrays([0] * 2000, [text])
    pyarrow.parquet.write_table(
        pyarrow.table({"text": array}), place.folder / "rows.parquet", compression="zstd"
    )
    command = place.holo("prepare", "new", "--source", "rows.parquet", "--tokenizer", "bpe",
                         "--vocab-size", "300", "--max-bytes", "3000000")  # fmt: skip
    outcome = command.run(WAIT_SECONDS)
    return clean(outcome, 0, 1, 2)


# -- code -----------------------------------------------------------------------------------------


def _script(folder: Path) -> str:
    marker = str(folder / MARKER)
    return f"open({marker!r}, 'w').close()\nclass Evil:\n    pass\n"


def _ran(place: Place) -> str:
    return "code was run" if (place.folder / MARKER).exists() else ""


def hub_scripts(place: Place) -> str:
    """A hub cache whose data sets are scripts: none is run, whatever the environment allows."""
    from holo_cli.data.sources import datasets_table

    place.bring()
    names = [row["name"] for row in datasets_table(None)]
    commit = "0" * 40
    home = place.folder / "hub-home"
    for repo in _repositories():
        owner, _, name = repo.partition("/")
        folder = home / "hub" / f"datasets--{owner}--{name}"
        snapshot = folder / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs/main").write_text(commit, encoding="ascii")
        for file in (f"{name}.py", "dataset.py", "__init__.py"):
            (snapshot / file).write_text(_script(place.folder), encoding="utf-8")
        module = home / "modules/datasets_modules/datasets" / f"{owner}--{name}" / commit
        module.mkdir(parents=True)
        (module / f"{name}.py").write_text(_script(place.folder), encoding="utf-8")
    environment = {
        "HF_HOME": str(home), "HF_HUB_CACHE": str(home / "hub"), "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(home / "modules"), "HF_DATASETS_TRUST_REMOTE_CODE": "1",
    }  # fmt: skip
    for name in names:
        command = place.holo("prepare", name, "--offline", "--max-docs", "2", "--out", "data/x",
                             "--force", "--tokenizer", "bpe", "--vocab-size", "300")  # fmt: skip
        command.environment = {**command.environment, **environment}
        if found := _ran(place) or clean(command.run(WAIT_SECONDS), 0, 1, 2):
            return f"{found} ({name})"
    return _ran(place)


def _repositories() -> list[str]:
    """The repositories of the hub that holo's sources name."""
    from holo_cli.data.sources.hub.subsets import PARTS

    return sorted({part.repository for parts in PARTS.values() for part in parts})


def tokenizer_code(place: Place) -> str:
    """A tokenizer's folder with code, as `auto_map` names it: the code is not run."""
    place.bring("story.txt", "tokenizer.json")
    folder = place.folder / "tokenizer"
    folder.mkdir()
    (place.folder / "tokenizer.json").rename(folder / "tokenizer.json")
    (folder / "tokenization_evil.py").write_text(_script(place.folder), encoding="utf-8")
    mapped = {"AutoTokenizer": ["tokenization_evil.Evil", None]}
    settings = {"tokenizer_class": "Evil", "auto_map": mapped}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    command = place.holo("prepare", "new", "--source", "story.txt", "--tokenizer", "tokenizer")
    return clean(command.run(), 0, 1, 2) or _ran(place)


def model_code(place: Place) -> str:
    """A checkpoint that names a file of code as its model: nothing runs without --model."""
    for model in ("./evil.py:Evil", "evil.py:Evil", "evil:Evil", "evil"):
        place.bring("checkpoints", "data")
        (place.folder / "evil.py").write_text(_script(place.folder), encoding="utf-8")
        path = place.folder / "checkpoints/base_last.safetensors"
        needs = {"file": "evil.py", "class": "Evil", "package": "evil"}
        forged = header_rewritten(path.read_bytes(), {"model": model, "needs": needs})
        path.write_bytes(forged)
        for arguments in (("inspect", "checkpoints/base_last.safetensors"), ("resume", "base"),
                          ("generate", "-c", str(path), "-p", "x"), ("models",)):  # fmt: skip
            if found := clean(place.holo(*arguments).run(), 0, 1, 2) or _ran(place):
                return f"{found} ({model}, {arguments[0]})"
    return ""


# -- sizes ----------------------------------------------------------------------------------------

BILLION = "1000000000"
_TRAIN = ("train", "--data", "tiny", "--model", "vanilla")
ABSURD = (
    (*_TRAIN, "--batch-size", BILLION),
    (*_TRAIN, "--grad-accum", "1" + "0" * 30),
    (*_TRAIN, "--context", BILLION),
    (*_TRAIN, "--set", f"model.width={BILLION}"),
    (*_TRAIN, "--set", f"model.layers={BILLION}"),
    (*_TRAIN, "--set", "model.mlp_ratio=1e300"),
    (*_TRAIN, "--seed", "1" + "0" * 30),
    (*_TRAIN, "--set", f"training.eval_batch_size={BILLION}0", "--stop-at", "1"),
    ("train", "--data", "tiny", "--model", "holographic", "--set", f"model.experts={BILLION}"),
    ("train", "--data", "tiny", "--model", "mamba", "--set", f"model.width={BILLION}"),
    ("generate", "-c", "base", "-p", "x", "--num-samples", BILLION),
    ("generate", "-c", "base", "-p", "x", "--max-new-tokens", "3", "--seed", "-" + "9" * 30),
    ("generate", "-c", "base", "-p", "x", "--max-new-tokens", "3", "--top-k", "9" * 30),
    ("eval", "-c", "base", "--batch-size", BILLION),
    ("eval", "-c", "base", "--context", BILLION),
    ("prepare", "n", "--source", "story.txt", "--tokenizer", "bpe", "--vocab-size", BILLION),
    ("prepare", "n", "--source", "story.txt", "--workers", BILLION),
    ("prepare", "n", "--source", "story.txt", "--seed", "9" * 30),
    ("prepare", "n", "--source", "story.txt", "--max-bytes", "9" * 30),
    ("models", "vanilla", "--vocab-size", BILLION + "0" * 20),
    ("bench", "compare", "--plan", "plan.toml", "--batch-size", BILLION, "--dry-run"),
    ("bench", "compare", "--plan", "plan.toml", "--seeds", BILLION, "--dry-run"),
    ("bench", "compare", "--plan", "plan.toml", "--context", BILLION, "--dry-run"),
)  # fmt: skip


def absurd_sizes(place: Place) -> str:
    """Sizes beyond every machine are refused in ten seconds, before the memory is taken."""
    place.bring("checkpoints", "data", "story.txt", "plan.toml")
    wrong = []
    for arguments in ABSURD:
        if found := clean(place.holo(*arguments).run(), 0, 1, 2, 3):
            wrong.append(f"{found} ({' '.join(arguments)[:90]})")
    return "; ".join(wrong)


# -- the environment ------------------------------------------------------------------------------

JUNK = (
    "", " ", "x", "-1", "0", "1", "nan", "inf", "1e400", "9" * 30, "true", "[]", "{}", "null", "en",
    "ko", "\x1b]0;t\x07", "\u202e", "a\nb", "가", "a" * 100_000, "/dev/null",
    "../..", "$(id)", "%s", "\udc80",
)  # fmt: skip
COMMANDS = (
    ("models",), ("inspect", "base"), (*_TRAIN, "--dry-run"), ("resume", "base", "--stop-at", "6"),
    ("generate", "-c", "base", "-p", "x", "--max-new-tokens", "2"),
    ("datasets",), ("eval", "-c", "base", "--max-docs", "1"), ("nonsense",), ("--help",),
    ("prepare", "new", "--source", "story.txt", "--tokenizer", "char"),
)  # fmt: skip
OTHER_JUNK = (
    {"COLUMNS": "0"}, {"COLUMNS": "-5"}, {"COLUMNS": "9" * 30}, {"LINES": "x"}, {"TERM": ""},
    {"TERM": "\x1b"}, {"LC_ALL": "xx_YY.nonsense"}, {"LANG": "C"}, {"NO_COLOR": "x"},
    {"XDG_CONFIG_HOME": "/dev/null"}, {"HOME": "/nonexistent"}, {"TMPDIR": "/nonexistent"},
    {"PYTHONIOENCODING": "latin-1"}, {"OMP_NUM_THREADS": "x"}, {"RANK": "x"}, {"WORLD_SIZE": "x"},
    {"FORCE_COLOR": "1"}, {"PAGER": "rm"}, {"TOKENIZERS_PARALLELISM": "x"},
)  # fmt: skip


def _environments() -> Iterator[dict[str, str]]:
    from holo_cli.config.sources import OTHER_VARIABLES

    rng = random.Random(0)
    names = [*sorted(OTHER_VARIABLES), "HOLO_TRAINING_LR", "HOLO_TRAINING_STEPS",
             "HOLO_MODEL_WIDTH", "HOLO_DATA_PATH", "HOLO_NONSENSE", "HOLO_", "HOLO_TRAINING_",
             "HOLO_MODEL_LAYERS", "HOLO_TRAINING_SEED", "HOLO_TRAINING_DTYPE",
             "HOLO_\x1b[2J"]  # fmt: skip
    for name in names:
        for _ in range(4):
            yield {name: rng.choice(JUNK)}
    yield from OTHER_JUNK


def junk_variables(place: Place) -> str:
    """`HOLO_*` and other variables with nonsense in them."""
    place.bring("checkpoints", "data", "story.txt")
    rng, wrong = random.Random(1), []
    for environment in _environments():
        arguments = rng.choice(COMMANDS)
        command: CommandLine = place.holo(*arguments)
        command.environment = {**command.environment, **environment}
        outcome = command.run()
        shown = "HOLO_DEBUG" in environment and outcome.code != 0  # asked for a traceback
        if found := "" if shown else clean(outcome, 0, 1, 2, 3):
            wrong.append(f"{found} ({ascii(environment)[:80]}, {arguments[0]})")
    return "; ".join(wrong)


SCENARIOS: tuple[Scenario, ...] = (
    bomb_of_lines_gz, bomb_of_lines_zst, bomb_of_one_line_gz, bomb_of_one_line_zst,
    bomb_of_json_gz, bomb_of_json_zst, bomb_of_parquet, hub_scripts, tokenizer_code, model_code,
    absurd_sizes, junk_variables,
)  # fmt: skip
