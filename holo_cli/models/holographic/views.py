"""holographic's own pages: what interferes with what, how plates keep and forget, and categories.

Everything is read off one pass over the text: each part's input is caught, and what the pass itself
never keeps (phases, plates, affinities) is made from it once more. Tokens are named by position,
as they follow each other in the text above the figures. Legend: T tokens, H heads, e = C / H,
R plates, f complex channels, E categories.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from holo_cli.errors import UsageError
from holo_cli.models.views import Picture, Table, watched

if TYPE_CHECKING:
    from torch import Tensor, nn

    from holo_cli.models.base import LanguageModel
    from holo_cli.models.holographic.experts import Experts
    from holo_cli.models.holographic.fftconv import FFTConv
    from holo_cli.models.holographic.mixer import Holographic

PAGES = {
    "interference": "which tokens are in phase, what the plates keep, how fast it fades",
    "experts": "which category each token falls into",
}
Trace = dict[str, Any]
TYPICAL = 12  # tokens named per category
AGES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


def interference(model: LanguageModel, tokens: Tensor) -> list[Picture]:
    """Figures of every holographic layer, by their block; (T,) int64 tokens."""
    from holo_cli.models.holographic.memory import Memory
    from holo_cli.models.holographic.mixer import Holographic

    found = _caught(model, tokens, Holographic)
    if not found:
        raise UsageError(
            "This model was trained with mixer 'classic', in which no token meets another: there "
            "is nothing to interfere.",
            next_step="Train with --set model.mixer=memory.",
        )
    memories = {name: (part, x) for name, part, x in found if isinstance(part.memory, Memory)}
    if memories:
        return _memory_pictures(memories)
    return _filter_pictures({name: part.memory for name, part, _ in found})


def experts(model: LanguageModel, tokens: Tensor) -> list[Picture]:
    """Affinities, and the categories among the tokens; (T,) int64 tokens."""
    from holo_cli.models.holographic.experts import Experts

    found = _caught(model, tokens, Experts)
    if not found:
        raise UsageError(
            "This model has no category experts (model.experts is 1).",
            next_step="Train with --set model.experts=3.",
        )
    affinity, plane, tables = {}, {}, []
    for name, part, x in found:
        shares, chosen = part.route(x[0])
        affinity[name] = [
            {
                "type": "bar",
                "name": f"category {j + 1}",
                "x": list(range(len(shares))),
                "y": _plain(shares[:, j]),
                "tint": j,
            }
            for j in range(part.experts)
        ]
        plane[name] = _plane(part, x[0], chosen[:, 0])
        tables.append(_categories(name, part, shares, chosen))
    return [
        Picture(
            "Which category each token falls into",
            "The affinity of each token to each category; they sum to 1. A token goes through the "
            "experts of the highest, after a small correction that keeps experts equally busy.",
            affinity,
            {"barmode": "stack", "xaxis": _axis("position"), "yaxis": _axis("affinity")},
            choice="Block",
            tables=tables,
        ),
        Picture(
            "Categories among tokens",
            "Tokens as the router of the block sees them, and the vectors of the categories "
            "(crosses), on the two directions in which the categories differ most.",
            plane,
            {"xaxis": _axis("first direction"), "yaxis": _axis("second direction")},
            choice="Block",
        ),
    ]


# -- the memory -----------------------------------------------------------------------------------


def _memory_pictures(memories: dict[str, tuple[Holographic, Tensor]]) -> list[Picture]:
    from holo_cli.models.holographic.memory import Memory

    phases, spectra, kept, fading = {}, {}, {}, {}
    tables = []
    for name, (part, x) in memories.items():
        memory = part.memory
        assert isinstance(memory, Memory)
        q, k, v, log_a, b, plates = _inside(part, x)
        for h, heat in enumerate(agreement(q, k), start=1):
            phases[f"{name}, head {h}"] = [_heat(heat)]
        heads = range(plates.shape[1])
        energy = plates[0, :, -1].square().sum(2).mean(1)  # (H, f)
        spectra[name] = [
            _line(f"head {h + 1}", range(memory.channels), energy[h], h) for h in heads
        ]
        recall = recalled(k, v, plates)  # (R + 1, T)
        labels = [f"plate {r + 1}" for r in range(memory.plates)] + ["all plates"]
        positions = range(recall.shape[1])
        kept[name] = [_line(label, positions, recall[i], i) for i, label in enumerate(labels)]
        rate = -log_a[0].mean(1)  # (H,)
        fading[name] = [
            _line(f"head {h + 1}", AGES, (-rate[h] * _ages(rate)).exp(), h) for h in heads
        ]
        tables.append(_forgetting(name, rate, b[0].mean(1)))
    return [
        Picture(
            "Phase agreement",
            "How well the query of a token (row) is in phase with the key of an earlier one "
            "(column): 1 reads its value back in full, 0 is random, -1 upside down. Mean over "
            "plates and channels, before fading.",
            phases,
            {"xaxis": _axis("key's position"), "yaxis": _axis("query's position", reverse=True)},
            choice="Head",
        ),
        Picture(
            "Spectra of the plates",
            "Energy of each complex channel at the end of the text, mean over plates. Within a "
            "plate channels are in the order of their rotation by position, the slowest first.",
            spectra,
            {"xaxis": _axis("channel"), "yaxis": _axis("energy", log=True)},
            choice="Block",
        ),
        Picture(
            "What each plate keeps",
            "At the end of the text each token's value is asked for with its own key: the cosine "
            "of what comes back with what was stored, mean over heads. Plates have phases of "
            "their own, so their errors differ and all together know more than each.",
            kept,
            {"xaxis": _axis("position"), "yaxis": _axis("cosine")},
            choice="Block",
        ),
        Picture(
            "How fast it fades",
            "What is left of a token after further ones, at each head's mean decay on this text.",
            fading,
            {"xaxis": _axis("tokens later"), "yaxis": _axis("share left")},
            choice="Block",
            tables=tables,
        ),
    ]


def _inside(part: Holographic, x: Tensor) -> tuple[Any, Any, Any, Tensor, Tensor, Tensor]:
    """x (1, T, C) -> q, k, v, log a, b and the plates after each token, as in `memory.py`."""
    from holo_cli.models.holographic.memory import Memory, store
    from holo_cli.models.holographic.phasors import Pair

    memory = part.memory
    assert isinstance(memory, Memory)
    q, k = memory.binding.keys(x, 0)
    log_a, b = memory.dial(x)
    v = memory.binding.value(part.values(x))
    plates = store(k, Pair(v.re * b[..., None], v.im * b[..., None]), log_a)
    return q, k, v, log_a, b, plates


def agreement(q: Any, k: Any) -> list[Tensor]:
    """Queries and keys (1, H, T, R, f) -> Re of conj(q_t) k_s, mean over plates and channels:
    (T, T) per head, NaN where s > t."""
    import torch

    heads = []
    for h in range(q.re.shape[1]):
        parts = [(a[0, h].flatten(1), b[0, h].flatten(1)) for a, b in zip(q, k, strict=True)]
        mean = sum((a @ b.T for a, b in parts), torch.zeros(())) / parts[0][0].shape[1]
        future = torch.ones_like(mean, dtype=torch.bool).triu(1)
        heads.append(mean.masked_fill(future, float("nan")))
    return heads


def recalled(k: Any, v: Any, plates: Tensor) -> Tensor:
    """Cosine of conj(k_s) M_T with v_s, mean over heads, (R + 1, T): each plate, then all."""
    import torch

    from holo_cli.models.holographic.phasors import Pair

    last = plates[:, :, -1:]  # (1, H, 1, R, 2, f)
    seen = k.conj_times(Pair(last[..., 0, :], last[..., 1, :]))  # (1, H, T, R, f)
    answers = [torch.cat((part, part.mean(3, keepdim=True)), dim=3) for part in seen]
    back = torch.cat(answers, dim=-1)  # (1, H, T, R + 1, 2 f)
    stored = torch.cat(tuple(v), dim=-1)[:, :, :, None]
    return torch.cosine_similarity(back, stored, dim=-1)[0].mean(0).T


def _forgetting(name: str, rate: Tensor, entry: Tensor) -> Table:
    half = 0.6931471805599453 / rate
    rows = [
        [h + 1, _short(life), _short(share)]
        for h, (life, share) in enumerate(zip(half.tolist(), entry.tolist(), strict=True))
    ]
    return Table(f"{name}: forgetting", ["Head", "Half-life, tokens", "Mean input gate"], rows)


# -- the long filter ------------------------------------------------------------------------------


def _filter_pictures(filters: dict[str, Any]) -> list[Picture]:
    import torch

    spectra, fading = {}, {}
    length = AGES[-1]
    for name, part in filters.items():
        conv: FFTConv = part
        size = conv.filter(length)  # (H, e, T)
        power = torch.fft.rfft(size, dim=-1).abs().mean(1)  # (H, T / 2 + 1)
        at = sorted({round(2**i * step) for i in range(12) for step in (1.0, 1.4)})
        left = size.abs().mean(1)
        times = [age for age in AGES if age < length]
        heads = range(size.shape[0])
        spectra[name] = [
            _line(f"head {h + 1}", [i / length for i in at], power[h][at], h) for h in heads
        ]
        fading[name] = [_line(f"head {h + 1}", times, left[h][times], h) for h in heads]
    return [
        Picture(
            "Spectra of the filters",
            "How strongly each head answers to what repeats so often per token, mean over its "
            "channels.",
            spectra,
            {"xaxis": _axis("repeats per token", log=True), "yaxis": _axis("gain", log=True)},
            choice="Block",
        ),
        Picture(
            "How fast it fades",
            "The size of what is left of a token after further ones, mean over channels.",
            fading,
            {"xaxis": _axis("tokens later"), "yaxis": _axis("size left", log=True)},
            choice="Block",
        ),
    ]


# -- categories -----------------------------------------------------------------------------------


def _plane(part: Experts, x: Tensor, chosen: Tensor) -> list[Trace]:
    """Tokens (T, C) by the category chosen, (T,), and the categories, on two directions."""
    import torch

    category = part.category.weight.to(x.dtype)
    centre = category.mean(0)
    if part.experts > 2:
        directions = torch.linalg.svd((category - centre).float(), full_matrices=False).Vh[:2]
    else:  # two categories differ in one direction only
        line = torch.nn.functional.normalize((category[0] - category[1]).float(), dim=0)
        rest = x.float() - (x.float() @ line)[:, None] * line
        other = torch.linalg.svd(rest - rest.mean(0), full_matrices=False).Vh[0]
        directions = torch.stack((line, other))
    dots, crosses = x.float() @ directions.T, category.float() @ directions.T
    traces: list[Trace] = []
    for j in range(part.experts):
        members = [t for t, c in enumerate(chosen.tolist()) if c == j]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"category {j + 1}",
                "x": _plain(dots[members, 0]),
                "y": _plain(dots[members, 1]),
                "text": [f"position {t}" for t in members],
                "tint": j,
            }
        )
    for j in range(part.experts):
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"vector of category {j + 1}",
                "x": _plain(crosses[j : j + 1, 0]),
                "y": _plain(crosses[j : j + 1, 1]),
                "marker": {"symbol": "x", "size": 12},
                "tint": j,
            }
        )
    return traces


def _categories(name: str, part: Experts, shares: Tensor, chosen: Tensor) -> Table:
    rows: list[list[object]] = []
    for j in range(part.experts):
        belongs = (chosen == j).any(1)
        order = shares[:, j].argsort(descending=True).tolist()
        typical = [t for t in order if bool(belongs[t])][:TYPICAL]
        share = _short(belongs.float().mean().item())
        rows.append([j + 1, share, ", ".join(map(str, typical))])
    columns = ["Category", "Share of the tokens", "Positions of its most typical tokens"]
    return Table(f"{name}: categories", columns, rows)


# -- small helpers --------------------------------------------------------------------------------


def _caught(
    model: LanguageModel, tokens: Tensor, kind: type[nn.Module]
) -> list[tuple[str, Any, Tensor]]:
    """(block's name, part, its input) for each part of a kind, from one pass over the text."""
    blocks: Any = model.blocks
    parts = [
        (f"Block {i}", part)
        for i, block in enumerate(blocks, start=1)
        for part in block.children()
        if isinstance(part, kind)
    ]
    with watched([part for _, part in parts]) as calls:
        model.hidden(tokens[None])
    return [(name, part, x) for (name, part), (x, _) in zip(parts, calls, strict=True)]


def _heat(values: Tensor) -> Trace:
    rows = [[None if v != v else _short(v) for v in row] for row in values.tolist()]
    return {"type": "heatmap", "z": rows, "zmin": -1, "zmax": 1, "colorscale": "RdBu"}


def _line(name: str, x: Iterable[float], y: Tensor, tint: int) -> Trace:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": list(x),
        "y": _plain(y),
        "tint": tint,
    }


def _ages(like: Tensor) -> Tensor:
    import torch

    return torch.tensor(AGES, dtype=like.dtype, device=like.device)


def _axis(title: str, *, log: bool = False, reverse: bool = False) -> dict[str, Any]:
    axis: dict[str, Any] = {"title": {"text": title}}
    if log:
        axis["type"] = "log"
    if reverse:
        axis["autorange"] = "reversed"
    return axis


def _plain(values: Tensor) -> Sequence[float]:
    return [_short(v) for v in values.tolist()]


def _short(value: float) -> float:
    return float(f"{value:.4g}")
