"""The cost of `holo prepare`, and the quality of cleaning.

    python -m benchmarks.prepare --what quality --text en.txt --text ko.txt
    python -m benchmarks.prepare --what speed --text en.txt --text ko.txt
    python -m benchmarks.prepare --what throughput --text en.txt --text ko.txt --mb 500
    python -m benchmarks.prepare --what line --text en.txt --mb 50

Each row is one JSON object on stdout; the last row describes the machine. `--text` files are split
into documents as by `holo prepare --source`; `--labelled` files have lines "language<TAB>sentence".

- `quality`: languages detected, documents kept, synthetic junk dropped (by kind), near duplicates
  found;
- `speed`: each step of cleaning alone on one core, in MB of UTF-8 per second of CPU time, the best
  of three rounds;
- `throughput`: `--mb` of shuffled paragraphs of the texts, prepared with BPE-8192 in a subprocess,
  against the tokenizer alone in a loop over batches of the same text. Both times exclude the
  training of the tokenizer. On a busy machine only the ratio of CPU times is meaningful; it does
  not show how well the cores are used;
- `line`: the peak memory for a jsonl file with one line of `--mb` among lines of a page each.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import synthetic_junk
from benchmarks.near_duplicates import altered
from holo_cli.data import segment
from holo_cli.data.cleaning import Cleaner, CleaningSettings, fingerprint
from holo_cli.data.cleaning.document_filter import DocumentFilter
from holo_cli.data.cleaning.ngram import Reference
from holo_cli.data.document import Document
from holo_cli.data.language import detect
from holo_cli.data.normalize import normalize
from holo_cli.parsing import parse_object

Row = dict[str, Any]
WHAT = ("quality", "speed", "throughput", "line")
TOKENIZER_BYTES = 10_000_000  # training text of the tokenizer


def documents_of(path: Path) -> list[str]:
    """The documents of a text file, normalized."""
    text = path.read_text(encoding="utf-8")
    whole = segment.count_separators([text]) >= segment.ENOUGH
    return [normalize(one, Counter()) for one in segment.documents([text], whole=whole)]


def megabytes(texts: Sequence[str]) -> float:
    return sum(len(text.encode("utf-8")) for text in texts) / 1e6


# -- quality --------------------------------------------------------------------------------------


def languages(path: Path) -> Row:
    """The share of labelled lines whose language is detected correctly."""
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t", 1) for line in lines if "\t" in line]
    wrong = [code for code, text in rows if detect(text) != code]
    right = 1 - len(wrong) / len(rows)
    return {"row": "language", "text": path.name, "sentences": len(rows), "right": right}


def kept(path: Path, settings: CleaningSettings) -> Row:
    """The share of documents of a good text that the rules keep."""
    checks, texts = DocumentFilter(settings), documents_of(path)
    broken = Counter(checks.judge(Document(text)) for text in texts)
    share = broken.pop("", 0) / len(texts)
    return {
        "row": "kept", "text": path.name, "documents": len(texts), "kept": share,
        "dropped": dict(broken),
    }  # fmt: skip


def junk_dropped(settings: CleaningSettings, count: int, seed: int) -> Iterator[Row]:
    """The share of synthetic junk that the rules drop, by kind."""
    checks = DocumentFilter(settings)
    for kind in synthetic_junk.KINDS:
        texts = [normalize(synthetic_junk.make(kind, n, seed), Counter()) for n in range(count)]
        broken = Counter(checks.judge(Document(text)) for text in texts)
        share = 1 - broken.pop("", 0) / count
        yield {
            "row": "junk",
            "kind": kind,
            "documents": count,
            "dropped": share,
            "by": dict(broken),
        }


def near_duplicates(texts: Sequence[str], count: int, seed: int) -> Iterator[Row]:
    """The share of copies of a known similarity to earlier originals that are found.

    Originals are runs of 80 to 600 words of the texts that do not overlap, so that none is a copy
    of another.
    """
    rng = random.Random(seed)
    originals: list[str] = []
    for text in texts:
        words, at = text.split(), 0
        while at < len(words) - 80:
            size = rng.randint(80, 600)
            originals.append(" ".join(words[at : at + size]))
            at += size
    rng.shuffle(originals)
    pool = " ".join(originals).split()
    for similarity in (0.9, 0.8, 0.7, 0.6, 0.5):
        pairs = []
        for original in originals:
            try:
                pairs.append((original, altered(original, pool, similarity, rng)))
            except ValueError:  # too repetitive to be altered so finely
                continue
            if len(pairs) == count:
                break
        with tempfile.TemporaryDirectory() as folder:
            cleaner = Cleaner(CleaningSettings.parse("rules=off"), Path(folder) / "memory")
            first = cleaner.check_batch([Document(a) for a, _ in pairs])
            second = cleaner.check_batch([Document(b) for _, b in pairs])
            cleaner.close()
        yield {
            "row": "near duplicates", "jaccard": similarity, "pairs": len(pairs),
            "copies_found": second.count(None) / len(pairs),
            "originals_dropped": first.count(None) / len(pairs),
        }  # fmt: skip


# -- speed ----------------------------------------------------------------------------------------


def speed(texts: Sequence[str], name: str) -> Iterator[Row]:
    """Each step alone, on one core, as CPU time."""
    checks = DocumentFilter(CleaningSettings())
    folded = [fingerprint.folded(text) for text in texts]
    reference = Reference(text for text in texts)

    def duplicates() -> None:
        with tempfile.TemporaryDirectory() as folder:
            cleaner = Cleaner(CleaningSettings.parse("rules=off"), Path(folder) / "memory")
            cleaner.check_batch([Document(text) for text in texts])
            cleaner.close()

    codes = [detect(text) for text in texts]
    pairs = list(zip(texts, codes, strict=True))
    steps: dict[str, Callable[[], object]] = {
        "normalize": lambda: [normalize(text, Counter()) for text in texts],
        "language": lambda: [detect(text) for text in texts],
        "rules": lambda: [checks.judge(Document(text, code)) for text, code in pairs],
        "perplexity": lambda: [reference.ratio(text, code) for text, code in pairs],
        "signatures": lambda: fingerprint.signatures(folded),
        "duplicates": duplicates,
    }
    size = megabytes(texts)
    for step, run in steps.items():
        seconds = min(_cpu(run) for _ in range(3))
        yield {"row": "speed", "text": name, "step": step, "mb": size, "mb_per_s": size / seconds}


def _cpu(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


# -- throughput -----------------------------------------------------------------------------------


def write_shuffled(texts: Sequence[str], path: Path, size: float, seed: int) -> None:
    """About `size` MB of documents made of shuffled paragraphs, three empty lines apart."""
    rng = random.Random(seed)
    paragraphs = [part for text in texts for part in text.split("\n\n") if part.strip()]
    written = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        while written < size * 1e6:
            rng.shuffle(paragraphs)
            at = 0
            while at < len(paragraphs):
                step = rng.randint(3, 25)
                text = "\n\n".join(paragraphs[at : at + step])
                at += step
                written += file.write(text + "\n\n\n\n") and len(text.encode("utf-8"))
                if written >= size * 1e6:
                    break


PREPARE = """
import json, os, sys, time
from holo_cli.data.prepare.prepare import prepare
source, out, tokenizer, filters, limit, processes = sys.argv[1:]
def cpu():  # of this process, and of those it has ended
    return sum(os.times()[:4])
