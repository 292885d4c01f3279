"""Why a request is not answered, in the form that clients of OpenAI's interface read."""

from __future__ import annotations

from typing import Any

KINDS = {429: "rate_limit_error", 500: "server_error", 503: "server_error"}


class Refusal(Exception):
    """An HTTP status with a sentence. `code` is OpenAI's word for it, `param` the key at fault.

    `wait`: seconds after which to try again, sent as Retry-After.
    """

    def __init__(
        self, status: int, reason: str, *, code: str = "", param: str = "", wait: int = 0
    ) -> None:
        super().__init__(reason)
        self.status, self.reason, self.code, self.param, self.wait = (
            status,
            reason,
            code,
            param,
            wait,
        )

    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        return {
            "error": {
                "message": self.reason,
                "type": KINDS.get(self.status, "invalid_request_error"),
                "param": self.param or None,
                "code": self.code or None,
            }
        }

    def headers(self) -> dict[str, str]:
        """Beside the body's own."""
        found = {"Retry-After": str(self.wait)} if self.wait else {}
        if self.status == 401:
            found["WWW-Authenticate"] = "Bearer"
        return found
