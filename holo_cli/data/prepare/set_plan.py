"""What is decided of a set from its first documents: its split, and the languages it marks."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from holo_cli.data import splitting
from holo_cli.data.prepare.options import PrepareOptions
from holo_cli.data.tokenizers import make_tokenizer, needs_text
from holo_cli.errors import DataError


def plan_set(options: PrepareOptions) -> splitting.SplitPlan:
    """The train/validation split, from the first documents."""
    counts: Counter[str] = Counter()
    asked = options.languages
    first, complete = splitting.peek(options.documents(counts), languages=not asked)
    if not first:
        source = ", ".join(r.source for r in options.requests if r.source) or options.name
        if counts:
            raise _all_dropped(source, counts)
        raise DataError(f"There is no text in {source}.", next_step="Use a source with text.")
    given = not asked and not needs_text(options.tokenizer)
    if given:
        first = _markable(options, first)
    plan = splitting.plan_split(first, complete, options.val_fraction)
    known = {stream.language for source in options.sources for stream in source.streams}
    plan = replace(plan, languages=tuple(sorted({*plan.languages, *known} - {""})))
    if given and not plan.languages and (single := splitting.languages_in(first, least=1)):
        # a set of one language gets the marker that other sets of its tokenizer have
        plan = replace(plan, languages=tuple(sorted(single)), marked=True)
    return plan


def _markable(
    options: PrepareOptions, first: list[splitting.DocumentStats]
) -> list[splitting.DocumentStats]:
    """Only those detected languages that a given tokenizer has a marker for: it stays the same
    tokenizer, so that its sets can be trained on together."""
    if not any(stats.detected for stats in first):
        return first
    given = make_tokenizer(options.tokenizer, offline=options.requests[0].offline)
    return [
        stats if given.marker(stats.detected) is not None else replace(stats, detected="")
        for stats in first
    ]


def _all_dropped(source: str, counts: Counter[str]) -> DataError:
    dropped = ", ".join(f"{rule}: {count}" for rule, count in sorted(counts.items()))
    return DataError(
        f"All text of {source} was dropped ({dropped}).",
        next_step="Rows need text in the column that --text-field names (default: text)."
        if "bad lines" in counts
        else "Close the quotes, or save the table as tsv."
        if "unclosed quotes" in counts
        else "Check --lang: the rows name other languages."
        if "other languages" in counts
        else "Use a source with text.",
    )