wall, used = time.perf_counter(), cpu()
result = prepare(["sample"], source=source, out=out, tokenizer=tokenizer, filter=filters,
               max_bytes=int(limit) or None, processes=int(processes))
seconds, cpu, peak = time.perf_counter() - wall, cpu() - used, None
if sys.platform != "win32":  # not with holo_cli.training, which would import torch here
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak, "dropped": result.dropped,
                  "bytes": result.bytes}))
"""


def prepared(
    source: Path, out: Path, tokenizer: str, filters: str, limit: int = 0, processes: int = 1
) -> Row:
    """Time and memory of a preparation in a subprocess."""
    numbers = str(limit), str(processes)
    return _measured(PREPARE, str(source), str(out), tokenizer, filters, *numbers)


def _measured(code: str, *arguments: str) -> Row:
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE, text=True, encoding="utf-8", check=True,
    )  # fmt: skip
    return parse_object(ran.stdout)


LOOP = """
import json, sys, time
from pathlib import Path
from holo_cli.data.tokenizers import load_tokenizer
tokenizer = load_tokenizer(Path(sys.argv[1]))
batches, held, size = [], [], 0
total, seconds, cpu = 0, 0.0, 0.0
def run():
    global seconds, cpu
    wall, used = time.perf_counter(), time.process_time()
    tokenizer._library.encode_batch_fast(held, add_special_tokens=False)
    seconds += time.perf_counter() - wall; cpu += time.process_time() - used
for text in Path(sys.argv[2]).open(encoding="utf-8").read().split("\\n\\n\\n\\n"):
    held.append(text); size += len(text); total += len(text.encode("utf-8"))
    if size >= 1_000_000:
        run(); held, size = [], 0
