"""The user-facing messages of the code: `python -m holo_cli.translation.extract`.

Reads the source as syntax trees and collects the string that is given to anything a user reads:
errors, notes and warnings, help texts, table headings, chat, page captions. An f-string becomes a
template with `{0}`, `{1}`, ...; a choice between two strings (`"a" if x else "b"`) becomes both,
and `counted(n, "token")` becomes "{0} tokens".
"""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import holo_cli
from holo_cli.parsing import read_toml
from holo_cli.registry import configs_folder
from holo_cli.translation import FOLDER, PLACEHOLDER
from holo_cli.wording import plural

PACKAGE = Path(holo_cli.__file__).parent
# Functions and methods whose string arguments a user reads, by the last part of their name.
SINKS = {
    "Option", "Argument", "Typer",  # help texts
    "NotText", "NotImportable", "ErrorReport", "Report", "RemovedKey", "Stopped",
    "note", "warn", "end", "heading", "say", "notice", "sentences", "facts", "table",
    "markdown_table",
    "Section", "Page", "Table", "Picture", "ChatCommand", "Column", "translate",
}  # fmt: skip
KEYWORDS = {"help", "epilog", "next_step", "message", "title", "note", "intro", "prose", "caption"}
SOURCE = {"description", "size"}  # keywords of a source of text
FUNCTIONS = {"sentence", "caution", "step_obstacle"}  # that return a message
ATTRIBUTES = {"mechanism"}  # of classes, in one line
VARIABLES = {"message", "wrote", "reason", "why", "hint", "AGAIN"}  # that hold a message on its way
# Modules that build sentences and captions: every string with two words in them is a message.
SENTENCES = (
    "bench/**/page.py", "bench/**/*_page.py", "bench/**/summary.py", "bench/**/words.py",
    "bench/compare/controls*.py", "bench/compare/power.py", "experiment/significance.py",
    "experiment/time_estimate.py",
    "speed/*.py", "tasks/*[!s].py", "tasks/names.py", "bench/recall/plan.py",
    "visualize/report.py",
    "config/messages.py", "data/prepare/advice.py", "inference/chat/commands.py",
    "inference/chat/terminal.py", "cli/expectations.py", "visualize/*.py", "models/**/views.py",
    "models/**/*_view.py", "models/**/*_views.py", "serve/web/inside.py",
)  # fmt: skip
SCRIPT_WORD = re.compile(
    r'holo\.say\("([^"]+)"\)|\bdata-say>([^<{]+)<|\bdata-(?:label|hint)="([^"]+)"'
)  # in the scripts and texts of pages
MAX_FORMS = 16  # that one f-string may expand to
WORDS = re.compile(r"[A-Za-z]{2,}")
CODE = re.compile(
    r"^--[a-z-]+$|^[a-z0-9]+(-[a-z0-9]+)+$|^\w+=[\w,=.]+$"
    r"|^[\w.]*[_.]\w[\w.]*$|\(\?P<|\\[du]|<[a-z]+[ >]|^[\d.]+ [kMGT]?B$"
)  # names, patterns, markup and sizes


@functools.cache
def of_code() -> dict[str, str]:
    """Every template with the place where it is first used, as "file:line"."""
    found: dict[str, str] = {}
    sentences = {path for pattern in SENTENCES for path in PACKAGE.glob(pattern)}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.is_relative_to(FOLDER):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        place = path.relative_to(PACKAGE).as_posix()
        for line, key in _messages(tree, all_strings=path in sentences):
            if WORDS.search(PLACEHOLDER.sub(" ", key)) and not CODE.search(key):
                found.setdefault(key, f"{place}:{line}")
    for path in sorted((configs_folder() / "bench").rglob("*.toml")):  # the plans' titles
        found.setdefault(read_toml(path)["title"], path.name)
    web = PACKAGE / "serve" / "web"
    pages = [*(PACKAGE / "visualize" / "assets").glob("*.js"), web / "shell.py"]
    for path in sorted([*pages, *(web / "assets").glob("*.[hj]*")]):
        for words in SCRIPT_WORD.findall(path.read_text(encoding="utf-8")):
            found.setdefault("".join(words), path.relative_to(PACKAGE).as_posix())
    return found


