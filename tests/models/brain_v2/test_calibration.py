"""Calibrated on held-out text, a tenth is a tenth: by language, by seed, and on other text."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from holo_cli.checkpoint.write import model_tensors
from holo_cli.models.brain_v2.calibration import chosen, shifts
from holo_cli.models.brain_v2.config import Config
from holo_cli.models.brain_v2.model import Model
from tests.models.brain_v2.parts import awake, config

KO, EN = 27, 28  # markers
SPECIALS = {"<|end|>": 26, "<|ko|>": KO, "<|en|>": EN}
LANGUAGES: dict[str, Any] = {"languages": ("ko", "en"), "language_tokens": (KO, EN)}


def text(seed: int, rows: int = 60, length: int = 64) -> Tensor:
    """Rows of two languages without a letter in common, by turns: each begins with its marker."""
    make = torch.Generator().manual_seed(seed)
    odds = torch.tensor([1 / (1 + n) for n in range(13)])
    letters = torch.multinomial(odds, rows * length, replacement=True, generator=make)
    letters = letters.view(rows, length)
    letters[1::2] += 13
    letters[0::2, 0], letters[1::2, 0] = KO, EN
    return letters


def brain(seed: int = 0, **given: Any) -> Model:
    torch.manual_seed(seed)
    made = Model(config(attention_every=1, attention_share=0.1, **{**LANGUAGES, **given}))
    awake(made, seed)
    return made.double().eval()


def counted(made: Model, tokens: Tensor) -> dict[str, float]:
    with torch.no_grad(), made.counting() as found:
        for piece in tokens.split(20):
            made.hidden(piece)
    return found


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_tenth_of_each_language_is_selected_of_text_that_calibration_has_not_seen(
    seed: int,
) -> None:
    made = brain(seed)
    with torch.no_grad():  # training left the thresholds where nobody wants them
        for _, part in made.attentions():
            part.threshold += 0.1
    before, threshold = counted(made, text(99)), made.attentions()[0][1].threshold.clone()
    assert any(not 0.09 <= share <= 0.11 for share in before.values())
    with torch.inference_mode():
        made.calibrate(text(seed, rows=240))
    after = counted(made, text(99, rows=240))
    assert set(after) == {f"selected_{n}{of}" for n in (1, 2) for of in ("", "/ko", "/en")}
    assert all(0.09 <= share <= 0.11 for share in after.values()), after
    assert torch.equal(made.attentions()[0][1].threshold, threshold)  # training never sees it


def test_capacity_and_bursts_are_allowed_for() -> None:
    """What passes comes in bursts that capacity cuts: more must pass for a tenth to be taken."""
    make = torch.Generator().manual_seed(0)
    margin = torch.randn(40, 200, generator=make) + 3.0 * (torch.arange(200) < 20)
    shift = shifts(margin, None, 0.1, 1)
    assert chosen(margin - shift, 0.1).double().mean() == pytest.approx(0.1, abs=0.005)
    plain = margin.flatten().quantile(0.9)
    assert chosen(margin - plain, 0.1).double().mean() < 0.08


def test_a_language_of_few_tokens_gets_the_threshold_of_all() -> None:
    margin = torch.randn(30, 40, generator=torch.Generator().manual_seed(1))
    slots = torch.zeros(30, 40, dtype=torch.int64)
    slots[0, :9] = 1
    found = shifts(margin, slots, 0.1, 3)
    assert found[1] == found[2]
    assert found[1] == pytest.approx(found[0].item(), abs=0.1)


def test_decoding_uses_the_threshold_of_the_language_so_far() -> None:
    made = brain()
    made.calibrate(text(3))
    assert made.attentions()[0][1].shift.unique().numel() > 1  # type: ignore[union-attr]
    tokens = torch.cat((text(5, rows=2, length=30)[:, 1:], text(6, rows=2, length=30)), 1)
    whole = made(tokens)
    for split in ([1] * tokens.shape[1], [7, 23, 29], [29, 1, 29]):
        state, found = made.init_state(2), []
        for piece in tokens.split(split, dim=1):
            logits, state = made.step(piece, state)
            found.append(logits)
        torch.testing.assert_close(torch.cat(found, 1), whole, rtol=1e-9, atol=1e-9)


def test_training_ignores_it_and_a_checkpoint_holds_it() -> None:
    made, tokens = brain(), text(5, rows=4)
    training = made.train().hidden(tokens).x
    made.eval()
    evaluated = made.hidden(tokens).x
    made.calibrate(text(3))
    assert not torch.equal(made.hidden(tokens).x, evaluated)
    assert torch.equal(made.train().hidden(tokens).x, training)
    names = {name for name in model_tensors(made) if name.endswith("attention.shift")}
    assert len(names) == 2


def test_before_there_were_calibrated_thresholds() -> None:
    """A stored config without the key computes what it did, from the same tensors."""
    stored = config().model_dump(mode="json")
    for key in ("attention_calibrated", "languages", "language_tokens"):
        del stored[key]
    old = Config.from_stored(stored)
    assert not old.attention_calibrated
    made = Model(old)
    assert not any(name.endswith("shift") for name in model_tensors(made))
    assert not old.from_specials(SPECIALS)
    assert config(attention_every=1).from_specials(SPECIALS) == LANGUAGES
    assert not config(attention_every=1).from_specials({"<|end|>": 26})
    with pytest.raises(ValueError, match=r"model\.language_tokens has 1 id for 2 languages"):
        config(languages=("ko", "en"), language_tokens=(1,))
