"""Charsets of pages: traditional Chinese can be stored in Big5, labels are mostly right."""

from collections import Counter
from random import Random

from stages.examples.charset import draw_encoding, encodable, typeset
from stages.examples.pages.write import write_page


def test_chinese_pages_can_be_stored_in_big5_and_gbk():
    random = Random(1)
    pages = [write_page(random, "zh", 99).text for _ in range(200)]
    stored = sum(encodable(typeset(text, "big5"), "big5") for text in pages)
    assert stored >= 190
    assert all(encodable(text, "gbk") and encodable(text, "gb18030") for text in pages)


def test_traditional_and_curly():
    assert typeset("这个学校", "big5") == "這個學校"
    assert typeset("it's", "windows-1252") == "it\u2019s"
    assert typeset("it's 这个", "utf-8") == "it's 这个"


def test_most_labels_are_right_some_are_missing():
    random = Random(2)
    drawn = [draw_encoding(random, random.choice(("en", "zh"))) for _ in range(3000)]
    right = sum(e.header == e.meta == e.charset for e in drawn) / len(drawn)
    bare = sum(e.header is None and e.meta is None for e in drawn)
    wrong = Counter((e.charset, e.header) for e in drawn if e.header not in (None, e.charset))
    assert 0.8 < right < 0.88 and bare > 20
    assert wrong[("gbk", "gb2312")] > 0 and wrong[("windows-1252", "iso-8859-1")] > 0
