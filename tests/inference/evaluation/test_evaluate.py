"""Scores agree with losses computed by hand from logits, however the text is cut."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holo_cli.checkpoint import DataInfo, Header
from holo_cli.data.dataset import PreparedData
from holo_cli.data.prepare.prepare import prepare
from holo_cli.data.tokenizers import load_tokenizer
from holo_cli.errors import DataError, UsageError
from holo_cli.inference.evaluation.eval_corpus import given_texts, prepared_texts, wikitext_words
from holo_cli.inference.evaluation.evaluate import Score, evaluate_texts
from holo_cli.inference.evaluation.likelihood import continuations, generate_until, rolling
from holo_cli.inference.generation.loaded_model import LoadedModel
from holo_cli.models.base import LanguageModel
from holo_cli.registry import build_model, config_class
from holo_cli.training.evaluate import evaluate
from tests.inference.inference_fakes import (
    Attentive,
    ByteTokenizer,
    Chain,
    Scripted,
    make_loaded,
)

TEXTS = ["The river ran to the sea.\nNight fell.", "고양이가 강가에서 물고기를 보았다.\n", "x"]
MARKED = ByteTokenizer(["<|en|>", "<|ko|>"])


def by_hand(model: LanguageModel, ids: list[int], scored: int) -> list[float]:
    """-log p of the last `scored` ids, given all before them, from the model's own logits."""
    with torch.no_grad():
        logits = model(torch.tensor([ids[:-1]]))[0].double()
    rows = range(len(ids) - 1 - scored, len(ids) - 1)
    return [-float(torch.log_softmax(logits[r], 0)[ids[r + 1]]) for r in rows]


def stream(texts: list[str], markers: dict[int, int] | None = None) -> list[int]:
    """The end token, then each document with its marker and its end."""
    ids = [256]
    for i, text in enumerate(texts):
        marker = [(markers or {})[i]] if markers else []
        ids += [*marker, *text.encode("utf-8"), 256]
    return ids


@pytest.mark.parametrize(("context", "stride"), [(16, 16), (16, 5), (16, 1), (9, 4), (3, 3)])
def test_the_loss_is_that_computed_by_hand(context: int, stride: int) -> None:
    model = Attentive(limit=16)
    found = evaluate_texts(
        make_loaded(model), given_texts(make_loaded(model), TEXTS), context=context,
        stride=stride, rows=3,
    )  # fmt: skip
    ids = stream(TEXTS)
    total, at = 0.0, 1
    while at < len(ids):
        step = context if at == 1 else stride
        end = min(at + step, len(ids))
        # the window that ends where a whole step would, cut off by the text's end
        begin = max(0, at + step - context - 1)
        total += sum(by_hand(model, ids[begin:end], end - at))
        at = end
    tokens, size = len(ids) - 1, sum(len(t.encode()) for t in TEXTS)
    words = sum(map(wikitext_words, TEXTS))
    assert found.total.tokens == tokens
    assert found.total.loss == pytest.approx(total / tokens, abs=1e-6)
    assert found.total.bpb == pytest.approx(total / math.log(2) / size, abs=1e-6)
    assert found.total.perplexity == pytest.approx(math.exp(total / tokens), rel=1e-6)
    assert found.total.word_perplexity == pytest.approx(math.exp(total / words), rel=1e-5)
    assert (found.context, found.stride) == (context, stride)
    assert model.training


def test_every_document_has_its_own_nats_and_every_language_its_own_figures() -> None:
    loaded = make_loaded(Chain(vocab=262), MARKED, markers=True, documents=100)
    texts = given_texts(loaded, TEXTS[:2])
    assert texts.languages.tolist() == ["en", "ko"]
    found = evaluate_texts(loaded, texts)
    ids = stream(TEXTS[:2], {0: 257, 1: 258})
    nats = by_hand(loaded.model, ids, len(ids) - 1)
    first = len(TEXTS[0]) + 2
    assert found.nats.tolist() == pytest.approx([sum(nats[:first]), sum(nats[first:])], rel=1e-6)
    korean = found.per_language["ko"]
    assert korean.tokens == len(TEXTS[1].encode()) + 2
    assert korean.bytes == len(TEXTS[1].encode())
    assert korean.words == 5  # four, and one line
    assert korean.nats == pytest.approx(sum(nats[first:]), rel=1e-6)
    assert list(found.per_language) == ["ko", "en"]  # the largest first
    assert found.total.nats == pytest.approx(sum(nats), rel=1e-6)


