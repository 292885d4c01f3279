"""Speed of the batch behind `holo serve` against `transformers`, on one exported vanilla model.

    holo train --model vanilla --recipe classic --preset tiny --data stories --run classic
    holo export classic --to hf --out classic-hf
    python benchmarks/serving_transformers.py -c classic --hf classic-hf

Both write the same greedy tokens from the same prompts in this process, one row and many rows at a
time, in turns; prompts have one length, since padded prompts would cost transformers more. HTTP is
not part of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from holo_cli.inference.generation.loaded_model import LoadedModel, load
from holo_cli.inference.generation.sampling import SamplingConfig
from holo_cli.inference.generation.stream import TextStream
from holo_cli.serve.batch import Batch
from holo_cli.serve.prefixes import Prefixes
from holo_cli.serve.rows import BatchRow, GenerationJob, RowEvent

PROMPT, NEW = 16, 64  # tokens


def written_here(loaded: LoadedModel, prompts: list[list[int]]) -> list[list[int]]:
    """New tokens of each prompt by a batch."""
    batch = Batch(loaded, Prefixes(0))
    sampling = SamplingConfig(max_new_tokens=NEW, temperature=0, span_penalty=0.0)

    def ignore(event: RowEvent) -> None:
        pass

    rows = []
    for ids in prompts:
        job = GenerationJob(loaded, sampling, ignore)
        rows.append(BatchRow(job, 0, list(ids), None, TextStream(loaded.tokenizer)))
        batch.admit(rows[-1])
    while len(batch):
        batch.step()
    return [row.ids[PROMPT:] for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-c", "--checkpoint", required=True, help="of the classic recipe")
    parser.add_argument("--hf", required=True, type=Path, help="the same, exported")
    parser.add_argument("--rows", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    asked = parser.parse_args()
    from transformers import AutoModelForCausalLM

    loaded = load(asked.checkpoint, device="cpu")
    loaded.engine.end, loaded.engine.characters = None, None  # transformers may draw any token
    loaded.engine.banned = loaded.engine.banned[:0]
    other = AutoModelForCausalLM.from_pretrained(asked.hf).eval()
    other.generation_config.eos_token_id = None
    make = torch.Generator().manual_seed(0)
    vocabulary = loaded.tokenizer.vocab_size
    drawn = torch.randint(0, vocabulary, (asked.rows, PROMPT), generator=make)

    def theirs(prompts: list[list[int]]) -> list[list[int]]:
        ids = torch.tensor(prompts)
        with torch.inference_mode():
            out = other.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, min_new_tokens=NEW,
                do_sample=False, pad_token_id=0,
            )  # fmt: skip
        found: list[list[int]] = out[:, PROMPT:].tolist()
        return found

    for rows in (1, asked.rows):
        prompts = drawn[:rows].tolist()
        speeds: dict[str, list[float]] = {"holo": [], "transformers": []}
        texts = {}
        for _ in range(asked.rounds):
            for name, write in (
                ("holo", lambda p: written_here(loaded, p)),
                ("transformers", theirs),
            ):
                began = time.perf_counter()
                texts[name] = write(prompts)
                speeds[name].append(rows * NEW / (time.perf_counter() - began))
        ratios = [a / b for a, b in zip(speeds["holo"], speeds["transformers"], strict=True)]
        median = {name: round(statistics.median(found)) for name, found in speeds.items()}
        found = {
            "rows": rows,
            "same_tokens": texts["holo"] == texts["transformers"],
            "tokens_per_second": median,
            "ratio": round(statistics.median(ratios), 2),
            "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
        }
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
