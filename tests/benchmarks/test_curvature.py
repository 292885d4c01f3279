"""The study of curvature: its texts and their floors, its pairs of models, its rows."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import curvature
from benchmarks.curvature import (
    RunKey,
    best_rate,
    draw,
    make_model,
    run,
    runs_to_do,
    stored,
    summary,
)


def test_the_floor_of_the_tree_is_that_of_all_its_values_enumerated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(curvature, "LEAVES", 4)
    monkeypatch.setattr(curvature, "VALUES", 2)
    monkeypatch.setattr(curvature, "PAIRS", 3)
    text = draw("tree", 5, 0, floor=True)
    # nodes: root 0, its children 1 and 2, leaves 3 .. 6
    parent = {1: 0, 2: 0, 3: 1, 4: 1, 5: 2, 6: 2}
    odds = {}
    for values in product(range(2), repeat=7):
        same = [values[child] == values[node] for child, node in parent.items()]
        odds[values] = 0.5 * math.prod(0.9 if kept else 0.1 for kept in same)  # KEEP + half
    assert sum(odds.values()) == pytest.approx(1.0)
    nats = 0.0
    for row in text.tokens.tolist():
        facts = [(3 + row[i], row[i + 1] - 4) for i in range(0, 6, 2)]
        p = sum(p for v, p in odds.items() if all(v[leaf] == said for leaf, said in facts))
        nats -= math.log(p)
    assert text.floor == pytest.approx(nats / 15)


def test_brackets_are_nested_and_their_floor_is_what_the_process_chooses() -> None:
    text = draw("brackets", 40, 0)
    tokens = torch.cat((text.tokens[:, :1], text.target), dim=1).tolist()
    nats = 0.0
    for row in tokens:
        stack: list[int] = []
        for t, token in enumerate(row):
            free = 0 < len(stack) < curvature.DEEPEST
            if t:
                nats += free * math.log(2) + (token < 8) * math.log(8)
            if token < 8:
                stack.append(token)
            else:
                assert stack.pop() == token - 8
            assert len(stack) <= curvature.DEEPEST
    assert text.floor == pytest.approx(nats / text.target.numel(), rel=1e-6)


def test_both_kernels_start_from_the_same_weights() -> None:
    models = []
    for kernel in curvature.KERNELS:
        torch.manual_seed(3)
        models.append(dict(make_model("tree", kernel, 4).named_parameters()))
    curved, flat = models
    assert {name for name in curved if name not in flat} == {
        f"blocks.{n}.mixer.kernel.log_beta" for n in range(2)
    }
    assert all(torch.equal(curved[name], p) for name, p in flat.items())


def test_a_run_has_a_row_and_learns() -> None:
    test = draw("tree", 8, -1)
    row = run("tree", "lorentz", 2, 4.0, 0, steps=15, rows=4, test=test)
    assert row["loss"] < math.log(curvature.LEAVES + curvature.VALUES) - 0.5
    assert row["beta"] > 0
    json.dumps(row)


def made(key: RunKey) -> dict[str, Any]:
    """A row whose loss is least at rate 2; curved is worse by 0.1, and 0.01 more each seed."""
    _, kernel, _, rate, seed = key
    worse = 0.1 + 0.01 * seed if kernel == "lorentz" else 0.0
    names = ("text", "kernel", "coords", "rate", "seed")
    loss = 1.0 + abs(rate - 2) + worse
    return dict(zip(names, key, strict=True)) | {"loss": loss, "floor": 0.5, "beta": None}


def test_a_stopped_study_continues_and_uses_the_best_rate(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    done: dict[RunKey, dict[str, Any]] = {}
    while (key := next(runs_to_do(done, ["tree"], [2], 3), None)) is not None:
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(made(key)) + "\n")
        done = stored(out)
    sweep = len(curvature.KERNELS) * len(curvature.RATES) * len(curvature.SWEEP_SEEDS)
    assert len(done) == sweep + len(curvature.KERNELS) * 3
    assert best_rate(done, "tree", "gaussian", 2) == 2.0
    table = summary(done)
    # differences 0.10, 0.11, 0.12: half width 4.303 * 0.01 / sqrt(3)
    assert "| tree | 2 | 0.6100 ± 0.0248 (rate x 2) | 0.5000 ± 0.0000 (rate x 2)" in table
    assert "| +0.1100 ± 0.0248 | 3 |" in table
