"""What the paths of the server do: parse a request, queue a job, wait for it, answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from holo_cli.inference.generation.sampling import make_generators
from holo_cli.inference.generation.stream import TextStream
from holo_cli.serve.answers import Answer, ChatAnswer, CompletionAnswer, Waiting
from holo_cli.serve.encoding import begins_with, conversation_ids, prompt_ids
from holo_cli.serve.metrics import CONTENT_TYPE, Metrics
from holo_cli.serve.model_pool import ModelPool
from holo_cli.serve.refusal import Refusal
from holo_cli.serve.requests import (
    CHAT_TOKENS,
    COMPLETION_TOKENS,
    ChatRequest,
    CompletionRequest,
    GenerationRequest,
    parsed,
)
from holo_cli.serve.rows import BatchRow, GenerationJob, RowEvent
from holo_cli.serve.scheduler import Scheduler, Served
from holo_cli.serve.settings import ServeSettings


@dataclass
class Prepared:
    """A request that is queued, with what its answer needs and what is to be done at its end."""

    request: GenerationRequest
    job: GenerationJob
    answer: Answer
    waiting: Waiting
    prompts: int
    done: Callable[[], None]


class Service:
    """The handlers; `app.py` says which path leads to which."""

    def __init__(self, settings: ServeSettings, pool: ModelPool, scheduler: Scheduler) -> None:
        self.settings, self.pool, self.scheduler = settings, pool, scheduler
        self.metrics = Metrics()

    # -- about the server -------------------------------------------------------------------------

    async def health(self, http: HttpRequest) -> Response:
        """200 while the computing thread lives."""
        alive = self.scheduler.alive
        content = {
            "status": "ok" if alive else "failed",
            "models": [n for n, e in self.pool.entries.items() if e.served is not None],
            "running": self.scheduler.running,
            "waiting": self.scheduler.waiting,
        }
        return JSONResponse(content, 200 if alive else 503)

    async def figures(self, http: HttpRequest) -> Response:
        """For Prometheus."""
        return Response(self.metrics.text(self.scheduler, self.pool), media_type=CONTENT_TYPE)

    async def models(self, http: HttpRequest) -> Response:
        """All models, loaded or not."""
        data = [
            entry.about | {"holo": entry.about["holo"] | {"loaded": entry.served is not None}}
            for entry in self.pool.entries.values()
        ]
        return JSONResponse({"object": "list", "data": data})

    async def model(self, http: HttpRequest) -> Response:
        """One model."""
        entry = self.pool.entries.get(http.path_params["name"])
        if entry is None:
            raise Refusal(
                404, f"There is no model '{http.path_params['name']}'.", code="model_not_found"
            )
        return JSONResponse(entry.about)

    # -- texts ------------------------------------------------------------------------------------

    async def completions(self, http: HttpRequest) -> Response:
        """/v1/completions"""
        request = parsed(CompletionRequest, await self.body(http))
        return await self._answer(http, request, self._completion)

    async def chat(self, http: HttpRequest) -> Response:
        """/v1/chat/completions"""
        request = parsed(ChatRequest, await self.body(http))
        return await self._answer(http, request, self._conversation)

    def _completion(
        self, request: CompletionRequest, name: str, served: Served, waiting: Waiting
    ) -> tuple[GenerationJob, Answer, int]:
        loaded, prompts = served.loaded, request.prompts()
        job = self._job(request, served, waiting, COMPLETION_TOKENS)
        job.logprobs, job.echo = request.shown_logprobs(), bool(request.echo)
        ids = [prompt_ids(loaded, prompt, request.lang) for prompt in prompts]
        self._add_rows(job, ids, request.choices)
        skipped, echoed = [0] * len(job.rows), None
        if job.echo:
            decode = loaded.tokenizer.decode
            echoed = []
            for place, (prompt, tokens) in enumerate(zip(prompts, ids, strict=True)):
                start = begins_with(loaded, prompt, tokens) if isinstance(prompt, str) else 0
                echoed += [decode(tokens[start:])] * request.choices
                for row in range(place * request.choices, (place + 1) * request.choices):
                    skipped[row] = start
        answer = CompletionAnswer(name, loaded.tokenizer, job, skipped, echoed)
        return job, answer, len(prompts)

    def _conversation(
        self, request: ChatRequest, name: str, served: Served, waiting: Waiting
    ) -> tuple[GenerationJob, Answer, int]:
        loaded = served.loaded
        job = self._job(request, served, waiting, CHAT_TOKENS)
        job.logprobs, job.keep = request.shown_logprobs(), served.prefixes.budget > 0
        drop = request.truncation == "auto"
        ids = conversation_ids(
            loaded, request.messages, served.prefixes, lang=request.lang, drop=drop
        )
        self._add_rows(job, [ids], request.choices)
        return job, ChatAnswer(name, loaded.tokenizer, job, [0] * len(job.rows)), 1

    def _job(
        self, request: GenerationRequest, served: Served, waiting: Waiting, tokens: int
    ) -> GenerationJob:
        asked = request.asked_tokens()
        if asked is not None and asked > self.settings.max_tokens:
            raise Refusal(
                400,
                f"max_tokens may be at most {self.settings.max_tokens}, not {asked}.",
                param="max_tokens",
            )
        sampling = request.sampling(tokens)
        return GenerationJob(served.loaded, sampling, waiting.emit, nothing_new=asked == 0)

    def _add_rows(self, job: GenerationJob, prompts: list[list[int]], choices: int) -> None:
        # each prompt's choices draw as those of `holo generate --num-samples` do
        for ids in prompts:
            given = {"num_samples": choices}
            generators = make_generators(job.sampling.with_options(given))
            for choice in range(choices):
                generator = None if generators is None else generators[choice]
                stream = TextStream(job.loaded.tokenizer, job.sampling.stop)
                job.rows.append(BatchRow(job, len(job.rows), list(ids), generator, stream))

    async def _answer(
        self, http: HttpRequest, request: Any, prepare: Callable[..., Any]
    ) -> Response:
        name, served = await self.pool.acquire(request.model)
        job: GenerationJob | None = None

        def done() -> None:
            self.pool.release(name)
            if job is not None:
                self.scheduler.cancel(job)
                self.scheduler.forget(job)

        try:
            waiting = Waiting()
            # a long text is encoded beside the event loop
            job, answer, prompts = await asyncio.to_thread(prepare, request, name, served, waiting)
            host = http.client.host if http.client else ""
            job.client = f"{host}/{request.user or ''}"
            self.scheduler.submit(job, served)
            prepared = Prepared(request, job, answer, waiting, prompts, done)
        except BaseException:
            done()
            raise
        if request.stream:
            return EventStream(self._pieces(prepared), self, done)
        try:
            return await self._whole(http, prepared)
        finally:
            done()

    async def _whole(self, http: HttpRequest, prepared: Prepared) -> Response:
        """Waits for all rows, or for the client to leave."""
        job = prepared.job
        found: list[list[RowEvent]] = [[] for _ in job.rows]

        async def collect() -> None:
            async for event in prepared.waiting.events(len(job.rows)):
                found[event.row].append(event)

        collecting, leaving = (
            asyncio.ensure_future(collect()),
            asyncio.ensure_future(disconnected(http)),
        )
        try:
            await asyncio.wait({collecting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not collecting.done():
                self.metrics.disconnected += 1
                return Response(status_code=499)
            collecting.result()
        finally:
            collecting.cancel()
            leaving.cancel()
        choices = [prepared.answer.choice(row, events) for row, events in enumerate(found)]
        return JSONResponse(prepared.answer.whole(choices, prepared.prompts))

    async def _pieces(self, prepared: Prepared) -> AsyncIterator[str]:
        """The lines of a stream."""
        answer, job = prepared.answer, prepared.job
        usage = {"usage": None} if prepared.request.with_usage else {}
        for row in range(len(job.rows)):
            if (choice := answer.first(row)) is not None:
                yield line(answer.chunk([choice]) | usage)
        try:
            async for event in prepared.waiting.events(len(job.rows)):
                if (choice := answer.piece(event)) is not None:
                    yield line(answer.chunk([choice]) | usage)
        except Refusal as refusal:
            yield line(refusal.body())
        else:
            if usage:
                yield line(answer.chunk([]) | {"usage": answer.usage(prepared.prompts)})
        yield "data: [DONE]\n\n"

    async def body(self, http: HttpRequest) -> bytes:
        """The whole body. Raises Refusal for one that is too large."""
        found = bytearray()
        async for part in http.stream():
            found += part
            if len(found) > self.settings.max_body:
                raise Refusal(
                    413,
                    f"The body is larger than {self.settings.max_body:,} bytes.",
                    code="body_too_large",
                )
        return bytes(found)


class EventStream(StreamingResponse):
    """Server-sent events; `done` is called at the end, also where the client left."""

    def __init__(
        self, pieces: AsyncIterator[str], service: Service, done: Callable[[], None]
    ) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(pieces, media_type="text/event-stream", headers=headers)
        self._service, self._done = service, [done]
        self._ended = False

    def at_the_end(self, call: Callable[[], None]) -> None:
        """Calls something more at the end."""
        self._done.append(call)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def noting(message: Any) -> None:
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self._ended = True

        try:
            await super().__call__(scope, receive, noting)
        finally:
            self._service.metrics.disconnected += not self._ended
            for call in self._done:
                call()


async def disconnected(http: HttpRequest) -> None:
    """Waits until the client closes the connection."""
    while (await http.receive())["type"] != "http.disconnect":
        pass


def line(content: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(content, ensure_ascii=False, separators=(',', ':'))}\n\n"
