"""`holo compare`: two checkpoints on the same text, in figures and in what they write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import holo_cli as holo_package
from holo_cli.checkpoint import DataInfo
from holo_cli.checkpoint.header import ChatFormat
from holo_cli.data.chat_format import MARK_NAMES
from holo_cli.data.windows import TokenStream
from holo_cli.inference.evaluation.eval_corpus import Texts
from holo_cli.inference.evaluation.evaluate import Result
from holo_cli.inference.evaluation.paired import ENOUGH, LONGEST_MESSAGE, opening_prompts, pairs
from tests.cli.checkpoints import ALPHABET, make_checkpoint
from tests.cli.conftest import Holo
from tests.inference.inference_fakes import Attentive, ByteTokenizer, make_loaded

TEXT = "abc fed 가나다\n" * 3


def result(nats: list[float], nbytes: list[int], languages: list[str]) -> Result:
    count = len(nats)
    texts = Texts(
        TokenStream([np.zeros(count, dtype=np.int64)]), np.arange(1, count + 1),
        np.asarray(nbytes), np.ones(count, dtype=np.int64), np.asarray(languages), 0,
    )  # fmt: skip
    return Result(texts, np.asarray(nats), np.zeros(count), 8, 8, 1.0)


def test_the_difference_is_that_of_the_sums_with_an_interval_over_documents() -> None:
    random = np.random.default_rng(0)
    sizes = random.integers(50, 500, 40)
    a = sizes * 1.0
    b = a + sizes * np.log(2) * random.normal(0.1, 0.02, 40)
    codes = ["en", "ko"] * 20
    total, *languages = pairs(
        result(a.tolist(), sizes.tolist(), codes), result(b.tolist(), sizes.tolist(), codes)
    )
    assert total.difference is not None
    assert total.difference.bpb == pytest.approx(total.b.text_bpb - total.a.text_bpb)
    assert total.difference.margin == pytest.approx(1.96 * 0.02 / 40**0.5, rel=0.5)
    assert {pair.language for pair in languages} == {"en", "ko"}
    assert all(pair.difference and pair.difference.documents == 20 for pair in languages)


def test_there_is_no_interval_of_few_documents_and_no_difference_of_other_bytes() -> None:
    few = result([1.0] * (ENOUGH - 1), [9] * (ENOUGH - 1), ["en"] * (ENOUGH - 1))
    (pair,) = pairs(few, few)
    assert pair.difference is not None
    assert pair.difference.margin is None
    other = result([1.0] * (ENOUGH - 1), [8] * (ENOUGH - 1), ["en"] * (ENOUGH - 1))
    assert pairs(few, other)[0].difference is None


def test_two_checkpoints_are_compared_on_a_file(holo: Holo, tmp_path: Path) -> None:
    for run in ("one", "two"):
        make_checkpoint(tmp_path / "checkpoints" / f"{run}_best.safetensors", run)
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    ran = holo(
        "compare", "one", "two", "--file", "a.txt", "--max-new-tokens", "5", "--prompt", "abc",
        "--prompt", "가나", "--out", "pages/two.html", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert (found["a"]["run"], found["b"]["run"]) == ("one", "two")
    assert found["total"]["difference"]["bpb"] == 0
    assert [row["prompt"] for row in found["samples"]] == ["abc", "가나"]
    assert found["samples"][0]["a"] == found["samples"][0]["b"]  # same weights, same seed
    page = (tmp_path / "pages/two.html").read_text(encoding="utf-8")
    assert "one and two" in page
    shown = holo("compare", "one", "two", "--file", "a.txt", "--max-new-tokens", "0")
    assert shown.code == 0
    loss = json.loads(holo("eval", "-c", "one", "--file", "a.txt", "--json").out)["loss"]
    assert shown.out.count(f"{loss:.4f}") == 2
    assert set(ALPHABET) >= set(TEXT)


def test_prompts_are_the_first_words_of_the_text(holo: Holo, tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "checkpoints" / "one_best.safetensors", "one")
    (tmp_path / "a.txt").write_text("abc def gab cab bad fed cage\n", encoding="utf-8")
    ran = holo("compare", "one", "one", "--file", "a.txt", "--max-new-tokens", "3", "--json")
    assert ran.code == 0, ran.err
    assert [row["prompt"] for row in json.loads(ran.out)["samples"]] == ["abc def gab cab bad fed"]


@pytest.mark.parametrize("chat", [True, False])
def test_prompts_from_conversations_are_whole_messages_that_begin_them(chat: bool) -> None:
    """Also where the first checkpoint is a base model: its tokenizer has the marks."""
    tokenizer = ByteTokenizer(MARK_NAMES)
    system, user, assistant = (tokenizer.specials[name] for name in MARK_NAMES)
    documents = [
        ("en", b"One day, a fox found a small red boat"),
        ("en", [assistant, *b"A story?", user, *b"Yes.", assistant, *b"One day"]),
        ("en", [user, *b"x" * (LONGEST_MESSAGE + 1), assistant, *b"Mia."]),
        ("en", [system, *b"Be kind.", user, *b"Who is it?", assistant, *b"Mia."]),
        ("ko", "어느 날".encode()),
    ]
    ids = [np.array([*text, tokenizer.end]) for _, text in documents]
    texts = Texts(
        TokenStream(ids), np.cumsum([len(one) for one in ids]), np.ones(5), np.ones(5),
        np.asarray([code for code, _ in documents]), tokenizer.end,
    )  # fmt: skip
    model = Attentive(vocab=tokenizer.vocab_size, limit=64)
    loaded = make_loaded(model, tokenizer, chat=ChatFormat() if chat else None)
    found = opening_prompts(loaded, texts, 4, messages=True)
    assert found == [("Who is it?", "en"), ("어느 날", "ko")]
    found = opening_prompts(loaded, texts, 4, messages=False)
    assert [prompt for prompt, _ in found] == [
        "One day, a fox found a", "어느 날", "A story?", "x" * 60
    ]  # fmt: skip


def test_a_chat_model_is_asked_in_its_format_and_a_base_model_continues(
    holo: Holo, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoints"
    base = make_checkpoint(folder / "base_best.safetensors", "base")
    data = DataInfo(chat=ChatFormat())
    talk = make_checkpoint(folder / "talk_best.safetensors", "talk", data)
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    flags = ("--file", "a.txt", "--prompt", "abc", "--temperature", "0", "--max-new-tokens", "9")
    ran = holo("compare", "talk", "base", *flags, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    (row,) = found["samples"]
    asked, continued = holo_package.load(talk), holo_package.load(base)
    options: dict[str, Any] = {"max_new_tokens": 9, "temperature": 0}
    assert row["a"] == asked.answer("abc", **options) != asked.generate("abc", **options)
    assert row["b"] == continued.generate("abc", **options)
    assert [found[key]["only_continues"] for key in "ab"] == [False, True]
    loss = json.loads(holo("eval", "-c", "talk", "--file", "a.txt", "--json").out)["loss"]
    assert found["total"]["a"]["loss"] == loss
    page = ("--out", "two.html")
    for names, said in (
        (("talk", "base"), "talk is asked in its chat format, as in `holo chat`; base is a base"),
        (("base", "talk"), "talk is asked in its chat format, as in `holo chat`; base is a base"),
        (("talk", "talk"), "Both are asked in their chat format"),
    ):
        assert said in holo("compare", *names, *flags, *page).err
        assert said in (tmp_path / "two.html").read_text(encoding="utf-8")
    assert "chat format" not in holo("compare", "base", "base", *flags).err
    assert "chat format" not in holo("compare", "talk", "base", *flags[:-1], "0").err


def test_what_cannot_be_compared_is_one_sentence(holo: Holo, tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "checkpoints" / "one_best.safetensors", "one")
    for arguments, code, message in (
        (("one", "none"), 1, "There is no run 'none'"),
        (("one", "one"), 2, "does not name its training data"),
        (("one", "one", "--file", "a.txt", "--data", "d"), 2, "cannot be combined"),
        (("one", "one", "--file", "a.txt"), 1, "a.txt"),
        (("one", "one", "--max-docs", "0"), 2, "--max-docs must be from 1"),
    ):
        ran = holo("compare", *arguments)
        assert ran.code == code, ran.err
        assert message in ran.err
