"""`holo serve` under load: many clients at once, each with its own prompt, length and patience.

    python benchmarks/serving.py -c my-run --clients 50 --seconds 600

Starts a server on a free port of this machine, asks each question once alone, and then lets the
clients ask them at the same time until the time is over. Clients stream; one request in ten is
given up half-way. Every text is compared with the one written alone, at temperature 0 to the last
character: a lost, cut or crossed stream is an error. Resident memory of the server is sampled each
second. Nothing but this machine is reached, and the server ends with the script.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any

import psutil
import torch

from holo_cli.parsing import parse_json

PROMPTS = ("Once upon a time", "A", "어느 날 여우가", "옛날 옛적에")
LENGTHS = (8, 24, 64, 120)  # tokens of a text
GIVEN_UP = 0.1  # of the requests
POINTS = 10  # at which memory is told, evenly over the time


@dataclass(frozen=True)
class Question:
    """A request for a greedy text."""

    model: str
    prompt: str
    tokens: int

    def body(self) -> bytes:
        fields = {"model": self.model, "prompt": self.prompt, "max_tokens": self.tokens}
        more = {"temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
        return json.dumps(fields | more).encode()


@dataclass
class PhaseFigures:
    """What one phase measured; times in seconds."""

    clients: int
    seconds: float = 0.0
    answers: int = 0
    given_up: int = 0
    tokens: int = 0
    errors: list[str] = field(default_factory=list)
    first: list[float] = field(default_factory=list)  # until the first text
    whole: list[float] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """As one JSON object."""
        found = asdict(self)
        del found["first"], found["whole"]
        found["tokens_per_second"] = round(self.tokens / self.seconds, 1) if self.seconds else 0.0
        for name, values in (("first_text", self.first), ("answer", self.whole)):
            if len(values) > 1:
                cuts = statistics.quantiles(values, n=20)
                found[f"{name}_median"] = round(statistics.median(values), 4)
                found[f"{name}_p95"] = round(cuts[-1], 4)
        return found


async def ask(port: int, question: Question, figures: PhaseFigures, give_up: int = 0) -> str | None:
    """The streamed text; None where the client leaves after `give_up` pieces of it.

    Raises ValueError for anything that is not a whole stream.
    """
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        body = question.body()
        head = (
            "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        status = await reader.readline()
        if b" 200 " not in status:
            raise ValueError(f"status {status.decode().strip()}")
        text, pieces, tokens, done = "", 0, 0, False
        async for raw in reader:
            if not raw.startswith(b"data: "):
                continue
            if raw.strip() == b"data: [DONE]":
                done = True
                continue
            chunk = parse_json(raw[6:])
            if "error" in chunk:
                raise ValueError(chunk["error"]["message"])
            if chunk["usage"]:
                tokens = chunk["usage"]["completion_tokens"]
            for choice in chunk["choices"]:
                if choice["text"] and not pieces:
                    figures.first.append(time.perf_counter() - began)
                pieces += bool(choice["text"])
                text += choice["text"]
            if give_up and pieces >= give_up:
                figures.given_up += 1
                return None
        if not done:
            raise ValueError("the stream ended without [DONE]")
        figures.answers += 1
        figures.tokens += tokens
        figures.whole.append(time.perf_counter() - began)
        return text
    finally:
        writer.close()


async def client(
    port: int, number: int, questions: dict[Question, str], figures: PhaseFigures, end: float
) -> None:
    """Asks one question after another until the time is over."""
    chance = random.Random(number)
    asked = list(questions)
    while time.perf_counter() < end:
        question = chance.choice(asked)
        give_up = chance.randint(1, question.tokens // 2) if chance.random() < GIVEN_UP else 0
        try:
            text = await ask(port, question, figures, give_up)
        except (ValueError, OSError) as error:
            figures.errors.append(f"{question}: {error}")
            continue
        if text is not None and text != questions[question]:
            figures.errors.append(f"{question}: another text than alone: {text[:80]!r}")


async def crowd(
    port: int, clients: int, seconds: float, questions: dict[Question, str]
) -> PhaseFigures:
    """So many clients for so long."""
    figures = PhaseFigures(clients)
    began = time.perf_counter()
    end = began + seconds
    await asyncio.gather(
        *(client(port, number, questions, figures, end) for number in range(clients))
    )
    figures.seconds = round(time.perf_counter() - began, 2)
    return figures


async def metrics(port: int) -> dict[str, float]:
    """The figures of /metrics without labels, summed over models."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    found: dict[str, float] = {}
    for name, value in re.findall(r"^(holo_\w+)(?:\{[^}]*\})? (\S+)$", text, re.MULTILINE):
        found[name] = found.get(name, 0.0) + float(value)
    return found


async def watch(process: psutil.Process, found: list[float]) -> None:
    """Resident memory in MB, each second."""
    while True:
        found.append(process.memory_info().rss / 1e6)
        await asyncio.sleep(1)


async def measure(port: int, pid: int, models: list[str], asked: argparse.Namespace) -> None:
    """All phases, each printed as a line of JSON."""
    alone = PhaseFigures(1)
    questions: dict[Question, str] = {}
    began = time.perf_counter()
    for made in product(models, PROMPTS, LENGTHS):
        question = Question(*made)
        text = await ask(port, question, alone)
        assert text is not None
        questions[question] = text
    alone.seconds = round(time.perf_counter() - began, 2)
    print(json.dumps({"phase": "alone"} | alone.row()), flush=True)
    memory: list[float] = []
    watching = asyncio.ensure_future(watch(psutil.Process(pid), memory))
    before = await metrics(port)
    together = await crowd(port, asked.clients, asked.seconds, questions)
    after = await metrics(port)
    watching.cancel()
    change = {name: after[name] - before.get(name, 0.0) for name in after}
    row = {"phase": "together", "models": models} | together.row()
    row |= {
        "mean_batch": round(change["holo_rows_read_total"] / change["holo_passes_total"], 2),
        "near_ties": int(change["holo_near_ties_total"]),
        "disconnected": int(change["holo_disconnected_total"]),
        "rows_left": int(after["holo_rows_running"] + after["holo_rows_waiting"]),
        "memory_mb": [round(memory[n * (len(memory) - 1) // POINTS], 1) for n in range(POINTS + 1)],
        "torch": torch.__version__,
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
    }
    print(json.dumps(row), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "-c", "--checkpoint", action="append", required=True, help="as of holo serve; repeatable"
    )
    parser.add_argument("--clients", type=int, default=50, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=600, help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=32, help="default: %(default)s")
    asked = parser.parse_args()
    chosen = [word for name in asked.checkpoint for word in ("-c", name)]
    command = [
        sys.executable, "-m", "holo_cli", "serve", *chosen, "--port", "0",
        "--batch-size", str(asked.batch_size), "--queue", str(max(256, asked.clients)),
    ]  # fmt: skip
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"HOLO_LANG": "en"}
    )
    try:
        assert server.stdout is not None
        found = re.match(r"http://127\.0\.0\.1:(\d+)/v1", server.stdout.readline())
        if found is None:
            return 1
        import urllib.request

        with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/v1/models") as listed:
            models = [model["id"] for model in parse_json(listed.read())["data"]]
        asyncio.run(measure(int(found[1]), server.pid, models, asked))
    finally:
        server.terminate()
        code = server.wait(60)
    return code


if __name__ == "__main__":
    sys.exit(main())
