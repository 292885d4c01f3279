"""Every kind of tokenizer: exact round trips, special tokens, storage."""

from __future__ import annotations

import io
import json
import random
from functools import cache
from pathlib import Path

import pytest

from holo_cli.data.tokenizers import (
    Tokenizer,
    load_tokenizer,
    make_tokenizer,
    spec_identity,
    tokenizer_from_dict,
)
from holo_cli.data.tokenizers.char import CharTokenizer
from holo_cli.data.tokenizers.sentencepiece_ import SentencePieceTokenizer
from holo_cli.errors import DataError, HoloError, UsageError

CORPUS = [
    "The keeper of the lighthouse waits. He has waited 1024 nights, hasn't he?",
    "등대지기는 밤마다 기다렸다. AI는 2024년에도 등대를 모른다.",
    "파도가 높아서 배가 늦었다. 그래서 그는 불을 켜 두었다.\n\n그날 밤 눈이 왔다.",
] * 20
HARD = [
    "",
    " ",
    "  two  spaces ",
    "\n\n\tindented\r\n",
    "▁ is not a space ▁▁",
    "<|end|> <|ko|> <s> </s> <unk> <|endoftext|> [UNK]",
    "a\0b",
    "e\u0301 against é, ﬁ, ①, ½",
    "각 as jamo: \u1100\u1161\u11a8",
    "👨‍👩‍👧 👍🏽 🇰🇷 🏴󠁧󠁢󠁥󠁮󠁧󠁿 ❤️",
    "नमस्ते, ภาษาไทย, שָׁלוֹם, اَلْعَرَبِيَّةُ",
    "日本語、漢字、𠮷野家",
    "\u2028\u200b\ufeff\U0010ffff",
]


@cache
def sentencepiece_model() -> bytes:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        model_type="bpe",
        vocab_size=360,
        byte_fallback=True,
        normalization_rule_name="nmt_nfkc",
        minloglevel=2,
    )
    return model.getvalue()


@cache
def foreign_json(style: str) -> str:
    """A tokenizer.json as other projects write it, which adds a space before the first word."""
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

    if style == "gpt2":
        library = Library(models.BPE())
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        library.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        specials = ["<|endoftext|>"]
    elif style == "llama":
        library = Library(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        library.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        library.decoder = decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        )
        alphabet = []
        specials = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    elif style == "metaspace":
        library = Library(models.BPE())
        library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        library.decoder = decoders.Metaspace(prepend_scheme="first")
        alphabet = sorted(set("".join([*CORPUS, *HARD]).replace(" ", "▁")))
        specials = []
    else:
        library = Library(models.WordPiece(unk_token="[UNK]"))
        library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        library.decoder = decoders.WordPiece()
        alphabet = []
        specials = ["[UNK]", "[CLS]", "[SEP]"]
    if style == "wordpiece":
        trainer: object = trainers.WordPieceTrainer(
            vocab_size=400, special_tokens=specials, show_progress=False
        )
    else:
        trainer = trainers.BpeTrainer(
            vocab_size=700, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
        )
    library.train_from_iterator(CORPUS, trainer)
    if style == "wordpiece":
        library.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    data = json.loads(library.to_str())
    if style == "llama":  # the byte pieces are vocabulary in such files, not added tokens
        data["added_tokens"] = [a for a in data["added_tokens"] if a["content"][1:3] != "0x"]
    return json.dumps(data)


@cache
def made(kind: str) -> Tokenizer:
    if kind == "char":
        return make_tokenizer("char", texts=lambda: [*CORPUS, *HARD], languages=["en", "ko"])
    if kind == "bpe":
        return make_tokenizer("bpe", texts=lambda: CORPUS, vocab_size=400, languages=["en", "ko"])
    if kind == "sentencepiece":
        return SentencePieceTokenizer(sentencepiece_model()).with_specials(["<|ko|>"])
    from holo_cli.data.tokenizers.bpe import JsonTokenizer

    return JsonTokenizer(foreign_json(kind)).with_specials(["<|ko|>"])


EXACT = ["char", "bpe", "sentencepiece", "gpt2", "llama", "metaspace"]
KINDS = [*EXACT, "wordpiece"]


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("text", [*HARD, *CORPUS[:3]])
def test_decoding_inverts_encoding(kind: str, text: str) -> None:
    if kind in ("llama", "metaspace") and "▁" in text:
        pytest.skip("such files write a space and ▁ with the same piece")
    tokenizer = made(kind)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_batch([text, "x", text]) == [ids, tokenizer.encode("x"), ids]


