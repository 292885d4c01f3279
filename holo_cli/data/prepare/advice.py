"""What a person should know about a set that was prepared: computed from its meta.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from holo_cli.data.meta import Meta
from holo_cli.data.normalize import CHARACTERS

CONTEXT = 128  # tokens: of the smallest presets
TOKENS_PER_ENTRY = 10  # training tokens per entry of the vocabulary below which it is too large
BYTES_PER_ENTRY = 300  # of text, for the suggested vocabulary
SMALLEST_VOCABULARY = 320  # all bytes, markers, and a few merges
ALMOST_ALL = 0.9  # share of documents
_NAMED = 3  # rules named in a warning


def passed_over(meta: Meta) -> dict[str, int]:
    """Files of the sources that were not read, by suffix or reason, the most frequent first."""
    total: Counter[str] = Counter()
    for source in meta.sources:
        total.update(source.get("passed_over", {}))
    return dict(total.most_common())


def warnings(meta: Meta) -> Iterator[str]:
    """Sentences about a set that is too small, or of whose text almost nothing is left."""
    tokens = sum(shard.tokens for shard in meta.of("train"))
    size = sum(shard.bytes for shard in meta.of("train"))
    trained = meta.settings.get("vocab_size") is not None
    vocabulary = meta.tokenizer.vocab_size
    smaller = max(SMALLEST_VOCABULARY, 2 ** (size // BYTES_PER_ENTRY).bit_length() // 2)
    fits = trained and smaller < vocabulary
    if tokens <= CONTEXT:
        least = CONTEXT + 1
        yield (
            f"The set is too small to train on: its training text has {tokens:,} tokens, and a "
            f"context of {CONTEXT} needs {least}. Use more text."
        )
    elif trained and fits and tokens < TOKENS_PER_ENTRY * vocabulary:
        yield (
            f"The text is small for its vocabulary: {tokens:,} training tokens for "
            f"{vocabulary:,} entries. Prepare it again with --vocab-size {smaller} --force."
        )
    dropped = {rule: n for rule, n in meta.dropped.items() if n and rule not in CHARACTERS}
    lost, kept = sum(dropped.values()), sum(shard.documents for shard in meta.shards)
    if lost >= ALMOST_ALL * (lost + kept):
        rules = ", ".join(f"{rule}: {n:,}" for rule, n in Counter(dropped).most_common(_NAMED))
        total = lost + kept
        yield f"Almost everything was dropped: {lost:,} of {total:,} documents ({rules})."


def notes(meta: Meta) -> Iterator[str]:
    """Sentences that explain how the text was split."""
    cut = {name: n for source in meta.sources for name, n in source.get("cut", {}).items()}
    if len(cut) == 1 and len(meta.source_names) == 1:
        ((name, pieces),) = cut.items()
        yield (
            f"{name} is one text (no two empty lines between documents): it was cut into "
            f"{pieces:,} pieces, and both splits have pieces of it."
        )
