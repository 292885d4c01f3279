"""Training on conversations: loss, gradients and evaluation are those of the answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holo_cli.checkpoint import load_model, load_training, read_header
from holo_cli.config.resolve import Resolved, resolve, resolve_from
from holo_cli.data.batches import IGNORE, TrainBatches, documents
from holo_cli.data.combined import open_data
from holo_cli.data.dataset import PreparedData
from holo_cli.data.halves import half_streams
from holo_cli.data.prepare.prepare import prepare
from holo_cli.errors import DataError, Stopped, UsageError
from holo_cli.inference.evaluation.eval_corpus import prepared_texts
from holo_cli.inference.evaluation.evaluate import evaluate_texts
from holo_cli.inference.generation.loaded_model import load
from holo_cli.inference.generation.samples import sample_text
from holo_cli.training.evaluate import evaluate, evaluate_halves
from holo_cli.training.loss import cross_entropy, nats_per_token
from holo_cli.training.run import resume, train
from holo_cli.training.start_from import open_start
from tests.training.conftest import SMALL, same_files, write_text

QUESTION = "how many boats came home tonight, and how many stayed out, tell me number {0}"


def ignore(event: dict[str, Any]) -> None:
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/talks, conversations with long questions; data/words, plain text in its tokenizer."""
    home = tmp_path_factory.mktemp("talks")
    rows = []
    for number in range(80):
        said = [("user", QUESTION.format(number)), ("assistant", f"{number} of them.")] * 2
        messages = [{"role": role, "content": text} for role, text in said]
        rows.append(json.dumps({"messages": messages}))
    (home / "talks.jsonl").write_text("\n".join(rows), encoding="utf-8")
    folder = home / "data"
    prepare(out=folder / "talks", chat=str(home / "talks.jsonl"), vocab_size=300)
    source = write_text(home / "words.txt")
    prepare(out=folder / "words", source=str(source), tokenizer=str(folder / "talks"))
    prepare(out=folder / "plain", source=str(source), vocab_size=280)
    return folder


def config(data: Path, *sets: str, **changes: Any) -> Resolved:
    named = {"data.sets": [str(data / s) for s in sets]} if len(sets) > 1 else {
        "data.path": str(data / sets[0])
    }  # fmt: skip
    return resolve("vanilla", flags=SMALL | named | changes, env={})


def answers(set_: PreparedData, ids: list[int]) -> str:
    return set_.tokenizer.decode(ids)


@pytest.mark.parametrize("document_mask", [False, True])
def test_batches_score_the_answers(data: Path, document_mask: bool) -> None:
    talks = PreparedData.open(data / "talks")
    batches = TrainBatches.of(talks, 32, 0, document_mask=document_mask)
    total, text = 0, ""
    for number in range(batches.per_epoch):
        expected = batches.scored(number, 1)
        _, y = batches.take(1)
        ids = y[y != IGNORE].tolist()
        assert len(ids) == expected
        total += expected
        text += answers(talks, ids)
    assert "boats" not in text
    assert " of them." in text
    assert 0 < total < 0.3 * talks.token_count("train")


def test_questions_have_no_gradient(data: Path, tmp_path: Path) -> None:
    """Other questions give other inputs, but a target within them never counts."""
    from holo_cli.registry import build_model

    talks = PreparedData.open(data / "talks")
    resolved = config(data, "talks", **{"model.dropout": 0.0})
    model = build_model(
        "vanilla", resolved.model.model_copy(update={"vocab_size": talks.tokenizer.vocab_size})
    )
    x, y = TrainBatches.of(talks, 16, 0).take(8)
    loss = cross_entropy(model.hidden(x).x, model.head, y)
    logits = torch.log_softmax(model(x).float(), -1)
    by_hand = [-logits[b, t, y[b, t]] for b, t in (y != IGNORE).nonzero().tolist()]
    assert loss.item() == pytest.approx(float(torch.stack(by_hand).mean()), rel=1e-5)