def test_carrying_the_state_is_one_pass_over_the_whole_text() -> None:
    config = config_class("holographic")(
        vocab_size=259, layers=2, heads=2, width=16, context=8, experts=1
    )
    torch.manual_seed(0)
    model = build_model("holographic", config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    loaded = make_loaded(model.eval())
    texts = given_texts(loaded, TEXTS)
    ids = stream(TEXTS)
    whole = by_hand(model, ids, len(ids) - 1)
    carried = evaluate_texts(loaded, texts, carry=True)
    assert carried.total.nats == pytest.approx(sum(whole), rel=1e-5)
    assert carried.stride is None
    cut = evaluate_texts(loaded, texts)
    assert abs(cut.total.nats - sum(whole)) > 1e-3  # windows forget, the state does not


# -- what a model or a text cannot do -------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": 17}, "does not support a context of 17"),
        ({"context": 0, "stride": 1}, "stride must be|context"),
        ({"stride": 17}, "must be from 1 to the context of 16"),
        ({"stride": -1}, "must be from 1"),
        ({"rows": -1}, "--batch-size must be at least 0"),
        ({"carry": True}, "does not support --carry"),
    ],
)
def test_what_the_model_cannot_take(options: dict[str, Any], message: str) -> None:
    loaded = make_loaded(Attentive(limit=16))
    if options.get("context") == 0:
        options = {"context": -4}
        message = "context of -4"
    with pytest.raises(UsageError, match=message):
        evaluate_texts(loaded, given_texts(loaded, ["abc"]), **options)


def test_a_model_without_limit_takes_any_context_but_no_stride_while_carrying() -> None:
    loaded = make_loaded(Chain())
    texts = given_texts(loaded, ["abc" * 300])
    long = evaluate_texts(loaded, texts, context=1000)
    assert long.total.nats == pytest.approx(evaluate_texts(loaded, texts, carry=True).total.nats)
    with pytest.raises(UsageError, match="--carry and --stride cannot be combined"):
        evaluate_texts(loaded, texts, carry=True, stride=4)


def test_no_text_and_no_number() -> None:
    loaded = make_loaded(Chain())
    with pytest.raises(DataError, match="no text"):
        given_texts(loaded, ["", " \n"])
    with torch.no_grad():
        loaded.model.head.weight.fill_(math.nan)
    with pytest.raises(DataError, match="NaN or infinity"):
        evaluate_texts(loaded, given_texts(loaded, ["abc"]))


def test_languages_belong_to_their_texts_whatever_is_empty() -> None:
    said = given_texts(
        make_loaded(Chain()), ["", "hello there", "안녕"], languages=["ko", "en", "ko"]
    )
    assert said.languages.tolist() == ["en", "ko"]


def test_words_are_counted_as_papers_on_wikitext_do() -> None:
    lines = [" \n", " = Robert Boulter = \n", " \n", " Robert @-@ Boulter , an actor .\n"]
    # what a word-level model is scored on: the words of each line, and <eos> at its end
    assert wikitext_words("".join(lines)) == sum(len(line.split()) + 1 for line in lines)
    assert wikitext_words("a b\nc") == 5
    assert Score(10.0, 5, 0, 0, 1).bpb != Score(10.0, 5, 0, 0, 1).bpb  # no bytes: not a number
    assert Score(1e6, 5, 4, 2, 1).word_perplexity == math.inf


def test_bits_per_byte_of_the_text_leave_out_end_tokens() -> None:
    loaded = make_loaded(Attentive(limit=16))
    found = evaluate_texts(loaded, given_texts(loaded, TEXTS), context=16, stride=1).total
    ids, end = stream(TEXTS), loaded.tokenizer.end
    nats = [by_hand(loaded.model, ids[max(0, i - 16) : i + 1], 1)[0] for i in range(1, len(ids))]
    ends = sum(n for n, token in zip(nats, ids[1:], strict=True) if token == end)
    assert ends > 0
    assert found.special_nats == pytest.approx(ends, abs=1e-4)
    assert found.text_bpb == pytest.approx((sum(nats) - ends) / math.log(2) / found.bytes, abs=1e-5)
    assert found.text_bpb < found.bpb


