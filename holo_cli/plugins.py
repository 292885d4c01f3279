"""Models from outside the package: classes in Python files, and entry points of installed packages.

    holo train --model path/to/mixer.py:MovingAverage
    [project.entry-points."holo.models"]                  # in the pyproject.toml of any package
    wavelet = "holo_wavelet.mixer:Wavelet"                # holo train --model wavelet

A file is run only if a person named it: on the command line, in HOLO_PLUGINS, or as an argument in
Python (`use`). A checkpoint, a data set, a plan or a row of results can hold the name of a model,
which is looked up among those; it never leads to an import by itself. Needs no torch.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from holo_cli.errors import ModelError, UsageError, nearest
from holo_cli.names import existing

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "holo.models"
VARIABLE = "HOLO_PLUGINS"  # PATH:CLASS, several separated by commas
_FILE = re.compile(r"\.py(:[^:]*)?$")


@dataclass(frozen=True)
class CodeLocation:
    """Where the code of a model is.

    `module` is the import name of a module or the path of a file. Without a `class_name` the module
    is a package with a `Config` in config.py and a `Model` in model.py, as in `holo_cli/models/`.
    """

    name: str
    module: str | Path
    class_name: str = ""
    package: str = ""  # of an entry point: the distribution
    version: str = ""
    typed: str = ""  # of a file: its path as a person wrote it

    def __str__(self) -> str:
        if isinstance(self.module, Path):
            return f"{self.typed}:{self.class_name}"
        return f"model '{self.name}' of the package {self.package} {self.version}"

    def to_dict(self) -> dict[str, str]:
        """What a checkpoint says it needs; {} for a model of holo itself."""
        if isinstance(self.module, Path):
            return {"file": Path(self.typed).as_posix(), "class": self.class_name}
        if not self.package:
            return {}
        return {"package": self.package, "version": self.version}


# -- which there are ------------------------------------------------------------------------------


def is_file(name: str) -> bool:
    """Whether a model's name is that of a class in a file: `PATH.py:CLASS`."""
    return _FILE.search(name) is not None


_named: dict[str, CodeLocation] = {}  # by `use`


def files() -> dict[str, CodeLocation]:
    """The classes in files that may be run, by name: those of HOLO_PLUGINS and of `use`."""
    found: dict[str, CodeLocation] = {}
    for item in filter(None, map(str.strip, os.environ.get(VARIABLE, "").split(","))):
        try:
            origin = _file_origin(item)
        except UsageError as error:
            raise UsageError(f"{VARIABLE}: {error.message}", next_step=error.next_step) from None
        found[origin.name] = origin
    return found | _named


def use(name: str) -> str:
    """Allow the model that a person named, and return the name it has from then on.

    `path/to/mixer.py:Class` becomes `mixer.py:Class`; any other name is returned as it is. Nothing
    is imported yet. Raises UsageError for a file that does not exist and for a missing class name.
    """
    known = files()
    if not is_file(name) or name in known:
        return name
    origin = _file_origin(name)
    other = known.get(origin.name)
    if other is not None and other.module != origin.module:
        raise UsageError(
            f"{other.typed} and {origin.typed} would both be the model '{origin.name}'.",
            next_step="Rename one of the files or classes.",
        )
    _named[origin.name] = origin
    return origin.name


def option() -> str:
    """` --model FILE:CLASS`, to be added to a proposed command, if `--model` named one file."""
    named = list(_named.values())
    return f" --model {named[0]}" if len(named) == 1 else ""


def environment() -> dict[str, str]:
    """Variables with which another process of this program finds the same files."""
    allowed = [f"{origin.module}:{origin.class_name}" for origin in files().values()]
    return {VARIABLE: ",".join(allowed)} if allowed else {}


def _file_origin(text: str) -> CodeLocation:
    typed, _, class_name = (f"{text}:" if text.endswith(".py") else text).rpartition(":")
    path = existing(typed).resolve()
    if not is_file(text) or not path.is_file():
        raise UsageError(
            f"There is no model file '{typed or text}'.",
            next_step="A model in a file is written path/to/mixer.py:ClassName.",
        )
    if not class_name:
        raise UsageError(
            f"{typed} names a file without a class.", next_step=_suggestion(path, typed)
        )
    return CodeLocation(f"{path.name}:{class_name}", path, class_name, typed=typed)


def _suggestion(path: Path, typed: str) -> str:
    """How to name a class of the file, which is parsed and not run."""
    try:
        body = ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError):
        body = []
    classes = [node.name for node in body if isinstance(node, ast.ClassDef)]
    classes = [name for name in classes if name != "Config"] or ["ClassName"]
    return "Write " + " or ".join(f"{typed}:{name}" for name in classes) + "."


@cache
def installed() -> dict[str, tuple[CodeLocation, ...]]:
    """The entry points of installed packages by name, with hyphens; a name should have only one."""
    from importlib.metadata import entry_points  # a tenth of the time of `holo --help`

    found: dict[str, tuple[CodeLocation, ...]] = {}
    for point in entry_points(group=GROUP):
        name = point.name.replace("_", "-")
        found[name] = (*found.get(name, ()), _entry_origin(name, point))
    return found


