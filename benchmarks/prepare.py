"""What preparing text costs, and how well cleaning does what it is for.

    python -m benchmarks.prepare --what quality --text en.txt --text ko.txt
    python -m benchmarks.prepare --what speed --text en.txt --text ko.txt
    python -m benchmarks.prepare --what throughput --text en.txt --text ko.txt --mb 500
    python -m benchmarks.prepare --what line --text en.txt --mb 50

Each row is one JSON object on stdout; the last is the machine. `--text` files are cut into
documents as `holo prepare --source` does; `--labelled` names "language<TAB>sentence" lines.

- `quality`: languages told apart, documents kept, junk dropped (by kind), planted copies found;
- `speed`: each step of cleaning alone on one core, in MB of UTF-8 per second of CPU time, the best
  of three rounds;
- `throughput`: the texts' paragraphs, shuffled by a seed until there are `--mb` of them, prepared
  with BPE-8192 in a process of its own, against the tokenizer alone in a loop over batches of the
  same text. Neither time has the training of the tokenizer in it. On a machine with other work
  only the ratio by CPU time means anything, and it says nothing of how busy the cores are kept;
- `line`: the memory that a jsonl file takes in which one line has `--mb`, the others a page each.
"""

from __future__ import annotations

import argparse
import json
import random
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

Row = dict[str, Any]
WHAT = ("quality", "speed", "throughput", "line")
TOKENIZER_BYTES = 10_000_000  # that the tokenizer learns from


def documents_of(path: Path) -> list[str]:
    """The documents of a text file, normalised."""
    text = path.read_text(encoding="utf-8")
    whole = segment.count_separators([text]) >= segment.ENOUGH
    return [normalize(one, Counter()) for one in segment.documents([text], whole=whole)]


def megabytes(texts: Sequence[str]) -> float:
    return sum(len(text.encode("utf-8")) for text in texts) / 1e6


# -- quality --------------------------------------------------------------------------------------


def languages(path: Path) -> Row:
    """How many of some labelled lines are given the language they say."""
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t", 1) for line in lines if "\t" in line]
    wrong = [code for code, text in rows if detect(text) != code]
    right = 1 - len(wrong) / len(rows)
    return {"row": "language", "text": path.name, "sentences": len(rows), "right": right}


def kept(path: Path, settings: CleaningSettings) -> Row:
    """How many documents of a good text the rules keep."""
    screen, texts = DocumentFilter(settings), documents_of(path)
    broken = Counter(screen.judge(Document(text)) for text in texts)
    share = broken.pop("", 0) / len(texts)
    return {
        "row": "kept", "text": path.name, "documents": len(texts), "kept": share,
        "dropped": dict(broken),
    }  # fmt: skip


def junk_dropped(settings: CleaningSettings, count: int, seed: int) -> Iterator[Row]:
    """How much made junk the rules drop, by kind."""
    screen = DocumentFilter(settings)
    for kind in synthetic_junk.KINDS:
        texts = [normalize(synthetic_junk.make(kind, n, seed), Counter()) for n in range(count)]
        broken = Counter(screen.judge(Document(text)) for text in texts)
        share = 1 - broken.pop("", 0) / count
        yield {
            "row": "junk",
            "kind": kind,
            "documents": count,
            "dropped": share,
            "by": dict(broken),
        }


def near_duplicates(texts: Sequence[str], count: int, seed: int) -> Iterator[Row]:
    """Originals first, then copies of a known similarity: how many copies are taken for copies.

    Originals are runs of 80 to 600 words of the texts that do not overlap, so that the truth
    about them is known: none is a copy of another.
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
    screen = DocumentFilter(CleaningSettings())
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
        "normalise": lambda: [normalize(text, Counter()) for text in texts],
        "language": lambda: [detect(text) for text in texts],
        "rules": lambda: [screen.judge(Document(text, code)) for text, code in pairs],
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
import json, sys, time
from holo_cli.data.cleaning import CleaningSettings
from holo_cli.data.prepare.prepare import prepare
source, out, tokenizer, filters, limit = sys.argv[1:]
wall, used = time.perf_counter(), time.process_time()
made = prepare(["sample"], source=source, out=out, tokenizer=tokenizer, filter=filters,
               max_bytes=int(limit) or None)
seconds, cpu, peak = time.perf_counter() - wall, time.process_time() - used, None
if sys.platform != "win32":  # not by our own function, which would bring torch into this process
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak, "dropped": made.dropped,
                  "bytes": made.bytes}))
"""


def prepared(source: Path, out: Path, tokenizer: str, filters: str, limit: int = 0) -> Row:
    """What a preparation in a process of its own says about itself."""
    return _told(PREPARE, str(source), str(out), tokenizer, filters, str(limit))


def _told(code: str, *arguments: str) -> Row:
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE, text=True, encoding="utf-8", check=True,
    )  # fmt: skip
    told: Row = json.loads(ran.stdout)
    return told


