"""Languages are told by script, by the built-in model and by a fastText model; limits are kept."""

from __future__ import annotations

import struct
from pathlib import Path

import pycld2
import pytest
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from cluster.errors import UserError
from stages.text.language import (
    Identifier,
    canonical,
    check_languages,
    chinese_script,
    identify,
    load_model,
)
from stages.text.language_models import (
    _OLD_CODES,
    CLD2_LABELS,
    PY3LANGID_LABELS,
    BothModels,
    Cld2,
    Py3LangId,
)
from tests.real_text import needs_shared
from tests.sample_texts import GOOD_CHINESE, GOOD_ENGLISH

TRADITIONAL = "這本書是關於電腦網路與資料庫的實務經驗，讀者會學習許多技術。"
SIMPLIFIED = "这本书是关于电脑网络与数据库的实务经验，读者会学习许多技术。"


def test_han_alone_is_chinese_and_its_script_is_told() -> None:
    assert identify(TRADITIONAL, ["en", "zh"]) == "zh"
    assert (chinese_script(TRADITIONAL), chinese_script(SIMPLIFIED)) == ("Hant", "Hans")
    assert chinese_script("山水人口") == "Hani"


def test_kana_and_hangul_are_not_chinese() -> None:
    assert identify("今日は天気がいいので、公園を散歩します。", ["zh"]) == "ja"
    assert identify("오늘은 날씨가 좋아서 공원에서 산책합니다.", ["zh"]) == "ko"


def test_regional_labels_are_the_language_asked_for() -> None:
    assert canonical("yue") == canonical("wuu") == canonical("cmn_Hani") == "zh"
    page = "13.3. 組態 X11 Server 與 GNOME desktop environment, KDE Plasma 及 Xfce " * 8
    assert Identifier(["en", "zh"])(page).language in ("zh", "en")
    norwegian = "Jeg liker å gå på tur i fjellet når været er fint, og så spiser vi mat sammen."
    assert Identifier(["nb"])(norwegian).language == "nb"
    assert Identifier(["no"])(norwegian).language == "no"


def test_one_script_of_chinese_can_be_asked_for() -> None:
    only = Identifier(["en", "zh-Hans"])
    assert only(SIMPLIFIED).accepted and only(SIMPLIFIED).language == "zh"
    refused = only(TRADITIONAL)
    assert not refused.accepted and refused.language == "zh-Hant"
    assert not only.accepts("zh", TRADITIONAL).accepted
    assert only.accepts("zh", SIMPLIFIED).accepted
    assert (
        only.accepts("zho", SIMPLIFIED).accepted and only.accepts("eng", "hello").language == "en"
    )
    assert not only.accepts("fra", "bonjour").accepted


def test_a_threshold_of_its_own_decides() -> None:
    mixed = (
        GOOD_ENGLISH[:200] + " " + "Der Hafen ist das Herz der Stadt, und die Fischer leben dort."
    )
    plain = Identifier(["en", "de"])(mixed)
    assert plain.accepted
    strict = Identifier(["en", "de"], thresholds={"en": 1.1, "de": 1.1})(mixed)
    assert not strict.accepted and strict.language in ("uncertain", "en", "de")
    assert not Identifier(["zh"], thresholds={"zh": 0.99})(GOOD_CHINESE + " Debian GNU").accepted


def test_what_cannot_be_told_is_refused_with_a_way_out() -> None:
    with pytest.raises(UserError, match="xx cannot be identified"):
        check_languages(["en", "xx"])
    with pytest.raises(UserError, match="zh-Cyrl"):
        check_languages(["zh-Cyrl"])
    with pytest.raises(UserError, match="language_thresholds names de"):
        check_languages(["en"], {"de": 0.5})


def _fasttext_model(path: Path, words: dict[str, str]) -> Path:
    """A supervised fastText model (format version 12): each word votes for its label."""
    labels = sorted(set(words.values()))
    entries = [(word, 0) for word in words] + [(f"__label__{label}", 1) for label in labels]
    out = struct.pack("<ii", 793712314, 12)
    # dim, ws, epoch, minCount, neg, wordNgrams, loss (softmax), model (sup), bucket, minn, maxn,
    # lrUpdateRate, t
    size = len(labels)
    out += struct.pack("<12id", size, 5, 1, 1, 5, 1, 3, 3, 0, 0, 0, 100, 1e-4)
    out += struct.pack("<3iqq", len(entries), len(words), size, len(entries), -1)
    for text, kind in entries:
        out += text.encode() + b"\0" + struct.pack("<qb", 1, kind)
    out += struct.pack("<?qq", False, len(words), size)
    for label in words.values():
        out += struct.pack(f"<{size}f", *(9.0 * (label == other) for other in labels))
    out += struct.pack("<?qq", False, size, size)
    for row in range(size):
        out += struct.pack(f"<{size}f", *(float(row == column) for column in range(size)))
    path.write_bytes(out)
    return path


def test_a_fasttext_model_by_path_decides(tmp_path: Path) -> None:
    pytest.importorskip("fasttext")
    model = load_model(
        _fasttext_model(tmp_path / "m.bin", {"hello": "eng_Latn", "hallo": "deu_Latn"})
    )
    identifier = Identifier(["en", "de"], model=model)
    assert identifier("hallo hallo\nhallo").language == "de"
    assert identifier("hello hello").probability > 0.9
    assert identifier("hello \ud800").language == "en"
    assert not Identifier(["en"], model=model)("hallo hallo").accepted


def test_a_broken_model_is_a_clear_error(tmp_path: Path) -> None:
    pytest.importorskip("fasttext")
    with pytest.raises(UserError, match="no such file"):
        load_model(tmp_path / "none.bin")
    (tmp_path / "text.bin").write_text("not a model")
    with pytest.raises(UserError, match="no fastText model"):
        load_model(tmp_path / "text.bin")


@needs_shared
def test_most_sentences_of_seventy_five_languages_are_told() -> None:
    from tests.bench.language import accuracy

    overall, by_language = accuracy(every=20)
    assert len(by_language) == 75
    assert overall > 0.95
    assert min(by_language[code] for code in ("en", "zh", "ja", "ko", "de", "fr", "ru")) > 0.9


def test_the_known_languages_are_the_models() -> None:
    first = LanguageIdentifier.from_model_file(MODEL_FILE)
    assert set(first.labels) == PY3LANGID_LABELS
    second = {
        _OLD_CODES.get(code, code)
        for name, code in pycld2.LANGUAGES
        if name in pycld2.DETECTED_LANGUAGES and not name.startswith("X_")  # Klingon and such
    }
    assert second == CLD2_LABELS


def test_the_second_model_knows_more_languages_and_does_not_take_the_unknown_for_english() -> None:
    maori = "Ko te reo Māori te reo taketake o Aotearoa, ā, he reo ōkawa tēnei nō te whenua."
    assert identify(maori, ()) == "mi"
    langid, cld2, both = (
        dict(model.rank("Vil du ha et like stort smil som Tom Cruise?"))
        for model in (Py3LangId(), Cld2(), BothModels())
    )
    assert cld2["en"] > 0.9 and langid["en"] < 0.05 and both["en"] < 0.05
    assert sum(both.values()) == pytest.approx(1)


@pytest.mark.parametrize("text", ["", " ", "\0", "\ud800 \ufffe", "a\x93b\x07 c", "12 34"])
def test_what_is_no_text_still_has_a_verdict(text: str) -> None:
    assert not Identifier(["xh"])(text).accepted
