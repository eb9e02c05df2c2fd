"""Addresses and words that lists refuse; the lists' own mistakes are told."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from cluster.errors import UserError
from stages.text.blocklists import HashSet, UrlBlocklist, WordLists, WordListSource, host_of
from tests.real_text import SHARED, needs_shared
from tests.sample_texts import GOOD_CHINESE, GOOD_ENGLISH


def write(path: Path, *lines: str) -> str:
    text = "\n".join(lines)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_domain_takes_its_subdomains_along(tmp_path: Path) -> None:
    block = UrlBlocklist([write(tmp_path / "d.txt", "# bad ones", "bad.org", "www.worse.co.uk")])
    for url in (
        "http://bad.org/x",
        "https://a.b.bad.org:8080/",
        "http://WWW.BAD.org",
        "//worse.co.uk",
    ):
        assert block.refuses(url) == "domain", url
    for url in ("http://notbad.org/", "http://bad.org.good.net/", "", "http://[broken/", "bad.org"):
        assert block.refuses(url) == "", url


def test_urls_are_compared_without_scheme_and_fragment(tmp_path: Path) -> None:
    block = UrlBlocklist(urls=[write(tmp_path / "u.txt.gz", "a.org/path/", "http://b.org/q?x=1")])
    for url in ("https://www.a.org/path#top", "http://a.org/path/", "https://b.org/q?x=1"):
        assert block.refuses(url) == "url", url
    assert block.refuses("http://a.org/path/more") == ""


def test_words_in_the_url(tmp_path: Path) -> None:
    block = UrlBlocklist(words=[write(tmp_path / "w.txt", "casino")])
    assert block.refuses("http://x.org/best-CASINO/1.html") == "word"
    assert block.refuses("http://x.org/occasinoly/1.html") == ""


def test_the_lists_of_datatrove_come_by_name() -> None:
    block = UrlBlocklist(words=["datatrove"])
    assert block.refuses("http://x.org/free-xxx/1.html") == "word"
    assert block.refuses("http://www.python.org/doc/essays/") == ""


def test_a_hash_set_holds_what_was_put_in() -> None:
    names = [f"host{n}.example" for n in range(5000)]
    held = HashSet(names)
    assert len(held) == 5000 and all(name in held for name in names)
    assert not any(f"other{n}.example" in held for n in range(5000))


def test_a_list_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no list at .*none.txt.*one entry a line"):
        UrlBlocklist([str(tmp_path / "none.txt")])
    with pytest.raises(UserError, match="adult has no de words"):
        WordLists([WordListSource("adult", "de")])


def test_one_bad_word_or_too_many_of_them(tmp_path: Path) -> None:
    path = write(tmp_path / "bad.txt", "herring", "ice cream")
    strict = WordLists([WordListSource(path, "en")])
    assert strict.refuses(GOOD_ENGLISH, "en") == "bad.txt"
    assert strict.refuses(GOOD_ENGLISH, "zh") == ""
    assert strict.refuses("The herringbone pattern", "en") == ""
    assert WordLists([WordListSource(path, "en", 100)]).refuses(GOOD_ENGLISH, "en") == ""
    assert WordLists([WordListSource(path, "en", 1)]).refuses("Ice cream!", "en") == "bad.txt"


def test_chinese_words_need_no_space_around_them() -> None:
    lists = WordLists([WordListSource("gambling", "zh"), WordListSource("adult", "zh")])
    assert lists.refuses(GOOD_CHINESE, "zh") == ""
    assert lists.refuses(GOOD_CHINESE + "\n注册送彩金，真人娱乐城。", "zh") == "gambling"


@needs_shared
def test_the_list_that_c4_used_works_by_path() -> None:
    path = str(SHARED / "toxicity" / "LDNOOBW" / "en")
    lists = WordLists([WordListSource(path, "en")])
    assert lists.refuses(GOOD_ENGLISH, "en") == ""
    word = next(line for line in Path(path).read_text("utf-8").split("\n") if line.isalpha())
    assert lists.refuses(f"{GOOD_ENGLISH} {word}", "en") == "en"


def test_hosts() -> None:
    assert host_of("HTTP://WWW.Example.ORG:80/x") == "example.org"
    assert host_of("not a url") == "" and host_of("http://[::1/x") == ""
