"""Cleaning: filters documents before they are tokenized.

    document -> rules -> perplexity -> educational value -> duplicates -> kept, or counted by rule

`settings` parses `--filter`; `rules`, `measures`, `words` and `thresholds` check the words, lines
and characters of a text; `ngram` and `education` its perplexity and educational value;
`fingerprint`, `index` and `deduplicator` find duplicates. `DocumentFilter` combines the checks of a
single document, `Cleaner` adds deduplication. No text is changed: `holo_cli.data.normalize` does
that before.
"""

from holo_cli.data.cleaning.cleaner import Cleaner
from holo_cli.data.cleaning.settings import CleaningSettings

__all__ = ["Cleaner", "CleaningSettings"]
