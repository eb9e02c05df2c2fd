"""Good Chinese pages survive, poor ones do not, and settings are checked."""

from __future__ import annotations

import pytest

from cluster.errors import UserError
from stages.text.quality import QualityFilters, check_overrides, settings
from tests.bench.filters import compare_verdicts
from tests.chinese_pages import bad_pages, manuals, sample_pages
from tests.real_text import documents, few_documents, needs_shared
from tests.sample_texts import GOOD_CHINESE, GOOD_ENGLISH


@pytest.mark.parametrize(("language", "text"), [("zh", GOOD_CHINESE), ("en", GOOD_ENGLISH)])
def test_good_pages_are_kept_whole(language: str, text: str) -> None:
    verdict = QualityFilters().verdict(text, language)
    assert (verdict.kept, verdict.filter, verdict.reason) == (True, "", "")
    assert verdict.text == text


def test_english_defaults_would_drop_the_good_chinese_page() -> None:
    """Why there are settings for Chinese at all."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import C4QualityFilter, GopherQualityFilter

    for stock in (GopherQualityFilter, C4QualityFilter):
        assert stock(language="cmn").filter(Document(text=GOOD_CHINESE, id="")) is not True


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "Buy cheap watches now! " * 60),
        ("zh", "点击这里购买便宜手表！" * 60),
        ("en", "Home\nAbout\nContact\nLogin\n" * 3),
        ("en", "qx9 zz7 kk2 ww1 pp3 " * 5 + " ".join(f"{n}{n}" for n in range(100))),
        ("en", GOOD_ENGLISH + "\n{ var x = 1 } is what the script of this page said."),
    ],
)
def test_poor_pages_are_dropped(language: str, text: str) -> None:
    assert not QualityFilters().verdict(text, language).kept


def test_bad_chinese_pages_are_dropped_whatever_is_bad_about_them() -> None:
    filters = QualityFilters()
    verdicts = [(kind, filters.verdict(text, "zh").kept) for kind, text in bad_pages(6)]
    assert sum(kept for _, kept in verdicts) <= 0.05 * len(verdicts), verdicts


LESSON = """用 Python 读取文件

本文介绍如何读取文件，并统计每一列的平均值。首先导入模块：

import csv
with open("data.csv", encoding="utf-8") as f:
    reader = csv.DictReader(f)
    for row in reader:
        print(row["name"], row["age"])

上面的代码逐行读取数据，把每一行变成一个字典，键是表头的名称。接下来计算平均年龄：

ages = [int(row["age"]) for row in rows]
print(sum(ages) / len(ages))

需要注意的是，如果文件里有空行，程序会报错，因此最好先判断这一行是否为空。另外要加上参数，否则会多出空行。"""
VERSE = """我是天空里的一片云，
偶尔投影在你的波心，
你不必讶异，
更无须欢喜，
在转瞬间消灭了踪影。

你我相逢在黑夜的海上，
你有你的，我有我的，方向；
你记得也好，
最好你忘掉，
在这交会时互放的光亮！"""
DIALOGUE = """“你今天怎么来晚了？”老师问。
“路上堵车，”小明低着头说，“我等了半个小时的公交车。”
“下次早点出门。”
“好的，老师。”
同学们都笑了起来。小明走到自己的座位上，拿出书本，开始认真听课。"""


@pytest.mark.parametrize("text", [LESSON, VERSE, DIALOGUE])
def test_chinese_lessons_verse_and_dialogue_are_kept(text: str) -> None:
    verdict = QualityFilters().verdict(text, "zh")
    assert (verdict.kept, verdict.filter, verdict.reason) == (True, "", "")


def test_good_chinese_pages_of_the_sample_crawl_are_kept() -> None:
    filters = QualityFilters()
    pages = list(sample_pages(40))
    assert sum(filters.verdict(text, "zh").kept for _, text in pages) >= 0.95 * len(pages)


@needs_shared
def test_chinese_manuals_are_kept_at_least_as_often_as_asked() -> None:
    filters = QualityFilters()
    pages = list(manuals())
    kept = [name for name, text in pages if filters.verdict(text, "zh").kept]
    print(f"{len(kept)} of {len(pages)} pages of Chinese manuals are kept")
    assert len(pages) > 120 and len(kept) >= 0.95 * len(pages)


@needs_shared
def test_verdicts_equal_stock_datatrove_on_real_documents() -> None:
    kept, different, _ = compare_verdicts(few_documents(150))
    assert different == 0 and set(kept) >= {"en", "zh"}


@pytest.mark.parity
@pytest.mark.timeout(1800)
@needs_shared
def test_verdicts_equal_stock_datatrove_on_twenty_thousand_documents() -> None:
    _, different, _ = compare_verdicts(documents(20_000))
    assert different == 0


def test_other_languages_have_stop_words_and_longer_words() -> None:
    german = settings("de", "web")["gopher_quality"]
    assert "und" in german["stop_words"] and german["max_avg_word_length"] == 15
    assert settings("ja", "web")["c4"]["min_words_per_line"] == -1
    assert settings("xx", "web")["gopher_quality"]["min_stop_words"] is None
    assert settings("en", "web")["gopher_quality"] == {}


def test_overrides_change_the_verdict_and_are_checked() -> None:
    lenient = QualityFilters({"en": {"gopher_quality": {"min_doc_words": 200}}})
    assert lenient.verdict(GOOD_ENGLISH, "en").reason == "gopher_short_doc"
    with pytest.raises(UserError, match="no such filter"):
        check_overrides({"en": {"gofer": {}}})
    with pytest.raises(UserError, match=r"min_words.*no such setting"):
        check_overrides({"en": {"gopher_quality": {"min_words": 3}}})


def test_profile_none_keeps_everything() -> None:
    assert QualityFilters().verdict("x", "en", "none").kept
