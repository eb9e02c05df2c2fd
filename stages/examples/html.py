"""Wraps a page's text in what surrounds text on the web: menus, advertisements, scripts, "
"comments."""

from __future__ import annotations

import html
from dataclasses import dataclass
from random import Random

from stages.examples.pages.page import Page
from stages.tasks.words import NOUNS, PEOPLE_NAMES

_MENU = {
    "en": [
        "Home",
        "News",
        "Archive",
        "Library",
        "Contact",
        "About us",
        "Shop",
        "Help",
        "Login",
        "Imprint",
        "Calendar",
        "Forum",
    ],
    "zh": [
        "首页",
        "新闻",
        "资料",
        "图书馆",
        "联系我们",
        "关于本站",
        "商店",
        "帮助",
        "登录",
        "日历",
        "论坛",
        "归档",
    ],
}
_ADVERTS = {
    "en": ("Buy a new {w} now!", "{w}: 30% off", "Best {w} deals", "Subscribe to our newsletter",
           "Win a {w} today"),
    "zh": ("{w}特价", "今天买{w}", "订阅本站", "{w}大减价"),
}  # fmt: skip
_COMMENTS = {
    "en": (
        "Nice page!",
        "Thanks, that helped.",
        "First!",
        "I do not agree.",
        "Please fix the menu.",
    ),
    "zh": ("写得不错", "谢谢分享", "沙发", "路过看看"),
}
_FOOT = {
    "en": "Copyright 2025 {site}. All rights reserved. | Privacy policy | Terms of use",
    "zh": "版权所有 2025 {site} | 隐私政策 | 使用条款",
}
_SCRIPTS = (
    "var _q=_q||[];_q.push(['track',{n}]);",
    "window.dataLayer=window.dataLayer||[];function "
    "gtag(){{dataLayer.push(arguments);}}gtag('id',{n});",
    "document.addEventListener('DOMContentLoaded',function(){{load({n});}});",
)
_HOSTS = {
    "en": ("lore.example.org", "www.quiet-pages.example.com", "notes.example.net",
           "almanac.example.org", "the-daily-lamp.example.com", "schoolbook.example.net"),
    "zh": ("zhishi.example.cn", "www.xiaobaike.example.com", "wenku.example.net",
           "gushi.example.cn", "ketang.example.org"),
}  # fmt: skip


@dataclass(frozen=True)
class Site:
    """A site: its host and the number of the layout its pages have."""

    host: str
    layout: int


def draw_site(random: Random, language: str) -> Site:
    """One of the sites of a language."""
    index = random.randrange(len(_HOSTS[language]))
    return Site(_HOSTS[language][index], index % len(_LAYOUTS))


def to_html(random: Random, page: Page, site: Site, charset: str | None) -> str:
    """The page as HTML; `charset` is what its meta element says, None for no such element."""
    language = page.language
    meta = f'<meta charset="{charset}">' if charset else ""
    if charset and random.random() < 0.4:
        meta = f'<meta http-equiv="Content-Type" content="text/html; charset={charset}">'
    title = html.escape(page.title)
    body = "\n".join(f"<p>{_inline(random, line)}</p>" for line in page.paragraphs)
    script = random.choice(_SCRIPTS).format(n=random.randrange(10**6))
    parts = {
        "title": title,
        "main": f"<h1>{title}</h1>\n{body}",
        "menu": _menu(random, language),
        "advert": _advert(random, language),
        "comments": _comments(random, language),
        "foot": html.escape(_FOOT[language].format(site=site.host)),
        "script": f"<script>{script}</script>",
    }
    return (
        f'<!DOCTYPE html>\n<html lang="{language}">\n<head>{meta}<title>{title} - {site.host}'
        f"</title>\n<style>body{{margin:0}} .ad{{float:right}}</style>{parts['script']}</head>\n"
        + _LAYOUTS[site.layout].format(**parts)
        + "\n</html>\n"
    )


def _inline(random: Random, text: str) -> str:
    """A paragraph's text, escaped, now and then with a word in bold or a link."""
    words = text.split(" ")
    if len(words) < 8 or random.random() < 0.6:
        return html.escape(text, quote=False)
    at = random.randrange(2, len(words) - 2)
    tag = random.choice(('<a href="/page/{n}">{w}</a>', "<b>{w}</b>", "<em>{w}</em>"))
    marked = tag.format(n=random.randrange(9999), w=html.escape(words[at], quote=False))
    before, after = " ".join(words[:at]), " ".join(words[at + 1 :])
    return f"{html.escape(before, quote=False)} {marked} {html.escape(after, quote=False)}"


def _menu(random: Random, language: str) -> str:
    entries = random.sample(_MENU[language], 7)
    return "".join(f'<li><a href="/{i}">{entry}</a></li>' for i, entry in enumerate(entries))


def _advert(random: Random, language: str) -> str:
    word = random.choice(NOUNS)[language]
    said = random.choice(_ADVERTS[language]).format(w=word)
    return f'<a href="/ad/{random.randrange(999)}">{said}</a>'


def _comments(random: Random, language: str) -> str:
    count = random.randint(0, 3)
    said = [
        f'<div class="comment"><span class="user">{random.choice(PEOPLE_NAMES)[language]}</span>'
        f"<span>{random.choice(_COMMENTS[language])}</span></div>"
        for _ in range(count)
    ]
    return "".join(said)


_LAYOUTS = (
    """<body><header class="site-header"><nav><ul>{menu}</ul></nav></header>
<main><article>
{main}
</article></main>
<aside class="sidebar ad">{advert}</aside>
<section id="comments" class="comments">{comments}</section>
<footer>{foot}</footer></body>""",
    """<body><div id="nav" class="menu"><ul>{menu}</ul></div>
<div class="ad banner">{advert}</div>
<div id="content" class="post-content">
{main}
</div>
<div class="comments">{comments}</div>
<div id="footer" class="footer">{foot}</div>{script}</body>""",
    """<body><header><div class="logo">Logo</div></header><nav class="navbar"><ul>{menu}</ul></nav>
<div class="wrapper"><div class="entry-content"><article>
{main}
</article></div><aside class="advertisement">{advert}</aside></div>
<div id="comments">{comments}</div><footer class="site-footer">{foot}</footer>{script}</body>""",
)
