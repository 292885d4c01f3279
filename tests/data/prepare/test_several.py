"""Several `--source` make one set: nothing is lost, in the order given, resumed exactly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holo_cli.data.dataset import PreparedData
from holo_cli.data.prepare import build, pipeline
from holo_cli.data.prepare.prepare import prepare
from holo_cli.errors import DataError, UsageError
from tests.data.prepared import content, corpus, texts


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    """A file, a folder of two files and a pattern; two of the files have the same name."""
    for name, start in (("a.txt", 0), ("more/a.txt", 1), ("more/b.txt", 2), ("rows/c.txt", 3)):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        words = (f"place{start} number{n} " * 6 for n in range(40))
        path.write_text("\n\n\n".join(words), encoding="utf-8")
    return [str(tmp_path / place) for place in ("a.txt", "more", "rows/*.txt")]


def test_several_sources_are_one_set_in_their_order(places: list[str], tmp_path: Path) -> None:
    result = prepare(["mine"], source=places, out=tmp_path / "set", tokenizer="char")
    data = PreparedData.open(tmp_path / "set")
    assert sum(result.docs.values()) == 160
    assert data.name == "mine"
    order = [text.split()[0] for text in texts(data, "train")]
    assert order == sorted(order)
    assert set(order) == {"place0", "place1", "place2", "place3"}
    # files of the same name stay apart
    assert data.meta.source_names == ["a/a.txt", "more/a.txt", "more/b.txt", "rows/c.txt"]
    again = prepare(["mine"], source=places, out=tmp_path / "set", tokenizer="char")
    assert again.already
    (tmp_path / "more" / "b.txt").write_text(corpus(), encoding="utf-8")
    with pytest.raises(DataError, match="source has changed"):
        prepare(["mine"], source=places, out=tmp_path / "set", tokenizer="char")
    with pytest.raises(DataError, match="names was"):
        prepare(["mine"], source=places[:2], out=tmp_path / "set", tokenizer="char")


def test_the_order_is_part_of_the_identity(places: list[str], tmp_path: Path) -> None:
    prepare(["mine"], source=places[:2], out=tmp_path / "set", tokenizer="char")
    with pytest.raises(DataError):
        prepare(["mine"], source=places[1::-1], out=tmp_path / "set", tokenizer="char")


def test_an_interrupted_preparation_resumes_between_sources(
    places: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "CHECKPOINT_SECONDS", -1)
    monkeypatch.setattr(pipeline, "BATCH_DOCUMENTS", 15)
    prepare(["mine"], source=places, out=tmp_path / "whole", tokenizer="char")
    write, calls = build._write, 0

    def dies(state: build._Build, batch: build._BatchInFlight) -> None:
        nonlocal calls
        calls += 1
        if calls == 7:
            raise KeyboardInterrupt
        write(state, batch)

    monkeypatch.setattr(build, "_write", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare(["mine"], source=places, out=tmp_path / "s", tokenizer="char")
    assert prepare(["mine"], source=places, out=tmp_path / "s", tokenizer="char").resumed
    assert content(tmp_path / "s") == content(tmp_path / "whole")


def test_a_mixture_of_several_sources(places: list[str], tmp_path: Path) -> None:
    prepare(source=places[:2], out=tmp_path / "set", tokenizer="char", mix="a=0.5,more=0.5")
    shares = json.loads((tmp_path / "set" / "meta.json").read_text("utf-8"))["mixture"]
    assert shares["a"] == pytest.approx(shares["more"], rel=0.1)
    assert PreparedData.open(tmp_path / "set").name == "a-more"


def test_a_source_that_is_named_like_a_dataset_is_a_file(tmp_path: Path) -> None:
    for name in ("stories.txt", "shakespeare.txt"):
        (tmp_path / name).write_text(corpus(), encoding="utf-8")
    paths = [str(tmp_path / name) for name in ("stories.txt", "shakespeare.txt")]
    result = prepare(["mine"], source=paths, out=tmp_path / "set", vocab_size=300)
    assert sum(result.docs.values()) == 240
    assert result.tokenizer == "bpe"


def test_a_file_is_read_once(places: list[str], tmp_path: Path) -> None:
    inside = str(tmp_path / "more" / "b.txt")
    result = prepare(["mine"], source=[inside, places[1]], out=tmp_path / "s", tokenizer="char")
    assert sum(result.docs.values()) == 80
    assert result.passed_over == {"files that an earlier --source has": 1}
    with pytest.raises(DataError, match="every file of"):
        prepare(["other"], source=[places[1], inside], out=tmp_path / "t", tokenizer="char")


def test_what_cannot_be_repeated(places: list[str], tmp_path: Path) -> None:
    for settings, says in (
        ({"source": [places[0], places[0]]}, "twice"),
        ({"names": ["wikitext2"], "source": places}, "takes one --source"),
        ({"names": ["a", "b"], "source": places}, "at most one name"),
        ({"source": [f"{'x' * 40}.txt", f"{'y' * 40}.txt"]}, "needs a name"),
    ):
        with pytest.raises(UsageError, match=says) as caught:
            prepare(**settings)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
