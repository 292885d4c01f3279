"""How much models repeat themselves: decoding options and training with a penalty, by language.

    python -m benchmarks.repetition --checkpoint plain penalized --data docs --out repetition.jsonl
    python -m benchmarks.repetition --out repetition.jsonl --summary

Each checkpoint continues the same passages of the validation text, once per decoding option,
greedily and sampled. Ends of texts are excluded, so that all samples have one length. The text's
own continuations are measured alike (`text`), which says what is natural. Measures, by language:

    distinct   distinct n-grams of words over all n-grams, n = 1 to 4, all samples together
    repeated   share of a sample's 3-grams of words that occurred in it before, mean over samples;
               `repeated_tokens` the same of tokens
    loops      share of samples whose last tokens are one sequence at least three times over
    known      share of words that occur in the training text: what a penalty breaks apart does not
    hindered   share of the tokens of the text's own continuations that the decoding option makes
               less than a tenth as likely: what it would forbid a good model to write
    loss       nats per token of the passages and their continuations, plain cross-entropy

Each row is appended to `--out`; stop at any time, and the same command continues.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from holo_cli.data.dataset import PreparedData
from holo_cli.data.language import HANGUL_SHARE, hangul_share
from holo_cli.data.tokenizers import Tokenizer
from holo_cli.errors import DataError, HoloError
from holo_cli.inference.generation.loaded_model import LoadedModel, load
from holo_cli.inference.generation.logits import BANNED, sample, shape_logits
from holo_cli.inference.generation.sampling import (
    GREEDY_SPAN_PENALTY,
    SamplingConfig,
    make_generators,
)
from holo_cli.parsing import parse_json
from holo_cli.training.loss import nats_per_token

DECODING: dict[str, dict[str, Any]] = {
    "plain": {"span_penalty": 0.0},
    "default": {},  # what holo does without options: a rule for greedy decoding alone
    "--repetition-penalty 1.2": {"repetition_penalty": 1.2},
    "--no-repeat-ngram-size 4": {"no_repeat_ngram_size": 4},
    "--span-penalty 0.4": {"span_penalty": 0.4},
    "--span-penalty 0.8": {"span_penalty": 0.8},
    "--span-penalty 1.6": {"span_penalty": 1.6},
}
TEMPERATURES = {"greedy": 0.0, "sampled": 0.8}
MOST_PERIOD, LEAST_LOOP = 64, 24  # tokens that repeat, and tokens that repetitions fill at least
LANGUAGES = {"en": "English", "ko": "Korean"}


class Passages(NamedTuple):
    """Passages of the validation text in one language: (N, P) to continue, (N, L) what follows."""

    prompts: Tensor
    following: Tensor


def passages(data: PreparedData, count: int, prompt: int, new: int) -> dict[str, Passages]:
    """Up to `count` passages of each language, evenly spaced over its documents, by language."""
    length = prompt + new
    found: dict[str, list[Tensor]] = {code: [] for code in LANGUAGES}
    for shard, ends in zip(data.split("val"), data.document_ends("val"), strict=True):
        begin = 0
        for end in ends.tolist():
            document = torch.as_tensor(shard[begin : end - 1].astype("int64"))  # without its end
            begin = end
            for piece in document.unfold(0, length, length) if len(document) >= length else ():
                korean = hangul_share(data.tokenizer.decode(piece.tolist())) >= HANGUL_SHARE
                found["ko" if korean else "en"].append(piece)
    chosen: dict[str, Passages] = {}
    for code, pieces in found.items():
        if len(pieces) >= min(count, 4):  # fewer are code without words, or names
            every = torch.stack(pieces)[:: max(1, len(pieces) // count)][:count]
            chosen[code] = Passages(every[:, :prompt], every[:, prompt:])
    if not chosen:
        raise DataError("The validation text has too few passages of this length.")
    return chosen


@torch.inference_mode()
def continued(loaded: LoadedModel, prompts: Tensor, new: int, config: SamplingConfig) -> Tensor:
    """(N, P) prompts -> (N, new) tokens, decoded in one batch by the rules of `holo generate`.

    No row ends early. Row n has the random numbers of sample n. P + new is within the context.
    """
    engine, model = loaded.engine, loaded.model
    banned = torch.cat([engine.banned, torch.tensor([loaded.tokenizer.end])])
    generators = make_generators(config)
    rows: list[list[int]] = prompts.tolist()
    begun, first = [b""] * len(rows), prompts.shape[1]
    state = model.init_state(len(rows))
    step = prompts.to(model.device)
    for left in range(new - 1, -1, -1):
        hidden, state = model.step_hidden(step, state)
        logits = model.head(hidden[:, -1])
        logits[:, banned.to(logits.device)] = BANNED
        if engine.characters is not None:
            logits = engine.characters.exclude(logits, begun, [left] * len(rows))
        logits = shape_logits(logits, rows, config, breakers=engine.breakers, prompt=first)
        tokens = sample(logits, generators)
        for n, token in enumerate(tokens.tolist()):
            rows[n].append(token)
            if engine.characters is not None:
                begun[n] = engine.characters.after(begun[n], token)
        step = tokens[:, None]
    return torch.tensor(rows)[:, first:]


@torch.inference_mode()
def loss(loaded: LoadedModel, texts: Passages) -> float:
    """Mean nats per token of the passages, all but their first token."""
    tokens = torch.cat([texts.prompts, texts.following], 1).to(loaded.model.device)
    hidden = loaded.model.hidden(tokens[:, :-1]).x
    return nats_per_token(hidden, loaded.model.head, tokens[:, 1:]).mean().item()


@torch.inference_mode()
def hindered(loaded: LoadedModel, texts: Passages, options: dict[str, Any]) -> float:
    """Share of the following tokens that an option makes less than a tenth as likely.

    Without options, by the rule that greedy decoding has by default.
    """
    first = texts.prompts.shape[1]
    tokens = torch.cat([texts.prompts, texts.following], 1)
    hidden = loaded.model.hidden(tokens.to(loaded.model.device)).x
    # temperature 1 leaves the probabilities as they are, and has no rule by default
    config = SamplingConfig(**(options or {"span_penalty": GREEDY_SPAN_PENALTY}), temperature=1.0)
    seen_from = 0 if options else first
    count = 0
    for t in range(first, tokens.shape[1]):
        logits = loaded.model.head(hidden[:, t - 1])
        breakers = loaded.engine.breakers
        shaped = shape_logits(logits, tokens[:, seen_from:t].tolist(), config, breakers=breakers)
        change = (shaped.log_softmax(1) - logits.log_softmax(1)).cpu()
        count += int((change.gather(1, tokens[:, t, None]) < math.log(0.1)).sum())
    return count / texts.following.numel()


def grams(units: Sequence[Any], n: int) -> list[tuple[Any, ...]]:
    return [tuple(units[i : i + n]) for i in range(len(units) - n + 1)]


def repeated(units: Sequence[Any], n: int = 3) -> float:
    """Share of n-grams that occurred before in the sample; 0 for a sample without any."""
    every = grams(units, n)
    return 1 - len(set(every)) / len(every) if every else 0.0


def loops(tokens: Sequence[int]) -> bool:
    """Whether the sample ends in one sequence at least three times over.

    >>> loops([9, *[1, 2, 3] * 8]), loops([9, *[1, 2, 3] * 7])
    (True, False)
    """
    for period in range(1, MOST_PERIOD + 1):
        needed = max(3 * period, LEAST_LOOP)
        tail = tokens[-needed:]
        if len(tail) == needed and tail[period:] == tail[:-period]:
            return True
    return False


def measures(samples: Tensor, tokenizer: Tokenizer, known: set[str]) -> dict[str, Any]:
    """The measures of (N, L) generated tokens."""
    ids: list[list[int]] = samples.tolist()
    words = [tokenizer.decode(row).split() for row in ids]
    pooled = {n: [g for row in words for g in grams(row, n)] for n in (1, 2, 3, 4)}
    whole = [w for row in words for w in row[1:-1]]  # the outermost may be cut
    return {
        "samples": len(ids),
        "distinct": [round(len(set(g)) / max(len(g), 1), 4) for g in pooled.values()],
        "repeated": round(statistics.fmean(map(repeated, words)), 4),
        "repeated_tokens": round(statistics.fmean(map(repeated, ids)), 4),
        "loops": round(statistics.fmean(map(loops, ids)), 4),
        "known": round(sum(w in known for w in whole) / max(len(whole), 1), 4),
        "words": round(statistics.fmean(map(len, words)), 1),
    }


def training_words(data: PreparedData) -> set[str]:
    """All words of the training text."""
    return {
        w for shard in data.split("train") for w in data.tokenizer.decode(shard.tolist()).split()
    }


RowKey = tuple[str, ...]  # data, checkpoint, temperature, decoding, language


def row_key(row: dict[str, Any]) -> RowKey:
    names = ("data", "checkpoint", "temperature", "decoding", "language")
    return tuple(row[name] for name in names)


def measure(
    loaded: LoadedModel | None,
    data: PreparedData,
    texts: dict[str, Passages],
    known: set[str],
    done: set[RowKey],
    decoding: Sequence[str] = tuple(DECODING),
) -> Iterator[dict[str, Any]]:
    """Rows of one checkpoint that are not `done`, or of the text itself (`loaded` None)."""
    if loaded is None:
        for code, text in texts.items():
            row = {
                "checkpoint": "text", "data": data.name, "temperature": "", "decoding": "",
                "language": code,
            }  # fmt: skip
            if row_key(row) not in done:
                yield row | measures(text.following, data.tokenizer, known)
        return
    training = loaded.header.config["training"]
    common = {
        "checkpoint": loaded.header.run,
        "model": loaded.header.model,
        "data": data.name,
        "unlikelihood": training.get("unlikelihood", 0.0),
        "unlikelihood_span": training.get("unlikelihood_span", 1),
        "val_loss": loaded.header.losses.val,
        "step": loaded.header.step,
    }
    for code, text in texts.items():
        own = {"language": code, "loss": round(loss(loaded, text), 4)}
        new = text.following.shape[1]
        for name in decoding:
            options = DECODING[name]
            left = [
                (heat, common | own | {"temperature": heat, "decoding": name})
                for heat in TEMPERATURES
                if heat == "greedy" or name != "default"  # sampling has no rule by default
            ]
            left = [(heat, row) for heat, row in left if row_key(row) not in done]
            share = round(hindered(loaded, text, options), 4) if left else 0.0
            for heat, row in left:
                temperature = TEMPERATURES[heat]
                config = SamplingConfig(
                    temperature=temperature, seed=0, num_samples=len(text.prompts), **options
                )
                samples = continued(loaded, text.prompts, new, config)
                found = measures(samples, loaded.tokenizer, known)
                yield row | {"hindered": share} | found


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: a table for each data set, language and temperature."""
    lines = []
    groups = sorted({(row["data"], row["language"]) for row in rows})
    names = list(dict.fromkeys(row["checkpoint"] for row in rows))
    order = list(DECODING)
    rows = sorted(
        rows,
        key=lambda row: (
            names.index(row["checkpoint"]),
            order.index(row["decoding"]) if row["decoding"] else 0,
        ),
    )
    for data, code in groups:
        own = [row for row in rows if (row["data"], row["language"]) == (data, code)]
        for heat in TEMPERATURES:
            lines += [
                f"**{data}, {LANGUAGES[code]}, {heat}**",
                "",
                "| checkpoint | loss | decoding | distinct 1 / 2 / 3 / 4 | repeated | loops "
                "| known words | hindered |",
                "|---|---:|---|---|---:|---:|---:|---:|",
            ]
            lines += [line(row) for row in own if row["temperature"] in ("", heat)]
            lines.append("")
    return "\n".join(lines)


