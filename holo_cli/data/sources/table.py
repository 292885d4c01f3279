"""The table of datasets, for `holo datasets` and `holo prepare NAME`.

To add a dataset of the hub, add a row here and its files and columns to `hub/subsets.py`. For any
other source, write a module with an `open(request) -> Source` in this folder and name it in the
row. The example rows are made up: they show the columns, not the data.
"""

from __future__ import annotations

from holo_cli.data.sources.base import SourceRow

_WEB = "ODC-By 1.0, and Common Crawl's terms of use"
_WIKI = "CC BY-SA 3.0 and GFDL"
_STREAMED = "streamed from the Hugging Face hub ({}), or --source FOLDER with a copy of it"
_DOWNLOADED = "downloaded into the Hugging Face cache ({}), or --source FOLDER with a copy of it"

ROWS = (
    SourceRow(
        name="stories",
        description="short original stories in English and Korean from a seeded grammar",
        size="3 MB, or any size with --max-bytes or --max-docs",
        licence="MIT, as this project",
        languages=("en", "ko"),
        access="generated on this machine; needs no network",
        opener="holo_cli.data.sources.stories.embedded:open_stories",
        example="--max-bytes 10000000 --lang ko",
        row={"text": "Mira wanted a kite. ...", "language": "en"},
    ),
    SourceRow(
        name="shakespeare",
        description="tiny Shakespeare: scenes from the plays; one token per character",
        size="1.1 MB",
        licence="public domain",
        languages=("en",),
        access="karpathy/tiny_shakespeare on the Hugging Face hub, or --source FILE",
        opener="holo_cli.data.sources.shakespeare:open_shakespeare",
        tokenizer="char",
        takes_source=True,
        example="--source input.txt",
        row={"text": "KEEPER:\nWho comes so late? ..."},
    ),
    SourceRow(
        name="wikitext103",
        description="28,475 good English Wikipedia articles, with their own validation split",
        size="540 MB of text",
        licence=_WIKI,
        languages=("en",),
        access=_DOWNLOADED.format("Salesforce/wikitext"),
        takes_source=True,
        row={"text": " = Lighthouse of the North = \n"},
    ),
    SourceRow(
        name="wikitext2",
        description="600 good English Wikipedia articles, with their own validation split",
        size="11 MB of text",
        licence=_WIKI,
        languages=("en",),
        access=_DOWNLOADED.format("Salesforce/wikitext"),
        takes_source=True,
        row={"text": " = Lighthouse of the North = \n"},
    ),
    SourceRow(
        name="wikipedia",
        description="all Wikipedia articles of a language as of November 2023",
        size="by language: ko 1.4 GB, en 20 GB of text",
        licence=_WIKI,
        languages=("any",),
        access=_STREAMED.format("wikimedia/wikipedia, 20231101.LANG"),
        takes_source=True,
        options="--lang ko,en",
        row={
            "id": "1",
            "url": "https://ko.wikipedia.org/wiki/...",
            "title": "등대",
            "text": "등대는 배에 길을 알리는 탑이다. ...",
        },
    ),
    SourceRow(
        name="simple",
        description="Korean and English Wikipedia, equal bytes of each",
        size="2.8 GB of text",
        licence=_WIKI,
        languages=("ko", "en"),
        access=_STREAMED.format("wikimedia/wikipedia"),
        takes_source=True,
        example="--max-bytes 500000000",
        row={"id": "1", "url": "https://...", "title": "등대", "text": "등대는 ..."},
    ),
    SourceRow(
        name="korean",
        description="texts of KLUE, articles of KorQuAD, and Korean news with English translations",
        size="about 100 MB of text",
        licence="KLUE CC BY-SA 4.0; KorQuAD CC BY-ND 4.0 (no distribution of derivatives); "
        "parallel corpora CC BY-SA 3.0",
        languages=("ko", "en"),
        access=_DOWNLOADED.format("klue/klue, KorQuAD/squad_kor_v1, Moo/korean-parallel-corpora"),
        takes_source=True,
        example="--lang ko",
        row={
            "klue mrc: context": "등대지기는 ...",
            "klue nli: premise": "불이 켜졌다.",
            "KorQuAD: context": "등대는 ...",
            "parallel: ko": "배가 왔다.",
            "parallel: en": "A boat came.",
        },
    ),
    SourceRow(
        name="c4",
        description="Common Crawl cleaned for T5; other languages from its multilingual part",
        size="en 806 GB of text; limit it with --max-docs or --max-bytes",
        licence=_WEB,
        languages=("any",),
        access=_STREAMED.format("allenai/c4"),
        raw=True,
        takes_source=True,
        example="--max-docs 50000",
        row={
            "text": "A lamp for the harbour ...",
            "timestamp": "2019-04-25T12:57:54Z",
            "url": "https://...",
        },
    ),
    SourceRow(
        name="fineweb",
        description="English web text filtered for training: the sample of 10 billion tokens",
        size="about 45 GB of text; limit it with --max-docs or --max-bytes",
        licence=_WEB,
        languages=("en",),
        access=_STREAMED.format("HuggingFaceFW/fineweb, sample/10BT; more with --subset"),
        takes_source=True,
        example="--max-bytes 1000000000",
        row={"text": "The tide tables ...", "url": "https://...", "language_score": 0.97},
    ),
    SourceRow(
        name="fineweb-edu",
        description="the educational part of FineWeb, each page with a score from 0 to 5",
        size="about 45 GB of text; limit it with --max-docs or --max-bytes",
        licence=_WEB,
        languages=("en",),
        access=_STREAMED.format("HuggingFaceFW/fineweb-edu, sample/10BT; more with --subset"),
        takes_source=True,
        example="--max-bytes 1000000000",
        row={"text": "Light bends when ...", "url": "https://...", "score": 3.4, "int_score": 3},
    ),
    SourceRow(
        name="fineweb2",
        description="web text in over a thousand languages, filtered per language",
        size="ko about 200 GB, de over 1 TB; limit it with --max-docs or --max-bytes",
        licence=_WEB,
        languages=("any",),
        access=_STREAMED.format("HuggingFaceFW/fineweb-2, as in kor_Hang"),
        takes_source=True,
        options="--lang ko",
        example="--lang ko,de --max-bytes 1000000000",
        row={"text": "오늘 항구에서는 ...", "url": "https://...", "language_score": 0.99},
    ),
    SourceRow(
        name="redpajama",
        description="RedPajama-V2: Common Crawl of 2023-06, head and middle, with perplexity",
        size="several TB; limit it with --max-docs or --max-bytes",
        licence="Common Crawl's terms of use; its code Apache 2.0",
        languages=("en", "de", "fr", "es", "it"),
        access="json.gz files streamed from data.together.xyz (the repository "
        "togethercomputer/RedPajama-Data-V2 names them), or --source FOLDER with a copy",
        raw=True,
        takes_source=True,
        example="--lang de --max-docs 50000",
        row={
            "raw_content": "Der Leuchtturm ...",
            "url": "https://...",
            "language": "de",
            "perplexity": 231.5,
            "bucket": "head",
        },
    ),
)
