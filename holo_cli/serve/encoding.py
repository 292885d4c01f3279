"""From what a request holds to token ids: prompts as `holo generate` encodes them, conversations
as `holo chat` does (`inference/chat/conversation.py`)."""

from __future__ import annotations

from collections.abc import Sequence

from holo_cli.data.normalize import to_nfc
from holo_cli.errors import UsageError
from holo_cli.inference.chat.conversation import Turn, encode_turn, encode_turns
from holo_cli.inference.generation.loaded_model import LoadedModel
from holo_cli.serve.prefixes import Prefixes
from holo_cli.serve.refusal import Refusal
from holo_cli.serve.requests import Message
from holo_cli.wording import counted

MOST_TOKENS = 32_768  # of a prompt, where the model has no limit of its own


def prompt_ids(
    loaded: LoadedModel, prompt: str | list[int], lang: str | None, *, check: bool = True
) -> list[int]:
    """The ids of one prompt; without `check` of any length. Raises Refusal for ids that the model
    has not, a language that it does not know, and a prompt longer than its context."""
    if isinstance(prompt, str):
        try:
            ids = loaded.prompts.encode(prompt, lang)
        except UsageError as error:
            raise Refusal(400, error.message, param="lang") from error
    else:
        known = loaded.model.config.vocab_size
        wrong = next((i for i in prompt if not 0 <= i < known), None)
        if wrong is not None:
            raise Refusal(
                400, f"Token {wrong} is not among the model's {known} tokens.", param="prompt"
            )
        ids = loaded.prompts.at_least_one(list(prompt))
    if check:
        check_length(loaded, len(ids), "prompt")
    return ids


def begins_with(loaded: LoadedModel, prompt: str, ids: Sequence[int]) -> int:
    """How many of the ids precede the prompt's text: the start of a document, and no text."""
    return len(ids) - len(loaded.tokenizer.encode(to_nfc(prompt)))


def check_length(loaded: LoadedModel, length: int, param: str) -> None:
    """Raises Refusal for more tokens than the model's context has, or, where it is unlimited, than
    can be read without holding up everybody else."""
    limit = loaded.model.context_limit
    if limit is None and length > MOST_TOKENS:
        raise Refusal(
            400,
            f"The {param} has {counted(length, 'token')}, and a request may have {MOST_TOKENS}.",
            code="context_length_exceeded",
            param=param,
        )
    if limit is not None and length > limit:
        raise Refusal(
            400,
            f"The model's context has {counted(limit, 'token')}, and the {param} {length}.",
            code="context_length_exceeded",
            param=param,
        )


def conversation_ids(
    loaded: LoadedModel,
    messages: Sequence[Message],
    prefixes: Prefixes,
    *,
    lang: str | None = None,
    drop: bool = False,
    check: bool = True,
) -> list[int]:
    """The ids of a conversation. With `drop` the oldest turns make room, and for half of the
    context or less as much as an answer needs. Raises Refusal where it does not fit, except without
    `check`."""
    system, turns = turns_of(messages)
    encoded: list[Turn] = []
    try:
        for turn in turns:
            previous = encoded[-1].language if encoded else None
            done = encode_turn(loaded.prompts, turn, previous, lang)
            known = prefixes.answer(turn.answer) if turn.answer else None
            if known is not None:
                done = Turn(**{**vars(done), "answer_ids": known})
            encoded.append(done)
    except UsageError as error:
        raise Refusal(400, error.message, param="lang") from error
    ids = encode_turns(loaded.prompts, system, encoded)
    limit = loaded.model.context_limit
    while drop and limit is not None and len(ids) > limit // 2 and len(encoded) > 1:
        encoded = encoded[1:]
        ids = encode_turns(loaded.prompts, system, encoded)
    if check:
        check_length(loaded, len(ids), "messages")
    return ids


def turns_of(messages: Sequence[Message]) -> tuple[str, list[Turn]]:
    """The system text and the turns; texts of one role in succession are one text."""
    system: list[str] = []
    turns: list[Turn] = []
    answered = True
    for message in messages:
        text = to_nfc(message.text())
        if message.role in ("system", "developer"):
            system.append(text)
        elif message.role == "user":
            if answered:
                turns.append(Turn(text))
            else:
                turns[-1] = Turn(f"{turns[-1].user}\n{text}")
            answered = False
        else:
            last = turns[-1] if turns else Turn("")
            joined = f"{last.answer}\n{text}" if last.answer else text
            turns[-1:] = [Turn(last.user, joined)]
            answered = True
    if not turns:
        raise Refusal(400, "messages has no text of a user.", param="messages")
    return "\n".join(system), turns
