"""The projection: one orthonormal basis for all layers, honest shares of variance."""

from __future__ import annotations

import math

import torch

from holo_cli.data.tokenizers import Tokenizer
from holo_cli.models.views import Coordinates, residual_stream
from holo_cli.visualize.coords import coords_section, most_tokens, project
from holo_cli.visualize.model_reading import Reading, TokenGroup
from tests.visualize.conftest import make_model


def layers(count: int, tokens: int, dimensions: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    scale = torch.linspace(1, 3, dimensions, dtype=torch.float64)
    shape = (tokens, dimensions)
    return [
        scale * torch.randn(shape, generator=generator, dtype=torch.float64) + layer
        for layer in range(count)
    ]


def test_the_basis_is_orthonormal_and_the_same_for_all_layers() -> None:
    given = layers(4, 30, 8)
    found = project(given)
    torch.testing.assert_close(found.basis @ found.basis.T, torch.eye(3, dtype=torch.float64))
    for layer, points in zip(given, found.points, strict=True):
        torch.testing.assert_close(points, (layer - found.centre) @ found.basis.T)


def test_explained_shares_are_those_of_the_pooled_variance() -> None:
    given = layers(4, 30, 8)
    found = project(given)
    pooled = torch.cat(given)
    eigenvalues = torch.linalg.eigvalsh(torch.cov(pooled.T)).flip(0)
    expected = (eigenvalues / eigenvalues.sum())[:3]
    torch.testing.assert_close(torch.tensor(found.explained, dtype=torch.float64), expected)
    spread = found.points.flatten(0, 1).var(0, correction=1)
    torch.testing.assert_close(spread, eigenvalues[:3])


def test_three_coordinates_keep_every_distance() -> None:
    given = layers(3, 20, 3)
    found = project(given)
    torch.testing.assert_close(
        torch.cdist(found.points.flatten(0, 1), found.points.flatten(0, 1)),
        torch.cdist(torch.cat(given), torch.cat(given)),
        rtol=1e-7,
        atol=1e-6,
    )
    assert math.isclose(sum(found.explained), 1)


def test_a_token_that_stays_still_stays_still_in_the_picture() -> None:
    given = layers(2, 20, 8)
    given[1][5] = given[0][5]
    points = project(given).points
    torch.testing.assert_close(points[0, 5], points[1, 5])
    assert (points[0] - points[1]).norm(dim=1).count_nonzero() == 19


def test_fewer_than_three_coordinates_and_no_spread_at_all() -> None:
    flat = project(layers(2, 20, 2))
    assert flat.points.shape == (2, 20, 3)
    assert flat.points[..., 2].abs().max() == 0
    assert math.isclose(sum(flat.explained), 1)
    single = project([torch.ones(1, 5), torch.ones(1, 5)])
    assert single.explained == [0, 0, 0]
    assert single.points.abs().max() == 0


def reading(count: int) -> Reading:
    groups = [TokenGroup(f" w{i}", [f" w{i}"]) for i in range(count)]
    return Reading(list(range(count)), groups, ["en"] * count, count, [])


def test_the_table_has_the_numbers_of_the_figure() -> None:
    given = layers(2, 6, 5)
    mass = [torch.linspace(1, 2, 6), torch.linspace(2, 3, 6)]
    section = coords_section(Coordinates(given, ["A", "B"], "What.", mass), reading(6))
    assert [table.caption for table in section.tables] == ["A", "B"]
    for layer, table in enumerate(section.tables):
        assert table.columns[-1] == "Mass"
        for row, point, heavy in zip(
            table.rows, section.data["points"][layer], section.data["mass"][layer], strict=True
        ):
            assert row[3:] == [*point, heavy]
    exact = project(given).points
    drawn = torch.tensor(section.data["points"], dtype=torch.float64)
    torch.testing.assert_close(drawn, exact, rtol=1e-3, atol=1e-12)


def test_residual_stream_ends_in_what_the_model_returns(tokenizer: Tokenizer) -> None:
    tokens = torch.tensor(tokenizer.encode("the cat walked"))
    for recipe in ("modern", "classic"):
        model = make_model(tokenizer.vocab_size, recipe)
        stream = residual_stream(model, tokens)
        assert len(stream.layers) == len(stream.names) == model.config.layers + 1
        last = stream.layers[-1]
        if recipe == "classic":
            final = model.norm(last)  # type: ignore[operator]
        else:
            final = last / (last.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
        expected = model.hidden(tokens[None]).x[0]
        torch.testing.assert_close(final, expected, rtol=1e-4, atol=1e-5)
        assert not model.blocks[0]._forward_hooks  # type: ignore[index]


def test_more_layers_leave_room_for_fewer_tokens() -> None:
    assert most_tokens(5) == 512
    assert most_tokens(49) * 49 * 3 <= 30_000
