"""Every dataset of the hub through its real loader: from a hub on the loopback, from a folder,
from the cache; and what each makes of its files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holo_cli.data.dataset import PreparedData
from holo_cli.data.document import Document
from holo_cli.data.prepare.prepare import prepare
from holo_cli.data.sources import open_source
from holo_cli.data.sources.base import Request
from holo_cli.data.sources.hub.articles import articles, is_title
from holo_cli.data.sources.hub.subsets import PARTS, HubFiles
from holo_cli.errors import DataError, UsageError
from tests.data.sources import hub_layouts as layouts
from tests.data.sources.hub_server import Hub


def documents(name: str, **asked: Any) -> tuple[list[Document], Counter[str]]:
    counts: Counter[str] = Counter()
    source = open_source(Request(name, **asked))
    return list(source.documents(counts)), counts


def texts(name: str, **asked: Any) -> list[str]:
    return [document.text for document in documents(name, **asked)[0]]


def serve(hub: Hub, name: str, folder: Path) -> None:
    """Write a dataset's files in the layout of the hub and serve them."""
    if name.startswith("wikitext"):
        layouts.wikitext(folder, {"train": 11, "validation": 3, "test": 2})
    elif name in ("wikipedia", "simple"):
        layouts.wikipedia(folder, {"ko": (2, 60), "en": (1, 200)})
    elif name == "korean":
        layouts.korean_sets(folder)
    elif name == "c4":
        layouts.c4(folder)
    elif name.startswith("fineweb-") or name == "fineweb":
        layouts.fineweb(folder, score=name == "fineweb-edu")
    elif name in ("openwebtext", "bookcorpusopen"):
        getattr(layouts, name)(folder)
    elif name == "fineweb2":
        layouts.fineweb2(folder)
    for part in PARTS[name]:
        inside = folder / part.repository
        hub.add(part.repository, inside if inside.is_dir() else folder)


# -- the same from the hub and from a folder ------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "languages", "count"),
    [
        ("wikitext103", (), 14),
        ("wikitext2", (), 14),
        ("wikipedia", ("ko", "en"), 320),
        ("simple", (), 320),
        ("korean", (), 456),
        ("c4", (), 200),
        ("c4", ("ko",), 200),
        ("openwebtext", (), 200),
        ("bookcorpusopen", (), 200),
        ("fineweb", (), 300),
        ("fineweb-edu", (), 300),
        ("fineweb2", ("ko", "de"), 200),
    ],
)
def test_the_hub_and_a_copy_in_a_folder_give_the_same(
    name: str, languages: tuple[str, ...], count: int, hub: Hub, tmp_path: Path
) -> None:
    folder = tmp_path / "복사본 of it"
    serve(hub, name, folder)
    from_hub, left_out = documents(name, languages=languages)
    assert len(from_hub) == count
    assert documents(name, languages=languages, source=str(folder)) == (from_hub, left_out)
    assert {document.language for document in from_hub} <= {"ko", "en", "de"}
    assert all(document.source for document in from_hub)
    # parquet and json.gz are streamed by ranges; small datasets are downloaded into the cache
    ranged = [line for line in hub.contents() if "bytes=" in line]
    assert bool(ranged) != all(part.keep for part in PARTS[name])


@pytest.mark.parametrize("name", sorted(PARTS))
def test_every_row_of_the_table_has_its_files(name: str) -> None:
    assert PARTS[name]
    for part in PARTS[name]:
        assert isinstance(part, HubFiles)
        assert part.repository.count("/") == 1
        assert part.texts
        assert part.files


