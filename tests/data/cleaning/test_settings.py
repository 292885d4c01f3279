"""Parsing of `--filter`, its errors, and its stored form."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from holo_cli.data.cleaning import CleaningSettings
from holo_cli.data.cleaning.thresholds import languages, limits, thresholds_of
from holo_cli.errors import DataError, UsageError

parse = CleaningSettings.parse


def test_presets() -> None:
    assert not parse("none").active
    assert parse("default") == parse("") == CleaningSettings()
    assert parse("default").rules
    assert parse("default").near == 0.8
    assert parse("strict").thresholds("en").min_words == 50


def test_strict_is_nowhere_laxer_than_default() -> None:
    for code in (*languages(), "tr"):
        usual, strict = thresholds_of(code), thresholds_of(code, strict=True)
        for name in limits():
            a, b = getattr(usual, name), getattr(strict, name)
            assert b <= a if name.startswith("max") else b >= a, (code, name)


def test_only_the_requested_changes_are_made() -> None:
    settings = parse("default, near=off, ko.max_mean_word=6, max_symbols=0.5, ko.max_symbols=0.2")
    assert settings.near == 0
    assert settings.thresholds("ko").max_mean_word == 6
    assert (
        settings.thresholds("en").max_mean_word == parse("default").thresholds("en").max_mean_word
    )
    assert settings.thresholds("en").max_symbols == 0.5
    assert settings.thresholds("ko").max_symbols == 0.2
    assert parse("min_words=5").thresholds("en").min_words == 5
    assert isinstance(parse("min_words=5").thresholds("en").min_words, int)
    assert parse("near=0.9,near=0.7").near == 0.7
    assert parse("max_odd=0.1,max_odd=0.3").thresholds("en").max_odd == 0.3


def test_one_filter_alone() -> None:
    only = parse("none,exact=on")
    assert only.active
    assert not only.rules
    assert only.near == 0


def test_numbers_of_korean_are_fineweb_2s() -> None:
    korean = thresholds_of("ko")
    assert (korean.max_top_2_grams, korean.max_top_3_grams, korean.max_top_4_grams) == (
        0.282, 0.228, 0.185,
    )  # fmt: skip
    assert korean.max_duplicate_lines == 0.374
    assert korean.min_line_punctuation == 0.062
    assert korean.min_alphabetic == 0.791
    assert korean.max_line_ends == pytest.approx(2 * 0.196)
    assert korean.min_mean_word == 1


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("defalt", "default"),
        ("none,near", "near"),
        ("near=much", "near"),
        ("near=1.5", "1"),
        ("near=-1", "near"),
        ("rules=maybe", "rules"),
        ("max_mean_wrod=3", "max_mean_word"),
        ("ko.max_mean_wrod=3", "max_mean_word"),
        ("KO.max_symbols=3", "max_symbols"),
        ("max_symbols=nan", "max_symbols"),
        ("education=6", "5"),
    ],
)
def test_the_invalid_part_is_named(text: str, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert named in str(caught.value)
    assert caught.value.next_step


def test_settings_are_plain_data(tmp_path: Path) -> None:
    reference = tmp_path / "good.txt"
    reference.write_text("한글", encoding="utf-8")
    settings = parse(f"strict,ko.max_symbols=0.2,reference={reference}")
    assert pickle.loads(pickle.dumps(settings)) == settings
    told = json.loads(json.dumps(settings.to_dict()))
    assert told["preset"] == "strict"
    assert told["changed"] == {"ko.max_symbols": 0.2}


def test_a_reference_counts_by_its_content(tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("one", encoding="utf-8")
    second.write_text("one", encoding="utf-8")
    before = parse(f"reference={first}").to_dict()
    assert parse(f"reference={second}").to_dict() == before
    first.write_text("two", encoding="utf-8")
    assert parse(f"reference={first}").to_dict() != before


def test_a_missing_reference_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.txt"):
        parse(f"reference={tmp_path / 'nowhere.txt'}")
