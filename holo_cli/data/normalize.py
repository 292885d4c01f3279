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
_CONTROL_BYTES = bytes([*range(0x09), *range(0x0B, 0x20), 0x7F])  # those of one byte in UTF-8
UNDECODABLE = "\ufffd"
DAMAGED = 0.05  # share of undecodable characters above which a text is beyond repair


def normalize(text: str, counts: Counter[str]) -> str:
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
    if _may_hold_controls(text):
        text, removed = _CONTROL.subn("", text)
        if removed:
            counts["control characters"] += removed
    return to_nfc(text)


def _may_hold_controls(text: str) -> bool:
    """Whether `_CONTROL` could match; bytes are told apart in a third of the time it takes."""
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        return True  # a lone surrogate
    # C2 begins the two bytes of every C1 control (and of some other characters)
    suspect = b"\xc2" in data or "\ufeff" in text
    return suspect or len(data.translate(None, _CONTROL_BYTES)) < len(data)


def to_nfc(text: str) -> str:
    """The text in NFC; what people type is brought to the form that models were trained on."""
    if text.isascii() or unicodedata.is_normalized("NFC", text):
        return text
    return unicodedata.normalize("NFC", text)