run()
print(json.dumps({"bytes": total, "seconds": seconds, "cpu": cpu}))
"""


def throughput(
    texts: Sequence[str], size: float, seed: int, filters: Sequence[str], processes: Sequence[int],
    rounds: int,
) -> Iterator[Row]:  # fmt: skip
    """`holo prepare` against the tokenizer library alone in turn, both without training."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = folder / "text.txt"
        write_shuffled(texts, source, size, seed)
        first = folder / "tokenizer"
        prepared(source, first, "bpe", "none", TOKENIZER_BYTES)
        for turn in range(rounds):
            loop = _measured(LOOP, str(first), str(source))
            mb = loop["bytes"] / 1e6
            yield {
                "row": "tokenizer alone", "round": turn, "mb": mb,
                "mb_per_s": mb / loop["seconds"], "mb_per_cpu_s": mb / loop["cpu"],
                "cores_used": loop["cpu"] / loop["seconds"],
            }  # fmt: skip
            for text, number in [(text, number) for text in filters for number in processes]:
                out = folder / f"set-{text}-{number}-{turn}"
                run = prepared(source, out, f"bpe:{first}", text, 0, number)
                shutil.rmtree(out)
                yield {
                    "row": "prepare", "round": turn, "filter": text, "processes": number, "mb": mb,
                    "mb_per_s": mb / run["seconds"], "mb_per_cpu_s": mb / run["cpu"],
                    "cores_used": run["cpu"] / run["seconds"],
                    "of_tokenizer_alone": loop["seconds"] / run["seconds"],
                    "of_tokenizer_alone_by_cpu": loop["cpu"] / run["cpu"],
                    "peak_rss_mb": run["peak"] and run["peak"] / 1e6, "dropped": run["dropped"],
                    "kept_bytes": run["bytes"],
                }  # fmt: skip


# -- a very long line -----------------------------------------------------------------------------


def long_line(texts: Sequence[str], size: float, tokenizers: Sequence[str]) -> Iterator[Row]:
    """Peak memory of preparing a file with one line of `size` MB, by tokenizer."""
    pages = [text for text in texts if len(text) < 10_000][:300] or [texts[0][:10_000]]
    unit = " ".join(pages)
    giant = unit * max(1, round(size * 1e6 / len(unit.encode("utf-8"))))
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "text.jsonl"
        with source.open("w", encoding="utf-8", newline="\n") as file:
            for text in (*pages, giant, *pages):
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
        for tokenizer in tokenizers:
            run = prepared(source, Path(scratch) / tokenizer, tokenizer, "none")
            yield {
                "row": "giant line", "mb": megabytes([giant]), "tokenizer": tokenizer,
                "peak_rss_mb": run["peak"] and run["peak"] / 1e6, "cpu_s": run["cpu"],
            }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", action="append", type=Path, required=True)
    parser.add_argument("--labelled", action="append", type=Path, default=[])
    parser.add_argument("--what", choices=WHAT, required=True)
    parser.add_argument("--filter", action="append", default=[])
    parser.add_argument("--processes", action="append", type=int, default=[])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--mb", type=float, default=60.0)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    emit = partial(print, flush=True)
    filters = options.filter or ["none", "default"]
    rows: Iterator[Row]
    if options.what == "quality":
        settings = CleaningSettings.parse(options.filter[0] if options.filter else "default")
        for path in options.labelled:
            emit(json.dumps(languages(path), ensure_ascii=False))
        for path in options.text:
            emit(json.dumps(kept(path, settings), ensure_ascii=False))
        for row in junk_dropped(settings, options.count, options.seed):
            emit(json.dumps(row, ensure_ascii=False))
        texts = [text for path in options.text for text in documents_of(path)]
        rows = near_duplicates(texts, options.count, options.seed)
    elif options.what == "speed":
        rows = (row for path in options.text for row in speed(documents_of(path), path.name))
    elif options.what == "line":
        texts = [text for path in options.text for text in documents_of(path)]
        rows = long_line(texts, options.mb, ("char", "bpe"))
    else:
        texts = [text for path in options.text for text in documents_of(path)]
        processes = options.processes or [1]
        rows = throughput(texts, options.mb, options.seed, filters, processes, options.rounds)
    for row in rows:
        emit(json.dumps(row, ensure_ascii=False))
    from holo_cli.experiment.machine import describe_machine

    emit(json.dumps({"row": "machine", **describe_machine()}, ensure_ascii=False))


if __name__ == "__main__":
    main()
