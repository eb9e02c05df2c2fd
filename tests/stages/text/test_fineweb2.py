"""FineWeb-2's files become settings of the filters."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cluster.errors import UserError
from stages.text.fineweb2 import load_settings
from stages.text.quality import QualityFilters, check_overrides
from tests.sample_texts import GOOD_CHINESE

TUNED = {
    "dup_line_frac": 0.3,
    "dup_n_grams": [[5, 0.2], [6, 0.19]],
    "top_n_grams": [[2, 0.25], [3, 0.2]],
    "line_punct_thr": 0.1,
    "new_line_ratio": 0.2,
    "max_avg_word_length": 5,
    "min_avg_word_length": 1,
    "max_non_alpha_words_ratio": 0.7,
    "stopwords": ["的", "是", "在"],
    "language_score": 0.7,
}


def test_a_language_takes_its_file(tmp_path: Path) -> None:
    (tmp_path / "cmn_Hani.yml").write_text(yaml.safe_dump(TUNED), encoding="utf-8")
    found = load_settings(tmp_path, ["en", "zh-Hans"])
    assert set(found) == {"zh"}
    check_overrides(found)
    assert found["zh"]["gopher_repetition"]["dup_n_grams"] == ((5, 0.2), (6, 0.19))
    filters = QualityFilters(found)
    assert filters.verdict(GOOD_CHINESE, "zh").kept
    assert filters.verdict(GOOD_CHINESE + "\n{ 1 }", "zh").kept
    assert not filters.verdict("点击这里购买便宜手表！" * 60, "zh").kept


def test_another_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no files like deu_Latn"):
        load_settings(tmp_path, ["zh"])
    (tmp_path / "cmn_Hani.yml").write_text("dup_line_frac: 0.3\n", encoding="utf-8")
    with pytest.raises(UserError, match="lacks dup_n_grams"):
        load_settings(tmp_path, ["zh"])
