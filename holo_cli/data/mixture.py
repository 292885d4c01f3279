"""Combines several streams of documents into one: in sequence, or mixed by weight.

Streams form **groups**: the sources of a command, or the languages if the weights name languages.
The next document comes from the group with the fewest bytes relative to its weight, and within the
group from the stream with the fewest bytes. The rule is deterministic: every pass gives the same
order, every prefix has the requested mixture, and a position is a few numbers. Bytes that cleaning
drops afterwards are subtracted (`refund`), so that the weights hold for the kept text.

- `sequence`: group after group, each in full (no weights).
- `proportional`: in proportion to the sizes; every group in full.
- `round-robin`: equal bytes of each group while it lasts; every group in full.
- `balanced` and weights by name: ends with the first group that ends, because continuing would
  violate the weights. The rest of the other groups is not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from holo_cli.data.document import Document
from holo_cli.data.sources.base import Chunk, Position, Source, Stream
from holo_cli.errors import UsageError, nearest

SEQUENCE, PROPORTIONAL, BALANCED = "sequence", "proportional", "balanced"
ROUND_ROBIN = "round-robin"


def parse_mix(text: str) -> str | dict[str, float]:
    """Parse the value of --mix: a mode, or weights by name ("ko=0.4,en=0.5").

    >>> parse_mix("ko=0.4, en=0.5")
    {'ko': 0.4, 'en': 0.5}
    """
    if text in (PROPORTIONAL, BALANCED):
        return text
    weights: dict[str, float] = {}
    for item in text.split(","):
        name, sign, number = item.partition("=")
        try:
            weight = float(number)
        except ValueError:
            sign = ""
            weight = 0.0
        if not sign or not name.strip() or not 0 < weight < float("inf"):
            raise UsageError(
                f"--mix {text} is not valid.",
                next_step="Use balanced, proportional, or weights such as ko=0.4,en=0.6.",
            )
        weights[name.strip()] = weight
    return weights


def names_languages(mix: str | dict[str, float], names: Sequence[str]) -> bool:
    """Whether the weights are for languages, not for the sources `names`."""
    return isinstance(mix, dict) and not set(mix) & set(names)


@dataclass
class _StreamReader:
    """Reads one stream: the current chunk, and the number of documents read from it."""

    stream: Stream
    source: int
    position: Position = None  # of the current chunk
    offset: int = 0  # documents read from the chunk
    bytes: int = 0  # read so far, minus refunds
    done: bool = False
    chunk: Chunk | None = None
    chunks: Iterator[Chunk] | None = None

    def next(self, counts: Counter[str]) -> Document | None:
        """The next document; None at the end."""
        while not self.done:
            if self.chunk is None:
                if self.chunks is None:
                    self.chunks = self.stream.chunks(self.position)
                self.chunk = next(self.chunks, None)
                if self.chunk is None:
                    self.done = True
                    break
                if self.offset == 0:  # else the drops were counted before the interruption
                    counts.update(self.chunk.counts)
            if self.offset < len(self.chunk.documents):
                self.offset += 1
                return self.chunk.documents[self.offset - 1]
            self.position, self.offset, self.chunk = self.chunk.after, 0, None
        return None

    def state(self) -> dict[str, Any]:
        return {
            "position": self.position,
            "offset": self.offset,
            "bytes": self.bytes,
            "done": self.done,
        }


@dataclass
class _Group:
    name: str
    weight: float
    readers: list[int] = field(default_factory=list)  # indices
    balanced: bool = False  # ends with its shortest stream


class Mixture:
    """The documents of `sources` in the order of a mix. `counts`: drops while reading, by rule."""

    def __init__(
        self,
        sources: Sequence[Source],
        mix: str | dict[str, float] = SEQUENCE,
        state: dict[str, Any] | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._readers = [
            _StreamReader(stream, number)
            for number, source in enumerate(sources)
            for stream in source.streams
        ]
        self._mode = mix if isinstance(mix, str) else BALANCED
        self._groups = _groups(sources, self._readers, mix)
        self._ended: set[int] = set()  # indices of exhausted groups
        self._only: int | None = None  # the reader to use until it ends, if there is no choice
        if state is not None:
            self.counts.update(state["counts"])
            self._ended = set(state["ended"])
            for reader, saved in zip(self._readers, state["strands"], strict=True):
                reader.position, reader.offset = saved["position"], saved["offset"]
                reader.bytes, reader.done = saved["bytes"], saved["done"]

    def state(self) -> dict[str, Any]:
        """The position as plain data; a Mixture made with it resumes here."""
        # "strands" is the stored name of the streams in progress files
        return {
            "counts": dict(self.counts),
            "ended": sorted(self._ended),
            "strands": [reader.state() for reader in self._readers],
        }

    def next(self) -> tuple[int, int, Document] | None:
        """The next (stream index, source index, document); None at the end."""
        while (number := self._next_reader()) is not None:
            reader = self._readers[number]
            document = reader.next(self.counts)
            if document is not None:
                reader.bytes += document.size
                return number, reader.source, document
            self._only = None
            group = next(g for g in self._groups if number in g.readers)
            if group.balanced or all(self._readers[r].done for r in group.readers):
                self._ended.add(self._groups.index(group))
        return None

    def _next_reader(self) -> int | None:
        if self._only is not None:
            return self._only
        group = self._choose()
        if group is None:
            return None
        live = [r for r in self._groups[group].readers if not self._readers[r].done]
        if len(live) == 1 and (self._mode == SEQUENCE or len(self._groups) == 1):
            self._only = live[0]
        return min(live, key=lambda r: (self._readers[r].bytes, r))

    def refund(self, stream: int, size: int) -> None:
        """Subtract bytes of a stream that were read but dropped."""
        self._readers[stream].bytes -= size

    def end(self, source: int) -> None:
        """Mark all streams of a source as exhausted."""
        self._only = None
        for reader in self._readers:
            reader.done = reader.done or reader.source == source
        for number, group in enumerate(self._groups):
            if all(self._readers[r].done for r in group.readers):
                self._ended.add(number)

    def shares(self) -> dict[str, int]:
        """Bytes kept of each stream so far, by name."""
        totals: Counter[str] = Counter()
        for reader in self._readers:
            totals[reader.stream.name] += reader.bytes
        return dict(totals)

    def _choose(self) -> int | None:
        if self._mode == BALANCED and self._ended:
            return None
        live = [n for n in range(len(self._groups)) if n not in self._ended]
        if not live or self._mode == SEQUENCE:
            return live[0] if live else None
        return min(live, key=lambda n: (self._bytes(n) / self._groups[n].weight, n))

    def _bytes(self, group: int) -> int:
        return sum(self._readers[r].bytes for r in self._groups[group].readers)


def _groups(
    sources: Sequence[Source], readers: Sequence[_StreamReader], mix: str | dict[str, float]
) -> list[_Group]:
    names = [source.name for source in sources]
    if names_languages(mix, names) or (len(sources) == 1 and mix == BALANCED):
        groups = _by_language(readers, mix)
    else:
        groups = [_Group(s.name, 1.0, balanced=s.balanced) for s in sources]
        for number, reader in enumerate(readers):
            groups[reader.source].readers.append(number)
        if isinstance(mix, dict):
            _set_weights(groups, mix)
        elif mix == PROPORTIONAL:
            for group, source in zip(groups, sources, strict=True):
                group.weight = float(_size(source))
    return groups


def _by_language(readers: Sequence[_StreamReader], mix: str | dict[str, float]) -> list[_Group]:
    """Streams grouped by language; a stream of unknown language is a group of its own."""
    groups: dict[str, _Group] = {}
    for number, reader in enumerate(readers):
        label = reader.stream.language
        if not label and isinstance(mix, dict):
            raise UsageError(
                f"The language of '{reader.stream.name}' is unknown, so --mix cannot weight it by "
                "language.",
                next_step="Give weights for the sources, or name the languages with --lang.",
            )
        key = label or reader.stream.name or str(number)
        groups.setdefault(key, _Group(key, 1.0)).readers.append(number)
    found = list(groups.values())
    if isinstance(mix, dict):
        _set_weights(found, mix)
    return found


def _set_weights(groups: Sequence[_Group], mix: dict[str, float]) -> None:
    """Set the weights by name; unnamed groups share the rest to 1 equally."""
    known = [group.name for group in groups]
    for name in mix:
        if name not in known:
            raise UsageError(
                f"--mix names '{name}', which is not in this mixture.",
                next_step=nearest(name, known),
            )
    others = [group for group in groups if group.name not in mix]
    left = 1 - sum(mix.values())
    if others and left <= 1e-9:
        raise UsageError(
            f"--mix leaves no share for {', '.join(group.name for group in others)}.",
            next_step="Use weights with a sum below 1, or name all of them.",
        )
    for group in groups:
        group.weight = mix.get(group.name, left / len(others) if others else 0.0)


def _size(source: Source) -> int:
    sizes = [stream.total_bytes for stream in source.streams]
    known = source.total_bytes or sum(size or 0 for size in sizes)
    if not known:
        raise UsageError(
            f"The size of '{source.name}' is unknown, so --mix proportional cannot be used.",
            next_step="Use --mix balanced, or weights by name.",
        )
    return known
