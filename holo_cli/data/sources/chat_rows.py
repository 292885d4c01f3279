"""Files of conversations: rows with `messages` in the form of OpenAI's API."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from holo_cli.data.chat_format import BAD_LINES, NoConversationError, Utterance, read_messages
from holo_cli.data.remote import SourcePath
from holo_cli.data.sources.json_rows import json_rows
from holo_cli.data.sources.rows import field_of, language_of
from holo_cli.errors import DataError

MESSAGES = "messages"
FORM = (
    'Each line is an object such as {"messages": [{"role": "user", "content": "Hi"}, '
    '{"role": "assistant", "content": "Hello!"}]}.'
)


def read_conversations(
    path: SourcePath,
    encoding: str,
    field: str,
    counts: Counter[str],
    first_problem: Callable[[int, str], None] = lambda row, detail: None,
) -> Iterator[tuple[tuple[Utterance, ...], str]]:
    """The conversations in `field` of each row, with the language that the row names.

    Other rows are counted by rule and skipped; `first_problem` gets the number of the first and
    what is wrong in it. Raises DataError if no row is a conversation.
    """
    found, number = 0, 0
    problem = (0, "")  # the first row that is no conversation, and why
    for number, row in enumerate(json_rows(path, encoding), start=1):
        try:
            if not isinstance(row, dict):
                raise NoConversationError("it is not a JSON object", BAD_LINES)
            messages = read_messages(field_of(row, field), field)
        except NoConversationError as error:
            counts[error.rule] += 1
            if not problem[0]:
                problem = (number, error.detail)
                first_problem(*problem)
            continue
        found += 1
        yield messages, language_of(row)
    if found or not number:
        return
    row, detail = problem
    raise DataError(
        f"{path} has no conversation to learn from: row {row}: {detail}.",
        next_step=FORM,
    )
