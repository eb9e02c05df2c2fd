"""Pages as sites write them: code, lists and frames stay, banners and line numbers go."""

from __future__ import annotations

import pytest

from stages.text import markup
from stages.text.extraction import extract_main_text, tidy
from tests.stages.text.test_extraction import EXTRACTORS, PARAGRAPH

CODE = "def f(x):\n    if x:\n        return 1\n\n    return 2"
NUMBERS = "<pre>1\n2\n3\n4\n5</pre>"
BLOCKS = {
    "plain": f"<pre>{CODE}</pre>",
    "in code": f'<pre><code class="language-python">{CODE}\n</code></pre>',
    "line breaks": "<pre>{}</pre>".format(CODE.replace("\n", "<br>")),
    "a span a line": "<pre><code>{}</code></pre>".format(
        "\n".join(f'<span class="line"><span>{line}</span></span>' for line in CODE.split("\n"))
    ),
    "a div a line": "<pre>{}</pre>".format(
        "".join(f"<div>{line or '<br>'}</div>" for line in CODE.split("\n"))
    ),
    "numbers beside": f"<table><tr><td>{NUMBERS}</td><td><pre>{CODE}</pre></td></tr></table>",
    "numbers before": "<pre>{}</pre>".format(
        "\n".join(
            f'<span class="linenos">{at}</span>{line}' for at, line in enumerate(CODE.split("\n"))
        )
    ),
    "in a list": f"<ol><li><p>Write it:</p><pre>{CODE}</pre></li><li>Run it now.</li></ol>",
    "in a quotation": f"<blockquote><pre>{CODE}</pre></blockquote>",
    "in a definition": f"<dl><dt>f(x)</dt><dd><pre>{CODE}</pre></dd></dl>",
}


def _page(*content: str) -> str:
    body = "".join(content)
    return f"<html><body><main><h1>Guide</h1>{PARAGRAPH}{body}{PARAGRAPH}</main></body></html>"


@pytest.mark.parametrize("extractor", EXTRACTORS)
@pytest.mark.parametrize("how", BLOCKS)
def test_code_keeps_its_lines_however_it_is_marked_up(how: str, extractor: str) -> None:
    text = tidy(extract_main_text(_page(BLOCKS[how]), extractor))
    assert f"\n{CODE}\n" in text
    assert not any(line.strip("| \t").isdigit() for line in text.splitlines())


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_tables_in_definitions_keep_their_rows(extractor: str) -> None:
    rows = "<tr><th>Name</th><th>Age</th></tr><tr><td>Ann</td><td>31</td></tr>"
    page = _page(f"<dl><dt>People</dt><dd><p>Some.</p><table>{rows}</table></dd></dl>")
    found = [line for line in extract_main_text(page, extractor).splitlines() if "Ann" in line]
    assert len(found) == 1 and "31" in found[0] and "Name" not in found[0]


@pytest.mark.parametrize(
    "around", ["<body>{}</body>", "<body><main>{}</main></body>", "<body><div><div>{}</div></div>"]
)
def test_lists_near_the_root_stay_and_menus_there_do_not(around: str) -> None:
    things = "<ul><li>500 g white fish</li><li>2 onions<ul><li>red ones</li></ul></li></ul>"
    menu = "<ul><li><a href=/>Home</a></li><li><a href=/in>Login</a></li></ul>"
    text = tidy(extract_main_text(f"<html>{around.format(menu + PARAGRAPH + things + PARAGRAPH)}"))
    assert "500 g white fish" in text and "2 onions" in text and "red ones" in text
    assert "Home" not in text and "Login" not in text
    header = f"<body><header><ul><li>Start</li></ul></header>{PARAGRAPH * 2}</body>"
    assert "Start" not in extract_main_text(header)


@pytest.mark.parametrize(
    "frame",
    ["has-related-sidebar", "authored-content", "page-overlay-wrapper", "post subscriber-only"],
)
def test_a_frame_with_the_name_of_boilerplate_is_no_boilerplate(frame: str) -> None:
    box = '<div class="related-stories"><p>Read next: the hills of the inland.</p></div>'
    page = f'<body><div class="{frame}"><h1>x</h1>{PARAGRAPH * 3}{box}</div></body>'
    text = extract_main_text(page)
    assert text.count("heart of the town") == 12 and "Read next" not in text


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_consent_banners_and_buttons_go(extractor: str) -> None:
    banner = '<div id="x-consent-sdk"><p>We and our partners store things on a device.</p></div>'
    page = _page(f"<button>Copy it</button><pre>{CODE}</pre>").replace("<main>", f"{banner}<main>")
    text = extract_main_text(page, extractor)
    assert "heart of the town" in text and CODE in text
    assert "partners" not in text and "Copy it" not in text


@pytest.mark.parametrize("piece", ["<pre>", "<pre><", "<pre>1 <span class=a ", "<td><pre> 1 2 "])
def test_markup_made_to_take_for_ever_takes_no_longer(piece: str) -> None:
    page = f"<body>{PARAGRAPH}</pre>{piece * 20_000}"
    without = markup.code_as_words(markup.without_line_numbers(page))
    assert markup.code_on_its_own_line(without).startswith(f"<body>{PARAGRAPH}")


def test_so_many_lists_take_no_longer() -> None:
    page = "<body><ul><li>one boat</li></ul>{}</body>".format("<ul><li>a net</li></ul>" * 20_000)
    assert extract_main_text(page).count("a net") == 20_000
