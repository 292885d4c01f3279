"""The web pages of `holo serve`: chat, arena, runs, and an index of pages written before.

    routes.py    paths -> handlers
    shell.py     the HTML around every page, its security headers, and the files in assets/
    inside.py    what a model does with a text, as JSON for the panel beside the conversation
    run_logs.py  logs of runs as JSON, whole or from where the browser has read to
    written.py   HTML files in runs/, bench/ and pages/: the index, and safe paths to them

The scripts are plain JavaScript without a build step. They share `visualize/assets/page.js` and
`page.css` with the pages of `holo visualize`, and load nothing from another server: the
Content-Security-Policy of every page forbids it.
"""
