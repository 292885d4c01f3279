"""The files of a portion: the documents of one part of a stream, read and judged, but not compared.

A part (a file of a source) has two files: `NAME.arrow` with its documents, a record batch for each
chunk that the stream gave, and `NAME.json` with the position after each chunk and what was counted
while it was read. The second is written last: a part without it is read again. So a stream over
these files gives the chunks of the stream that they were read from, also from the same positions.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holo_cli.data.chat_format import Utterance
from holo_cli.data.document import Document, Judgement
from holo_cli.data.sources.base import Chunk, Position
from holo_cli.errors import DataError
from holo_cli.files import atomic_file, atomic_write_json
from holo_cli.parsing import parse_json, read_object

if TYPE_CHECKING:
    import pyarrow

_TEXTS = ("text", "language", "source", "split")
_NUMBERS = ("score", "perplexity")
_MESSAGES = "messages"  # of a conversation, as JSON


def _schema() -> pyarrow.Schema:
    import pyarrow

    # bytes: a text may hold half of a surrogate pair, which Arrow's strings cannot
    bytes_of = [(name, pyarrow.binary()) for name in (*_TEXTS, "rule", "exact", "near")]
    numbers = ((name, pyarrow.float64()) for name in _NUMBERS)
    return pyarrow.schema([*bytes_of, *numbers, (_MESSAGES, pyarrow.binary())])


class PartFiles:
    """The two files of one part in a folder. `source`, `stream` and `part` are its numbers."""

    def __init__(self, folder: Path, source: int, stream: int, part: int) -> None:
        name = f"{source:03d}-{stream:03d}-{part:06d}"
        self.rows, self.record = folder / f"{name}.arrow", folder / f"{name}.json"

    @property
    def complete(self) -> bool:
        return self.record.exists()

    def write(
        self,
        chunks: Iterator[Chunk],
        judge: Callable[[Sequence[Document]], list[Judgement | None]],
        cut: Mapping[str, int],
        on_chunk: Callable[[Sequence[Document]], None],
    ) -> None:
        """Write all chunks. `cut` is what the source adds to while it is read: the texts that were
        cut into pieces."""
        import pyarrow

        records: list[dict[str, Any]] = []
        known = set(cut)

        def fresh() -> dict[str, int]:
            new = {name: pieces for name, pieces in cut.items() if name not in known}
            known.update(new)
            return new

        schema, options = _schema(), pyarrow.ipc.IpcWriteOptions(compression="zstd")
        with (
            atomic_file(self.rows) as file,
            pyarrow.ipc.new_file(file, schema, options=options) as writer,
        ):
            for chunk in chunks:
                documents = chunk.documents
                records.append(
                    {
                        "after": chunk.after,
                        "counts": dict(chunk.counts),
                        "cut": fresh(),
                        "documents": len(documents),
                        "bytes": sum(one.size for one in documents),
                    }
                )
                columns = _columns(documents, judge(documents))
                writer.write_batch(pyarrow.record_batch(columns, schema=schema))
                on_chunk(documents)
        atomic_write_json(self.record, {"chunks": records, "cut": fresh()}, indent=None)

    def records(self) -> dict[str, Any]:
        """The content of NAME.json. Raises DataError where it is missing or damaged."""
        try:
            return read_object(self.record, any_integer=True)
        except (OSError, ValueError) as error:
            raise _damaged(self.record, error) from error

    def read(self, first: int, cut: dict[str, int], most_cut: int) -> Iterator[Chunk]:
        """The chunks from number `first` on; fills `cut` as reading the source did."""
        import pyarrow

        def add(found: Mapping[str, int]) -> None:
            for name, pieces in found.items():
                if name in cut or len(cut) < most_cut:
                    cut[name] = pieces

        record = self.records()
        try:
            with pyarrow.OSFile(str(self.rows), "rb") as file, pyarrow.ipc.open_file(file) as rows:
                for number in range(first, len(record["chunks"])):
                    chunk = record["chunks"][number]
                    add(chunk["cut"])
                    documents = list(_documents(rows.get_batch(number)))
                    yield Chunk(documents, chunk["after"], Counter(chunk["counts"]))
        except (OSError, pyarrow.ArrowException) as error:
            raise _damaged(self.rows, error) from error
        add(record["cut"])


def position_key(position: Position) -> str:
    """A position as a key: equal positions have equal keys, also after JSON."""
    return json.dumps(position, sort_keys=True)


def _columns(
    documents: Sequence[Document], judged: Sequence[Judgement | None]
) -> list[pyarrow.Array]:
    import pyarrow

    def packed(text: str) -> bytes:
        return text.encode("utf-8", "surrogatepass")

    def binary(values: list[bytes | None]) -> pyarrow.Array:
        return pyarrow.array(values, pyarrow.binary())

    texts = [binary([packed(getattr(one, name)) for one in documents]) for name in _TEXTS]
    rules = binary([None if one is None else packed(one.rule) for one in judged])
    exact = binary([None if one is None else one.exact for one in judged])
    near = binary([None if one is None else one.near for one in judged])
    numbers = [
        pyarrow.array([getattr(one, name) for one in documents], pyarrow.float64())
        for name in _NUMBERS
    ]
    said = binary([_packed_messages(one) for one in documents])
    return [*texts, rules, exact, near, *numbers, said]


def _packed_messages(document: Document) -> bytes | None:
    return json.dumps(document.messages).encode("ascii") if document.messages else None


def _documents(batch: pyarrow.RecordBatch) -> Iterator[Document]:
    columns = [batch.column(name).to_pylist() for name in batch.schema.names]
    if _MESSAGES not in batch.schema.names:  # a portion of an older version
        columns.append([None] * batch.num_rows)
    for text, language, source, split, rule, exact, near, score, perplexity, said in zip(
        *columns, strict=True
    ):
        yield Document(
            text=_unpacked(text),
            language=_unpacked(language),
            source=_unpacked(source),
            split=_unpacked(split),
            score=score,
            perplexity=perplexity,
            judged=None if rule is None else Judgement(_unpacked(rule), exact, near),
            messages=() if said is None else tuple(Utterance(*one) for one in parse_json(said)),
        )


def _unpacked(packed: bytes) -> str:
    return packed.decode("utf-8", "surrogatepass")


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} of a shard is missing or damaged: {error}.",
        next_step="Prepare this shard again, with --shard and --force.",
    )
