"""The `openai` package streams English and Korean from a checkpoint of every model, at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import openai
import pytest

from holo_cli import registry
from holo_cli.data.tokenizers import make_tokenizer
from holo_cli.inference.generation.loaded_model import LoadedModel, load
from holo_cli.serve.server import Server
from tests.checkpoint.conftest import make_run
from tests.serve.conftest import SETTINGS, client_of

TEXT = "the cat sat on the mat. 고양이가 매트에 앉았다. a cat, a mat, a 고양이! "
MODELS = (*registry.built_in(), "classic", "llama")
PROMPTS = ("the cat", "고양이가")
TOKENS = 12
GREEDY: dict[str, Any] = {"temperature": 0, "span_penalty": 0, "max_new_tokens": TOKENS}


def on_cpu(path: Path) -> LoadedModel:
    return load(path, device="cpu")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, openai.OpenAI]]:
    folder = tmp_path_factory.mktemp("every")
    tokenizer = make_tokenizer("bpe", texts=lambda: [TEXT] * 4, vocab_size=300)
    for name in MODELS:
        keys = {"width": 32, "context": 64, "vocab_size": tokenizer.vocab_size}
        recipe = {"recipe": name} if name in ("classic", "llama") else {}
        run = make_run("vanilla" if recipe else name, name, **keys, **recipe)
        run.save(folder / f"{name}_best.safetensors", tokenizer=tokenizer.to_dict(), run=name)
    paths = [str(folder / f"{name}_best.safetensors") for name in MODELS]
    server = Server(replace(SETTINGS, rows=16, queue=64), paths, on_cpu)
    thread = Thread(target=server.run_until_stopped)
    thread.start()
    try:
        yield folder, client_of(server)
    finally:
        server.stop()
        thread.join(20)


def test_every_model_streams_both_languages_as_it_writes_alone(
    served: tuple[Path, openai.OpenAI],
) -> None:
    folder, client = served

    def streamed(question: tuple[str, str]) -> tuple[str, int]:
        name, prompt = question
        stream = client.completions.create(
            model=name, prompt=prompt, max_tokens=TOKENS, temperature=0, stream=True
        )
        pieces = [choice.text for chunk in stream for choice in chunk.choices]
        return "".join(pieces), len([piece for piece in pieces if piece])

    questions = [(name, prompt) for name in MODELS for prompt in PROMPTS]
    with ThreadPoolExecutor(8) as clients:
        found = dict(zip(questions, clients.map(streamed, questions), strict=True))
    for name in MODELS:
        alone = on_cpu(folder / f"{name}_best.safetensors")
        for prompt in PROMPTS:
            text, pieces = found[name, prompt]
            assert text == alone.generate(prompt, **GREEDY), name
            assert "\ufffd" not in text
            assert text
            assert pieces > 1
    assert len({text for text, _ in found.values()}) > 4  # models differ


@pytest.mark.parametrize("name", MODELS)
def test_every_model_answers_a_conversation(served: tuple[Path, openai.OpenAI], name: str) -> None:
    _, client = served
    for prompt in PROMPTS:
        stream = client.chat.completions.create(
            model=name, messages=[{"role": "user", "content": prompt}], max_tokens=8,
            temperature=0, stream=True,
        )  # fmt: skip
        chunks = [chunk.choices[0] for chunk in stream if chunk.choices]
        assert chunks[-1].finish_reason in ("length", "stop")
        assert "\ufffd" not in "".join(choice.delta.content or "" for choice in chunks)