# -- prepared sets --------------------------------------------------------------------------------

KOREAN = [
    "강에서 물고기를 잡았다.",
    "해가 지고 밤이 왔다.\n아이는 집에 갔다.",
    "고양이가 문 앞에서 울었다.",
]
ENGLISH = ["The river ran to the sea.", "The night fell over the hill.\nA fox came.", "One more."]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    folder = tmp_path_factory.mktemp("evaluated")
    texts = [f"{text} {n}" for n in range(12) for text in (*KOREAN, *ENGLISH)]
    (folder / "both.txt").write_text("\n\n\n".join(texts), encoding="utf-8")
    prepare(
        ["both"], source=str(folder / "both.txt"), out=folder / "both", tokenizer="bpe",
        vocab_size=300, val_fraction=0.3, filter="none", lang=["en", "ko"],
    )  # fmt: skip
    return PreparedData.open(folder / "both")


def real(data: PreparedData, **changes: Any) -> LoadedModel:
    """An untrained vanilla that belongs to the set."""
    tokenizer = load_tokenizer(data.path)
    config = config_class("vanilla")(
        vocab_size=tokenizer.vocab_size, layers=1, heads=2, width=16, context=24
    )
    torch.manual_seed(1)
    model = build_model("vanilla", config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    header = Header(
        model="vanilla",
        config={"model": config.model_dump(mode="json"), "training": {}, "data": {}},
        tokenizer=tokenizer.to_dict(),
        data=DataInfo(
            name="both", path=str(data.path), languages={"en": 1, "ko": 1}, documents=100,
            markers=data.has_markers,
        ),
    )  # fmt: skip
    return LoadedModel(model.eval(), tokenizer, header)


def test_a_prepared_set_scores_as_in_training(data: PreparedData) -> None:
    loaded = real(data)
    texts, anew = prepared_texts(loaded, data)
    assert not anew
    found = evaluate_texts(loaded, texts).total
    expected = evaluate(loaded.model, data, torch.float32)
    assert found.loss == pytest.approx(expected.loss, abs=1e-6)
    assert found.bpb == pytest.approx(expected.bpb, abs=1e-6)
    assert (found.tokens, found.bytes) == (expected.tokens, expected.bytes)
    assert found.documents == data.document_count("val")


def decoded(data: PreparedData, code: str) -> list[str]:
    """The texts of the validation documents in a language, from the tokens on disk."""
    found = []
    for ids, ends, records in zip(
        data.split("val"), data.document_ends("val"), data.records("val"), strict=True
    ):
        starts = [0, *ends[:-1].tolist()]
        for a, b, record in zip(starts, ends.tolist(), records, strict=True):
            if record["language"].decode() == code:
                found.append(data.tokenizer.decode(ids[a:b].tolist()))
    return found


@pytest.mark.parametrize("code", ["ko", "en"])
def test_one_language_of_a_prepared_set(data: PreparedData, code: str) -> None:
    loaded = real(data)
    texts, _ = prepared_texts(loaded, data, lang=code)
    found = evaluate_texts(loaded, texts)
    own = decoded(data, code)
    assert list(found.per_language) == [code]
    assert found.total.documents == len(own) > 0
    assert found.total.bytes == sum(len(text.encode()) for text in own)
    assert found.total.words == sum(map(wikitext_words, own))
    # the same documents given as texts are the same tokens
    again = evaluate_texts(loaded, given_texts(loaded, own, lang=code))
    assert again.total.nats == pytest.approx(found.total.nats, rel=1e-6)
    fewer, _ = prepared_texts(loaded, data, lang=code, max_docs=1)
    assert len(fewer.ends) == 1


def test_words_are_counted_by_decoding_where_a_set_does_not_say(
    data: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = real(data)
    said, _ = prepared_texts(loaded, data)
    silent = [np.array(records) for records in data.records("val")]
    for records in silent:
        records["words"] = 0
    monkeypatch.setattr(data, "records", lambda split: silent)
    assert prepared_texts(loaded, data)[0].words.tolist() == said.words.tolist()


def test_a_set_with_another_tokenizer_is_read_anew(data: PreparedData) -> None:
    loaded = make_loaded(Chain(), ByteTokenizer())
    texts, anew = prepared_texts(loaded, data)
    assert anew
    assert texts.bytes.sum() == data.byte_count("val")
    assert sorted(set(texts.languages.tolist())) == ["en", "ko"]
    assert texts.tokens.sum() == data.byte_count("val") + data.document_count("val")


def test_a_language_without_documents(data: PreparedData) -> None:
    with pytest.raises(DataError, match="has no documents in the language 'fr'") as error:
        prepared_texts(real(data), data, lang="fr")
    assert "en, ko" in error.value.next_step
    with pytest.raises(UsageError, match="was not trained on the language 'fr'"):
        given_texts(real(data), ["bonjour"], lang="fr")


def test_characters_that_an_alphabet_lacks_are_not_counted(tmp_path: Path) -> None:
    from holo_cli.data.tokenizers.char import CharTokenizer

    loaded = make_loaded(Chain(), CharTokenizer("\n abc"))
    texts = given_texts(loaded, ["abc 강 abc"])
    assert texts.bytes.tolist() == [len("abc  abc")]
    assert texts.words.tolist() == [3]


# -- likelihoods ----------------------------------------------------------------------------------


def test_continuations_by_hand_in_any_company() -> None:
    loaded = make_loaded(Attentive(limit=16))
    pairs = [("to the ", "sea"), ("", "ab"), ("a rather long context, cut", " here"), ("x", "y")]
    found = continuations(loaded, pairs)
    for (context, text), (logprob, greedy) in zip(pairs, found, strict=True):
        ids = [256, *(context + text).encode()][-17:]
        stripped = len((context + text).encode()) - len(context.rstrip().encode())
        nats = by_hand(loaded.model, ids, stripped)
        assert logprob == pytest.approx(-sum(nats), rel=1e-5)
        assert greedy is False
    assert continuations(loaded, pairs[:1])[0].logprob == pytest.approx(found[0].logprob, rel=1e-6)


def test_greedy_is_told() -> None:
    said = make_loaded(Scripted([*b"sea"], prompt=8))  # the end token and seven letters
    right, wrong = continuations(said, [("to the", " sea"), ("to the ", "sky")])
    assert not wrong.greedy
    assert not right.greedy  # the space was not in the script
    (exact,) = continuations(said, [("to thex", "sea")])
    assert exact.greedy
    assert exact.logprob == pytest.approx(0.0, abs=1e-4)


def test_rolling_scores_every_token_once_with_a_full_last_window() -> None:
    loaded = make_loaded(Attentive(limit=16))
    text = "The river ran to the sea, and night fell."
    ids = [256, *text.encode()]
    total, start = 0.0, 1
    while start < len(ids):
        end = min(start + 16, len(ids))
        total += sum(by_hand(loaded.model, ids[max(0, end - 17) : end], end - start))
        start = end
    assert rolling(loaded, [text, "x"])[0] == pytest.approx(-total, rel=1e-5)


def test_text_until_a_stop() -> None:
    said = make_loaded(Scripted([*b"yes.\nno"], prompt=2))
    assert generate_until(said, "hi", ["\n"], {"max_gen_toks": 20}) == "yes."
    assert generate_until(said, "hi", [], {"max_gen_toks": 3, "do_sample": False}) == "yes"
    with pytest.raises(UsageError, match="num_beams"):
        generate_until(said, "hi", [], {"num_beams": 4})


@pytest.mark.parametrize(
    ("pair", "message"),
    [(("a", "x" * 20), "more than this model's context"), (("a", ""), "no tokens of its own")],
)
def test_continuations_that_cannot_be(pair: tuple[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        continuations(make_loaded(Attentive(limit=16)), [pair])


def test_scores_leave_the_model_as_it_was() -> None:
    loaded = replace(make_loaded(Chain()))
    loaded.model.train()
    evaluate_texts(loaded, given_texts(loaded, ["abc"]))
    rolling(loaded, ["abc"])
    assert loaded.model.training


def test_a_context_beyond_the_text_is_the_whole_text() -> None:
    """And takes the memory of the text, not of the context."""
    loaded = make_loaded(Chain())
    texts = given_texts(loaded, TEXTS)
    whole = evaluate_texts(loaded, texts, context=texts.stream.length)
    huge = evaluate_texts(loaded, texts, context=10**12, rows=10**12)
    assert huge.total.loss == pytest.approx(whole.total.loss, abs=1e-6)
    assert huge.context == 10**12
