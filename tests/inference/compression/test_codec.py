"""Compression: the size is the loss, every byte comes back, and whatever cannot is refused."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from torch import Tensor

from holo_cli import registry
from holo_cli.check.cases import add_noise, cases_of
from holo_cli.checkpoint.header import DataInfo, Header
from holo_cli.data.tokenizers import Tokenizer, make_tokenizer
from holo_cli.data.tokenizers.base import special_names
from holo_cli.data.tokenizers.char import CharTokenizer
from holo_cli.errors import CheckpointError, DataError, UsageError
from holo_cli.inference.compression import archive, codec
from holo_cli.inference.compression.codec import compress, decompress
from holo_cli.inference.compression.quantize import GUARD
from holo_cli.inference.evaluation.eval_corpus import given_texts
from holo_cli.inference.evaluation.evaluate import evaluate_texts
from holo_cli.inference.generation.loaded_model import LoadedModel
from holo_cli.models.base import LanguageModel, State

TEXT = "the fox ran to the river and the river ran to the sea. 여우가 강으로 갔다.\n"


def load(name: str, tokenizer: Tokenizer, seed: int = 0, markers: bool = False) -> LoadedModel:
    """An untrained model with noise on every weight, so that its predictions differ by context."""
    torch.manual_seed(seed)
    overrides = cases_of(name)[0].overrides
    shape = {"layers": 2, "heads": 2, "width": 16, "context": 48} | overrides
    config = registry.config_class(name)(vocab_size=tokenizer.vocab_size, **shape)
    model = registry.build_model(name, config)
    add_noise(model)
    header = Header(
        model=name, run=f"run-{seed}", kind="best", tokenizer=tokenizer.to_dict(),
        config={"model": config.model_dump(mode="json"), "training": {}, "data": {}},
        data=DataInfo(markers=markers, languages={"en": 1, "ko": 1} if markers else {}),
    )  # fmt: skip
    return LoadedModel(model.eval(), tokenizer, header)


def char(names: tuple[str, ...] = ()) -> CharTokenizer:
    return CharTokenizer("".join(sorted(set(TEXT)))).with_specials(special_names(names))


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return make_tokenizer("bpe", texts=lambda: [TEXT * 4], vocab_size=290)


@pytest.fixture(scope="module")
def vanilla(bpe: Tokenizer) -> LoadedModel:
    return load("vanilla", bpe)


@pytest.mark.parametrize("name", registry.model_names())
def test_the_size_is_the_loss_and_the_text_comes_back(name: str) -> None:
    """In windows of the context, as `holo eval` scores by default: one chunk, then three."""
    loaded = load(name, char())
    content = (TEXT * 2).encode()
    text_bpb = evaluate_texts(loaded, given_texts(loaded, [content.decode()])).total.text_bpb
    whole = compress(loaded, content)
    assert whole.model_bits_per_byte == pytest.approx(text_bpb, rel=1e-4)
    expected = text_bpb * len(content) / 8
    assert expected <= whole.payload + 1e-3 * expected
    assert whole.payload <= 1.003 * expected + 4
    parts = compress(loaded, content, chunk_bytes=len(content) // 3)
    assert len(parts.archive.chunks) == 3
    assert len(parts.content) - parts.payload < 130 + 12 * 3
    assert decompress(loaded, parts.content) == content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a",
        "e\u0301 decomposed, \u00e9 composed \r\n tabs\t \ufeff \U0001f98a".encode(),
        b"\xff\xfe not UTF-8 \xed\xa0\x80 \xc3",
        bytes(range(256)),
    ],
)
def test_any_bytes_come_back_with_a_tokenizer_of_bytes(
    vanilla: LoadedModel, content: bytes
) -> None:
    assert decompress(vanilla, compress(vanilla, content).content) == content


def test_what_a_tokenizer_cannot_represent_is_refused() -> None:
    loaded = load("vanilla", char())
    with pytest.raises(DataError, match=r"cannot encode: '\\r' 'X'") as caught:
        compress(loaded, b"the foX\r\n", name="a.txt")
    assert caught.value.exit_code == 1
    with pytest.raises(DataError, match="no token for the byte 0xFF"):
        compress(loaded, b"the \xff")


def test_a_tokenizer_that_changes_text_is_refused(
    vanilla: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = type(vanilla.tokenizer).encode
    monkeypatch.setattr(
        type(vanilla.tokenizer), "encode", lambda self, text: plain(self, text.lower())
    )
    with pytest.raises(DataError, match="changes the text"):
        compress(vanilla, b"The Fox")


def test_each_chunk_can_be_decoded_alone(vanilla: LoadedModel) -> None:
    content = (TEXT * 4).encode()  # boundaries fall inside Korean characters as well
    done = compress(vanilla, content, chunk_bytes=80, context=8)
    count = len(done.archive.chunks)
    assert count > 3
    parts = [decompress(vanilla, done.content, chunk=i) for i in reversed(range(count))]
    assert b"".join(reversed(parts)) == content
    with pytest.raises(UsageError, match=f"has no chunk {count}"):
        decompress(vanilla, done.content, chunk=count)


def test_carried_states_and_shorter_windows_come_back(vanilla: LoadedModel, bpe: Tokenizer) -> None:
    content = (TEXT * 2).encode()
    recurrent = load("holographic", bpe)
    carried = compress(recurrent, content, carry=True)
    assert carried.archive.context == 0
    assert decompress(recurrent, carried.content) == content
    score = evaluate_texts(recurrent, given_texts(recurrent, [content.decode()]), carry=True).total
    assert carried.model_bits_per_byte == pytest.approx(score.text_bpb, rel=1e-4)
    short = compress(vanilla, content, context=7)
    assert decompress(vanilla, short.content) == content
    score = evaluate_texts(vanilla, given_texts(vanilla, [content.decode()]), context=7).total
    assert short.model_bits_per_byte == pytest.approx(score.text_bpb, rel=1e-4)
    with pytest.raises(UsageError, match="cannot be combined"):
        compress(vanilla, content, carry=True, context=7)
    with pytest.raises(UsageError, match="does not support --carry"):
        compress(vanilla, content, carry=True)
    with pytest.raises(UsageError, match="does not support a context"):
        compress(vanilla, content, context=49)


def test_chunks_begin_with_the_marker_of_the_language() -> None:
    loaded = load("vanilla", char(("en", "ko")), markers=True)
    content = (TEXT * 2).encode()
    sizes = {lang: compress(loaded, content, lang=lang) for lang in ("en", "ko")}
    assert sizes["en"].nats != sizes["ko"].nats
    score = evaluate_texts(loaded, given_texts(loaded, [content.decode()], lang="ko")).total
    assert sizes["ko"].model_bits_per_byte == pytest.approx(score.text_bpb, rel=1e-4)
    for done in sizes.values():
        assert decompress(loaded, done.content) == content
    with pytest.raises(UsageError, match="was not trained on the language 'fr'"):
        compress(loaded, content, lang="fr")


def test_another_checkpoint_is_refused(vanilla: LoadedModel, bpe: Tokenizer) -> None:
    done = compress(vanilla, b"the fox", name="a.txt")
    with pytest.raises(CheckpointError, match=r"weights of run-0 .*not with those of run-1"):
        decompress(load("vanilla", bpe, seed=1), done.content, name="a.holoz")


def test_every_damaged_byte_is_found(vanilla: LoadedModel) -> None:
    content = done = compress(vanilla, TEXT[:30].encode()).content
    for at in range(len(content)):
        broken = bytearray(content)
        broken[at] ^= 0x10
        with pytest.raises(DataError):
            decompress(vanilla, bytes(broken))
    for end in range(len(content)):
        with pytest.raises(DataError, match="truncated" if end else "was not made by"):
            archive.unpack(content[:end], "a.holoz")
    with pytest.raises(DataError, match="bytes after its end"):
        archive.unpack(done + b"x", "a.holoz")


def test_a_newer_format_and_a_foreign_file_are_named() -> None:
    newer = archive.SIGNATURE + bytes([archive.VERSION + 1]) + bytes(8)
    with pytest.raises(DataError, match="of a newer holo"):
        archive.unpack(newer, "a.holoz")
    with pytest.raises(DataError, match="was not made by"):
        archive.unpack(zlib.compress(b"a text"), "a.holoz")


class _Disturbed(LanguageModel):
    """A model whose logits differ by up to `error`, as on another machine."""

    def __init__(self, model: LanguageModel, error: float) -> None:
        super().__init__(model.config)
        self.inner, self.error = [model], error  # in a list: no weights of its own
        self.make = torch.Generator().manual_seed(0)

    def hidden(self, tokens: Tensor) -> None:  # type: ignore[override]
        raise NotImplementedError

    step_hidden = describe = state_bytes = hidden  # type: ignore[assignment]

    def init_state(self, batch: int = 1) -> State:
        return self.inner[0].init_state(batch)

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        logits, state = self.inner[0].step(tokens, state)
        noise = torch.rand(logits.shape, generator=self.make, dtype=logits.dtype) * 2 - 1
        return logits + self.error * noise, state

    @property
    def device(self) -> torch.device:
        return self.inner[0].device


def disturbed(loaded: LoadedModel, error: float, monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    digest = codec.checkpoint_digest(loaded)
    monkeypatch.setattr(codec, "checkpoint_digest", lambda _: digest)
    return LoadedModel(_Disturbed(loaded.model, error), loaded.tokenizer, loaded.header)


def test_small_differences_of_arithmetic_change_nothing(
    vanilla: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log-odds differ by up to twice the difference of the logits, less than GUARD in all."""
    content = (TEXT * 8).encode()
    done = compress(vanilla, content, chunk_bytes=100)
    other = disturbed(vanilla, 0.45 * GUARD, monkeypatch)
    assert decompress(other, done.content) == content


def test_large_differences_of_arithmetic_are_found(
    vanilla: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = compress(vanilla, (TEXT * 4).encode())
    other = disturbed(vanilla, 0.05, monkeypatch)
    with pytest.raises(DataError, match=r"Chunk 0 of a.holoz decodes to another text.*torch"):
        decompress(other, done.content, name="a.holoz")


def test_other_rows_decode_the_same(vanilla: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    content = (TEXT * 3).encode()
    monkeypatch.setattr("holo_cli.inference.compression.stepping.ROWS", 2)
    done = compress(vanilla, content, chunk_bytes=80, context=8)
    assert done.archive.rows == 2 < len(done.archive.chunks)
    assert decompress(vanilla, done.content) == content


def test_weights_that_diverged_are_an_error(bpe: Tokenizer) -> None:
    loaded = load("vanilla", bpe)
    with torch.no_grad():
        next(iter(loaded.model.parameters())).fill_(np.nan)
    with pytest.raises(DataError, match="NaN or infinity"):
        compress(loaded, b"the fox")
