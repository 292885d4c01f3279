"""`holo visualize`: a look inside a model, as one HTML file that opens without a network.

    pages.py     a page's name -> checkpoint, text, figures -> a file: `make_page`
    model_reading.py   the text as the model reads it: tokens, their pieces, their languages
    coords.py    tokens in three dimensions, layer by layer
    attention.py weights of every layer and head
    training.py  curves and samples of runs, from runs/RUN/metrics.jsonl
    page.py      the shell: HTML, styles, plotly.js, tables; assets/ holds what runs in the browser
    browser.py   a headless browser, for pictures and tests

What a model has to show comes from its `views.py`; see `holo_cli/models/views.py`.
Importing this package is light: torch and plotly come with the first page.
"""

from __future__ import annotations

from holo_cli.visualize.pages import known_pages, make_page

__all__ = ["known_pages", "make_page"]
