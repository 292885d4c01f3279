"""Options of other projects: the error names what to type now, and the page is the table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from holo_cli import registry
from holo_cli.cli.old_flags import OLD_FLAGS, PAGE, OldFlag, find_old_flag, unknown_option
from holo_cli.config.resolve import resolve
from holo_cli.translation import translate
from tests.cli.conftest import Holo

ROW = re.compile(r"^\| `(--[\w-]+)` \| `(?:holo (\w+) )?([^`|]+)` \| (?:`([\w-]+)`|–) \| (\w+) \|$")


def test_the_error_names_the_new_way(holo: Holo) -> None:
    ran = holo("train", "--use-soft-cutoff")
    assert ran.code == 2
    assert ran.err.startswith("Error: There is no option --use-soft-cutoff in holo train:")
    assert "Use --set model.radius_mode=soft instead." in ran.err
    assert holo("train", "--use_soft_cutoff=1").err.count("model.radius_mode=soft") == 1


def test_a_command_without_the_new_option_is_told_which_has_it(holo: Holo) -> None:
    ran = holo("chat", "--use-soft-cutoff")
    assert (ran.code, "Use holo train --set model.radius_mode=soft instead." in ran.err) == (
        2,
        True,
    )


def test_an_option_whose_form_was_removed_is_told_why(
    holo: Holo, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = holo("train", "--binding-shape", "2d")
    assert ran.code == 2
    says = (
        "Use --set model.binding=hrr instead: model.binding_shape was removed, since binding over"
    )
    assert says in " ".join(ran.err.split())
    monkeypatch.setenv("HOLO_LANG", "ko")
    error = unknown_option("--binding-shape", "holo train", {"--set"})
    assert error is not None
    assert "바인딩이 선 위의 바인딩보다 낫지 않았기 때문입니다" in translate(error.next_step)
    assert "since" not in translate(error.next_step)


def test_every_removed_key_that_is_named_was_one() -> None:
    for flag in OLD_FLAGS:
        if flag.removed:
            assert flag.removed in registry.config_class(flag.model).removed


def test_a_value_that_looks_like_one_is_a_value(holo: Holo) -> None:
    ran = holo("generate", "-c", "nothing-here", "--prompt", "--use-soft-cutoff")
    assert "from another project" not in ran.err


def test_other_unknown_options_are_reported_as_before(holo: Holo) -> None:
    ran = holo("train", "--stepz", "3")
    assert (ran.code, "No such option: --stepz" in ran.err) == (2, True)
    assert "requires an argument" in holo("train", "--lr").err


def test_no_old_name_twice() -> None:
    names = [flag.name for flag in OLD_FLAGS]
    assert len(set(names)) == len(names)
    assert all(find_old_flag(name) is not None and name == name.lower() for name in names)


@pytest.mark.parametrize("command", sorted({flag.command for flag in OLD_FLAGS}))
def test_every_new_option_exists_and_no_old_one(holo: Holo, command: str) -> None:
    listed = re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", holo(command, "--help").out)
    for flag in OLD_FLAGS:
        if flag.command == command:
            used = {word for word in flag.now.split() if word.startswith("--")}
            assert used <= set(listed), flag
            assert flag.name not in listed, flag


@pytest.mark.parametrize("flag", [f for f in OLD_FLAGS if "--set" in f.now], ids=lambda f: f.name)
def test_every_setting_is_a_config_key_with_a_value_it_takes(flag: OldFlag) -> None:
    sets = re.findall(r"--set (\S+)", flag.now)
    resolved = resolve(flag.model, "25m", sets=sets)
    for given in sets:
        section, key = given.partition("=")[0].split(".")
        assert hasattr(getattr(resolved, section), key)


def test_the_page_is_the_table() -> None:
    text = (Path(__file__).parents[2] / PAGE).read_text(encoding="utf-8")
    found = [m.groups() for line in text.splitlines() if (m := ROW.match(line))]
    assert found == [
        (
            flag.name,
            None if flag.command == "train" else flag.command,
            flag.now,
            None if flag.model == "vanilla" else flag.model,
            flag.origin,
        )
        for flag in OLD_FLAGS
    ]


def test_in_korean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLO_LANG", "ko")
    error = unknown_option("--use-soft-cutoff", "holo train", {"--set"})
    assert error is not None
    assert "옵션" in translate(error.message)
    assert "--set model.radius_mode=soft" in translate(error.next_step)
    assert "Use" not in translate(error.next_step)
