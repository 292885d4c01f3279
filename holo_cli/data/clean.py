"""Text as it enters a set: one form of Unicode, one kind of line end, no control characters.

Everything taken out is counted by rule; nothing else about a text is changed, so that a clean
text goes through untouched, byte for byte.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

# C0 and C1 controls except tab and line feed, byte-order marks, lone surrogates
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ud800-\udfff]")
UNDECODABLE = "\ufffd"
DAMAGED = 0.05  # share of undecodable characters above which a text is beyond repair


def clean(text: str, counts: Counter[str]) -> str:
    """The text in NFC with "\\n" line ends and without control characters.

    `counts` grows by what was removed: "undecodable characters" (bytes that were not valid in the
    file's encoding arrive here as U+FFFD) and "control characters". A text of which more than a
    twentieth is lost keeps its U+FFFD: without them it would read like a whole one. The filters
    drop it.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    lost = text.count(UNDECODABLE)
    if 0 < lost <= max(DAMAGED * len(text), 2):
        counts["undecodable characters"] += lost
        text = text.replace(UNDECODABLE, "")
    text, removed = _CONTROL.subn("", text)
    if removed:
        counts["control characters"] += removed
    return normalise(text)


def normalise(text: str) -> str:
    """The text in NFC; what people type is brought to the form that models were trained on."""
    if text.isascii() or unicodedata.is_normalized("NFC", text):
        return text
    return unicodedata.normalize("NFC", text)
