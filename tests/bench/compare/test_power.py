"""The noncentral t against published power and simulation, and the spread found in rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holo_cli.bench.compare.power import (
    answer,
    corrected_level,
    power,
    seeds_needed,
    sentences,
    spread_in,
    upper_spread,
)
from holo_cli.errors import DataError, UsageError
from holo_cli.experiment.result_log import ResultLog, rows_path
from holo_cli.experiment.significance import paired, t_quantile


@pytest.mark.parametrize(
    ("effect", "seeds"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10), (2.0, 5)]
)
def test_seeds_are_those_of_the_published_tables(effect: float, seeds: int) -> None:
    """G*Power's answers for a two-sided paired t test at 5 % with 80 % power (Cohen's d of 0.2,
    0.5 and 0.8 need 199, 34 and 15 pairs)."""
    assert seeds_needed(effect, 1.0) == seeds


def test_power_is_what_simulated_campaigns_give() -> None:
    rng = np.random.default_rng(0)
    for seeds, effect in ((3, 2.0), (5, 1.0)):
        draws = rng.normal(effect, 1.0, (40_000, seeds))
        t = draws.mean(1) / draws.std(1, ddof=1) * np.sqrt(seeds)
        share = float((t > t_quantile(0.95, seeds - 1)).mean())
        assert power(effect, 1.0, seeds) == pytest.approx(share, abs=0.01)
    # and by the very test that verdicts are made with
    verdicts = [paired(list(d)) for d in rng.normal(1.5, 1.0, (500, 4))]
    share = sum(p <= 0.05 for _, p in verdicts) / len(verdicts)
    assert power(1.5, 1.0, 4) == pytest.approx(share, abs=0.07)


def test_without_a_difference_it_is_half_the_level() -> None:
    for seeds in (2, 3, 10):
        assert power(0.0, 1.0, seeds) == pytest.approx(0.025, abs=1e-5)
    assert power(0.1, 0.0, 2) == 1.0
    assert power(9.0, 1.0, 1) == 0.0


def test_more_comparisons_need_more_seeds() -> None:
    assert corrected_level(1) == 0.95
    assert corrected_level(5) == pytest.approx(0.99)
    few, many = (seeds_needed(1.0, 1.0, corrected_level(n)) for n in (1, 5))
    assert few is not None
    assert many is not None
    assert few < many
    assert seeds_needed(0.01, 1.0) is None


def test_the_upper_limit_of_a_spread_is_that_of_the_chi_square_table() -> None:
    """10 % quantiles of chi-square: 0.2107 with 2 degrees of freedom, 4.8652 with 10."""
    assert upper_spread(1.0, 2) == pytest.approx((2 / 0.2107) ** 0.5, rel=2e-3)
    assert upper_spread(2.0, 10) == pytest.approx(2 * (10 / 4.8652) ** 0.5, rel=2e-3)


def write(page: Path, losses: dict[str, list[float]], steps: int = 10, date: str = "1") -> None:
    rows = ResultLog(rows_path(page), "compare")
    for entry, values in losses.items():
        for seed, loss in enumerate(values, 1):
            row: dict[str, Any] = {
                "key": f"{entry}{seed}{steps}", "role": "final", "status": "done", "entry": entry,
                "seed": seed, "val_loss": loss, "date": date, "data": {"fingerprint": "f"},
                "config": {"training": {"steps": steps, "batch_size": 1, "grad_accum": 1},
                           "model": {"context": 8}},
            }  # fmt: skip
            rows.add(row)


def test_the_spread_is_that_of_paired_differences(tmp_path: Path) -> None:
    """Seeds differ by 1.0, differences by 0.01: only the latter count. By hand: differences -0.1,
    -0.12 and 0.2, 0.22, 0.24 have squared deviations 0.0002 and 0.0008 with 1 + 2 freedoms."""
    page = tmp_path / "page.html"
    write(page, {"base": [3.0, 4.0, 5.0], "a": [2.9, 3.88], "b": [3.2, 4.22, 5.24], "c": [1.0]})
    write(page, {"base": [9.0, 9.5], "a": [1.0, 4.0]}, steps=99)  # another length: fewer pairs
    found = spread_in(page, "compare", "base")
    assert found is not None
    assert found.freedom == 3
    assert found.sd == pytest.approx((0.001 / 3) ** 0.5)
    assert set(found.pairs) == {"a", "b"}


def test_the_answer_in_words(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write(page, {"base": [3.0, 4.0, 5.0], "a": [3.0, 4.02, 5.04]})
    found = answer(0.02, page, "compare", "base", 1, named=False)
    assert found["spread"] == pytest.approx(0.02)
    assert found["seeds"] == 10
    assert found["seeds_upper"] > 10
    first, second, third = sentences(found)
    assert first.startswith("A difference of 0.02 nats per token to base needs 10 seeds")
    assert "standard deviation of 0.0200" in second
    assert "3: " in third
    assert (
        "among 4 comparisons" in sentences(answer(0.02, page, "compare", "base", 4, named=True))[0]
    )


def test_without_rows_it_says_what_to_run(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    with pytest.raises(DataError, match="no two finished seeds of 'base'") as caught:
        answer(0.02, page, "compare", "base", 1, named=False)
    assert "--seeds 3 first" in (caught.value.next_step or "")
    assert "--power-from" in (caught.value.next_step or "")
    write(page, {"base": [3.0], "a": [3.1]})
    with pytest.raises(DataError, match="no two finished seeds"):
        answer(0.02, page, "compare", "base", 1, named=True)
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="must be above 0"):
            answer(wrong, page, "compare", "base", 1, named=False)
