"""Judges pages by their address, language, words and personal data, as the config says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cluster.errors import UserError
from stages.corpus.screening import Screening
from stages.text import language, privacy
from stages.text.blocklists import UrlBlocklist, WordLists, WordListSource, check_list
from stages.text.privacy import Action

if TYPE_CHECKING:
    from stages.corpus import Config


@dataclass(frozen=True)
class ScreenSettings:
    """What a worker's screen is made of; the defaults let everything pass and mask all kinds."""

    language_thresholds: Mapping[str, float] = field(default_factory=dict)
    language_model: str | None = None
    blocked_domains: Sequence[str] = ()
    blocked_urls: Sequence[str] = ()
    blocked_url_words: Sequence[str] = ()
    word_lists: Sequence[WordListSource] = ()
    personal_data: Mapping[str, Action] = field(default_factory=dict)
    boilerplate_pages: int = 0


def screen_settings(config: Screening) -> ScreenSettings:
    """The config's part of screening, as plain values."""
    return ScreenSettings(
        language_thresholds=dict(config.language_thresholds),
        language_model=config.language_model,
        blocked_domains=tuple(config.blocked_domains),
        blocked_urls=tuple(config.blocked_urls),
        blocked_url_words=tuple(config.blocked_url_words),
        word_lists=tuple(
            WordListSource(entry.list, entry.language, entry.per_thousand)
            for entry in config.word_lists
        ),
        personal_data={str(kind): action for kind, action in config.personal_data.items()},
        boilerplate_pages=config.boilerplate_pages,
    )


def check_screening(config: Screening, languages: Sequence[str]) -> None:
    """Refuse, before any work, what no worker could do: unknown languages, missing files."""
    model = language.load_model(config.language_model) if config.language_model else None
    language.check_languages(
        languages,
        config.language_thresholds,
        model.labels if model else language.KNOWN_LANGUAGES,
    )
    settings = screen_settings(config)
    WordLists(settings.word_lists)
    for name in config.files():
        if name != config.language_model:
            check_list(name)
    stray = {entry.language for entry in settings.word_lists} - {
        language.canonical(code) for code in languages
    }
    if stray:
        raise UserError(
            f"word_lists names languages {', '.join(sorted(stray))}, but languages are"
            f" {', '.join(languages)}: no page would meet those lists"
        )


def quality_overrides(config: Config) -> dict[str, dict[str, dict[str, Any]]]:
    """Language -> filter -> settings: FineWeb-2's if a folder is named, then the config's own."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    if config.fineweb2:
        from stages.text.fineweb2 import load_settings

        found = load_settings(config.fineweb2, config.languages)
    for code, filters in config.quality.items():
        of_language = found.setdefault(code, {})
        for name, arguments in filters.items():
            of_language[name] = {**of_language.get(name, {}), **arguments}
    return found


class Screen:
    """Made once in each worker."""

    def __init__(
        self, settings: ScreenSettings, languages: Sequence[str], threshold: float
    ) -> None:
        model = language.load_model(settings.language_model) if settings.language_model else None
        self._identify = language.Identifier(
            languages, threshold, settings.language_thresholds, model
        )
        self._urls = UrlBlocklist(
            settings.blocked_domains, settings.blocked_urls, settings.blocked_url_words
        )
        self._words = WordLists(settings.word_lists)
        self._actions = settings.personal_data
        self._may_drop = "drop" in settings.personal_data.values()

    def address(self, url: str) -> str:
        """Why the address is blocked: "domain", "url" or "word"; "" if it is not."""
        return self._urls.refuses(url)

    def language(self, text: str, declared: str | None) -> language.Verdict:
        """Which language, and whether it is wanted. A declared one is believed."""
        return self._identify.accepts(declared, text) if declared else self._identify(text)

    def words(self, text: str, language_code: str) -> str:
        """The word list of which the text says too much; "" if none."""
        return self._words.refuses(text, language_code)

    def personal(self, text: str, language_code: str) -> str:
        """The kind of personal data that drops the document; "" if none does."""
        if not self._may_drop:
            return ""
        return privacy.protect(text, language_code, self._actions).dropped

    def mask(self, text: str, language_code: str) -> tuple[str, Counter[str]]:
        """The text after the actions on personal data, and how many spans of each kind they met."""
        protected = privacy.protect(text, language_code, self._actions)
        return protected.text, protected.kinds
