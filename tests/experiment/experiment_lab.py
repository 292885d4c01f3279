"""A prepared set, and workers that answer by formula: a whole experiment in a second."""

from __future__ import annotations

import sys
from pathlib import Path

from holo_cli.data.prepare.prepare import prepare

# The loss of a pretended run: a parabola over the rate with its lowest point where the model has
# it, and a little that depends on the seed. `lorentz` fails, `gaussian` fails at high rates.
WORKER = """
import json, math, os, sys, time
job = json.load(sys.stdin)
resolved = job["resolved"]
config = resolved["config"]
kernel = config["model"].get("kernel")
rate = config["training"]["lr"] / 0.02
seed = config["training"]["seed"]
def say(**event): print(json.dumps(event), flush=True)
if job["task"] == "throughput":
    say(event="result", steps={"vanilla": 40, "ngt": 20}[resolved["model"]])
    sys.exit()
if job["task"] == "cost":
    say(event="result", step_seconds=0.5, evaluation_seconds=2.0, measuring_seconds=0.0, threads=1)
    sys.exit()
if kernel == "lorentz" or (kernel == "gaussian" and rate > 1):
    say(event="failed", kind="TrainingError", error="Training diverged at step 3.")
    sys.exit(1)
if os.environ.get("BREAK") == f"{resolved['model']} x{rate:g} seed {seed}":
    os.kill(os.getpid(), 9)
if os.environ.get("DIVERGE") == f"{resolved['model']} x{rate:g} seed {seed}":
    say(event="failed", kind="TrainingError", error="Training diverged at step 3.")
    sys.exit(1)
best = {"vanilla": 1.0, "ngt": 4.0}[resolved["model"]]
steps = config["training"]["steps"]
loss = 2.0 + 0.1 * math.log2(rate / best) ** 2 + 0.001 * (seed * 7 % 5) + 10 / steps
if resolved["model"] == "ngt":
    loss -= 0.05
curve = [dict(step=s, tokens=s * 128, val_loss=loss + 1 - s / steps, bpb=1.4 * loss,
              train_seconds=s * 0.1) for s in (steps // 2, steps)]
say(event="train", step=steps, steps=steps, loss=loss)
say(event="result", val_loss=loss, best_val_loss=loss - 1, bpb=1.4 * loss, steps=steps,
    tune_loss=loss, test_loss=loss, test_bpb=1.4 * loss, test_tokens=100,
    tokens=steps * 128, train_seconds=steps * 0.1, eval_seconds=0.1, tokens_per_second=1280.0,
    peak_rss_bytes=300_000_000, stopped_by="steps", curve=curve,
    train_curve=[[128, loss, 0.1]], threads=1, resumed=False, cpu_seconds=1.0)
"""
TEXT = "the old fox ran over a quiet hill and saw the sea before night fell"
COMMAND = [sys.executable, "-S", "-c", WORKER]


def write_set(folder: Path, documents: int = 30) -> Path:
    """Characters, some thousand tokens."""
    words = TEXT.split()
    texts = (" ".join(words[(i * j) % len(words)] for j in range(1, 25)) for i in range(documents))
    source = folder / "words.txt"
    source.write_text("\n\n".join(texts), encoding="utf-8")
    prepare(["words"], source=str(source), out=folder / "words", tokenizer="char")
    return folder / "words"


PLAN = """
rates = [0.5, 1.0]
seeds = 2
extend = 2
evaluations = 2
[base.model]
layers = 1
heads = 2
width = 32
context = 16
[base.training]
steps = 20
batch_size = 8
warmup = 2
[entry.vanilla]
model = "vanilla"
[entry.ngt]
model = "ngt"
"""