LOOP = """
import json, sys, time
from pathlib import Path
from holo_cli.data.tokenizers import load_tokenizer
tokenizer = load_tokenizer(Path(sys.argv[1]))
batches, held, size = [], [], 0
total, seconds, cpu = 0, 0.0, 0.0
def go():
    global seconds, cpu
    wall, used = time.perf_counter(), time.process_time()
    tokenizer._library.encode_batch_fast(held, add_special_tokens=False)
    seconds += time.perf_counter() - wall; cpu += time.process_time() - used
for text in Path(sys.argv[2]).open(encoding="utf-8").read().split("\\n\\n\\n\\n"):
    held.append(text); size += len(text); total += len(text.encode("utf-8"))
    if size >= 1_000_000:
        go(); held, size = [], 0
go()
print(json.dumps({"bytes": total, "seconds": seconds, "cpu": cpu}))
"""


def throughput(
    texts: Sequence[str], size: float, seed: int, filters: Sequence[str]
) -> Iterator[Row]:
    """Preparing against the tokenizer library alone; only packing is timed, not its training."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = folder / "text.txt"
        write_shuffled(texts, source, size, seed)
        first = folder / "tokenizer"
        prepared(source, first, "bpe", "none", TOKENIZER_BYTES)
        loop = _told(LOOP, str(first), str(source))
        mb = loop["bytes"] / 1e6
        yield {
            "row": "tokenizer alone", "mb": mb, "mb_per_s": mb / loop["seconds"],
            "mb_per_cpu_s": mb / loop["cpu"], "cores_used": loop["cpu"] / loop["seconds"],
        }  # fmt: skip
        for text in filters:
            told = prepared(source, folder / f"set-{text}", f"bpe:{first}", text)
            yield {
                "row": "prepare", "filter": text, "mb": mb, "mb_per_s": mb / told["seconds"],
                "mb_per_cpu_s": mb / told["cpu"], "cores_used": told["cpu"] / told["seconds"],
                "of_tokenizer_alone": loop["seconds"] / told["seconds"],
                "of_tokenizer_alone_by_cpu": loop["cpu"] / told["cpu"],
                "peak_rss_mb": told["peak"] and told["peak"] / 1e6, "dropped": told["dropped"],
                "kept_bytes": told["bytes"],
            }  # fmt: skip


# -- a giant line ---------------------------------------------------------------------------------


def giant_line(texts: Sequence[str], size: float, tokenizers: Sequence[str]) -> Iterator[Row]:
    """The memory of preparing a file with one line of `size` MB, by tokenizer."""
    pages = [text for text in texts if len(text) < 10_000][:300] or [texts[0][:10_000]]
    unit = " ".join(pages)
    giant = unit * max(1, round(size * 1e6 / len(unit.encode("utf-8"))))
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "text.jsonl"
        with source.open("w", encoding="utf-8", newline="\n") as file:
            for text in (*pages, giant, *pages):
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
        for tokenizer in tokenizers:
            told = prepared(source, Path(scratch) / tokenizer, tokenizer, "none")
            yield {
                "row": "giant line", "mb": megabytes([giant]), "tokenizer": tokenizer,
                "peak_rss_mb": told["peak"] and told["peak"] / 1e6, "cpu_s": told["cpu"],
            }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", action="append", type=Path, required=True)
    parser.add_argument("--labelled", action="append", type=Path, default=[])
    parser.add_argument("--what", choices=WHAT, required=True)
    parser.add_argument("--filter", action="append", default=[])
    parser.add_argument("--mb", type=float, default=60.0)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    emit = partial(print, flush=True)
    filters = asked.filter or ["none", "default"]
    rows: Iterator[Row]
    if asked.what == "quality":
        settings = CleaningSettings.parse(asked.filter[0] if asked.filter else "default")
        for path in asked.labelled:
            emit(json.dumps(languages(path), ensure_ascii=False))
        for path in asked.text:
            emit(json.dumps(kept(path, settings), ensure_ascii=False))
        for row in junk_dropped(settings, asked.count, asked.seed):
            emit(json.dumps(row, ensure_ascii=False))
        texts = [text for path in asked.text for text in documents_of(path)]
        rows = near_duplicates(texts, asked.count, asked.seed)
    elif asked.what == "speed":
        rows = (row for path in asked.text for row in speed(documents_of(path), path.name))
    elif asked.what == "line":
        texts = [text for path in asked.text for text in documents_of(path)]
        rows = giant_line(texts, asked.mb, ("char", "bpe"))
    else:
        texts = [text for path in asked.text for text in documents_of(path)]
        rows = throughput(texts, asked.mb, asked.seed, filters)
    for row in rows:
        emit(json.dumps(row, ensure_ascii=False))
    from holo_cli.bench.machine import describe_machine

    emit(json.dumps({"row": "machine", **describe_machine()}, ensure_ascii=False))


if __name__ == "__main__":
    main()
