"""What a request may say: the keys of OpenAI's interface that mean something here.

Keys that are not named are ignored, as they are by other servers of this form. What would change
an answer and is not supported here is refused, never ignored. Beside OpenAI's there are the
sampling options of `holo generate` under their own names.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from holo_cli.errors import UsageError
from holo_cli.inference.generation.sampling import SamplingConfig
from holo_cli.parsing import ParseError, parse_json
from holo_cli.serve.refusal import Refusal

MOST_LOGPROBS = 20
MOST_STOPS = 16
MOST_CHOICES = 128
COMPLETION_TOKENS = 16  # OpenAI's default for completions
CHAT_TOKENS = 256

R = TypeVar("R", bound="Body")
Probability = Annotated[float, Field(gt=0, le=1)]


class Body(BaseModel):
    """What all requests share."""

    model_config = ConfigDict(extra="ignore", strict=True)

    def refuse_unsupported(self) -> None:
        """Raises Refusal for what the form allows and is not supported."""


class GenerationRequest(Body):
    """What both kinds of request for texts share."""

    model: str | None = None
    max_tokens: int | None = Field(None, ge=0)
    temperature: float | None = Field(None, ge=0, le=1000, allow_inf_nan=False)
    top_p: Probability | None = None
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    user: str | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, Any] | None = None
    # of holo
    top_k: int | None = Field(None, ge=0)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    span_penalty: float | None = None
    lang: str | None = None

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with the counts of tokens."""
        return bool((self.stream_options or {}).get("include_usage"))

    @property
    def choices(self) -> int:
        """Answers to each prompt."""
        return self.n or 1

    def asked_tokens(self) -> int | None:
        """The most tokens of an answer, None where the request does not say."""
        return self.max_tokens

    def refuse_unsupported(self) -> None:
        """Raises Refusal for keys that would change the answer and are not supported."""
        for name in ("presence_penalty", "frequency_penalty", "logit_bias"):
            if getattr(self, name):
                raise unsupported(name, "Use repetition_penalty instead.")

    def sampling(self, default_tokens: int) -> SamplingConfig:
        """The rules of sampling; by default OpenAI's, without a penalty for repetition.

        Raises Refusal for a value out of range.
        """
        stops = [self.stop] if isinstance(self.stop, str) else list(self.stop or ())
        if len(stops) > MOST_STOPS:
            raise Refusal(400, f"At most {MOST_STOPS} stop strings are allowed.", param="stop")
        tokens = self.asked_tokens()
        options: dict[str, Any] = {
            "max_new_tokens": max(1, default_tokens if tokens is None else tokens),
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "stop": [text for text in stops if text],
            "seed": None if self.seed is None else self.seed % 2**63,
            "span_penalty": self.span_penalty or 0.0,
        }
        for name in ("top_p", "top_k", "min_p", "repetition_penalty", "no_repeat_ngram_size"):
            if getattr(self, name) is not None:
                options[name] = getattr(self, name)
        try:
            return SamplingConfig.from_options(options)
        except UsageError as error:
            flag, _, rest = error.message.removeprefix("--").partition(" ")
            raise Refusal(400, f"{flag.replace('-', '_')} {rest}") from error


class CompletionRequest(GenerationRequest):
    """Of /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]] = ""
    echo: bool | None = None
    logprobs: int | bool | None = None
    best_of: int | None = None
    suffix: str | None = None

    def prompts(self) -> list[str] | list[list[int]]:
        """One entry a prompt: a text, or token ids."""
        given: Any = self.prompt
        if isinstance(given, str) or (given and isinstance(given[0], int)):
            return [given]
        if not given:
            raise Refusal(400, "prompt must not be an empty list.", param="prompt")
        prompts: list[str] | list[list[int]] = given
        return prompts

    def shown_logprobs(self) -> int | None:
        """How many of the most likely tokens to tell at each place; None for no logprobs."""
        if self.logprobs is None or self.logprobs is False:
            return None
        count = int(self.logprobs)
        if not 0 <= count <= MOST_LOGPROBS:
            raise Refusal(
                400, f"logprobs must be from 0 to {MOST_LOGPROBS}, not {count}.", param="logprobs"
            )
        return count

    def refuse_unsupported(self) -> None:
        super().refuse_unsupported()
        if self.suffix:
            raise unsupported("suffix", "The models write from left to right only.")
        if self.best_of not in (None, self.choices):
            raise unsupported("best_of", "Use n, and choose among the answers.")


class ContentPart(BaseModel):
    """A part of a message's content."""

    model_config = ConfigDict(extra="ignore", strict=True)

    type: str
    text: str | None = None


class Message(BaseModel):
    """One text of a conversation."""

    model_config = ConfigDict(extra="ignore", strict=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ContentPart] | None = None

    def text(self) -> str:
        """The whole content. Raises Refusal for a part that is no text."""
        if isinstance(self.content, list):
            for part in self.content:
                if part.type not in ("text", "input_text", "output_text", "refusal"):
                    raise unsupported(
                        f"a part of type '{part.type}'", "Send text only.", param="messages"
                    )
            return "\n".join(part.text or "" for part in self.content)
        return self.content or ""


class ChatRequest(GenerationRequest):
    """Of /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=0)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS)
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    response_format: dict[str, Any] | None = None
    truncation: Literal["auto", "disabled"] | None = None

    def asked_tokens(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    def shown_logprobs(self) -> int | None:
        """As for completions."""
        return (self.top_logprobs or 0) if self.logprobs else None

    def refuse_unsupported(self) -> None:
        super().refuse_unsupported()
        if self.tools or self.functions:
            raise unsupported("tools", "The models call no functions.")
        if (self.response_format or {}).get("type", "text") != "text":
            raise unsupported("response_format", "Answers are plain text.")


class InsideRequest(Body):
    """A text that a model is to be watched at: a conversation, or a prompt without one."""

    model: str | None = None
    messages: list[Message] = []
    prompt: str = ""
    language: Literal["en", "ko"] | None = None

    def refuse_unsupported(self) -> None:
        """Raises Refusal for no text at all."""
        if not self.messages and not self.prompt:
            raise Refusal(400, "Give messages or a prompt.", param="messages")


def unsupported(name: str, rest: str, param: str = "") -> Refusal:
    """The answer to a key that has no meaning here."""
    return Refusal(
        400, f"{name} is not supported. {rest}", code="unsupported_parameter", param=param or name
    )


def parsed(kind: type[R], body: bytes) -> R:
    """The request of a body. Raises Refusal for what is no JSON, or not of that form."""
    try:
        content = parse_json(body, any_integer=True)
    except ParseError as error:
        raise Refusal(400, f"The body is {error}.", code="invalid_json") from error
    if not isinstance(content, dict):
        raise Refusal(400, "The body must be a JSON object.", code="invalid_json")
    try:
        request = kind.model_validate(content)
    except ValidationError as error:
        raise _unfit(error) from error
    request.refuse_unsupported()
    return request


def _unfit(error: ValidationError) -> Refusal:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    keys = [str(part) for part in first["loc"]]
    # of a key with several forms pydantic reports each of them; the key alone says where
    place = keys[0] if keys else "body"
    if first["type"] == "missing":
        name = ".".join(keys)
        return Refusal(400, f"{name} is missing.", param=name, code="missing_required_parameter")
    forms = {"prompt": "a text, a list of texts, token ids, or a list of lists of them"}
    if place in forms:
        return Refusal(400, f"{place} must be {forms[place]}.", param=place, code="invalid_type")
    reason = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    name = ".".join(keys) if place == "messages" else place
    return Refusal(400, f"{name} must be {reason}.", param=name, code="invalid_value")
