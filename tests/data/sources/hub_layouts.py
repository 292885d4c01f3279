"""Small datasets in the file layouts of the hub, written by the tests themselves."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

GROUP = 40  # rows of a row group


def parquet(path: Path, columns: dict[str, list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=GROUP)


def json_gz(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def english(number: int) -> str:
    return (
        f"Lighthouse number {number} stands on a rock. Its keeper counted {number * 7} ships "
        "in the spring, and wrote each of them into the book that lies under the lamp."
    )


def korean(number: int) -> str:
    return (
        f"{number}번 등대는 바위 위에 서 있다. 등대지기는 봄에 배 {number * 7}척을 세었고, "
        "등불 아래 놓인 장부에 하나하나 적어 두었다."
    )


def german(number: int) -> str:
    return f"Der Leuchtturm {number} steht auf einem Felsen, und {number * 3} Schiffe kamen vorbei."


def wikitext(folder: Path, articles: dict[str, int], files: int = 2) -> dict[str, list[str]]:
    """Articles per hub split, one line a row, in both configurations; the articles' text."""
    found: dict[str, list[str]] = {}
    for split, count in articles.items():
        lines: list[str] = []
        found[split] = []
        for number in range(count):
            article = [
                "",
                f" = Lamp {number} = \n",
                "",
                f" {english(number)} It @-@ shone . \n",
                f" = = Keepers of {number} = = \n",
                "",
                " = not a title , for the line before it is text = \n" if number % 3 else "",
                f" {english(number + 1000)} \n",
                "",
            ]
            lines += article
            found[split].append("".join(line or "\n" for line in article).strip("\n"))
        for config in ("wikitext-103-raw-v1", "wikitext-2-raw-v1"):
            of = files if split == "train" else 1
            size = -(-len(lines) // of) + 1  # a cut inside an article
            for part in range(of):
                path = folder / config / f"{split}-{part:05d}-of-{of:05d}.parquet"
                parquet(path, {"text": lines[part * size : (part + 1) * size]})
    return found


def wikipedia(folder: Path, languages: dict[str, tuple[int, int]]) -> None:
    """{"ko": (files, articles of each)}."""
    for code, (files, count) in languages.items():
        text = korean if code == "ko" else english
        for part in range(files):
            numbers = range(part * count, (part + 1) * count)
            parquet(
                folder / f"20231101.{code}" / f"train-{part:05d}-of-{files:05d}.parquet",
                {
                    "id": [str(n) for n in numbers],
                    "url": [f"https://{code}.wikipedia.org/wiki/{n}" for n in numbers],
                    "title": [f"Lamp {n}" for n in numbers],
                    "text": [text(n) for n in numbers],
                },
            )


def korean_sets(folder: Path, count: int = 60) -> None:
    """The three repositories of `korean`, in folders of their names."""
    klue = folder / "klue" / "klue"
    numbers = range(count)
    name = "train-00000-of-00001.parquet"
    parquet(
        klue / "mrc" / name,
        {"title": ["t"] * count, "context": [korean(n // 3) for n in numbers]},  # repeats
    )
    parquet(klue / "dp" / name, {"sentence": [f"{n}번 문장이다." for n in numbers]})
    parquet(
        klue / "ynat" / name, {"title": [f"항구 소식 {n}" for n in numbers], "label": [1] * count}
    )
    parquet(
        klue / "nli" / name,
        {"premise": [f"배 {n}척이 왔다." for n in numbers], "hypothesis": ["배가 왔다."] * count},
    )
    parquet(
        klue / "sts" / name,
        {"sentence1": [f"불빛 {n}" for n in numbers], "sentence2": [f"등불 {n}" for n in numbers]},
    )
    parquet(
        folder / "KorQuAD" / "squad_kor_v1" / "squad_kor_v1" / name,
        {"context": [korean(500 + n // 4) for n in numbers], "question": ["?"] * count},
    )
    moo = folder / "Moo" / "korean-parallel-corpora" / "train.csv"
    moo.parent.mkdir(parents=True)
    with moo.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ko", "en"])
        writer.writerows(
            [f'배 {n}척, "급히" 왔다.', f'Boat {n}, "in haste", came.'] for n in numbers
        )


def c4(folder: Path, files: int = 2, count: int = 100) -> None:
    for part in range(files):
        numbers = range(part * count, (part + 1) * count)
        for path, text in (
            (f"en/c4-train.{part:05d}-of-{files:05d}.json.gz", english),
            (f"multilingual/c4-ko.tfrecord-{part:05d}-of-{files:05d}.json.gz", korean),
        ):
            rows = [
                {"text": text(n), "timestamp": "2019-04-25T12:57:54Z", "url": f"https://x/{n}"}
                for n in numbers
            ]
            json_gz(folder / path, rows)


def fineweb(folder: Path, count: int = 150, score: bool = False) -> None:
    """The sample of FineWeb, or of FineWeb-Edu with its scores."""
    for part in range(2):
        numbers = range(part * count, (part + 1) * count)
        columns: dict[str, list[Any]] = {
            "text": [english(n) for n in numbers],
            "id": [f"<urn:uuid:{n}>" for n in numbers],
            "url": [f"https://x/{n}" for n in numbers],
            "language_score": [0.9] * count,
        }
        if score:
            columns["score"] = [2.5 + n % 20 / 10 for n in numbers]
            columns["int_score"] = [3] * count
        parquet(folder / "sample" / "10BT" / f"{part:03d}_00000.parquet", columns)


def fineweb2(folder: Path, count: int = 100) -> None:
    for code, text in (("kor_Hang", korean), ("deu_Latn", german)):
        columns = {"text": [text(n) for n in range(count)], "language_score": [0.9] * count}
        parquet(folder / "data" / code / "train" / "000_00000.parquet", columns)
        parquet(folder / "data" / code / "test" / "000_00000.parquet", columns)


def redpajama_rows(language: str, bucket: str, count: int = 60) -> list[dict[str, Any]]:
    text = german if language == "de" else english
    return [
        {
            "url": f"https://x/{n}",
            "raw_content": f"{bucket}: {text(n)}",
            "title": None if n % 5 else "Leuchtturm",
            "language": language,
            "language_score": 0.98,
            "perplexity": 100.0 + n,
            "bucket": bucket,
        }
        for n in range(count)
    ]


def openwebtext(folder: Path, count: int = 100) -> None:
    for part in range(2):
        rows = {"text": [english(part * count + n) for n in range(count)]}
        parquet(folder / "plain_text" / f"train-{part:05d}-of-00002.parquet", rows)


def bookcorpusopen(folder: Path, count: int = 100) -> None:
    for part in range(2):
        numbers = range(part * count, (part + 1) * count)
        rows = {"title": [f"{n}.epub.txt" for n in numbers], "text": [english(n) for n in numbers]}
        parquet(folder / "data" / f"train-{part:05d}-of-00002.parquet", rows)
