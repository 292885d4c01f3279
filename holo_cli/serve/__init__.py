"""`holo serve`: models behind an HTTP interface of OpenAI's form.

One thread computes (scheduler.py): it holds a batch per model (batch.py), in which rows of
different lengths join and leave between two steps. The event loop of the web server (app.py) only
parses, waits and writes. Answers to programs are in English whatever the language of messages is,
as all of this interface's clients expect.
"""
