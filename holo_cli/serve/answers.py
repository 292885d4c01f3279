"""From the events of a job to the JSON of OpenAI's interface, whole or in pieces."""

from __future__ import annotations

import asyncio
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Any

from holo_cli.data.tokenizers import Tokenizer
from holo_cli.serve.logprob_forms import CompletionLogprobs, chat_logprobs
from holo_cli.serve.rows import GenerationJob, RowEvent, TokenScore


class Waiting:
    """Events of a job, from the computing thread to the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[RowEvent] = asyncio.Queue()

    def emit(self, event: RowEvent) -> None:
        """Called by the computing thread. Events after the loop has closed are dropped."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def events(self, rows: int) -> AsyncIterator[RowEvent]:
        """All events until every row is finished. Raises the Refusal of a row that failed."""
        while rows:
            event = await self._events.get()
            if event.refusal is not None:
                raise event.refusal
            rows -= bool(event.finish)
            yield event


class Answer(ABC):
    """The form of one kind of request. `echoed`: texts that come before those of the rows."""

    kind: str
    prefix: str

    def __init__(
        self, model: str, tokenizer: Tokenizer, job: GenerationJob, skipped: list[int]
    ) -> None:
        self.tokenizer, self.job = tokenizer, job
        self.id = f"{self.prefix}-{uuid.uuid4().hex}"
        self.head = {"created": int(time.time()), "model": model}
        self._skipped = skipped  # scored tokens of each row's prompt that are no text

    def usage(self, prompts: int) -> dict[str, Any]:
        """Tokens so far; each of the `prompts` counts once, however many answers it has."""
        rows = self.job.rows
        each = len(rows) // prompts
        read = sum(row.prompt_length for row in rows[::each])
        new = sum(row.new_tokens for row in rows)
        return {
            "prompt_tokens": read,
            "completion_tokens": new,
            "total_tokens": read + new,
            "prompt_tokens_details": {"cached_tokens": sum(r.cached_tokens for r in rows[::each])},
        }

    def told(self, event: RowEvent) -> tuple[TokenScore, ...]:
        """The scores of an event without those of tokens that are no text of the prompt."""
        scores = event.scores
        if self._skipped[event.row] and scores:
            cut = self._skipped[event.row]
            self._skipped[event.row] = 0
            scores = scores[cut:]
        return scores

    def whole(self, choices: list[dict[str, Any]], prompts: int) -> dict[str, Any]:
        """The answer in one piece."""
        usage = self.usage(prompts)
        return (
            {"id": self.id, "object": self.kind}
            | self.head
            | {
                "choices": choices,
                "usage": usage,
            }
        )

    def chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """A piece of a stream."""
        return {"id": self.id, "object": self.chunk_kind} | self.head | {"choices": choices}

    @property
    @abstractmethod
    def chunk_kind(self) -> str: ...

    @abstractmethod
    def first(self, row: int) -> dict[str, Any] | None:
        """The choice that begins a row's stream, if there is one."""

    @abstractmethod
    def piece(self, event: RowEvent) -> dict[str, Any] | None:
        """The choice of an event in a stream; None where there is nothing to show."""

    @abstractmethod
    def choice(self, row: int, events: list[RowEvent]) -> dict[str, Any]:
        """The choice of a whole answer."""


def _finish(event: RowEvent) -> str | None:
    return event.finish or None


class CompletionAnswer(Answer):
    """Of /v1/completions."""

    kind = chunk_kind = "text_completion"
    prefix = "cmpl"

    def __init__(
        self,
        model: str,
        tokenizer: Tokenizer,
        job: GenerationJob,
        skipped: list[int],
        echoed: list[str] | None = None,
    ) -> None:
        super().__init__(model, tokenizer, job, skipped)
        self._echoed = echoed
        self._logprobs = [CompletionLogprobs(tokenizer) for _ in job.rows]

    def _choice(self, row: int, text: str, scores: list[TokenScore], finish: str | None) -> Any:
        told = self._logprobs[row].form(scores) if self.job.logprobs is not None else None
        return {"index": row, "text": text, "logprobs": told, "finish_reason": finish}

    def first(self, row: int) -> dict[str, Any] | None:
        if not self._echoed or not self._echoed[row]:
            return None
        choice: dict[str, Any] = self._choice(row, self._echoed[row], [], None)
        return choice | {"logprobs": None}

    def piece(self, event: RowEvent) -> dict[str, Any] | None:
        scores = list(self.told(event))
        if not (event.text or scores or event.finish):
            return None
        choice: dict[str, Any] = self._choice(event.row, event.text, scores, _finish(event))
        return choice

    def choice(self, row: int, events: list[RowEvent]) -> dict[str, Any]:
        text = (self._echoed[row] if self._echoed else "") + "".join(e.text for e in events)
        scores = [score for event in events for score in self.told(event)]
        choice: dict[str, Any] = self._choice(row, text, scores, _finish(events[-1]))
        return choice


class ChatAnswer(Answer):
    """Of /v1/chat/completions."""

    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"
    prefix = "chatcmpl"

    def _logprobs(self, scores: list[TokenScore]) -> dict[str, Any] | None:
        return chat_logprobs(self.tokenizer, scores) if self.job.logprobs is not None else None

    def first(self, row: int) -> dict[str, Any] | None:
        delta = {"role": "assistant", "content": ""}
        return {"index": row, "delta": delta, "logprobs": None, "finish_reason": None}

    def piece(self, event: RowEvent) -> dict[str, Any] | None:
        scores = list(self.told(event))
        if not (event.text or scores or event.finish):
            return None
        return {
            "index": event.row,
            "delta": {"content": event.text} if event.text else {},
            "logprobs": self._logprobs(scores),
            "finish_reason": _finish(event),
        }

    def choice(self, row: int, events: list[RowEvent]) -> dict[str, Any]:
        text = "".join(event.text for event in events)
        scores = [score for event in events for score in self.told(event)]
        return {
            "index": row,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": self._logprobs(scores),
            "finish_reason": _finish(events[-1]),
        }
