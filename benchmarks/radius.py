"""Time of ngt's weighted mean with a hard radius and without one, on a checkpoint's coordinates.

    python benchmarks/radius.py --checkpoint NAME --data SET --threads 1

The first 4,096 tokens of the validation text go through the model; then each layer is timed in
interleaved rounds: the radius, none, and the slow reference `general_attention`. Prints a row each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from holo_cli.checkpoint.rebuild import load_model
from holo_cli.data.dataset import PreparedData
from holo_cli.layers.norm import rms_norm
from holo_cli.models.backbone import Backbone
from holo_cli.models.ngt.diagnostics import gravity_mixers
from holo_cli.models.ngt.radius import attention_within_radius, general_attention


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, _, _ = load_model(args.checkpoint)
    assert isinstance(model, Backbone)
    text = PreparedData(args.data).split("val")[0][: args.tokens].astype("int64")
    tokens = torch.as_tensor(text)[None]
    x = rms_norm(model.embedding(tokens))
    z, stream = model.side_stream(tokens, x, None), model.value_stream(tokens, x)
    # processor time is free of other load, but counts both threads
    clock = time.process_time if args.threads == 1 else time.perf_counter
    pairs = zip(model.layers(), gravity_mixers(model), strict=True)
    for number, (block, mixer) in enumerate(pairs, 1):
        u = block.read(x)
        x, z, _ = block(x, stream, z)
        p, cutoff, kernel = (
            mixer.particles(u, z, mixer.masses(u), 0),
            mixer.radius_cutoff,
            mixer.kernel,
        )
        assert cutoff is not None
        far = kernel.squared(p.q, p.k) > cutoff.radius.square()[:, None, None]
        past = torch.ones(far.shape[-2:], dtype=torch.bool).tril(-1)
        given = (p.q, p.k, p.m, p.m.log(), p.v)
        times: dict[str, list[float]] = {"radius": [], "none": [], "reference": []}
        for _ in range(args.rounds):
            for name in times:
                start = clock()
                if name == "radius":
                    attention_within_radius(kernel, cutoff, *given)
                elif name == "none":
                    kernel.attention(p.q, p.k, p.m, p.v)
                else:
                    general_attention(kernel, cutoff, *given)
                times[name].append(clock() - start)
        ratios = [n / r for n, r in zip(times["none"], times["radius"], strict=True)]
        row: dict[str, float] = {"layer": number, "threads": args.threads}
        row |= {name: round(statistics.median(t) * 1e3, 1) for name, t in times.items()}
        row["cut"] = round(far[..., past].double().mean().item(), 3)
        row["none_by_radius"] = round(statistics.median(ratios), 2)
        row |= {"lowest": round(min(ratios), 2), "highest": round(max(ratios), 2)}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
