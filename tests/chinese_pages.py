"""Chinese pages labelled good and bad, by how they came about and not by any filter.

Good: the pages of Debian's Chinese manuals that are prose (a table of contents is not), simplified
and traditional, and pages of the sample crawl. Bad: what crawls are full of, generated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from stages.examples import planted
from stages.examples.pages.write import write_page
from stages.text.language import identify
from tests.real_text import HANDBOOK, members, page_text
from tests.sample_texts import GOOD_CHINESE

Labelled = tuple[str, str]
"""Where a page is from or what is bad about it, and its text."""

_ARCHIVES = (
    "debian/debian-handbook-html-26lang.tar.xz",
    "debian/debian-reference-9lang.tar.xz",
    "debian/maint-guide-debian-faq-en-zh.tar.xz",
)
_MENU = [
    "首页",
    "新闻",
    "财经",
    "体育",
    "娱乐",
    "汽车",
    "房产",
    "科技",
    "游戏",
    "教育",
    "健康",
    "旅游",
    "论坛",
    "博客",
    "视频",
    "图片",
    "登录",
    "注册",
]
_GOODS = [
    "手机",
    "相机",
    "皮鞋",
    "手表",
    "书包",
    "耳机",
    "键盘",
    "毛衣",
    "茶具",
    "台灯",
    "雨伞",
    "背包",
]


def manuals() -> Iterator[Labelled]:
    """Debian's manuals in Chinese. Pages that were never translated are English and left out."""
    for archive in _ARCHIVES:
        for name, html in members(archive, ".html"):
            folder = name.split("/html/")[-1].split("/")[0]
            chinese = HANDBOOK.get(folder) == "zh" or ".zh-" in name
            if not chinese or "/index." in name:
                continue
            text = page_text(html)
            contents_only = text.count("。") < 8  # a chapter's page that lists its sections
            if identify(text, ["en", "zh"]) == "zh" and not contents_only:
                yield name.rsplit("/", 1)[-1], text


def sample_pages(count: int, seed: int = 5) -> Iterator[Labelled]:
    """Good pages of the sample crawl."""
    random = Random(seed)
    for _ in range(count):
        page = write_page(random, "zh", 49)
        yield page.topic, page.text


def _menu(random: Random) -> str:
    return "\n".join(random.choice(_MENU) for _ in range(random.randint(30, 90)))


def _links(random: Random) -> str:
    names = (random.choice(_MENU) + random.choice(_GOODS) for _ in range(80))
    return "\n".join(" | ".join([next(names) for _ in range(4)]) for _ in range(20))


def _prices(random: Random) -> str:
    rows = (
        f"{random.choice(_GOODS)} ¥{random.randint(9, 999)}.00 库存 {random.randint(0, 99)}"
        f" 型号 A{random.randint(100, 999)}-{random.randint(10, 99)}"
        for _ in range(40)
    )
    return "\n".join(rows)


def _teasers(random: Random) -> str:
    sentences = [s for s in GOOD_CHINESE.replace("\n", "").split("。") if s]
    lines = (random.choice(sentences)[: random.randint(10, 16)] + "…" for _ in range(30))
    return "\n".join(lines)


def _repeated(random: Random) -> str:
    paragraph = random.choice(GOOD_CHINESE.split("\n"))
    return "\n".join([paragraph] * random.randint(4, 9))


def _mojibake(random: Random) -> str:
    page = write_page(random, "zh", 49).text
    return page.encode("utf-8").decode("gb18030", "ignore")


def _stub(random: Random) -> str:
    return f"您访问的{random.choice(_MENU)}页面不存在。请返回{random.choice(_MENU)}。"


def _numbers(random: Random) -> str:
    return "\n".join(
        f"第{n}期 开奖号码 " + " ".join(f"{random.randint(1, 33):02d}" for _ in range(7))
        for n in range(1, random.randint(25, 60))
    )


def _hashtags(random: Random) -> str:
    return " ".join(f"#{random.choice(_MENU)}{random.choice(_GOODS)}#" for _ in range(60))


_BAD: dict[str, Callable[[Random], str]] = {
    "spam": lambda random: planted.spam(random, "zh").text,
    "gibberish": lambda random: planted.gibberish(random, "zh").text,
    "menu": _menu,
    "links": _links,
    "prices": _prices,
    "teasers": _teasers,
    "repeated": _repeated,
    "mojibake": _mojibake,
    "stub": _stub,
    "numbers": _numbers,
    "hashtags": _hashtags,
}


def bad_pages(of_each: int, seed: int = 7) -> Iterator[Labelled]:
    """`of_each` pages of every bad kind."""
    random = Random(seed)
    for kind, write in _BAD.items():
        for _ in range(of_each):
            yield kind, write(random)
