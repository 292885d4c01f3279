"""brain-v2's pages: writes and reads of the memory, selected tokens, pondering steps.

One forward pass over the text records the input of each part; what the pass does not keep is
recomputed from it. Legend: T tokens, H heads, d per head, C width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holo_cli.errors import UsageError
from holo_cli.models.brain_v2.story_views import pondered, selected_tokens, taught
from holo_cli.models.figures import axis, bar, caught, heat, line, short
from holo_cli.models.suffix_views import proposals
from holo_cli.models.views import Picture, Table, Tokens

if TYPE_CHECKING:
    from torch import Tensor

    from holo_cli.models.base import LanguageModel
    from holo_cli.models.brain_v2.attention import SelectiveAttention
    from holo_cli.models.brain_v2.episodic import EpisodicMemory
    from holo_cli.models.brain_v2.model import Model

PAGES = {
    "memory": "what the episodic memory writes and reads at each token, one-shot binding",
    "attention": "which tokens attention selects, and the weights among them",
    "depth": "how many steps each token ponders",
}
LIVE = {
    "memory": ("What each token reads", "What each token writes"),
    "attention": ("Attention among selected tokens",),
}


# -- memory ---------------------------------------------------------------------------------------


def memory(model: LanguageModel, tokens: Tensor) -> list[Picture]:
    """Figures of every episodic memory, by its block; (T,) int64 tokens."""
    from holo_cli.models.brain_v2.episodic import EpisodicMemory

    found = caught(model, tokens, EpisodicMemory)
    brain = _brain(model)
    exact = [proposals(brain, tokens)] if brain.suffix is not None else []
    if not found and exact:
        return exact
    if not found:
        if brain.config.crowded_out:
            raise UsageError(
                "This model was trained without an episodic memory: attention has every layer that "
                "it would have (model.attention_every and model.memory_every).",
                next_step="Train with --set model.attention_every=4 --set model.memory_every=2, or "
                "with --set model.layout=added.",
            )
        raise UsageError(
            "This model was trained without an episodic memory (model.memory is none, or "
            "model.memory_every is above model.layers).",
            next_step="Train with --set model.memory=delta --set model.memory_every=2.",
        )
    written, read, bound, tables, tests = {}, {}, {}, [], {}
    for name, part, u in found:
        log_alpha, beta = part.gates(u)  # (1, H, T)
        positions = range(u.shape[1])
        written[name] = [line(f"head {h + 1}", positions, beta[0, h], h) for h in range(part.heads)]
        for h, weights in enumerate(reading(part, u), start=1):
            read[f"{name}, head {h}"] = [heat(weights, scale="signed")]
        cosines = binding(part, u)
        bound[name] = [
            line(label, positions, values, i) for i, (label, values) in enumerate(cosines.items())
        ]
        tests[name] = (*cosines.values(), beta[0].mean(0))
        tables.append(_gates_table(name, log_alpha[0].mean(1), beta[0].mean(1)))
    best = max(tests, key=lambda name: float((tests[name][1] - tests[name][0]).mean()))
    return [
        Picture(
            "What each token writes",
            "The write gate beta of each token: near 1 the value stored under its key is replaced, "
            "near 0 nothing is written.",
            written,
            {"xaxis": axis("token"), "yaxis": axis("beta")},
            choice="Block",
            opens=best,
            see=taught(best, *tests[best], alone=len(tests) == 1),
            tables=tables,
            token_axes=("xaxis",),
        ),
        Picture(
            "What each token reads",
            "How much a token (row) reads of the value written at an earlier token (column): the "
            "product of its query with that key, times the decay since. Negative reads the "
            "opposite.",
            read,
            {"xaxis": axis("written at"), "yaxis": axis("read at", reverse=True)},
            choice="Head",
            opens=f"{best}, head 1",
            token_axes=("xaxis", "yaxis"),
        ),
        Picture(
            "One-shot binding",
            "The memory is read with each token's own key: the cosine of the result with the "
            "token's value, mean over heads, just before the token was written, just after, and at "
            "the end of the text. From before to after is what one example teaches; from after to "
            "the end is what later tokens overwrote.",
            bound,
            {"xaxis": axis("token"), "yaxis": axis("cosine")},
            choice="Block",
            opens=best,
            token_axes=("xaxis",),
        ),
        *exact,
    ]


def reading(part: EpisodicMemory, u: Tensor) -> list[Tensor]:
    """u (1, T, C) -> exp(G_t - G_s) q_t.k_s, the weight of what was written at s in what t reads,
    (T, T) per head, NaN where s > t."""
    import torch

    q, k, _ = part.keys(u)
    total = part.gates(u)[0].cumsum(2)[..., None]  # (1, H, T, 1)
    past = torch.ones(u.shape[1], u.shape[1], dtype=torch.bool, device=u.device).tril()
    left = (total - total.mT).masked_fill(~past, float("-inf")).exp()
    return list(((q @ k.mT) * left).masked_fill(~past, float("nan"))[0])


def binding(part: EpisodicMemory, u: Tensor) -> dict[str, Tensor]:
    """u (1, T, C) -> cosines of S^T k_s with v_s, (T,) each, mean over heads, for the memory S just
    before s, just after it, and at the end."""
    import torch

    from holo_cli.models.brain_v2.episodic import chunk_delta_rule

    q, k, v = part.keys(u)
    log_alpha, beta = part.gates(u)

    def asked(state: Tensor, at: slice) -> Tensor:
        back = k[:, :, at] @ state  # (1, H, ., d)
        return torch.cosine_similarity(back, v[:, :, at], dim=-1)[0].mean(0)

    state = u.new_zeros(1, part.heads, part.head_width, part.head_width, dtype=k.dtype)
    before, after = [], []
    for t in range(u.shape[1]):
        at = slice(t, t + 1)
        before.append(asked(state, at))
        now = (q[:, :, at], k[:, :, at], v[:, :, at], log_alpha[:, :, at], beta[:, :, at])
        _, state = chunk_delta_rule(*now, state=state, delta=part.delta)
        after.append(asked(state, at))
    return {
        "before": torch.cat(before),
        "after": torch.cat(after),
        "at the end": asked(state, slice(None)),
    }


def _gates_table(name: str, log_alpha: Tensor, beta: Tensor) -> Table:
    lives = (0.6931471805599453 / -log_alpha).tolist()
    rows = [
        [h + 1, short(life), short(share)]
        for h, (life, share) in enumerate(zip(lives, beta.tolist(), strict=True))
    ]
    return Table(f"{name}: gates", ["Head", "Half-life, tokens", "Mean share written"], rows)


# -- attention ------------------------------------------------------------------------------------


def attention(model: LanguageModel, tokens: Tensor) -> list[Picture]:
    """Scores, selected tokens, and the weights among them; (T,) int64 tokens."""
    from holo_cli.models.brain_v2.attention import SelectiveAttention

    found = caught(model, tokens, SelectiveAttention)
    if not found:
        raise UsageError(
            "This model was trained without attention (model.attention_every is 0 or above "
            "model.layers).",
            next_step="Train with --set model.attention_every=4.",
        )
    scores, heats, tables, margins = {}, {}, [], {}
    slots = _brain(model).slots(tokens[None])
    for name, part, u in found:
        margin = part.margin(u, slots)[0]
        chosen = part.selected(u, slots).flat
        margins[name] = margin, chosen
        scores[name] = [
            line("score above the threshold", range(len(margin)), margin, 0),
            {
                **line("selected", chosen.tolist(), margin[chosen], 1),
                "mode": "markers",
                "marker": {"size": 10, "symbol": "circle-open"},
            },
        ]
        for h, weights in enumerate(selected_weights(part, u, slots), start=1):
            heats[f"{name}, head {h}"] = [heat(weights, scale="weight")]
        share = short(len(chosen) / len(margin))
        row = [share, Tokens(chosen.tolist())]
        tables.append(Table(f"{name}: selected", ["Share", "Tokens"], [row]))
    best = max(margins, key=lambda name: float(margins[name][0].std(correction=0)))
    return [
        Picture(
            "Which tokens are selected",
            "Each token's score minus the learned threshold. Tokens above 0 are selected, "
            "unless too many before them were; no later token changes that.",
            scores,
            {"xaxis": axis("token"), "yaxis": axis("score")},
            choice="Block",
            opens=best,
            see=selected_tokens(best, *margins[best]),
            tables=tables,
            token_axes=("xaxis",),
        ),
        Picture(
            "Attention among selected tokens",
            "Softmax weights of a selected token (row) on the selected ones before it (column). "
            "All other tokens take no part.",
            heats,
            {"xaxis": axis("earlier token"), "yaxis": axis("token", reverse=True)},
            choice="Head",
            opens=f"{best}, head 1",
            token_axes=("xaxis", "yaxis"),
        ),
    ]


def selected_weights(
    part: SelectiveAttention, u: Tensor, slots: Tensor | None = None
) -> list[Tensor]:
    """u (1, T, C) and language slots (1, T) -> softmax weights at the tokens' own places, (T, T)
    per head; NaN where one of the two is not selected, or later."""
    import torch

    chosen = part.selected(u, slots)
    q, k, _ = part.project(u, chosen)  # (N, H, d)
    score = torch.einsum("nhd,mhd->hnm", q.float(), k.float()) * part.head_width**-0.5
    past = torch.ones_like(score[0], dtype=torch.bool).tril()
    weights = score.masked_fill(~past, float("-inf")).softmax(-1)
    whole = weights.new_full((part.heads, u.shape[1], u.shape[1]), float("nan"))
    rows, columns = chosen.flat[:, None], chosen.flat[None]
    whole[:, rows, columns] = weights.masked_fill(~past, float("nan"))
    return list(whole)


# -- depth ----------------------------------------------------------------------------------------


def depth(model: LanguageModel, tokens: Tensor) -> list[Picture]:
    """Steps per token and block; (T,) int64 tokens."""
    from holo_cli.models.brain_v2.ponder import Ponder

    found = caught(model, tokens, Ponder)
    if not found:
        raise UsageError(
            "This model does not ponder (model.ponder is 1): every token takes one step.",
            next_step="Train with --set model.ponder=4.",
        )
    results = [(name, part.ponder(u[0])) for name, part, u in found]
    best, deepest = max(results, key=lambda result: float(result[1].mean.std(correction=0)))
    positions = range(len(tokens))
    taken = {
        name: [
            bar("steps taken", positions, result.steps.tolist(), 0),
            line("steps by weight", positions, result.mean, 1),
        ]
        for name, result in results
    }  # fmt: skip
    rows = [
        [name, short(result.steps.float().mean().item()), short(result.mean.mean().item())]
        for name, result in results
    ]
    return [
        Picture(
            "Pondering steps of each token",
            "Steps of the block's MLP that a token takes before it stops, and the mean step, each "
            "weighted by the probability that it is the last.",
            taken,
            {
                "xaxis": axis("token"),
                "yaxis": axis("steps") | {"dtick": 1, "rangemode": "tozero"},
            },
            choice="Block",
            opens=best,
            see=pondered(best, deepest.mean),
            tables=[Table("Means", ["Block", "Steps taken", "Steps by weight"], rows)],
            token_axes=("xaxis",),
        )
    ]


def _brain(model: LanguageModel) -> Model:
    from holo_cli.models.brain_v2.model import Model

    assert isinstance(model, Model)
    return model
