"""Charsets: declared rightly, wrongly, in the page, and not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.text.charset import decode
from stages.text.extraction import extract_main_text, tidy
from stages.text.language import identify

CHINESE = "春天来了，公园里的花都开了，孩子们在草地上跑来跑去，老人们坐在长椅上晒太阳。" * 4
TRADITIONAL = "春天來了，公園裡的花都開了，孩子們在草地上跑來跑去，老人們坐在長椅上曬太陽。" * 4
RUSSIAN = "Весна пришла, и в парке распустились цветы. Дети бегают по траве. " * 4

JAPANESE = (
    "春が来て、公園の花が咲きました。子供たちは草の上を走り回り、お年寄りは日なたで休んでいます。"
    * 4
)
KOREAN = (
    "봄이 와서 공원의 꽃이 모두 피었고 아이들은 풀밭에서 뛰어다니며 노인들은 볕을 쬐고 있다. " * 4
)
POLISH = (
    "Wiosna przyszła i w parku zakwitły wszystkie kwiaty, dzieci biegają po łące, żółte liście. "
    * 4
)
GREEK = "Ήρθε η άνοιξη και στο πάρκο άνθισαν όλα τα λουλούδια. Τα παιδιά τρέχουν στο γρασίδι. " * 4
TURKISH = (
    "Bahar geldi ve parkta bütün çiçekler açtı. Çocuklar çimenlerin üzerinde koşuyor, ağaçlar. " * 4
)
HEBREW = "האביב הגיע וכל הפרחים בגן פורחים. הילדים רצים על הדשא והזקנים יושבים בשמש. " * 4
ARABIC = (
    "جاء الربيع وتفتحت كل الأزهار في الحديقة. الأطفال يركضون على العشب والكبار يجلسون في الشمس. "
    * 4
)

SENTENCES = Path(__file__).parents[4] / "shared" / "data" / "lid" / "sentences"
CODECS = {
    "gb18030": "zh", "euc-jp": "ja", "euc-kr": "ko", "cp1250": "pl cs hu sk", "iso8859-2": "pl hu",
    "cp1251": "ru uk bg mk be sr", "koi8-r": "ru", "cp1252": "de fr es pt it sv da fi",
    "cp1253": "el", "cp1254": "tr", "cp1255": "he", "cp1256": "ar fa", "cp1257": "lt lv",
    "cp874": "th",
}  # fmt: skip


@pytest.mark.skipif(not SENTENCES.exists(), reason=f"needs the sentences in {SENTENCES}")
@pytest.mark.parametrize(
    ("told", "share"), [("rightly", 0.98), ("nothing", 0.97), ("iso-8859-1", 0.9)]
)
def test_real_sentences_of_many_languages(told: str, share: float) -> None:
    total = right = 0
    for codec, languages in CODECS.items():
        for language in languages.split():
            lines = (SENTENCES / f"{language}.txt").read_text(encoding="utf-8").splitlines()
            for start in range(0, min(len(lines) - 10, 60), 10):
                body = "\n".join(lines[start : start + 10]).encode(codec, "ignore")
                label = {"rightly": codec, "nothing": None}.get(told, told)
                total += 1
                right += decode(b"<p>" + body + b"</p>", label)[0] == f"<p>{body.decode(codec)}</p>"
    assert total > 100 and right >= share * total, f"{right} of {total}"


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        (CHINESE, "gbk"),
        (CHINESE, "gb18030"),
        (TRADITIONAL, "big5"),
        (JAPANESE, "euc-jp"),
        (JAPANESE, "shift_jis"),
        (KOREAN, "euc-kr"),
        (POLISH, "cp1250"),
        (GREEK, "cp1253"),
        (TURKISH, "cp1254"),
        (HEBREW, "cp1255"),
        (ARABIC, "cp1256"),
        (RUSSIAN, "koi8-r"),
        (RUSSIAN, "cp1251"),
        ("Café déjà vu, naïve façade. " * 9, "cp1252"),
        (CHINESE, "utf-8"),
        (CHINESE, "utf-16"),
    ],
)
@pytest.mark.parametrize("told", ["header", "wrong header", "nothing"])
def test_text_comes_out_whatever_is_told(text: str, codec: str, told: str) -> None:
    wrong = "utf-8" if codec != "utf-8" else "ascii"
    declared = {"header": codec, "wrong header": wrong, "nothing": None}[told]
    if told == "wrong header" and codec == "utf-8":
        declared = "no-such-charset"
    assert decode(text.encode(codec), declared)[0] == text


GERMAN = "Der Hafen ist für die Stadt wichtig, während Fischer früh die Größe der Bäche prüfen. "
UKRAINIAN = "У місті відкрилася нова бібліотека, її ґанок і євроремонт бачать усі. " * 2


@pytest.mark.parametrize(
    ("text", "codec", "told"),
    [
        (GERMAN, "cp1252", "gb2312"),
        (GERMAN * 4, "cp1252", "gb2312"),
        (UKRAINIAN, "koi8-u", "utf-8"),
        (JAPANESE, "iso2022_jp", None),
        (JAPANESE, "iso2022_jp", "iso-8859-1"),
        (CHINESE[:12], "gb18030", "gb2312"),
    ],
)
def test_marks_and_words_tell_more_than_labels(text: str, codec: str, told: str | None) -> None:
    assert decode(f"<p>{text}</p>".encode(codec), told)[0] == f"<p>{text}</p>"


def test_meta_element_is_believed() -> None:
    page = f'<html><head><meta charset="gb2312"></head><body>{CHINESE}</body></html>'
    assert CHINESE in decode(page.encode("gb18030"))[0]


def test_bytes_that_are_no_text_do_not_fail() -> None:
    assert isinstance(decode(bytes(range(256)) * 8, "utf-8")[0], str)


def test_main_text_leaves_navigation_and_scripts_out() -> None:
    article = "<p>" + "The harbour is the heart of the town. " * 8 + "</p>"
    page = (
        "<html><body><nav><ul><li><a href=/>Home</a></li><li>Login</li></ul></nav>"
        f"<main>{article}</main><script>var x = 1;</script><footer>Imprint</footer></body></html>"
    )
    text = extract_main_text(page)
    assert "heart of the town" in text
    assert "Login" not in text and "var x" not in text and "Imprint" not in text


def test_tidy_keeps_indentation_and_drops_control_characters() -> None:
    assert tidy("a\x00b \u3000 c\r\n    code  x\n\n\n\nend\ud800 ") == "ab c\n    code x\n\nend"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (CHINESE, "zh"),
        (TRADITIONAL, "zh"),
        ("これは日本語の文章です。漢字とかなが混ざっています。", "ja"),
        ("이것은 한국어 문장입니다. 공원에 꽃이 피었습니다.", "ko"),
        ("The harbour is the heart of the town, and the boats leave before sunrise.", "en"),
        ("Der Hafen ist das Herz der Stadt, und die Boote fahren vor Sonnenaufgang.", "de"),
        (RUSSIAN, "ru"),
        ("Python 3.11 是一种编程语言，NumPy 是它的数组库。它们都很好用。", "zh"),
    ],
)
def test_languages(text: str, language: str) -> None:
    assert identify(text, ["en", "zh"]) == language