@pytest.mark.parametrize("kind", ["bpe", "sentencepiece"])
def test_any_unicode_is_decoded_exactly(kind: str) -> None:
    random_ = random.Random(7)
    tokenizer = made(kind)
    for _ in range(200):
        points = (random_.choice([0x7F, 0x7FF, 0xD7FF, 0x10FFFF]) for _ in range(12))
        text = "".join(chr(random_.randint(0, top)) for top in points)
        text = "".join(c for c in text if not "\ud800" <= c <= "\udfff")
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_are_never_made_from_text_and_give_no_text(kind: str) -> None:
    tokenizer = made(kind)
    special = set(tokenizer.specials.values())
    assert not special & set(tokenizer.encode("<|end|><|ko|> <|en|>"))
    assert tokenizer.decode([tokenizer.end]) == ""
    ids = tokenizer.encode("night")
    assert tokenizer.decode([tokenizer.end, *ids, tokenizer.end]) == tokenizer.decode(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_and_a_folder_bring_it_back(kind: str, tmp_path: Path) -> None:
    tokenizer = made(kind)
    again = tokenizer_from_dict(json.loads(json.dumps(tokenizer.to_dict())))
    tokenizer.save(tmp_path)
    for other in (again, load_tokenizer(tmp_path)):
        assert other.fingerprint == tokenizer.fingerprint
        assert (other.kind, other.vocab_size) == (tokenizer.kind, tokenizer.vocab_size)
        assert other.specials == tokenizer.specials
        assert other.encode(CORPUS[1]) == tokenizer.encode(CORPUS[1])


@pytest.mark.parametrize("kind", KINDS)
def test_every_id_is_inside_the_vocabulary(kind: str) -> None:
    tokenizer = made(kind)
    ids = [i for text in [*HARD, *CORPUS] for i in tokenizer.encode(text)]
    assert min(ids) >= 0
    assert max(ids) < tokenizer.vocab_size
    assert len(set(tokenizer.specials.values())) == len(tokenizer.specials)
    assert tokenizer.ordinary <= min(tokenizer.specials.values())
    with pytest.raises(DataError, match="outside"):
        tokenizer.decode([tokenizer.vocab_size])
    with pytest.raises(DataError, match="outside"):
        tokenizer.token_bytes(-1)


@pytest.mark.parametrize("kind", EXACT)
def test_a_continuation_keeps_its_first_space(kind: str) -> None:
    tokenizer = made(kind)
    together = tokenizer.encode("the") + tokenizer.encode(" keeper")
    assert tokenizer.decode(together) == "the keeper"


@pytest.mark.parametrize("kind", ["bpe", "gpt2", "llama", "metaspace"])
def test_other_programs_read_the_saved_file_alike(kind: str, tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Library

    made(kind).save(tmp_path)
    library = Library.from_file(str(tmp_path / "tokenizer.json"))
    for text in (" the keeper", *CORPUS[:3]):
        ids = library.encode(text, add_special_tokens=False).ids
        assert ids == made(kind).encode(text)
        assert library.decode(ids) == text
    assert library.token_to_id("<|end|>") == made(kind).end


def test_markers() -> None:
    tokenizer = made("bpe")
    assert tokenizer.marker("ko") == tokenizer.specials["<|ko|>"]
    assert tokenizer.marker("fr") is None
    more = tokenizer.with_specials(["<|fr|>"])
    assert more.marker("ko") == tokenizer.marker("ko")
    assert more.marker("fr") == tokenizer.vocab_size
    assert more.fingerprint != tokenizer.fingerprint


def test_pieces_can_be_read_alone() -> None:
    tokenizer = make_tokenizer("bpe", texts=lambda: CORPUS, vocab_size=400)
    pieces = tokenizer.pieces([*tokenizer.encode("the 등 👍"), tokenizer.end])
    assert pieces[-1] == "<|end|>"
    assert not any(c in piece for piece in pieces for c in "ĠÃ▁\ufffd")
    assert "\\xf0" in "".join(pieces)
    assert made("sentencepiece").pieces(made("sentencepiece").encode(" the"))[0].startswith(" ")


def test_unknown_characters_are_dropped_and_listed() -> None:
    tokenizer = CharTokenizer.train(["abc"])
    assert tokenizer.decode(tokenizer.encode("a한b글c")) == "abc"
    assert tokenizer.unknown("a한b글") == ["글", "한"]
    assert tokenizer.encode("한") == []
    assert tokenizer.vocab_size == 4


def test_hangul_and_latin_never_share_a_token() -> None:
    tokenizer = make_tokenizer("bpe", texts=lambda: ["AI는 AI는 AI는"] * 50, vocab_size=300)
    assert tokenizer.pieces(tokenizer.encode("AI는")) == ["AI", "는"]


def test_bpe_holds_its_vocabulary_size_and_learns() -> None:
    tokenizer = made("bpe")
    assert tokenizer.vocab_size == 400
    text = CORPUS[1]
    assert len(tokenizer.encode(text)) < len(text.encode()) / 2


def test_training_twice_gives_the_same_tokenizer() -> None:
    again = make_tokenizer("bpe", texts=lambda: CORPUS, vocab_size=400, languages=["ko", "en"])
    assert again.fingerprint == made("bpe").fingerprint


def test_undecodable_terminal_input_does_not_fail() -> None:
    for kind in EXACT:
        assert isinstance(made(kind).encode("a\udcedb"), list)


# -- what is written after --tokenizer ------------------------------------------------------------


def test_a_tokenizer_is_used_again_by_path(tmp_path: Path) -> None:
    made("bpe").save(tmp_path)
    path = tmp_path / "tokenizer.json"
    for spec in (str(path), f"bpe:{path}", str(tmp_path)):
        again = make_tokenizer(spec, languages=["en", "ko"])
        assert again.fingerprint == made("bpe").fingerprint
        assert again.kind == "bpe"
    (tmp_path / "a b.model").write_bytes(sentencepiece_model())
    assert make_tokenizer(f"llama:{tmp_path / 'a b.model'}").kind == "sentencepiece"
    before = spec_identity(str(path))
    path.write_text(foreign_json("gpt2"), encoding="utf-8")
    assert spec_identity(str(path)) != before


@pytest.mark.parametrize(
    ("spec", "kind", "says"),
    [
        ("bep", UsageError, "Did you mean 'bpe'"),
        ("tiktoken:gpt3", UsageError, "gpt2"),
        ("tiktoken", UsageError, "tiktoken:NAME"),
        ("llama", UsageError, "llama:PATH"),
        ("llama:/nowhere/x.model", DataError, "cannot be read"),
        ("nowhere/tokenizer.json", DataError, "cannot be read"),
    ],
)
def test_a_wrong_spec_is_one_clear_sentence(spec: str, kind: type[HoloError], says: str) -> None:
    with pytest.raises(kind, match=says):
        make_tokenizer(spec)


def test_a_vocabulary_below_the_bytes_is_refused() -> None:
    with pytest.raises(UsageError, match="at least --vocab-size 259"):
        make_tokenizer("bpe", texts=lambda: CORPUS, vocab_size=200, languages=["en", "ko"])


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"not json", b"\xff\xfe", b'{"model": 3}', b'{"holo": 1, "kind": "x"}'],
)
def test_a_damaged_tokenizer_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"tokenizer\.json is damaged"):
        make_tokenizer(str(path))
    model = tmp_path / "x.model"
    model.write_bytes(content)
    with pytest.raises(DataError, match="damaged or of another kind"):
        make_tokenizer(f"llama:{model}")


