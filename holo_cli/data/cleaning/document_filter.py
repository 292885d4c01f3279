"""The filters that look at one document alone: rules, perplexity, educational value."""

from __future__ import annotations

from functools import cached_property

from holo_cli.data.cleaning import education, rules
from holo_cli.data.cleaning.ngram import Reference, load_reference
from holo_cli.data.cleaning.settings import CleaningSettings
from holo_cli.data.cleaning.thresholds import Thresholds
from holo_cli.data.cleaning.words import WordTable
from holo_cli.data.document import Document
from holo_cli.data.language import detect

NO_LANGUAGE, PERPLEXITY, EDUCATION = "no language", "perplexity", "educational value"


class DocumentFilter:
    """Checks single documents; the result depends on the document alone."""

    def __init__(self, settings: CleaningSettings) -> None:
        self.settings = settings
        self._languages: dict[str, tuple[Thresholds, WordTable]] = {}

    def judge(self, document: Document) -> str:
        """The first rule that a normalised document breaks, or ""."""
        settings, text = self.settings, document.text
        if not (settings.rules or settings.reference or settings.education):
            return ""
        language = document.language or detect(text)
        if settings.rules:
            limits, table = self._of(language)
            if broken := rules.broken(text, limits, table):
                return broken
            if not language and len(text.split()) >= limits.judged_words:
                return NO_LANGUAGE
        if settings.reference and self._reference.ratio(text, language) > settings.perplexity:
            return PERPLEXITY
        if settings.education:
            worth = education.value(document, language)
            if worth is not None and worth < settings.education:
                return EDUCATION
        return ""

    def _of(self, language: str) -> tuple[Thresholds, WordTable]:
        if language not in self._languages:
            limits = self.settings.thresholds(language)
            self._languages[language] = limits, WordTable(limits)
        return self._languages[language]

    @cached_property
    def _reference(self) -> Reference:
        return load_reference(self.settings)
