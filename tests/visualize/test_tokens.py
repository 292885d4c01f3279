"""Positions in pictures become tokens, and nothing of a token becomes markup."""

from __future__ import annotations

from holo_cli.models.views import Picture, Table, Tokens
from holo_cli.visualize.tokens import with_tokens

LABELS = ["the", "<b>", "고양이", "the"]


def test_axes_entries_and_cells_are_named() -> None:
    trace = {"type": "scatter", "x": [0, 2], "y": [1, 1], "text": [Tokens([0]), Tokens([2])]}
    table = Table("c", ["n", "tokens"], [[1, Tokens([3, 0, 2])], [2, "as it is"]])
    layout = {"xaxis": {"title": {"text": "key"}}, "yaxis": {"title": {"text": "size"}}}
    picture = Picture("t", "n", {"all": [trace]}, layout, tables=[table], token_axes=("xaxis",))
    named = with_tokens(picture, LABELS)
    axis = named.layout["xaxis"]
    assert axis["ticktext"] == ["the", "&lt;b&gt;", "고양이", "the"]
    assert axis["tickvals"] == [0, 1, 2, 3]
    assert axis["title"] == {"text": "key"}
    assert named.layout["yaxis"] == layout["yaxis"]
    assert named.variants["all"][0]["text"] == ["the", "고양이"]
    assert named.tables[0].rows == [[1, "the, 고양이"], [2, "as it is"]]
    assert picture.variants["all"][0]["text"][0] == Tokens([0])  # the model's own is left alone


def test_a_picture_without_tokens_stays_as_it_is() -> None:
    picture = Picture("t", "n", {"all": [{"type": "bar", "x": [1], "y": [2], "text": "x"}]})
    assert with_tokens(picture, LABELS) == picture
