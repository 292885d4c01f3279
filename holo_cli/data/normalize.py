"""Normalizes text before it enters a set: NFC, "\\n" line ends, no control characters.

Every removal is counted by rule. A text that needs no change is returned as it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

# C0 and C1 controls except tab and line feed, byte-order marks, lone surrogates
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ud800-\udfff]")
_CONTROL_BYTES = bytes([*range(0x09), *range(0x0B, 0x20), 0x7F])  # those of one byte in UTF-8
UNDECODABLE = "\ufffd"
CHARACTERS = ("undecodable characters", "control characters")  # rules that count characters
DAMAGED = 0.05  # share of U+FFFD above which they are kept


def normalize(text: str, counts: Counter[str]) -> str:
    """The text in NFC with "\\n" line ends and without control characters.

    Adds what was removed to `counts`: "undecodable characters" (bytes that are invalid in the
    file's encoding were decoded to U+FFFD) and "control characters". A text with more than 5 % of
    U+FFFD keeps them, because without them it would look intact; the filters drop it.
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
    """Whether `_CONTROL` could match; three times faster than running it."""
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        return True  # a lone surrogate
    # C2 begins the two bytes of every C1 control (and of some other characters)
    suspect = b"\xc2" in data or "\ufeff" in text
    return suspect or len(data.translate(None, _CONTROL_BYTES)) < len(data)


def to_nfc(text: str) -> str:
    """The text in NFC, the form of all training text; also applied to prompts."""
    if text.isascii() or unicodedata.is_normalized("NFC", text):
        return text
    return unicodedata.normalize("NFC", text)
