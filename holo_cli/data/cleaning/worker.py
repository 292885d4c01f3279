"""A process that judges documents: see `judging.py`."""

from __future__ import annotations

import os
import pickle
import sys
from typing import BinaryIO

from holo_cli.data.cleaning.judging import Judge
from holo_cli.data.document import Document
from holo_cli.errors import HoloError


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer each list of documents until the requests end. The first request is the settings."""
    judge: Judge | None = None
    while True:
        try:
            message = pickle.load(requests)
        except EOFError:
            return
        if judge is None:
            judge = Judge(message)
            continue
        documents = [Document(text, language, score=score) for text, language, score in message]
        try:
            answer: object = judge.judge(documents)
        except HoloError as error:
            answer = error.message, error.next_step
        pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()


if __name__ == "__main__":
    # answers keep the standard output to themselves: what libraries print goes to the errors
    own = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        serve(sys.stdin.buffer, own)
    except BrokenPipeError:
        os._exit(0)  # whoever started this process is gone
