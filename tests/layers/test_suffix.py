"""The suffix memory: the longest earlier match, in every way of computing it, and its gate."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from holo_cli import registry
from holo_cli.config.model_schema import BackboneConfig
from holo_cli.inference.generation.weights import quantise
from holo_cli.layers import suffix
from holo_cli.layers.suffix import Matches, SuffixMemory, SuffixState, longest_matches
from holo_cli.models.oracle import longest_match
from holo_cli.models.vanilla.config import Config
from holo_cli.models.vanilla.model import Modern

WAYS = [suffix._in_turn, suffix._at_once]


def text(rows: int, length: int, vocab: int, seed: int) -> Tensor:
    return torch.randint(0, vocab, (rows, length), generator=torch.Generator().manual_seed(seed))


def by_definition(tokens: Tensor, end: int) -> tuple[Tensor, Tensor]:
    found = [[longest_match(row[: t + 1], end) for t in range(len(row))] for row in tokens.tolist()]
    both = torch.tensor(found)
    return both[..., 0], both[..., 1]


def in_pieces(tokens: Tensor, pieces: list[int], end: int) -> tuple[Tensor, Tensor, SuffixState]:
    state, lengths, proposed = None, [], []
    for piece in tokens.split(pieces, dim=1):
        found = longest_matches(piece, state, end)
        state = found.state
        lengths.append(found.length)
        proposed.append(found.proposed)
    assert state is not None
    return torch.cat(lengths, 1), torch.cat(proposed, 1), state


def test_what_is_proposed() -> None:
    #               a  b  c  a  b  d  a  b  c  e  b
    tokens = [0, 1, 2, 0, 1, 3, 0, 1, 2, 4, 1]
    found = longest_matches(torch.tensor([tokens]), None, -1)
    assert found.length.tolist() == [[0, 0, 0, 1, 2, 0, 1, 2, 3, 0, 1]]
    # after `a b` for the second time its latest end counts; after `a b c` only the first has it
    assert found.proposed.tolist() == [[0, 0, 0, 1, 2, 0, 1, 3, 0, 0, 2]]


@pytest.mark.parametrize("way", WAYS, ids=["in-turn", "at-once"])
def test_every_way_finds_what_the_definition_says(
    way: Callable[[Tensor, SuffixState, int], Matches], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suffix, "_in_turn", way)
    monkeypatch.setattr(suffix, "AT_A_TIME", 200)  # several pieces of lags
    draw = random.Random(0)
    for seed in range(24):
        length, vocab = draw.choice([2, 3, 9, 34]), draw.choice([1, 2, 3, 6])
        end = draw.choice([-1, 1])
        tokens = text(3, length, vocab, seed)
        lengths, proposed = by_definition(tokens, end)
        states = []
        for pieces in ([length], [1] * length, [length // 2, length - length // 2]):
            found = in_pieces(tokens, pieces, end)
            assert torch.equal(found[0], lengths), (tokens, end, pieces)
            assert torch.equal(found[1], proposed), (tokens, end, pieces)
            states.append(found[2])
        assert all(torch.equal(s.runs, states[0].runs) for s in states)
        assert all(torch.equal(s.tokens, states[0].tokens) for s in states)


def test_nothing_is_matched_across_documents() -> None:
    end = 9
    first = [0, 1, 2, 3]
    found = longest_matches(torch.tensor([[*first, end, 0, 1, end, *first, 0, 1]]), None, end)
    assert found.length.tolist() == [[0] * 12 + [1, 2]]
    assert found.proposed.tolist()[0][-2:] == [1, 2]
    # a new mark is no match of the last one, nor is what follows it
    state = longest_matches(torch.tensor([[end, 5, 5]]), None, end).state
    assert longest_matches(torch.tensor([[end]]), state, end).length.item() == 0


def by_definition_recalling(
    texts: list[list[int]], past: list[int], own: list[int], end: int
) -> list[tuple[int, int]]:
    """Length and proposal at each token of `own`: the longest match among other texts, what stands
    before in the same text, and `own` itself; of the longest the last."""
    found = []
    for t in range(len(own)):
        begin = max((i for i in range(t + 1) if own[i] == end), default=None)
        mine = own[begin if begin is not None else 0 : t + 1]
        sources = [(text, len(text)) for text in texts]
        # what stands in the same document before the last token; it ends where the token stands
        before = mine if begin is not None else [*past, *mine]
        sources.append((before, len(before) - 1))
        best = (0, 0)
        for source, stop in sources:
            for j in range(min(stop, len(source))):
                run = 0
                while run <= min(j, t) and source[j - run] == own[t - run]:
                    run += 1
                if source is before and begin is not None:
                    run = min(run, len(mine))
                if run and run >= best[0]:
                    best = (run, source[j + 1] if j + 1 < len(source) else -1)
        found.append(best if best[1] >= 0 else (0, 0))
    return found


@pytest.mark.parametrize("way", WAYS, ids=["in-turn", "at-once"])
def test_recalled_texts_are_matched_as_any_others(
    way: Callable[[Tensor, SuffixState, int], Matches], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suffix, "_in_turn", way)
    monkeypatch.setattr(suffix, "LEAST_ROOM", 4)
    draw = random.Random(1)
    for _ in range(30):
        end, vocab = draw.choice([-1, 3]), draw.choice([2, 4, 7])
        texts = [
            [draw.randrange(vocab) for _ in range(draw.randrange(1, 6))]
            for _ in range(draw.randrange(3))
        ]
        past = [draw.randrange(3 if end == 3 else vocab) for _ in range(draw.randrange(6))]
        own = [draw.randrange(vocab) for _ in range(9)]
        start = SuffixState.start(1, torch.device("cpu"))
        for pieces in ([9], [1] * 9, [4, 5]):
            state, got = start.recalling(texts, [past]), []
            for piece in torch.tensor([own]).split(pieces, dim=1):
                found = longest_matches(piece, state, end)
                both = zip(found.length[0].tolist(), found.proposed[0].tolist(), strict=True)
                got += list(both)
                state = found.state
            assert got == by_definition_recalling(texts, past, own, end), (texts, past, own, end)


def test_of_much_text_the_last_is_recalled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suffix, "MOST_RECALLED", 5)
    start = SuffixState.start(2, torch.device("cpu"))
    state = start.recalling([[1, 2, 3, 4]], [[7, 8], []])
    assert state.recalled == suffix.LEAST_ROOM == state.tokens.shape[1]
    plain = torch.where(state.tokens >= suffix.FOREIGN, state.tokens - suffix.FOREIGN, state.tokens)
    assert plain[:, -5:].tolist() == [[3, 4, -1, 7, 8], [1, 2, 3, 4, -1]]
    assert (plain[:, :-5] == suffix.NOTHING).all()
    assert start.recalling([], [[], []]) is start


def test_joined_rows_go_on_as_alone() -> None:
    texts = [text(1, n, 3, seed) for seed, n in enumerate((4, 11, 1))]
    states = [longest_matches(t, None, 1).state for t in texts]
    together = SuffixState.joined(states, 0)
    chosen = together.select(torch.tensor([2, 0]))
    following = text(3, 6, 3, 8)
    for t in range(6):
        piece = following[:, t : t + 1]
        alone = [longest_matches(piece[n : n + 1], states[n], 1) for n in range(3)]
        states = [found.state for found in alone]
        found, two = longest_matches(piece, together, 1), longest_matches(piece[[2, 0]], chosen, 1)
        together, chosen = found.state, two.state
        assert found.proposed[:, 0].tolist() == [a.proposed.item() for a in alone]
        assert found.length[:, 0].tolist() == [a.length.item() for a in alone]
        assert torch.equal(two.proposed, found.proposed[[2, 0]])


def model(**given: object) -> Modern:
    torch.manual_seed(0)
    keys = {"vocab_size": 40, "layers": 1, "heads": 2, "width": 64, "context": 64, "suffix": True}
    made = registry.build_model("vanilla", Config.model_validate({**keys, **given}))
    assert isinstance(made, Modern)
    for p in made.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    return made.eval()


@torch.no_grad()
def test_a_proposed_token_can_be_made_more_likely() -> None:
    """With an open gate the logit of the proposed token rises most."""
    made = model(soft_cap=0)
    assert made.suffix is not None
    made.suffix.initialise()
    tokens = torch.tensor([[7, 8, 9, 3, 7, 8]])
    before = made(tokens)[0, -1]
    made.suffix.bias.fill_(2.0)
    after = made(tokens)[0, -1]
    assert (after - before).argmax() == 9
    assert torch.equal(made(tokens[:, :4]), made(tokens)[:, :4])  # nothing is proposed there


def test_it_changes_nothing_at_first_and_learns_how_long_matches_count() -> None:
    fresh = SuffixMemory(4)
    fresh.initialise()
    x, rows = torch.randn(1, 3, 4), torch.randn(1, 3, 4)
    state = SuffixState.start(1, torch.device("cpu"))
    found = Matches(torch.tensor([[5, 6, 0]]), torch.tensor([[1, 17, 0]]), state)
    assert torch.equal(fresh(x, found, rows), x)
    fresh(x, found, rows).square().sum().backward()
    assert fresh.bias.grad is not None
    assert fresh.bias.grad.nonzero()[:, 0].tolist() == [0, len(suffix.LONGEST)]


def test_int8_and_untied_heads_have_rows() -> None:
    made, tokens = model(tied=False, vocab_size=300), text(2, 30, 5, 0)
    plain = made(tokens).detach()
    assert quantise(made) > 1
    with torch.no_grad():
        assert (made(tokens) - plain).abs().mean() < 0.05 * plain.abs().mean()


def test_the_end_of_documents_comes_from_the_tokenizer() -> None:
    for name in ("vanilla", "brain-v1", "brain-v2", "ngt"):
        kind = registry.config_class(name)
        with_memory, without = (kind.model_validate({"suffix": on}) for on in (True, False))
        assert with_memory.from_specials({"<|end|>": 3})["end_token"] == 3
        assert "end_token" not in without.from_specials({"<|end|>": 3})
        assert isinstance(without, BackboneConfig)
        assert without.end_token == -1