def test_nobody_else_is_asked(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` reports each file that it opens to a server of statistics, local ones too."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", True)
    requests: list[str] = []
    monkeypatch.setattr(datasets.load, "get_session", lambda: requests.append("opened"))
    layouts.wikitext(tmp_path, {"train": 3, "validation": 1, "test": 1})
    assert texts("wikitext2", source=str(tmp_path))
    assert requests == []


# -- what each makes of its rows -------------------------------------------------------------------


def test_wikitext_articles_are_rebuilt_across_files_and_keep_their_words(
    hub: Hub, tmp_path: Path
) -> None:
    folder = tmp_path / "hub"
    expected = layouts.wikitext(folder, {"train": 11, "validation": 3, "test": 2})
    hub.add("Salesforce/wikitext", folder)
    found, _ = documents("wikitext103")
    by_split = {split: [d.text for d in found if d.split == split] for split in ("train", "val")}
    assert by_split == {"train": expected["train"], "val": expected["validation"]}
    result = prepare(["wikitext103"], out=tmp_path / "set", vocab_size=300)
    data = PreparedData.open(result.data)
    for split, name in (("train", "train"), ("val", "validation")):
        words = [len(text.split()) for text in expected[name]]
        assert sum(shard.words for shard in data.meta.of(split)) == sum(words)
        assert np.concatenate([r["words"] for r in data.records(split)]).tolist() == words
    assert result.docs == {"train": 11, "val": 3}


@pytest.mark.parametrize(
    ("line", "title"),
    [
        (" = Robert Boulter = \n", True),
        (" = 1 + 1 = 2 = \n", True),
        (" = = Career = = \n", False),
        (" = = = Early years = = = \n", False),
        (" Robert = Boulter \n", False),
        ("", False),
    ],
)
def test_titles(line: str, title: bool) -> None:
    assert is_title(line) == title


def test_lines_before_the_first_title_are_kept() -> None:
    lines = ["", "left over \n", "", " = A = \n", "", "a \n"]
    found = [d.text for d in articles(Document(line) for line in lines)]
    assert found == ["left over ", " = A = \n\na "]
    assert list(articles([])) == []


def test_simple_is_balanced_and_ends_with_the_shorter(hub: Hub, tmp_path: Path) -> None:
    serve(hub, "simple", tmp_path / "hub")
    result = prepare(["simple"], out=tmp_path / "set", vocab_size=400)
    shares = PreparedData.open(result.data).meta.mixture
    assert set(shares) == {"simple ko", "simple en"}
    assert max(shares.values()) - min(shares.values()) < 400  # two documents
    assert sum(result.docs.values()) < 320


def test_korean_has_each_text_once_and_names_its_repositories(hub: Hub, tmp_path: Path) -> None:
    serve(hub, "korean", tmp_path / "hub")
    found, counts = documents("korean")
    assert counts == {"repeated texts": 40 + 59 + 45}  # mrc, nli's hypotheses, KorQuAD
    assert {d.source for d in found} == {
        "klue/klue", "KorQuAD/squad_kor_v1", "Moo/korean-parallel-corpora",
    }  # fmt: skip
    assert 'Boat 3, "in haste", came.' in [d.text for d in found if d.language == "en"]
    only = documents("korean", languages=("ko",))[0]
    assert [d.text for d in only] == [d.text for d in found if d.language == "ko"]
    with pytest.raises(UsageError, match="korean has no text in 'fr'"):
        documents("korean", languages=("fr",))


def test_the_score_of_fineweb_edu_is_kept(hub: Hub, tmp_path: Path) -> None:
    serve(hub, "fineweb-edu", tmp_path / "hub")
    assert documents("fineweb-edu")[0][3].score == pytest.approx(2.8)
    result = prepare(["fineweb-edu"], out=tmp_path / "set", vocab_size=300, max_docs=60)
    scores = np.concatenate([r["score"] for r in PreparedData.open(result.data).records("train")])
    assert 2.5 <= scores.min() < scores.max() <= 4.5
    serve(hub, "fineweb", tmp_path / "plain")
    assert documents("fineweb")[0][0].score is None


@pytest.mark.parametrize("name", ["fineweb", "fineweb-edu"])
def test_the_subsets_of_fineweb(name: str, hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    serve(hub, name, folder)
    columns = {"score": [1.0, 2.0]} if name == "fineweb-edu" else {}
    for path, text in (
        ("sample/100BT/000_00000.parquet", "a hundred"),
        ("data/CC-MAIN-2024-10/000_00000.parquet", "all"),
        ("data/CC-MAIN-2024-18/000_00000.parquet", "all"),
    ):
        layouts.parquet(folder / path, {"text": [f"{text}, one", f"{text}, two"], **columns})
    (part,) = PARTS[name]
    hub.add(part.repository, folder)
    assert texts(name) == texts(name, subset="sample-10BT")
    assert texts(name, subset="sample-100BT") == ["a hundred, one", "a hundred, two"]
    assert texts(name, subset="default") == ["all, one", "all, two"] * 2
    assert len(texts(name, subset="default", source=str(folder))) == 4
    with pytest.raises(UsageError, match="no subset 'sample-10bt'") as caught:
        documents(name, subset="sample-10bt")
    assert "Did you mean 'sample-10BT'" in caught.value.next_step
    result = prepare([name], out=tmp_path / "set", subset="sample-100BT", tokenizer="char")
    assert sum(result.docs.values()) == 2
    with pytest.raises(DataError, match="subset was sample-100BT and is none now"):
        prepare([name], out=tmp_path / "set", tokenizer="char")
    for other in ("fineweb2", "stories"):
        with pytest.raises(UsageError, match=f"{other} has no subset"):
            prepare([other], out=tmp_path / "other", subset="sample-10BT", lang=["ko"])


def test_fineweb2_by_its_own_names_of_languages(hub: Hub, tmp_path: Path) -> None:
    serve(hub, "fineweb2", tmp_path / "hub")
    found, _ = documents("fineweb2", languages=("de",))
    assert found[0].text == layouts.german(0)
    assert {d.language for d in found} == {"de"}
    with pytest.raises(UsageError, match="has no language 'xx'"):
        documents("fineweb2", languages=("xx",))
    layouts.parquet(tmp_path / "hub/data/gsw_Latn/train/000.parquet", {"text": ["Grüezi"] * 9})
    serve(hub, "fineweb2", tmp_path / "hub")
    result = prepare(["fineweb2"], out=tmp_path / "set", lang=["kor_Hang", "gsw_Latn"])
    shares = PreparedData.open(result.data).meta
    assert {code: s.documents for code, s in shares.languages["train"].items()}.keys() == {
        "ko", "gsw",
    }  # fmt: skip
    assert shares.specials.keys() == {"<|end|>", "<|ko|>", "<|gsw|>"}
    again = prepare(["fineweb2"], out=tmp_path / "ko", lang=["kor_Hang"], max_docs=50)
    assert again.docs == prepare(["fineweb2"], out=tmp_path / "k", lang=["ko"], max_docs=50).docs
    with pytest.raises(UsageError, match="two scripts of one language"):
        prepare(["fineweb2"], out=tmp_path / "u", lang=["uzn_Latn", "uzn_Cyrl"])
    for name in ("fineweb2", "wikipedia"):
        with pytest.raises(UsageError, match="needs --lang"):
            documents(name)


def test_redpajama_from_the_list_on_the_web_and_from_a_folder(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    from holo_cli.data.sources.hub import source as opener

    for bucket in ("head", "middle"):
        path = tmp_path / "documents" / "2023-06" / "0000" / f"de_{bucket}.json.gz"
        layouts.json_gz(path, layouts.redpajama_rows("de", bucket))
        hub.pages[f"/rp/documents/2023-06/0000/de_{bucket}.json.gz"] = path.read_bytes()
    hub.pages["/rp/listings/de-2023-06-head_middle.txt"] = (
        b"2023-06/0000/de_head\n2023-06/0000/de_middle\n"
    )
    (part,) = PARTS["redpajama"]
    assert (
        part.listing
        == "https://data.together.xyz/redpajama-data-v2/v1.0.0/listings/{code}-2023-06-head_middle.txt"
    )
    here = dataclasses.replace(
        part,
        listing=f"{hub.endpoint}/rp/listings/{{code}}-2023-06-head_middle.txt",
        address=f"{hub.endpoint}/rp/documents/{{name}}.json.gz",
    )
    monkeypatch.setattr(opener, "PARTS", {"redpajama": (here,)})
    found, _ = documents("redpajama", languages=("de",))
    assert len(found) == 120
    assert found[0] == Document(
        f"head: {layouts.german(0)}", language="de", source="redpajama", perplexity=100.0
    )
    assert found[60].text.startswith("middle: ")
    assert documents("redpajama", languages=("de",), source=str(tmp_path))[0] == found
    # its perplexity is no educational value: the rule that drops by value must not read it
    strict = {"filter": "none,education=4", "tokenizer": "char"}
    result = prepare(["redpajama"], out=tmp_path / "set", lang=["de"], **strict)
    records = np.concatenate(PreparedData.open(result.data).records("train"))
    assert 100 <= records["perplexity"].min() < records["perplexity"].max() < 160
    assert np.isnan(records["score"]).all()
    with pytest.raises(UsageError, match="has no language 'ko'"):
        documents("redpajama", languages=("ko",))


# -- limits, markers, positions --------------------------------------------------------------------


def test_a_limit_reads_no_more_than_it_needs(hub: Hub, tmp_path: Path) -> None:
    serve(hub, "c4", tmp_path / "hub")
    result = prepare(["c4"], out=tmp_path / "set", vocab_size=300, max_docs=30, filter="none")
    assert sum(result.docs.values()) == 30
    both = prepare(
        ["wikipedia"], out=tmp_path / "both", vocab_size=400, lang=["ko", "en"], max_bytes=9000,
        source=str(_wikipedia(tmp_path)),
    )  # fmt: skip
    data = PreparedData.open(both.data)
    assert 8800 < sum(both.bytes.values()) <= 9000
    assert data.has_markers
    shares = data.meta.mixture
    assert abs(shares["wikipedia ko"] - shares["wikipedia en"]) < 500


def _wikipedia(folder: Path) -> Path:
    layouts.wikipedia(folder / "wp", {"ko": (1, 100), "en": (1, 100)})
    return folder / "wp"


@pytest.mark.parametrize("name", ["wikipedia", "c4", "wikitext2", "korean"])
def test_a_stream_resumes_from_any_of_its_positions(
    name: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holo_cli.data.sources.hub.rows.CHUNK_DOCUMENTS", 47)
    monkeypatch.setattr("holo_cli.data.sources.base.CHUNK_DOCUMENTS", 5)
    serve(hub, name, tmp_path / "hub")
    languages = ("en",) if name == "wikipedia" else ()
    for stream in open_source(Request(name, languages=languages)).streams[:1]:
        chunks = list(stream.chunks(None))
        assert len(chunks) > 1
        for number, chunk in list(enumerate(chunks))[:3]:
            position = json.loads(json.dumps(chunk.after))
            rest = [d for c in stream.chunks(position) for d in c.documents]
            assert rest == [d for c in chunks[number + 1 :] for d in c.documents]


# -- without a network ----------------------------------------------------------------------------


def test_downloads_are_found_again_offline(hub: Hub, tmp_path: Path) -> None:
    serve(hub, "wikitext2", tmp_path / "hub")
    found, _ = documents("wikitext2")
    hub.repositories.clear()
    asked = len(hub.asked)
    assert documents("wikitext2", offline=True)[0] == found
    assert len(hub.asked) == asked
    with pytest.raises(DataError, match=r"klue/klue is not in the cache of the hub") as caught:
        documents("korean", offline=True)
    assert "--source FOLDER" in caught.value.next_step


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_the_environment_forbids_the_network_too(
    variable: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(DataError, match="is not in the cache of the hub"):
        documents("fineweb")
    assert hub.asked == []


def test_an_incomplete_cache_is_reported(hub: Hub, tmp_path: Path) -> None:
    serve(hub, "wikitext2", tmp_path / "hub")
    documents("wikitext2")
    (one,) = (tmp_path / "hub cache").rglob("snapshots/*/*/train-00001-of-00002.parquet")
    one.unlink()
    with pytest.raises(DataError, match=r"Only 1 of 2 files of Salesforce/wikitext"):
        documents("wikitext2", offline=True)


def test_no_answer_is_one_line_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_DATASETS_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        DataError, match=r"wikipedia has to be downloaded from .*does not respond"
    ) as e:
        documents("wikipedia", languages=("ko",))
    assert "\n" not in str(e.value)
    for way in ("--offline", "--source FOLDER", "holo prepare stories"):
        assert way in e.value.next_step
