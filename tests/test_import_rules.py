"""What may import what, and what must not be imported at all before it is needed."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import holo_cli

PACKAGE = Path(holo_cli.__file__).parent
HEAVY = {
    "torch", "numpy", "pydantic", "rich", "datasets", "pyarrow", "tokenizers", "tiktoken",
    "sentencepiece", "safetensors", "tensorboard", "plotly", "prompt_toolkit", "transformers",
    "tqdm", "py3langid", "rensa", "filelock", "psutil", "starlette", "uvicorn", "asyncio",
    "constriction",
}  # fmt: skip
# Modules of plain data and helpers that every stage may use.
BASE = {
    "columns", "config", "errors", "files", "hardware", "imports", "names", "parsing", "paths",
    "plugins", "printable", "registry", "streams", "translation", "wording",
}  # fmt: skip
# Each stage with the stages it may import, beside itself and BASE. Text becomes data, data
# tokens, models logits; training writes checkpoints, which know nothing of it; what reads them
# comes last. A stage that is not named here may not be imported by any that is.
MAY = {
    "data": set(),
    "layers": set(),
    "models": {"layers"},
    "checkpoint": {"data", "layers", "models"},
    "training": {"data", "layers", "models", "checkpoint"},
    "inference": {"data", "layers", "models", "checkpoint", "training"},
    "check": {"data", "layers", "models", "checkpoint", "training"},
    "export": {"data", "layers", "models", "checkpoint"},
    "visualize": {"data", "layers", "models", "checkpoint", "training", "inference"},
    "serve": {"data", "layers", "models", "checkpoint", "training", "inference", "visualize"},
    "tasks": {"data", "models", "training"},
    "experiment": {"data", "models", "checkpoint", "training", "tasks"},
    "speed": {"data", "models", "checkpoint", "training", "inference", "visualize", "experiment"},
    "bench": {
        "data",
        "layers",
        "models",
        "checkpoint",
        "training",
        "inference",
        "visualize",
        "tasks",
        "experiment",
        "speed",
    },
}


@functools.cache  # six tests read every file
def imports(path: Path) -> tuple[str, ...]:
    """Every module that a file imports anywhere, with full names; relative imports are refused."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports out in full"
            assert node.module
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def stage(module: str) -> str | None:
    """holo_cli.data.prepare.prepare -> data; None for anything outside the package."""
    parts = module.split(".")
    return parts[1] if parts[0] == "holo_cli" and len(parts) > 1 else None


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_imports_point_one_way() -> None:
    wrong = []
    for path in files():
        own = path.relative_to(PACKAGE).parts[0]
        if own not in MAY:
            continue
        for module in imports(path):
            used = stage(module)
            in_package = used is not None and (
                (PACKAGE / used).is_dir() or (PACKAGE / f"{used}.py").exists()
            )
            if in_package and used not in {own, *MAY[own], *BASE}:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {module}")
    assert not wrong, "\n".join(wrong)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Sets of two or more modules that all reach one another (Tarjan 1972)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        stack.append(module)
        for used in graph[module]:
            if used not in number:
                visit(used)
                lowest[module] = min(lowest[module], lowest[used])
            elif used in stack:
                lowest[module] = min(lowest[module], number[used])
        if lowest[module] == number[module]:
            at = stack.index(module)
            members = stack[at:]
            del stack[at:]
            if len(members) > 1:
                found.append(sorted(members))

    for module in graph:
        if module not in number:
            visit(module)
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports inside functions and for types count too: what is in a circle is read as one."""
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    modules = {}
    for path in files():
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph = {}
    for name, path in modules.items():
        used = {module for module in imports(path) if module in modules}
        # `from a.b import c` names a.b beside the module a.b.c
        packages = {m for m in used if any(other.startswith(f"{m}.") for other in used)}
        graph[name] = used - packages - {name}
    kept = {"layers", "models", "inference", "visualize"}
    assert not [c for c in circles(graph) if {stage(module) for module in c} & kept]


def test_only_the_entry_point_imports_the_command_line() -> None:
    wrong = [
        str(path.relative_to(PACKAGE))
        for path in files()
        if path.name != "__main__.py" and path.relative_to(PACKAGE).parts[0] != "cli"
        if any(stage(module) == "cli" for module in imports(path))
    ]
    assert not wrong


def test_base_modules_import_no_stage() -> None:
    for path in files():
        if path.relative_to(PACKAGE).parts[0].removesuffix(".py") not in BASE:
            continue
        used = {module for module in imports(path) if stage(module) in MAY}
        allowed: set[str] = set()
        if path.stem == "registry":
            allowed |= {m for m in used if m.startswith("holo_cli.models.base")}  # a type only
        assert used <= allowed, path


def test_data_knows_no_model_and_no_torch() -> None:
    for path in (PACKAGE / "data").rglob("*.py"):
        assert not {m for m in imports(path) if stage(m) in {"models", "layers"}}, path


def test_nothing_is_imported_from_click() -> None:
    """Typer carries its own Click; only Typer's public names may be used."""
    for path in files():
        modules = set(imports(path))
        assert not {m for m in modules if m.split(".")[0] == "click"}, path
        private = {m for m in modules if m.startswith("typer.") and "._" in m}
        assert not private, path


def modules_after(*command: str) -> tuple[set[str], str]:
    """The top-level modules that a fresh interpreter has loaded after `python COMMAND`."""
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('LOADED', *sorted({m.split('.')[0] for m in sys.modules}),"
        " file=sys.stderr))\n"
        f"{command[0]}\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", timeout=300
    )
    line = ran.stderr.rpartition("LOADED")[2]
    assert line, ran.stderr
    return set(line.split()), ran.stdout


HOLO = "from holo_cli.__main__ import main; sys.exit(main({}))"


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import holo_cli", set()),
        (HOLO.format(["--help"]), set()),
        (HOLO.format(["--version"]), set()),
        *((HOLO.format([name, "--help"]), {"pydantic"}) for name in ("train", "generate", "chat")),
        (HOLO.format(["models"]), {"pydantic"}),
        (HOLO.format(["datasets"]), {"pydantic"}),
        (HOLO.format(["trian"]), {"pydantic"}),
    ],
)
def test_light_commands_load_nothing_heavy(code: str, allowed: set[str]) -> None:
    """Typer itself reads numbers with pydantic, so a command's options load that much."""
    loaded, _ = modules_after(code)
    assert "holo_cli" in loaded
    assert loaded & (HEAVY - allowed) == set()


def test_completion_loads_no_torch(tmp_path: Path) -> None:
    typed = {"COMP_WORDS": "holo train --model va", "COMP_CWORD": "3"}
    code = (
        f"import os; os.environ.update({typed!r}, _HOLO_COMPLETE='complete_bash')\n"
        "from holo_cli.__main__ import main; sys.exit(main([]))"
    )
    loaded, shown = modules_after(code)
    assert shown.split() == ["vanilla"]
    assert loaded & (HEAVY - {"pydantic"}) == set()
