"""One name has one meaning: a class, or a function that other files import, is named once.

A second one of the same name is listed below with what both have in common, or gets a name of its
own. The names of one role in parallel folders (`Config`, `write_page`) are no second meaning."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("holo_cli", "benchmarks")
CLASSES = {
    "Config": "a model's folder: the settings that its config.py declares",
    "Model": "a model's folder: the model that its model.py declares",
}
FUNCTIONS = {
    "findings": "a page's or table's results in sentences",
    "named_plan": "a plan of one bench that comes with holo, by name",
    "read_plan": "a plan of one bench, from a TOML file",
    "table": "the results of one bench as columns and rows of text",
    "write_page": "the page of one bench, written to a file",
}


def parsed() -> dict[str, ast.Module]:
    """The modules of the project by their import names."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
            path.read_text(encoding="utf-8")
        )
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


MODULES = parsed()


def classes_of(tree: ast.Module) -> set[str]:
    return {n.name for n in tree.body if isinstance(n, ast.ClassDef)}


def functions_of(tree: ast.Module) -> set[str]:
    return {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}


def aliases_of(tree: ast.Module) -> dict[str, str]:
    """Names of types with what they stand for, such as `Row = dict[str, Any]`."""
    return {
        node.targets[0].id: ast.unparse(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        if re.match("[A-Z][A-Za-z]*[a-z]", node.targets[0].id)
    }


def repeated(names: Callable[[ast.Module], Iterable[str]]) -> dict[str, list[str]]:
    """Names with the modules that define them, where these are several."""
    places: dict[str, list[str]] = defaultdict(list)
    for module, tree in MODULES.items():
        for name in names(tree):
            places[name].append(module)
    return {name: found for name, found in places.items() if len(found) > 1}


def imported() -> dict[str, set[str]]:
    """Public names that are imported by name, with the modules that they are imported from."""
    found: dict[str, set[str]] = defaultdict(set)
    for tree in MODULES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    found[alias.name].add(node.module)
    return found


def test_a_class_has_one_meaning() -> None:
    found = repeated(classes_of)
    assert found.keys() == CLASSES.keys(), found


def test_a_named_type_stands_for_one_type() -> None:
    """Options of the command line (`options.Seed`) are named after what they set."""
    found: dict[str, set[str]] = defaultdict(set)
    for module, tree in MODULES.items():
        for name in classes_of(tree) - CLASSES.keys():
            found[name].add(f"class {module}.{name}")
        if not module.startswith("holo_cli.cli.") or module.endswith("old_flags"):
            for name, meaning in aliases_of(tree).items():
                found[name].add(meaning)
    assert not {name: several for name, several in found.items() if len(several) > 1}


def test_an_imported_function_has_one_meaning() -> None:
    used = imported()
    found = {
        name: several
        for name, places in repeated(functions_of).items()
        if len(several := [module for module in places if module in used[name]]) > 1
    }
    assert found.keys() == FUNCTIONS.keys(), found
