"""FineWeb-2's tuned settings of the filters, read from a copy of its `configs` folder.

FineWeb-2 (Penedo et al. 2025) tuned the filters' thresholds and stop words for each of a thousand
languages; its repository, huggingface/fineweb-2, keeps one YAML file a language, named like
`deu_Latn.yml`. What its pipeline does with them besides: no C4 filter, no limits on repeated
paragraphs and characters of lines, no limit on short lines, one tenth of repeated characters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cluster.errors import UserError
from stages.text.fasttext_model import two_letters
from stages.text.language import canonical

_CODES = {
    "zh": "cmn",
    "ar": "arb",
    "ms": "zsm",
    "fa": "fas",
    "lv": "lvs",
    "et": "ekk",
    "sw": "swh",
    "uz": "uzn",
    "mn": "khk",
    "az": "azj",
    "sq": "als",
    "ne": "npi",
    "or": "ory",
    "nb": "nob",
}
_C4_OFF = {
    "remove_citations": False,
    "filter_no_terminal_punct": False,
    "min_num_sentences": -1,
    "min_words_per_line": -1,
    "max_word_length": -1,
    "filter_lorem_ipsum": False,
    "filter_javascript": False,
    "filter_curly_bracket": False,
    "filter_policy": False,
}
_KEYS = (
    "dup_line_frac",
    "dup_n_grams",
    "top_n_grams",
    "line_punct_thr",
    "new_line_ratio",
    "max_avg_word_length",
    "min_avg_word_length",
    "max_non_alpha_words_ratio",
    "stopwords",
)


def settings_file(folder: Path, language: str) -> Path | None:
    """The language's file; None where FineWeb-2 has none. Of several scripts the largest file."""
    base = canonical(language)
    three = {two: code for code, two in two_letters().items()} | _CODES
    found = sorted(folder.glob(f"{three.get(base, base)}_*.yml"))
    return max(found, key=lambda path: path.stat().st_size, default=None)


def load_settings(folder: str | Path, languages: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Language -> filter -> settings, of the languages that have a file. English has none: FineWeb
    stands for it.
    """
    path = Path(folder)
    if not any(path.glob("*_*.yml")):
        raise UserError(
            f"fineweb2 {path} holds no files like deu_Latn.yml: expected the `configs` folder of a"
            " copy of github.com/huggingface/fineweb-2"
        )
    files = {canonical(language): settings_file(path, language) for language in languages}
    return {language: _read(file) for language, file in files.items() if file is not None}


def _read(path: Path) -> dict[str, Any]:
    tuned: Mapping[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    missing = [key for key in _KEYS if key not in tuned]
    if missing:
        raise UserError(
            f"{path} lacks {', '.join(missing)}: it is no file of FineWeb-2's configs, or one of"
            " another version"
        )
    return {
        "gopher_repetition": {
            "dup_para_frac": 0,
            "dup_line_char_frac": 0,
            "dup_para_char_frac": 0,
            "dup_line_frac": tuned["dup_line_frac"],
            "top_n_grams": tuple(map(tuple, tuned["top_n_grams"])),
            "dup_n_grams": tuple(map(tuple, tuned["dup_n_grams"])),
        },
        "gopher_quality": {
            "max_avg_word_length": tuned["max_avg_word_length"],
            "min_avg_word_length": tuned["min_avg_word_length"],
            "stop_words": tuned["stopwords"],
            "max_non_alpha_words_ratio": tuned["max_non_alpha_words_ratio"],
            "min_stop_words": 2,
        },
        "c4": dict(_C4_OFF),
        "fineweb": {
            "short_line_thr": 999,
            "char_duplicates_ratio": 0.1,
            "line_punct_thr": tuned["line_punct_thr"],
            "new_line_ratio": tuned["new_line_ratio"],
        },
    }
