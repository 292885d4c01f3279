"""Files of other programs that cannot write every character, or change the text."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from holo_cli.data.dataset import PreparedData
from holo_cli.data.prepare.prepare import prepare
from holo_cli.data.tokenizers import make_tokenizer
from holo_cli.errors import DataError

ENGLISH = [f"the old boat number {i} lay by the sea and waited for rain." for i in range(60)]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def without_unk() -> str:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.train_from_iterator(ENGLISH, trainers.BpeTrainer(vocab_size=120, show_progress=False))
    made.save("bpe.json")
    return "bpe.json"


def lowercasing() -> str:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.decoder = decoders.WordPiece()
    made.train_from_iterator(
        ENGLISH,
        trainers.WordPieceTrainer(vocab_size=120, special_tokens=["[UNK]"], show_progress=False),
    )
    made.save("wordpiece.json")
    return "wordpiece.json"


def bytes_with_gaps() -> str:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(ENGLISH, trainers.BpeTrainer(vocab_size=120, show_progress=False))
    made.save("gaps.json")
    return "gaps.json"


@pytest.mark.parametrize("file", [without_unk, lowercasing, bytes_with_gaps])
def test_what_cannot_be_written_is_listed_and_left_out(file: object) -> None:
    tokenizer = make_tokenizer(file())  # type: ignore[operator]
    assert tokenizer.unknown("the old boat by the sea.") == []
    assert tokenizer.unknown("the 배 sea") == ["배"]
    assert tokenizer.encode("the 배 sea") == tokenizer.encode("the  sea") or (
        tokenizer.encode("the 배 sea") == tokenizer.encode("the sea")
    )


@pytest.mark.parametrize("file", [without_unk, lowercasing, bytes_with_gaps])
def test_a_text_that_cannot_be_written_is_refused(file: object) -> None:
    text = "\n\n\n".join(f"{i}. the old boat 강가." for i in range(30))
    Path("ko.txt").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="cannot encode '가'"):
        prepare([], source="ko.txt", tokenizer=file())  # type: ignore[operator]


def test_bytes_are_counted_over_what_a_tokenizer_gives_back() -> None:
    text = "\n\n\n".join(f"The  Old   Boat {i} lay by the SEA." for i in range(60))
    Path("en.txt").write_text(text, encoding="utf-8")
    warned: list[str] = []
    result = prepare([], source="en.txt", tokenizer=lowercasing(), warn=warned.append)
    data = PreparedData.open(result.data)
    for split in ("train", "val"):
        given_back = 0
        ids, ends = data.split(split)[0], data.document_ends(split)[0].tolist()
        for start, end in zip([0, *ends], ends, strict=False):
            given_back += len(data.tokenizer.decode(ids[start:end].tolist()).encode())
        assert data.byte_count(split) == given_back
    (warning,) = warned
    assert "does not give the text back as it was" in warning