def _messages(tree: ast.Module, all_strings: bool) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = _name(node.func)
            values = list(node.args) if name in SINKS or name.endswith("Error") else []
            keywords = KEYWORDS | SOURCE if name == "SourceRow" else KEYWORDS
            values += [word.value for word in node.keywords if word.arg in keywords]
            for value in values:
                yield from _keys(value)
        elif isinstance(node, ast.AnnAssign | ast.Assign) and node.value and _is_message(node):
            yield from _keys(node.value)
        elif isinstance(node, ast.FunctionDef) and node.name in FUNCTIONS:
            for statement in ast.walk(node):
                if isinstance(statement, ast.Return) and statement.value:
                    yield from _keys(statement.value)
        elif isinstance(node, ast.FunctionDef) and _is_command(node):
            for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
                yield node.lineno, paragraph
    if all_strings:
        yield from _all_strings(tree)


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _is_message(node: ast.Assign | ast.AnnAssign) -> bool:
    if isinstance(node, ast.AnnAssign):
        return _name(node.target) in ATTRIBUTES
    return bool({_name(target) for target in node.targets} & VARIABLES)


def _is_command(node: ast.FunctionDef) -> bool:
    """Whether the docstring is a help text: the function takes `debug`, as all commands do."""
    return any(argument.arg == "debug" for argument in node.args.args)


def _keys(value: ast.expr) -> Iterator[tuple[int, str]]:
    """The templates in an argument: a string, a choice, a sum, or a list of them."""
    if isinstance(value, ast.Tuple | ast.List):
        for item in value.elts:
            yield from _keys(item)
    elif isinstance(value, ast.IfExp):
        yield from _keys(value.body)
        yield from _keys(value.orelse)
    elif isinstance(value, ast.Constant | ast.JoinedStr | ast.BinOp) or _counted_noun(value):
        for parts in product(*_alternatives(value)):
            key, count = "", 0
            for part in parts:
                if part is None:
                    key, count = f"{key}{{{count}}}", count + 1
                else:
                    key += part
            yield value.lineno, key.strip()


def _alternatives(value: ast.expr) -> list[list[str | None]]:
    """For each piece of a string the forms it may have; None is a placeholder."""
    if isinstance(value, ast.Constant):
        return [[value.value]] if isinstance(value.value, str) else [[None]]
    if isinstance(value, ast.JoinedStr):
        pieces = [piece for part in value.values for piece in _alternatives(part)]
        forms = 1
        for index, piece in enumerate(pieces):
            forms *= len(piece)
            if forms > MAX_FORMS:
                pieces[index] = [None]
        return pieces
    if noun := _counted_noun(value):
        return [[None], [f" {plural(noun)}"]]
    if isinstance(value, ast.FormattedValue):
        return _alternatives(value.value)
    if isinstance(value, ast.IfExp):
        both = [value.body, value.orelse]
        if all(isinstance(v, ast.Constant) and isinstance(v.value, str) for v in both):
            return [[v.value for v in both]]  # type: ignore[attr-defined]
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
        return _alternatives(value.left) + _alternatives(value.right)
    return [[None]]


def _counted_noun(value: ast.expr) -> str:
    """The noun of a call `counted(n, "noun")`; "" for anything else."""
    if isinstance(value, ast.Call) and _name(value.func) == "counted" and len(value.args) == 2:
        noun = value.args[1]
        if isinstance(noun, ast.Constant) and isinstance(noun.value, str):
            return noun.value
    return ""


def _all_strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every string of two or more words that is neither a docstring nor part of a larger one."""
    inner: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            inner.add(node.value)  # docstrings
        if isinstance(node, ast.JoinedStr | ast.BinOp):
            inner.update(set(ast.walk(node)) - {node})
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp) and node not in inner:
            for line, key in _keys(node):
                if len(WORDS.findall(PLACEHOLDER.sub(" ", key))) > 1:
                    yield line, key


def missing() -> dict[str, str]:
    """Templates of the code without a Korean form, with their places."""
    known: set[str] = set()
    for path in (FOLDER / "ko").glob("*.toml"):
        known.update(read_toml(path))
    return {key: place for key, place in of_code().items() if key not in known}


def main() -> int:
    """Print what is missing as TOML lines to fill in; exit code 1 if there is any."""
    lacking = missing()
    for key, place in lacking.items():
        print(f'# {place}\n{_quoted(key)} = ""')
    print(f"{len(lacking)} of {len(of_code())} messages have no translation.", file=sys.stderr)
    return int(bool(lacking))


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


if __name__ == "__main__":
    sys.exit(main())
