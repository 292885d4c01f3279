"""What is wrong with the end of a command, whatever was done to it.

A good end is exit code 0 with the right result, or a documented exit code with one sentence that
says what is wrong. Everything else has a name here.
"""

from __future__ import annotations

import re

from benchmarks.faults.sandbox import Outcome

MEMORY_BYTES = 768 << 20  # that a command on files of a few hundred kB may take
DOCUMENTED = {0, 1, 2, 3}
UNEXPLAINED = ("Unexpected ", "This is a bug in holo", "Traceback (most recent call last)")
WARNING = re.compile(r"\.py:\d+: \w*Warning:")
# C0 but for tab and newline, DEL, C1, bidirectional controls, and bytes that are no UTF-8
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


# what progress bars and tables use of a terminal: colours, cursor moves, erasing of a line
OWN = re.compile(r"\x1b\[[0-9;]*m|\x1b\[[0-9]*[ABGK]|\x1b\[\?25[hl]|\r")


def control_characters(outcome: Outcome) -> str:
    """The first character that a terminal would obey or could not show, escaped; "" if none.

    Text that a model generates goes to a file or a pipe as it is, to a terminal it must not.
    """
    text = OWN.sub("", outcome.stderr) if outcome.terminal else outcome.stderr
    if not outcome.generates:
        text += outcome.stdout
    found = CONTROL.search(text)
    return ascii(found[0]) if found else ""


def fault(outcome: Outcome, *, labelled: bool = True) -> str:
    """The first thing that is wrong; "" for nothing. `labelled`: errors begin with "Error: ".

    The kinds: hang, signal, exit code, unexplained, memory, control, silent, foreign.
    """
    if outcome.hung:
        return f"hang: not done after {outcome.seconds:.0f} s"
    if outcome.code is None:
        return f"signal: ended by signal {outcome.signal}"
    for words in UNEXPLAINED:
        if words in outcome.stderr:
            return f"unexplained: {_line(outcome.stderr, words)}"
    if outcome.code not in DOCUMENTED:
        return f"exit code: {outcome.code}"
    if outcome.grown > MEMORY_BYTES:
        return f"memory: {outcome.grown >> 20} MiB"
    if outcome.code and "Error: Out of memory." in outcome.stderr:
        return "memory: it ran out of memory"
    if bad := control_characters(outcome):
        return f"control: {bad} on the terminal"
    errors = [line for line in outcome.stderr.splitlines() if line.startswith("Error: ")]
    if outcome.code in (1, 2) and (len(errors) != 1 if labelled else not outcome.stderr.strip()):
        return f"silent: exit code {outcome.code} with {len(errors)} sentences"
    if found := WARNING.search(outcome.stderr):
        return f"foreign: {_line(outcome.stderr, found[0])}"
    return ""


def message(outcome: Outcome) -> str:
    """The sentence of an error; "" for none."""
    lines = [line for line in outcome.stderr.splitlines() if line.startswith("Error: ")]
    return lines[0].removeprefix("Error: ")[:300] if lines else ""


def _line(text: str, words: str) -> str:
    lines = text.splitlines()
    if words.startswith("Traceback"):  # its last line names the exception
        return next((one for one in reversed(lines) if one and not one.startswith(" ")), words)
    return next((line for line in lines if words in line), words)[:300]
