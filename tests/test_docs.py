"""The documentation says what is there: links, commands, flags, settings, and examples that run."""

from __future__ import annotations

import functools
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.testing import CliRunner

from holo_cli import registry
from holo_cli.cli.app import app
from holo_cli.config.model_schema import BackboneConfig, ModelConfig
from holo_cli.config.training_schema import DataConfig, TrainingConfig

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SKIPPED = {"data", "checkpoints", "runs", "pages", "build", "dist"}  # outputs, but for a README
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
# An explanation that lists no flags: what it names is still checked to exist.
WITHOUT_FLAGS_TABLE = {"visualize", "bench"}
GROUPS = ("bench", "runs")  # commands that have commands


@functools.cache
def pages() -> list[Path]:
    """Every page of the project, those in folders of outputs and hidden ones left out."""
    found = []
    for folder, below, names in os.walk(ROOT):
        # an environment in a hidden one may have a hundred thousand files
        below[:] = [name for name in below if not name.startswith(".")]
        for name in names:
            parts = (Path(folder) / name).relative_to(ROOT).parts
            output = parts[0] in SKIPPED and parts[1:] != ("README.md",)
            if name.endswith(".md") and not name.startswith(".") and not output:
                found.append(Path(folder) / name)
    return sorted(found)


FIRST_CELL = re.compile(r"^(?:\| `)?([a-z0-9-]+)(?:` \|| {2,})", re.MULTILINE)


@pytest.mark.parametrize("model", registry.built_in())
def test_the_page_of_holo_models_names_every_preset(model: str) -> None:
    page = (DOCS / "commands" / "models.md").read_text(encoding="utf-8")
    named = {*re.findall(r"`([a-z0-9-]+)`", page), *FIRST_CELL.findall(page)}
    assert set(registry.preset_names(model)) <= named


@pytest.mark.parametrize(
    ("page", "model", "head"),
    [
        ("commands/models.md", "vanilla", "preset            parameters"),
        ("config.md", "vanilla", "| preset of vanilla |"),
        ("models/holographic.md", "holographic", "| preset | parameters |"),
    ],
)
def test_a_table_of_presets_has_a_row_for_each(page: str, model: str, head: str) -> None:
    _, found, rest = (DOCS / page).read_text(encoding="utf-8").partition(f"\n{head}")
    assert found, f"{page} has no table that begins with {head}"
    table = re.split(r"\n\n|\nFor a vocabulary", rest)[0].partition("\n")[2]
    assert sorted(FIRST_CELL.findall(table)) == sorted(registry.preset_names(model))


def test_the_sentence_of_brain_v2s_presets_has_all() -> None:
    page = (DOCS / "models" / "brain-v2.md").read_text(encoding="utf-8")
    sentence = page.partition("\nPresets: ")[2].partition("\n\n")[0]
    assert set(registry.preset_names("brain-v2")) <= set(re.findall(r"`([a-z0-9-]+)`", sentence))


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache  # hundreds of lines of the pages name the same commands
def help_of(*command: str) -> str:
    ran = CliRunner().invoke(app, [*command, "--help"])
    assert ran.exit_code == 0, ran.output
    return ran.output


def commands(*group: str) -> set[str]:
    listed = help_of(*group).partition("Commands:")[2]
    return set(re.findall(r"^  ([a-z][a-z-]*) ", listed, re.MULTILINE))


