"""Token ids to text as it comes: whole characters only, and never a part of a stop string.

The tokenizer's own stream decoder holds back half characters (a Hangul syllable of three bytes, an
emoji sequence). On top of it `TextStream` holds back text only while it may still turn out to be
the beginning of a stop string. What comes out does not depend on where token boundaries fall.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from holo_cli.inference.generation.engine import Decoding

if TYPE_CHECKING:
    from holo_cli.data.tokenizers import Tokenizer


class StopFilter:
    """Passes text on until the first stop string is complete; text from there on is swallowed.

    First means: complete first; of several complete at the same character the longest counts.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Takes the next text, returns what is safe to show."""
        if self.stopped:
            return ""
        self._held += text
        spans = [(at + len(s), at) for s in self._stop if (at := self._held.find(s)) >= 0]
        if spans:
            self.stopped = True
            _, start = min(spans)
            shown, self._held = self._held[:start], ""
            return shown
        keep = max((_overlap(self._held, s) for s in self._stop), default=0)
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def flush(self) -> str:
        """What was held back: with nothing to follow, it was no stop string."""
        shown, self._held = self._held, ""
        return shown


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` are a beginning of `stop`, and not all of it."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


class TextStream:
    """The text of one sample, from its tokens. `stopped` is set once a stop string was found."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._decoder = tokenizer.stream()
        self._filter = StopFilter(stop)
        self.text = ""

    @property
    def stopped(self) -> bool:
        return self._filter.stopped

    def push(self, token: int) -> str:
        """The text that has become certain with this token, possibly none."""
        return self._show(self._filter.push(self._decoder.push(token)))

    def flush(self) -> str:
        """The rest, once no token follows. A last character of which bytes are missing is dropped:
        a text that reached its length inside a syllable ends before it."""
        rest = self._filter.push(self._decoder.flush().rstrip("\ufffd"))
        return self._show(rest + self._filter.flush())

    def _show(self, text: str) -> str:
        self.text += text
        return text


class Piece(NamedTuple):
    """A piece of text, never empty, of one sample."""

    row: int
    text: str


@dataclass(frozen=True)
class Sample:
    """A finished text. `finish` is "end", "length" or "stop".

    `tokens` counts new tokens; `tokens_per_second` is the speed of the tokens after the first,
    which comes out of reading the prompt; 0 where there is only one.
    """

    text: str
    tokens: int
    tokens_per_second: float
    finish: str


class TextGeneration(Iterator[Piece]):
    """Text pieces of all samples as they come; `samples` is complete when the iterator ends.

    `prompt_tokens` is the length of the prompt. `stop()` ends everything early: what was shown
    stays, with the finish "stopped".
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
        """One entry for each row: complete, or as far as it has got."""
        return [self._sample(row) for row in range(len(self._streams))]

    def stop(self) -> None:
        """Ends what is not finished yet; text that was held back is not shown any more."""
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
        yield from self._close_finished()  # a step in which every row ended yields nothing

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
    """The ids of a text that was cut short of what `ids` say: as many of them as give exactly this
    text, or where the cut falls inside a token, the text encoded anew."""
    for length in range(len(ids), -1, -1):
        said = tokenizer.decode(ids[:length])
        if said == text:
            return list(ids[:length])
        if len(said) < len(text):
            break
    return tokenizer.encode(text)
