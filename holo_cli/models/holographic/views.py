"""holographic's pages: phase agreement, and what the plates retain and forget.

One forward pass over the text records the input of each part; what the pass does not keep (phases,
plates, affinities) is recomputed from it.
Legend: T tokens, H heads, e = C / H, R plates, f complex channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from holo_cli.errors import UsageError
from holo_cli.models.figures import Trace, axis, caught, heat, line, named, short
from holo_cli.models.holographic.category_views import experts
from holo_cli.models.views import Picture, See, Table, Weights

if TYPE_CHECKING:
    from torch import Tensor

    from holo_cli.models.base import LanguageModel
    from holo_cli.models.holographic.fftconv import FFTConv
    from holo_cli.models.holographic.mixer import Holographic

__all__ = ["PAGES", "experts", "interference"]

PAGES = {
    "interference": "what each token reads, what the plates retain, how fast it fades",
    "experts": "which category each token falls into",
}
LIVE = {"interference": ("What each plate retains",)}
AGES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


def interference(model: LanguageModel, tokens: Tensor) -> list[Weights | Picture]:
    """Figures of every holographic layer, by their block; (T,) int64 tokens."""
    from holo_cli.models.holographic.memory import Memory
    from holo_cli.models.holographic.mixer import Holographic

    found = caught(model, tokens, Holographic)
    if not found:
        raise UsageError(
            "This model was trained with mixer 'classic', whose formula combines no two tokens, so "
            "there is no interference.",
            next_step="Train with --set model.mixer=memory.",
        )
    memories = {name: (part, x) for name, part, x in found if isinstance(part.memory, Memory)}
    if memories:
        return _memory_pictures(memories)
    return [*_filter_pictures({name: part.memory for name, part, _ in found})]


# -- the memory -----------------------------------------------------------------------------------


def _memory_pictures(
    memories: dict[str, tuple[Holographic, Tensor]],
) -> list[Weights | Picture]:
    from holo_cli.models.holographic.memory import Memory

    phases, spectra, kept, fading = {}, {}, {}, {}
    tables, loud = [], []
    for name, (part, x) in memories.items():
        memory = part.memory
        assert isinstance(memory, Memory)
        q, k, v, log_a, b, plates = _inside(part, x)
        loud.append(loudness(q, k, log_a, b))
        for h, table in enumerate(agreement(q, k), start=1):
            # two decimals: a long text's tables of every head are what makes a page large
            phases[f"{name}, head {h}"] = [heat(table.round(decimals=2), scale="signed")]
        heads = range(plates.shape[1])
        energy = plates[0, :, -1].square().sum(2).mean(1)  # (H, f)
        spectra[name] = [line(f"head {h + 1}", range(memory.channels), energy[h], h) for h in heads]
        recall = recalled(k, v, plates)  # (R + 1, T)
        labels = [f"plate {r + 1}" for r in range(memory.plates)] + ["all plates"]
        positions = range(recall.shape[1])
        kept[name] = [line(label, positions, recall[i], i) for i, label in enumerate(labels)]
        rate = -log_a[0].mean(1)  # (H,)
        fading[name] = [
            line(f"head {h + 1}", AGES[1:], (-rate[h] * _ages(rate)).exp()[1:], h) for h in heads
        ]
        tables.append(_forgetting(name, rate, b[0].mean(1)))
    best, see = _retention(kept)
    return [
        Weights(
            loud,
            list(memories),
            "The memory has no pairwise weights. Shown is the magnitude of each earlier token in "
            "what a token reads: its input gate times the decay since, times the magnitude after "
            "interference of the plates, mean over channels, normalized to sum to 1.",
            title="What each token reads",
        ),
        Picture(
            "What each plate retains",
            "At the end of the text each token's value is read back with its own key: the cosine "
            "of the result with the stored value, mean over heads. Plates have phases of their "
            "own, so their errors differ and their mean is more accurate than each. "
            f"{_rotated(memories)}",
            kept,
            {"yaxis": axis("cosine")},
            choice="Block",
            opens=best,
            see=see,
            token_axes=("xaxis",),
        ),
        Picture(
            "Phase agreement",
            "How well the query of a token (row) is in phase with the key of an earlier one "
            "(column): 1 reads its value back in full, 0 is random, -1 negated. Mean over "
            "plates and channels, before decay.",
            phases,
            {"xaxis": axis("key"), "yaxis": axis("query", reverse=True)},
            choice="Head",
            token_axes=("xaxis", "yaxis"),
            folded=True,
        ),
        Picture(
            "Spectra of the plates",
            "Energy of each complex channel at the end of the text, mean over plates. Within a "
            "plate that rotates, channels are ordered by their rate, slowest first.",
            spectra,
            {"xaxis": axis("channel"), "yaxis": axis("energy", log=True)},
            choice="Block",
            folded=True,
        ),
        Picture(
            "How fast it fades",
            "What is left of a token after further tokens, at each head's mean decay on this text.",
            fading,
            {"xaxis": axis("tokens later", log=True), "yaxis": axis("share left")},
            choice="Block",
            tables=tables,
            folded=True,
        ),
    ]


def _rotated(memories: dict[str, tuple[Holographic, Tensor]]) -> str:
    """Which plates position rotates, in a sentence: all blocks have the same ones."""
    config = next(iter(memories.values()))[0].config
    turning = config.rope_fraction * config.plates
    if turning == config.plates:
        return "Position rotates all of them."
    if turning == 0:
        return "Position rotates none of them."
    if turning == round(turning):
        return (
            f"Position rotates the first {round(turning)} of the {config.plates} plates, which so "
            "tell distances; the others carry content alone."
        )
    return (
        f"Position rotates {config.rope_fraction:.0%} of the phases, beginning with those of the "
        "first plate; the others carry content alone."
    )


def _retention(kept: dict[str, list[Trace]]) -> tuple[str, See]:
    """The block whose plates give tokens back the best, and the sentence about it."""
    means = {name: traces[-1]["y"] for name, traces in kept.items()}  # of all plates
    best = max(means, key=lambda name: sum(means[name]) / len(means[name]))
    cosines = means[best]
    order = sorted(range(len(cosines)), key=cosines.__getitem__)

    def see(labels: Sequence[str]) -> str:
        return (
            f"At the end of the text {best} gives values back with a cosine of "
            f"{sum(cosines) / len(cosines):.2f} on average: {named(labels, order[-1:])} best, "
            f"{cosines[order[-1]]:.2f}, and {named(labels, order[:1])} worst, "
            f"{cosines[order[0]]:.2f}."
        )

    return best, see


def _inside(part: Holographic, x: Tensor) -> tuple[Any, Any, Any, Tensor, Tensor, Tensor]:
    """x (1, T, C) -> q, k, v, log a, b and the plates after each token, as in `memory.py`."""
    from holo_cli.models.holographic.memory import Memory, store
    from holo_cli.models.holographic.phasors import Pair

    memory = part.memory
    assert isinstance(memory, Memory)
    q, k = memory.binding.keys(x)
    log_a, b = memory.gates(x)
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


def loudness(q: Any, k: Any, log_a: Tensor, b: Tensor) -> Tensor:
    """Queries and keys (1, H, T, R, f), log a and b (1, H, T) -> (H, T, T), rows of sum 1:
    b_s exp(G_t - G_s) |mean over plates of conj(q_t) k_s|, mean over channels, for s <= t."""
    import torch

    plates = q.re.shape[3]
    heads = []
    for h in range(q.re.shape[1]):
        q_re, q_im, k_re, k_im = (part[0, h] for part in (*q, *k))  # (T, R, f)
        re = torch.einsum("trf,srf->tsf", q_re, k_re) + torch.einsum("trf,srf->tsf", q_im, k_im)
        im = torch.einsum("trf,srf->tsf", q_re, k_im) - torch.einsum("trf,srf->tsf", q_im, k_re)
        total = log_a[0, h].cumsum(0)
        left = b[0, h] * (total[:, None] - total).clamp_max(0.0).exp()
        heads.append((left * torch.hypot(re, im).mean(-1) / plates).tril())
    loud = torch.stack(heads)
    return loud / loud.sum(-1, keepdim=True).clamp_min(1e-30)


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
        [h + 1, short(life), short(share)]
        for h, (life, share) in enumerate(zip(half.tolist(), entry.tolist(), strict=True))
    ]
    return Table(f"{name}: forgetting", ["Head", "Half-life, tokens", "Mean input gate"], rows)


# -- the long filter ------------------------------------------------------------------------------


def _filter_pictures(filters: dict[str, Any]) -> list[Picture]:
    import torch

    spectra, fading, remaining = {}, {}, {}
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
            line(f"head {h + 1}", [i / length for i in at], power[h][at], h) for h in heads
        ]
        fading[name] = [line(f"head {h + 1}", times, left[h][times], h) for h in heads]
        remaining[name] = float((left[:, 64] / left[:, 0].clamp_min(1e-30)).mean())
    best = max(remaining, key=remaining.__getitem__)
    fading_left = remaining[best]
    return [
        Picture(
            "Spectra of the filters",
            "Gain of each head at each frequency (repeats per token), mean over its channels.",
            spectra,
            {"xaxis": axis("repeats per token", log=True), "yaxis": axis("gain", log=True)},
            choice="Block",
            opens=best,
            see=lambda _: (
                f"{best} remembers the longest: of a token {fading_left:.0%} is left after 64 "
                "tokens, mean over heads."
            ),
        ),
        Picture(
            "How fast it fades",
            "The magnitude left of a token after further tokens, mean over channels.",
            fading,
            {"xaxis": axis("tokens later"), "yaxis": axis("magnitude left", log=True)},
            choice="Block",
        ),
    ]


def _ages(like: Tensor) -> Tensor:
    import torch

    return torch.tensor(AGES, dtype=like.dtype, device=like.device)