def test_tiktoken_without_its_file_is_one_quick_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holo_cli.data.tokenizers import tiktoken_

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    with pytest.raises(DataError, match="TIKTOKEN_CACHE_DIR"):
        make_tokenizer("tiktoken:gpt2", offline=True)
    monkeypatch.setattr(tiktoken_, "reachable", lambda url: False)
    with pytest.raises(DataError, match="does not respond"):
        make_tokenizer("tiktoken:o200k_base")


def test_tiktoken_keeps_the_ids_and_appends_specials(monkeypatch: pytest.MonkeyPatch) -> None:
    import tiktoken

    from holo_cli.data.tokenizers import tiktoken_

    ranks = {bytes([b]): b for b in range(256)} | {b"th": 256, "한".encode(): 258}
    ranks[b"\xed\x95"] = 257
    small = tiktoken.Encoding(
        "small", pat_str=r"\p{L}+|\s|.", mergeable_ranks=ranks, special_tokens={"<|eot|>": 260}
    )
    monkeypatch.setattr(tiktoken_, "load_encoding", lambda name, offline=False: small)
    tiktoken_.ranks_sha256.cache_clear()
    tokenizer = make_tokenizer("tiktoken:gpt2", languages=["en", "ko"])
    assert tokenizer.specials == {"<|end|>": 261, "<|en|>": 262, "<|ko|>": 263}
    for text in ["the 한글 <|eot|>", *HARD]:
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert tokenizer.encode(text) == tokenizer.encode_batch([text])[0]
    assert 260 not in tokenizer.encode("<|eot|>")
    assert tokenizer.decode([259, 260]) == ""  # an unused id and the encoding's own special
    data = tokenizer.to_dict()
    assert tokenizer_from_dict(data).fingerprint == tokenizer.fingerprint
    with pytest.raises(DataError, match="differ from those in use"):
        tokenizer_from_dict({**data, "ranks_sha256": "0"})
    tiktoken_.ranks_sha256.cache_clear()


def test_a_damaged_rank_file_is_not_fetched_again_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holo_cli.data.tokenizers import tiktoken_

    def fetch(*arguments: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(tiktoken_, "reachable", fetch)
    monkeypatch.setattr(tiktoken_, "_load", fetch)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    (url,) = tiktoken_.RANK_FILES["cl100k_base"]
    (tmp_path / tiktoken_._cached_name(url)).write_bytes(b"damaged")
    with pytest.raises(DataError, match="is damaged"):
        make_tokenizer("tiktoken:cl100k_base", offline=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match="is damaged"):
        make_tokenizer("tiktoken:cl100k_base")