def flags_of(*command: str) -> set[str]:
    """The flags that a command's --help lists: those at the head of a line, before its text."""
    heads = re.findall(r"^  (-.*?)(?:  |$)", help_of(*command), re.MULTILINE)
    return {flag for head in heads for flag in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", head)}


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    plain = re.sub(r"[^\w\- ]", "", heading.replace("`", "").strip().lower())
    return plain.replace(" ", "-")


def anchors(path: Path) -> set[str]:
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def test_there_are_pages() -> None:
    assert {"README.md", "docs/README.md", "docs/commands/train.md"} <= {shown(p) for p in pages()}


@pytest.mark.parametrize("page", pages(), ids=shown)
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        place = page.parent / file if file else page
        assert place.exists(), f"{shown(page)}: {target}"
        if anchor:
            assert anchor in anchors(place), f"{shown(page)}: {target}"


def code(text: str) -> Iterator[str]:
    """Lines of code blocks (fenced or indented), and code inside lines."""
    for block in FENCE.findall(text):
        yield from (line.strip().removeprefix("$ ") for line in block.splitlines()[1:-1])
    rest = FENCE.sub("", text)
    yield from (line.strip() for line in rest.splitlines() if line.startswith("    "))
    yield from re.findall(r"`([^`\n]+)`", rest)


@pytest.mark.parametrize("page", pages(), ids=shown)
def test_commands_and_their_flags_exist(page: Path) -> None:
    known = commands()
    for line in code(page.read_text(encoding="utf-8")):
        for call in re.findall(r"(?:^|\| |&& |-m |-- )holo(?:_cli)? ((?!\|)[a-z][^|;#>]*)", line):
            try:
                command, *words = shlex.split(call, posix=False)  # quotes stay: no option begins so
            except ValueError:  # an apostrophe of the sentence, or a quotation that a `|` cut
                command, *words = call.split()
            assert command in known, f"{shown(page)}: {line}"
            path = (command,)
            if command in GROUPS and words and not words[0].startswith("-"):
                path = (command, words[0])
                assert words[0] in commands(command) | {"WHAT"}, f"{shown(page)}: {line}"
            used = {w.partition("=")[0] for w in words if re.match(r"--?[a-z]", w)}
            unknown = used - flags_of(*path) if used else set()
            assert not unknown, f"{shown(page)}: {line}: {unknown}"


def test_every_model_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    for page in (DOCS / "models").glob("*.md"):
        assert f"](models/{page.name})" in index


KOREAN = DOCS / "ko"
FOLDERS = ("tasks", "ideas", "tutorials")
TRANSLATED = [p for folder in FOLDERS for p in sorted((DOCS / folder).glob("*.md"))]


def test_every_task_idea_and_tutorial_is_in_both_indexes_and_in_korean() -> None:
    assert len(TRANSLATED) >= 11
    names = {path.relative_to(DOCS).as_posix() for path in TRANSLATED}
    korean = {path.relative_to(KOREAN).as_posix() for path in KOREAN.rglob("*.md")}
    assert korean == names | {"README.md"}
    for index in (DOCS / "README.md", KOREAN / "README.md"):
        text = index.read_text(encoding="utf-8")
        assert {name for name in names if f"]({name})" in text} == names


@pytest.mark.parametrize("page", TRANSLATED, ids=shown)
def test_the_korean_page_has_the_same_examples_links_and_figures(page: Path) -> None:
    english = page.read_text(encoding="utf-8")
    korean_page = KOREAN / page.relative_to(DOCS)
    korean = korean_page.read_text(encoding="utf-8")
    assert same_blocks(english) == same_blocks(korean)
    assert targets(page) == targets(korean_page)
    assert len(headings(english)) == len(headings(korean))
    assert table_figures(english) == table_figures(korean)


def same_blocks(text: str) -> list[str]:
    """Code blocks; of a diagram the nodes and arrows, since its labels are translated."""
    return [
        re.sub(r'"[^"]*"', '""', block) if block.startswith("```mermaid") else block
        for block in FENCE.findall(text)
    ]


def headings(text: str) -> list[str]:
    return re.findall(r"^#+ .+$", FENCE.sub("", text), re.MULTILINE)


def targets(page: Path) -> set[str]:
    """Files that a page links to; a Korean page counts as its English counterpart."""
    links = re.findall(r"\]\(([^)#\s]+)", FENCE.sub("", page.read_text(encoding="utf-8")))
    files = [(page.parent / x).resolve() for x in links if not re.match(r"[a-z]+:", x)]
    found = [x.relative_to(ROOT).as_posix() for x in files]
    return {re.sub(r"^docs/ko/", "docs/", x) for x in found}


def table_figures(text: str) -> list[list[str]]:
    """Figures of each row of the tables, in any order, since sentences order them differently."""
    rows = [x for x in FENCE.sub("", text).splitlines() if x.startswith("|")]
    return [sorted(set(re.findall(r"\d[\d.,]*\d", row))) for row in rows]


def test_every_command_has_a_page() -> None:
    assert {path.stem for path in (DOCS / "commands").glob("*.md")} - {"README"} == commands()


@pytest.mark.parametrize("command", sorted(commands()))
def test_flags_tables_are_those_of_help(command: str) -> None:
    text = (DOCS / "commands" / f"{command}.md").read_text(encoding="utf-8")
    section = re.search(r"^## Flags\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if section is None:
        assert command in WITHOUT_FLAGS_TABLE
        return
    cells = re.findall(r"^\| (`-.*?) \|", section[1], re.MULTILINE)
    told = {flag for cell in cells for flag in re.findall(r"`(--?[a-z][a-z-]*)", cell)}
    assert told == flags_of(command)


@pytest.mark.parametrize(
    "command", [(group, name) for group in GROUPS for name in sorted(commands(group))], ids=" ".join
)
def test_flags_tables_of_a_group_are_those_of_help(command: tuple[str, str]) -> None:
    group, name = command
    text = (DOCS / "commands" / f"{group}.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section is not None, f"no section '{name}'"
    cells = re.findall(r"^\| (`-.*?) \|", section[1], re.MULTILINE)
    told = {flag for cell in cells for flag in re.findall(r"`(--?[a-z][a-z-]*)", cell)}
    assert told == flags_of(*command)


SECTIONS: dict[str, tuple[type[BaseModel], ...]] = {
    "model": (ModelConfig, BackboneConfig),
    "training": (TrainingConfig,),
    "data": (DataConfig,),
}


@pytest.mark.parametrize("section", SECTIONS)
def test_settings_are_those_of_the_config(section: str) -> None:
    text = (DOCS / "config.md").read_text(encoding="utf-8")
    told = re.findall(rf"^\| `{section}\.(\w+)` \| (.*?) \|", text, re.MULTILINE)
    fields: dict[str, FieldInfo] = {}
    for config in SECTIONS[section]:
        fields |= config.model_fields
    assert [key for key, _ in told] == list(fields)
    for key, default in told:
        assert default == written(fields[key].default), key


def written(value: object) -> str:
    """A default as the tables have it."""
    words = {None: "none", True: "true", False: "false", "": "empty"}
    return words[value] if isinstance(value, bool) or value in (None, "") else str(value)


def test_exit_codes_are_those_of_the_errors() -> None:
    from holo_cli.cli.errors import INTERRUPTED
    from holo_cli.errors import HoloError, Stopped, UsageError

    text = (DOCS / "commands" / "README.md").read_text(encoding="utf-8")
    section = text.partition("## Exit codes")[2].partition("\n## ")[0]
    told = [int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)]
    kinds = (HoloError.exit_code, UsageError.exit_code, Stopped.exit_code)
    assert told == [0, *kinds, INTERRUPTED]


def test_the_mixer_of_its_page_keeps_what_the_page_says() -> None:
    import torch

    text = (DOCS / "tasks" / "add-a-mixer.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"__name__": "mixer_of_the_page"}
    exec(compile(block, "docs/tasks/add-a-mixer.md", "exec"), names)
    torch.manual_seed(0)
    mixer = names["FadingMean"](names["Config"](width=8)).double()
    x = torch.randn(2, 7, 8, dtype=torch.float64)
    with torch.no_grad():
        whole = mixer(x)[0]
        first, state = mixer.step(x[:, :3], None)
        rest, _ = mixer.step(x[:, 3:], state)
        slow = [torch.stack(names["mix"](mixer, list(row))) for row in x]
    assert torch.allclose(torch.cat((first, rest), dim=1), whole, atol=1e-9)
    assert torch.allclose(torch.stack(slow), whole, atol=1e-9)
    assert whole.abs().max() > 0


def test_the_examples_of_the_python_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert "vanilla" in capsys.readouterr().out
