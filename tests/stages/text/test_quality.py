"""Good Chinese pages survive, poor ones do not, and settings are checked."""

from __future__ import annotations

import pytest

from cluster.errors import UserError
from stages.text.quality import QualityFilters, check_overrides

GOOD_CHINESE = (
    "北京的秋天是一年中最美的季节。天空很高，也很蓝，风轻轻地吹过树叶，发出沙沙的声音。\n"
    "人们喜欢在周末去香山看红叶，也有不少家庭带着孩子去公园放风筝。路边的小店卖着热腾腾的烤红薯，"
    "香气飘得很远。\n"
    "我小时候住在胡同里，邻居们常常坐在门口聊天。老王会讲他年轻时候的故事，我们都听得入了神。"
    "那时候生活简单，但是大家都很快乐。\n"
    "现在城市变化很大，高楼越来越多，交通也更加方便了。不过每当秋天到来，我还是会想起从前的日子。"
)
GOOD_ENGLISH = (
    "The old harbour has been the heart of the town for more than three hundred years. Fishermen "
    "leave before sunrise and come back with their boats full of herring and mackerel.\n"
    "In the summer visitors walk along the pier and buy ice cream from the small shop at its end. "
    "Children try to catch crabs with a piece of string, and some of them even succeed.\n"
    "When the storms of autumn arrive, the boats stay in the harbour. People mend their nets, tell "
    "stories, and wait for better weather. That is how it has always been, and they like it."
)


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


def test_overrides_change_the_verdict_and_are_checked() -> None:
    lenient = QualityFilters({"en": {"gopher_quality": {"min_doc_words": 200}}})
    assert lenient.verdict(GOOD_ENGLISH, "en").reason == "gopher_short_doc"
    with pytest.raises(UserError, match="no such filter"):
        check_overrides({"en": {"gofer": {}}})
    with pytest.raises(UserError, match=r"min_words.*no such setting"):
        check_overrides({"en": {"gopher_quality": {"min_words": 3}}})


def test_profile_none_keeps_everything() -> None:
    assert QualityFilters().verdict("x", "en", "none").kept