def _entry_origin(name: str, point: EntryPoint) -> CodeLocation:
    package = point.dist.name if point.dist else "unknown"
    version = point.dist.version if point.dist else ""
    return CodeLocation(name, point.module, point.attr, package, version)


def missing(name: str, needs: Mapping[str, str]) -> tuple[str, str]:
    """What is to be said of a checkpoint whose model is not here, and what to do; `needs` as by
    `CodeLocation.to_dict`."""
    if "file" in needs:
        shown = f"{needs['file']}:{needs.get('class', 'ClassName')}"
        return (
            f"needs the model '{name}', a class in a Python file, which was {needs['file']}",
            f"A checkpoint never runs a file by itself: if you trust it, add --model {shown}",
        )
    if "package" in needs:
        package = f"{needs['package']} {needs.get('version', '')}".strip()
        return (
            f"needs the model '{name}' of the package {package}, which is not installed",
            f"Install the package if you trust it: pip install {needs['package']}",
        )
    return f"holds a model '{name}', which this holo does not have", ""


# -- importing ------------------------------------------------------------------------------------


def load_class(origin: CodeLocation) -> tuple[type, ModuleType]:
    """The class that an origin with a class name stands for, and its module.

    Raises ModelError naming the line for code that fails, UsageError for a class that is not there.
    """
    with _explained(origin):
        module = _import(origin)
    found = getattr(module, origin.class_name, None)
    if not isinstance(found, type):
        classes = [n for n, v in vars(module).items() if isinstance(v, type)]
        own = [n for n in classes if getattr(module, n).__module__ == module.__name__]
        raise UsageError(
            f"{origin}: there is no class '{origin.class_name}' in it.",
            next_step=nearest(origin.class_name, own),
        )
    return found, module


def part(origin: CodeLocation, name: str) -> ModuleType | None:
    """A module beside the model's own, such as "reference" or "views"; of a file that stands alone
    the file itself. None where there is none."""
    with _explained(origin):
        package = _package(origin)
        if not package:
            return _import(origin)
        full = f"{package}.{name}"
        return importlib.import_module(full) if importlib.util.find_spec(full) else None


def folder(origin: CodeLocation) -> Path | None:
    """The folder of the model's package; None for a file that stands alone."""
    if isinstance(origin.module, Path):
        return origin.module.parent if _in_package(origin.module) else None
    package = _package(origin)
    with _explained(origin):
        spec = importlib.util.find_spec(package) if package else None
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None


def code_files(origin: CodeLocation) -> list[Path]:
    """The files that the model's own code is in."""
    place = folder(origin)
    if place is not None:
        return sorted(place.rglob("*.py"))
    if isinstance(origin.module, Path):
        return [origin.module]
    with _explained(origin):
        spec = importlib.util.find_spec(origin.module)
    return [Path(spec.origin)] if spec and spec.origin else []


def _package(origin: CodeLocation) -> str:
    """The import name of the package that holds the model; "" where there is none."""
    if isinstance(origin.module, Path):
        if not _in_package(origin.module):
            return ""
        name = _unique(origin.module.parent)
        if name not in sys.modules:
            init = origin.module.parent / "__init__.py"
            _run(name, init, [str(origin.module.parent)])
        return name
    return origin.module.rpartition(".")[0] if origin.class_name else origin.module


def _in_package(path: Path) -> bool:
    return (path.parent / "__init__.py").is_file()


def _import(origin: CodeLocation) -> ModuleType:
    if not isinstance(origin.module, Path):
        return importlib.import_module(origin.module)
    package = _package(origin)
    if package:  # so that relative imports work
        return importlib.import_module(f"{package}.{origin.module.stem}")
    name = _unique(origin.module)
    return sys.modules[name] if name in sys.modules else _run(name, origin.module, None)


def _unique(path: Path) -> str:
    """A module name that nothing else has: a file may be called like an installed package."""
    digest = hashlib.sha256(str(path).encode("utf-8")).hexdigest()[:8]
    return f"_holo_{re.sub(r'[^0-9a-zA-Z_]', '_', path.stem)}_{digest}"


def _run(name: str, path: Path, places: list[str] | None) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=places)
    assert isinstance(spec, ModuleSpec)
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs, as dataclasses and relative imports need it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _explained(origin: CodeLocation) -> Iterator[None]:
    """Whatever the code of somebody else raises while it is imported becomes one sentence."""
    try:
        yield
    except Exception as error:
        what = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        if isinstance(error, SyntaxError) and error.filename:
            where = f" ({error.filename}, line {error.lineno})"
            what = f"{type(error).__name__}: {error.msg}"
        else:
            frames = traceback.extract_tb(error.__traceback__)
            last = [frame for frame in frames if "importlib" not in frame.filename][-1]
            where = f" ({last.filename}, line {last.lineno})" if last.filename != __file__ else ""
        raise ModelError(
            f"{origin}: importing it failed: {what}{where}.",
            next_step="Correct that line; --debug shows the whole traceback.",
        ) from error
