"""The filters that look at one document alone: rules, perplexity, educational value."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from holo_cli.data.cleaning import education, rules
from holo_cli.data.cleaning.ngram import Reference, load_reference
from holo_cli.data.cleaning.screen import RuleScreen
from holo_cli.data.cleaning.settings import CleaningSettings
from holo_cli.data.cleaning.thresholds import Thresholds
from holo_cli.data.cleaning.words import WordTable
from holo_cli.data.document import Document
from holo_cli.data.language import detect

NO_LANGUAGE, PERPLEXITY, EDUCATION = "no language", "perplexity", "educational value"


class DocumentFilter:
    """Checks documents; the result for each depends on this document alone."""

    def __init__(self, settings: CleaningSettings) -> None:
        self.settings = settings
        self._languages: dict[str, tuple[Thresholds, WordTable]] = {}
        self._screens: dict[str, RuleScreen] = {}

    def judge(self, document: Document) -> str:
        """The first rule that a normalized document breaks, or "". Exact and slow."""
        language = self._language(document)
        return self._rule(document, language) or self._worth(document, language)

    def judge_all(self, documents: Sequence[Document]) -> list[str]:
        """`judge` of each, many times faster for documents that break no rule."""
        languages = [self._language(document) for document in documents]
        found = [""] * len(documents)
        if self.settings.rules:
            for language in dict.fromkeys(languages):
                numbers = [i for i, code in enumerate(languages) if code == language]
                texts = [documents[i].text for i in numbers]
                for i, passed in zip(numbers, self._screen(language).passes(texts), strict=True):
                    if not passed or not language:
                        found[i] = self._rule(documents[i], language)
        return [
            rule or self._worth(document, language)
            for rule, document, language in zip(found, documents, languages, strict=True)
        ]

    def _language(self, document: Document) -> str:
        settings = self.settings
        if not (settings.rules or settings.reference or settings.education):
            return ""
        return document.language or detect(document.text)

    def _rule(self, document: Document, language: str) -> str:
        if not self.settings.rules:
            return ""
        limits, table = self._of(language)
        if broken := rules.broken(document.text, limits, table):
            return broken
        if not language and len(document.text.split()) >= limits.judged_words:
            return NO_LANGUAGE
        return ""

    def _worth(self, document: Document, language: str) -> str:
        settings = self.settings
        if (
            settings.reference
            and self._reference.ratio(document.text, language) > settings.perplexity
        ):
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

    def _screen(self, language: str) -> RuleScreen:
        if language not in self._screens:
            self._screens[language] = RuleScreen(*self._of(language))
        return self._screens[language]

    @cached_property
    def _reference(self) -> Reference:
        return load_reference(self.settings)