def line(row: dict[str, Any]) -> str:
    cells = [
        row["checkpoint"],
        f"{row['loss']:.3f}" if "loss" in row else "",
        f"`{row['decoding']}`" if row["decoding"].startswith("-") else row["decoding"],
        " / ".join(f"{share:.2f}" for share in row["distinct"]),
        f"{row['repeated']:.1%}",
        f"{row['loops']:.0%}",
        f"{row['known']:.1%}",
        f"{row['hindered']:.1%}" if "hindered" in row else "",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", nargs="*", default=[], help="names of runs, or files")
    parser.add_argument("--data", type=Path, help="prepared set (default: the checkpoint's own)")
    parser.add_argument("--out", type=Path, required=True, help="file of rows to append to")
    parser.add_argument(
        "--passages", type=int, default=24, help="of each language (default: %(default)s)"
    )
    parser.add_argument(
        "--prompt", type=int, default=32, help="tokens to continue (default: %(default)s)"
    )
    parser.add_argument(
        "--new", type=int, default=224, help="tokens to generate (default: %(default)s)"
    )
    parser.add_argument(
        "--decoding", nargs="+", choices=tuple(DECODING), default=list(DECODING), metavar="OPTION",
        help="decoding options to measure, each quoted (default: all)",
    )  # fmt: skip
    parser.add_argument("--summary", action="store_true", help="print the tables and end")
    asked = parser.parse_args()
    from holo_cli.experiment.machine import describe_machine

    lines = asked.out.read_text(encoding="utf-8").splitlines() if asked.out.exists() else []
    rows = [parse_json(line) for line in lines if line.strip()]
    if asked.summary:
        print(summary([row for row in rows if "checkpoint" in row]))
        return
    done = {row_key(row) for row in rows if "checkpoint" in row}
    try:
        checkpoints = [load(name) for name in asked.checkpoint]
        path = asked.data or (checkpoints[0].header.data.path if checkpoints else None)
        if not path:
            raise DataError("The checkpoint names no data.", next_step="Add --data FOLDER.")
        data = PreparedData.open(path)
        texts = passages(data, asked.passages, asked.prompt, asked.new)
        known = training_words(data)
        with asked.out.open("a", encoding="utf-8", newline="\n") as file:
            for loaded in (None, *checkpoints):
                for row in measure(loaded, data, texts, known, done, asked.decoding):
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    file.flush()
            file.write(json.dumps({"machine": describe_machine()}) + "\n")
    except HoloError as error:
        parser.error(" ".join(filter(None, (error.message, error.next_step))))


if __name__ == "__main__":
    main()
