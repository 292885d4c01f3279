"""Scored tokens in the two forms that OpenAI's interface gives them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from holo_cli.data.tokenizers import Tokenizer
from holo_cli.serve.rows import TokenScore


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """A token as text; a part of a character as OpenAI writes it: `bytes:\\xec\\x95`."""
    data = tokenizer.token_bytes(token) if token < tokenizer.vocab_size else b""
    if not data:
        names = {i: name for name, i in tokenizer.specials.items()}
        return names.get(token, f"<|{token}|>")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


class CompletionLogprobs:
    """Of /v1/completions: four lists, one entry a token; offsets continue from piece to piece."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._offset = 0

    def form(self, scores: Iterable[TokenScore]) -> dict[str, Any]:
        """The next tokens."""
        found: dict[str, Any] = {
            "tokens": [],
            "token_logprobs": [],
            "top_logprobs": [],
            "text_offset": [],
        }
        for score in scores:
            text = token_text(self.tokenizer, score.token)
            found["tokens"].append(text)
            found["token_logprobs"].append(score.logprob)
            # least likely first, so that of two tokens with one text the more likely one stays
            top = {token_text(self.tokenizer, t): p for t, p in reversed(score.top)}
            found["top_logprobs"].append(top if score.logprob is not None else None)
            found["text_offset"].append(self._offset)
            self._offset += len(self.tokenizer.decode([score.token]))
        return found


def chat_logprobs(tokenizer: Tokenizer, scores: Iterable[TokenScore]) -> dict[str, Any]:
    """Of /v1/chat/completions: a list of tokens, each with its alternatives."""

    def entry(token: int, logprob: float | None) -> dict[str, Any]:
        data = tokenizer.token_bytes(token) if token < tokenizer.vocab_size else b""
        return {"token": token_text(tokenizer, token), "logprob": logprob, "bytes": list(data)}

    content = [
        entry(score.token, score.logprob) | {"top_logprobs": [entry(t, p) for t, p in score.top]}
        for score in scores
    ]
    return {"content": content, "refusal": None}
