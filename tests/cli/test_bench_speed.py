"""`holo bench speed`, `scaling` and `decode` in their smallest form, with forks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Holo, Ran
from tests.forked_workers import forked_workers

__all__ = ["forked_workers"]  # the fixture

SMALL = [
    "--set", "model.layers=1", "--set", "model.width=16", "--set", "model.heads=2",
    "--vocab-size", "64", "--repeats", "1", "--dtype", "float32",
]  # fmt: skip


def checked(ran: Ran, name: str) -> dict[str, object]:
    """The document, after what all three have in common was looked at."""
    assert ran.code == 0, ran.err
    document: dict[str, object] = json.loads(ran.out)
    assert {"bench", "rows", "machine", "page", "bytes", "rows_file", "seconds"} <= set(document)
    assert document["bench"] == name
    page, rows = Path(str(document["page"])), Path(str(document["rows_file"]))
    assert page.stat().st_size == document["bytes"]
    assert rows == page.with_suffix(".jsonl")
    head, *raw = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    assert head["bench"] == name
    assert len(raw) >= 2
    return document


@pytest.mark.usefixtures("forked_workers")
def test_speed_with_a_model_that_fails(holo: Holo) -> None:
    ran = holo(
        "bench", "speed", "--models", "vanilla", "--variant",
        "wild=vanilla,training.lr=1e30,training.warmup=0", *SMALL, "--context", "32",
        "--batch-size", "2", "--seconds", "0.2", "--tokens", "3", "--json",
    )  # fmt: skip
    document = checked(ran, "speed")
    vanilla, wild = document["rows"]  # type: ignore[misc]
    assert vanilla["status"] == "measured"
    assert vanilla["training"]["tokens_per_second"]["median"] > 0
    assert 0 < vanilla["training"]["product_share"] < 1
    assert wild["status"] == "failed"
    assert "diverged" in wild["failed"]["training"]
    assert wild["decoding"]["tokens_per_second"]["median"] > 0
    assert document["machine"]["gflops_float32"] > 0  # type: ignore[index]


@pytest.mark.usefixtures("forked_workers")
def test_scaling(holo: Holo) -> None:
    ran = holo(
        "bench", "scaling", "--models", "vanilla", *SMALL, "--lengths", "16,32", "--seconds",
        "0.01", "--out", "here/page.html", "--json",
    )  # fmt: skip
    document = checked(ran, "scaling")
    rows = document["rows"]
    assert [row.get("length") for row in rows] == [16, 32, None]  # type: ignore[attr-defined]
    assert rows[-1]["exponent"] is not None  # type: ignore[index]
    assert document["page"] == "here/page.html"
    assert document["crossings"] == []


@pytest.mark.usefixtures("forked_workers")
def test_decode_for_a_reader(holo: Holo) -> None:
    ran = holo(
        "bench", "decode", "--models", "vanilla", *SMALL, "--positions", "4,16", "--tokens", "3"
    )
    assert ran.code == 0, ran.err
    assert re.search(r"^Model +at 4 +at 16 +Last / first +State", ran.out, re.MULTILINE)
    assert "vanilla decodes" in ran.out
    assert "bench/decode-tiny.html" in ran.err.replace("\\", "/")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("speed", "--models", "vanila"), "Did you mean 'vanilla'?"),
        (("speed", "--repeats", "0"), "--repeats must be at least 1"),
        (("speed", "--preset", "huge"), "no preset 'huge'"),
        (("speed", "--models", "vanilla", "--context", "1"), "context"),
        (("speed", "--models", "vanilla", "--context", "4"), "Use --context 5 or more"),
        (("speed", "--context", "32", "--tokens", "15"), "Use --tokens 14 or fewer"),
        (("speed", "--set", "model.vocab_size=64"), "Use --vocab-size."),
        (("scaling", "--variant", "b=vanilla,vocab_size=64"), "Use --vocab-size."),
        (("scaling", "--set", "model.context=64"), "Use --lengths."),
        (("scaling", "--set", "training.batch_size=2"), "Use --tokens."),
        (("decode", "--variant", "b=vanilla,context=64"), "Use --positions."),
        (("decode", "--set", "model.vocab_size=64"), "Use --vocab-size."),
        (("speed", "--dtype", "int8"), "dtype"),
        (("scaling", "--lengths", "128"), "two lengths"),
        (("scaling", "--lengths", "a,b"), "whole numbers"),
        (("decode", "--positions", "0,4"), "Positions start at 1"),
        (("decode", "--set", "model.widht=3"), "width"),
    ],
)
def test_what_cannot_be_asked(holo: Holo, arguments: tuple[str, ...], message: str) -> None:
    ran = holo("bench", *arguments)
    assert ran.code == 2, ran.err
    assert message in ran.err
    assert not Path("bench").exists()


def test_a_page_of_another_bench_is_left_alone(holo: Holo) -> None:
    Path("page.jsonl").write_text('{"bench": "compare", "format": 1}\n', encoding="utf-8")
    ran = holo("bench", "decode", "--models", "vanilla", "--out", "page.html")
    assert ran.code == 1
    assert "holds rows of `holo bench compare`" in ran.err
    Path("page.jsonl").write_text('{"bench": "decode", "format": 99}\n', encoding="utf-8")
    assert "format 99" in holo("bench", "decode", "--out", "page.html").err
