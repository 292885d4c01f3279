"""Cleaning: which documents go on to the tokens.

    document -> rules -> perplexity -> educational value -> duplicates -> kept, or counted by rule

`settings` reads what `--filter` says; `rules`, `measures`, `words` and `thresholds` judge a text by
its words, lines and characters; `ngram` and `education` by what it is like; `fingerprint`, `index`
and `deduplicator` find what came before. `DocumentFilter` judges one document alone, `Cleaner`
does everything. Nothing here changes a text: `holo_cli.data.normalize` has done that already.
"""

from holo_cli.data.cleaning.cleaner import Cleaner
from holo_cli.data.cleaning.settings import CleaningSettings

__all__ = ["Cleaner", "CleaningSettings"]