def test_training_evaluation_and_header(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    talks = PreparedData.open(data / "talks")
    done = train(config(data, "talks"), run="talk", events=ignore)
    header = read_header(Path("checkpoints/talk_last.safetensors"))
    assert header.data.chat is not None
    assert header.data.chat.user == "<|user|>"
    # tokens are those that were learnt from
    assert 0 < header.tokens < 0.4 * 12 * 3 * 4 * 16
    model, _, _ = load_model("checkpoints/talk_last.safetensors")
    found = evaluate(model, talks, torch.float32)
    assert found.loss == pytest.approx(done["val_loss"], rel=1e-5)
    learnt = talks.stream("val")
    targets = learnt.read(0, learnt.length)
    learnt.mask(0, targets)
    spoken = [int(t) for t in targets if t != IGNORE]
    assert found.tokens == len(spoken)
    assert found.bytes == len(talks.tokenizer.decode(spoken).encode())
    # `holo eval` agrees, with and without the state carried over windows
    loaded = load("checkpoints/talk_last.safetensors")
    texts, again = prepared_texts(loaded, talks)
    assert not again
    scored = evaluate_texts(loaded, texts).total
    assert scored.loss == pytest.approx(found.loss, rel=1e-5)
    assert scored.bpb == pytest.approx(found.bpb, rel=1e-5)
    assert (scored.tokens, scored.bytes) == (found.tokens, found.bytes)
    assert scored.words == 4 * scored.documents * 2  # "17 of them." and the end of its line
    assert not loaded.only_continues
    sample = sample_text(model, loaded.tokenizer, loaded.header, 5)
    request, _, answer = sample.partition("\n")
    assert request == "> Tell me a story."
    assert answer == answer.strip()


def test_the_halves_know_their_answers(data: Path) -> None:
    talks = PreparedData.open(data / "talks")
    whole = talks.stream("val")
    targets = whole.read(0, whole.length)
    whole.mask(0, targets)
    found = []
    for half in half_streams(talks, 16):
        own = half.read(0, half.length)
        half.mask(0, own)
        found += own[own != IGNORE].tolist()
    assert sorted(found) == sorted(targets[targets != IGNORE].tolist())
    from holo_cli.registry import build_model

    resolved = config(data, "talks")
    model = build_model(
        "vanilla", resolved.model.model_copy(update={"vocab_size": talks.tokenizer.vocab_size})
    )
    tune, test = evaluate_halves(model, talks, torch.float32)
    assert tune.tokens + test.tokens == len(found)
    together = evaluate(model, talks, torch.float32)
    mean = (tune.loss * tune.tokens + test.loss * test.tokens) / len(found)
    assert mean == pytest.approx(together.loss, rel=1e-5)


def test_a_conversation_is_scored_as_if_it_were_alone(data: Path) -> None:
    from holo_cli.registry import build_model

    talks = PreparedData.open(data / "talks")
    resolved = config(data, "talks")
    model = build_model(
        "vanilla", resolved.model.model_copy(update={"vocab_size": talks.tokenizer.vocab_size})
    )
    whole = talks.stream("val")
    nats, tokens = 0.0, 0
    for start, length in zip(*documents(talks, "val"), strict=True):
        own = whole.read(int(start), int(length))
        targets = own.copy()
        whole.mask(int(start), targets)
        # the same windows as validation: whole contexts from the beginning of the conversation
        for at in range(0, len(own), model.config.context):
            end = at + model.config.context
            x = np.concatenate([[talks.tokenizer.end], own])[at:end][: len(own) - at]
            y = torch.from_numpy(targets[at:end])[None]
            hidden = model.hidden(torch.from_numpy(x)[None]).x
            nats += float(nats_per_token(hidden, model.head, y).sum().detach())
            tokens += int((y != IGNORE).sum())
    found = evaluate(model, talks, torch.float32)
    assert found.tokens == tokens
    assert found.loss == pytest.approx(nats / tokens, rel=1e-5)


def test_a_stopped_run_continues_to_the_same_bits(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(config(data, "talks", "words"), run="whole", events=ignore)
    with pytest.raises(Stopped):
        train(config(data, "talks", "words"), run="parts", events=ignore, stop_at=5)
    resume("parts", events=ignore)
    same_files("whole", "parts")
    header = read_header(Path("checkpoints/whole_last.safetensors"))
    assert header.data.chat is not None  # one of the sets has conversations


def test_a_step_without_any_answer_changes_nothing_but_the_count(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows of four tokens, most of them within a question."""
    monkeypatch.chdir(tmp_path)
    changes = {"model.context": 4, "training.batch_size": 1, "training.grad_accum": 1,
               "training.steps": 30, "training.weight_decay": 0.0}  # fmt: skip
    events: list[dict[str, Any]] = []
    train(config(data, "talks", **changes), run="short", events=events.append)
    losses = [event["loss"] for event in events if event["event"] == "train"]
    assert np.isfinite(losses).all()


def test_fine_tuning_adds_the_marks_to_a_plain_tokenizer(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(config(data, "plain"), run="base", events=ignore)
    prepare(out=Path("more"), chat=str(data.parent / "talks.jsonl"),
            tokenizer=str(data / "plain"))  # fmt: skip
    start = open_start("base")
    known = start.header.config["model"]["vocab_size"]
    more = PreparedData.open(Path("more"))
    assert more.tokenizer.vocab_size == known + 3
    resolved = resolve_from(
        start.stored(), start.path.as_posix(), sets=(), env={},
        flags={"data.path": "more", "training.steps": 2, "training.lr": 1e-12,
               "training.adam_lr": 1e-12, "training.weight_decay": 0.0},
    )  # fmt: skip
    train(resolved, run="tuned", events=ignore, start=start)
    _, tensors = load_training(Path("checkpoints/tuned_last.safetensors"))
    for name, before in start.tensors.items():
        after = tensors[f"model/{name}"]
        torch.testing.assert_close(after[: len(before)], before, rtol=0, atol=1e-6)
        if after.shape != before.shape:
            assert len(after) == known + 3
    header = read_header(Path("checkpoints/tuned_last.safetensors"))
    assert header.data.chat is not None
    assert [origin.run for origin in header.origins] == ["base"]


def test_a_table_of_bigrams_cannot_be_given_more_tokens(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(config(data, "plain", **{"model.bigrams": 64}), run="pairs", events=ignore)
    start = open_start("pairs")
    prepare(out=Path("more"), chat=str(data.parent / "talks.jsonl"), tokenizer=str(data / "plain"))
    resolved = resolve_from(
        start.stored(), start.path.as_posix(), sets=(), flags={"data.path": "more"}, env={}
    )
    with pytest.raises(UsageError, match=r"model.bigrams cannot be given more tokens"):
        train(resolved, run="tuned", events=ignore, start=start)


def test_an_answer_does_not_end_what_a_suffix_memory_matches(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    end = PreparedData.open(data / "words").tokenizer.specials["<|end|>"]
    for name, wanted in (("words", end), ("talks", -1)):
        train(config(data, name, **{"model.suffix": True}), run=name, events=ignore)
        stored = read_header(Path(f"checkpoints/{name}_last.safetensors")).config["model"]
        assert stored["end_token"] == wanted


def test_several_sets_of_which_one_has_conversations(data: Path) -> None:
    both = open_data(config(data, "talks", "words").data)
    assert both.has_chat
    assert both.chat is not None
    stream = both.stream("train")
    targets = stream.read(0, stream.length)
    stream.mask(0, targets)
    share = float((targets != IGNORE).mean())
    assert 0.1 < share < 0.9


def test_one_conversation_has_no_halves(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    talks = PreparedData.open(data / "talks")
    ends = talks.document_ends("val")[0]
    monkeypatch.setattr(PreparedData, "document_ends", lambda self, split: [ends[:1]])
    with pytest.raises(DataError, match="has 1 conversation: too few for a tuning half"):
        half_streams(talks, 16)
