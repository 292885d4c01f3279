"""Words that agree with a number."""

from __future__ import annotations


def counted(n: object, noun: str) -> str:
    """A number with its noun. Anything else, as a damaged file may hold, is shown as it is.

    >>> [counted(n, "token") for n in (0, 1, 4096)]
    ['0 tokens', '1 token', '4,096 tokens']
    """
    number = f"{n:,}" if isinstance(n, int | float) else str(n)
    return f"{number} {noun if n == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """The regular plural of an English noun, of which only the last word changes.

    >>> [plural(noun) for noun in ("token", "loaded text", "entry", "batch")]
    ['tokens', 'loaded texts', 'entries', 'batches']
    """
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")
