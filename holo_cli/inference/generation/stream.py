"""Incremental text from token ids: whole characters only, and never a part of a stop string.

The tokenizer's stream decoder buffers incomplete characters (a Hangul syllable has three bytes).
`TextStream` additionally buffers text that may be the beginning of a stop string. The output does
not depend on where token boundaries fall.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from holo_cli.inference.generation.engine import Decoding

if TYPE_CHECKING:
    from holo_cli.data.tokenizers import Tokenizer


class StopFilter:
    """Passes text through up to the stop string that is completed first, and drops the rest.

    If several are completed at the same character, the longest counts.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = tuple(stop)
        self._buffer = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Adds text and returns the part that is safe to show."""
        if self.stopped:
            return ""
        self._buffer += text
        spans = [(at + len(s), at) for s in self._stop if (at := self._buffer.find(s)) >= 0]
        if spans:
            self.stopped = True
            _, start = min(spans)
            shown, self._buffer = self._buffer[:start], ""
            return shown
        keep = max((_overlap(self._buffer, s) for s in self._stop), default=0)
        cut = len(self._buffer) - keep
        shown, self._buffer = self._buffer[:cut], self._buffer[cut:]
        return shown

    def flush(self) -> str:
        """The buffered text: at the end of a sample it is not a stop string."""
        shown, self._buffer = self._buffer, ""
        return shown


def _overlap(text: str, stop: str) -> int:
    """The length of the longest proper prefix of `stop` that `text` ends with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


class TextStream:
    """The text of one sample from its tokens. `stopped` is set once a stop string was found."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._decoder = tokenizer.stream()
        self._filter = StopFilter(stop)
        self.text = ""

    @property
    def stopped(self) -> bool:
        return self._filter.stopped

    def push(self, token: int) -> str:
        """Adds a token and returns the text that it completes, possibly none."""
        return self._show(self._filter.push(self._decoder.push(token)))

    def flush(self) -> str:
        """The remaining text after the last token. An incomplete last character is dropped."""
        rest = self._filter.push(self._decoder.flush().rstrip("\ufffd"))
        return self._show(rest + self._filter.flush())

    def _show(self, text: str) -> str:
        self.text += text
        return text


class Piece(NamedTuple):
    """A non-empty piece of text of one sample."""

    row: int
    text: str


@dataclass(frozen=True)
class Sample:
    """A finished text. `finish` is "end", "length", "stop" or "stopped" (interrupted).

    `tokens` counts new tokens. `tokens_per_second` excludes the first of them, which is computed
    by the prefill; it is 0 if there is only one.
    """

    text: str
    tokens: int
    tokens_per_second: float
    finish: str


class TextGeneration(Iterator[Piece]):
    """Iterator of the text pieces of all samples; `samples` is complete when it is exhausted.

    `prompt_tokens` is the length of the prompt. `stop()` interrupts all samples; the text so far
    is kept, with the finish "stopped".
    """

    def __init__(self, decoding: Decoding, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        rows = len(decoding.ids)
        self.decoding = decoding
        self.prompt_tokens = len(decoding.ids[0])
        self._streams = [TextStream(tokenizer, stop) for _ in range(rows)]
        self._seconds = [0.0] * rows
        self._open = set(range(rows))
        self._pieces = self._write()

    def __next__(self) -> Piece:
        return next(self._pieces)

    @property
    def samples(self) -> list[Sample]:
        """One entry per row, with its text so far."""
        return [self._sample(row) for row in range(len(self._streams))]

    def stop(self) -> None:
        """Interrupts the unfinished samples; their buffered text is dropped."""
        self._pieces.close()
        for row in self._open:
            self.decoding.stop(row, "stopped")
            self._seconds[row] = self.decoding.seconds
        self._open.clear()

    def _write(self) -> Generator[Piece, None, None]:
        for step in self.decoding:
            for row, token in enumerate(step):
                if token is None:
                    continue
                stream = self._streams[row]
                if text := stream.push(token):
                    yield Piece(row, text)
                if stream.stopped:
                    self.decoding.stop(row)
            yield from self._close_finished()
        yield from self._close_finished()  # a step in which every row finishes yields no tokens

    def _close_finished(self) -> Iterator[Piece]:
        for row in sorted(self._open):
            if self.decoding.finish[row]:
                self._open.discard(row)
                self._seconds[row] = self.decoding.seconds
                if text := self._streams[row].flush():
                    yield Piece(row, text)

    def _sample(self, row: int) -> Sample:
        stream = self._streams[row]
        tokens = len(self.decoding.new_tokens(row))
        seconds = self.decoding.seconds if row in self._open else self._seconds[row]
        speed = (tokens - 1) / seconds if tokens > 1 and seconds > 0 else 0.0
        finish = "stop" if stream.stopped else self.decoding.finish[row]
        return Sample(stream.text, tokens, speed, finish)


def ids_of_text(tokenizer: Tokenizer, ids: Sequence[int], text: str) -> list[int]:
    """The ids of `text`, a truncation of the text of `ids`: as many of them as decode to exactly
    `text`, or `text` encoded again if the cut is inside a token."""
    for length in range(len(ids), -1, -1):
        decoded = tokenizer.decode(ids[:length])
        if decoded == text:
            return list(ids[:length])
        if len(decoded) < len(text):
            break
    return tokenizer.encode(text)
