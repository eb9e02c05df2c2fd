"""What a worker that reads units is told. Light: the driver needs no filter, model or tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.corpus.screen import ScreenSettings
from stages.corpus.source import Extractor

if TYPE_CHECKING:
    from stages.corpus.sources import Job


@dataclass(frozen=True)
class Settings:
    """What a worker needs to know besides its unit."""

    languages: Sequence[str]
    language_threshold: float
    quality: Mapping[str, Mapping[str, Mapping[str, Any]]]
    mask_personal_data: bool
    max_page_bytes: int
    samples_per_reason: int
    evaluation: Sequence[str] = ()
    training: Sequence[str] = ()
    extractor: Extractor = "resiliparse"
    screen: ScreenSettings = field(default_factory=ScreenSettings)
    boilerplate: Path | None = None
    """Sorted keys of the lines to leave out (stages.text.boilerplate)."""


@dataclass(frozen=True)
class MakeUnitWorker:
    """Makes a `UnitWorker` where the work is done, and imports there what it needs."""

    settings: Settings
    folder: Path

    def __call__(self) -> Callable[[Job], str]:
        from stages.corpus.unit import UnitWorker

        return UnitWorker(self.settings, self.folder)
