"""Main text: code and tables stay, the annotated pages' strings, and pages made to hurt."""

from __future__ import annotations

import pytest

from stages.text.extraction import TooDeep, extract_main_text, tidy
from tests.bench import extract as bench

PARAGRAPH = f"<p>{'The harbour is the heart of the town, and boats leave before sunrise. ' * 4}</p>"
CODE = """def f(x):
    if x &lt; 3:
        return [i
                for i in range(x)]"""
PAGE = f"""<html><head><title>Guide</title></head><body>
<nav><a href=/>Home</a> <a href=/in>Login</a></nav>
<article><h1>Guide</h1>{PARAGRAPH}<pre><code class="language-python">{CODE}</code></pre>
{PARAGRAPH}<div class="highlight"><pre><span class="k">for</span> i in range(3):
    <span class="nb">print</span>(i)
</pre></div><table><tr><th>Name</th><th>Age</th></tr><tr><td>Ann</td><td>31</td></tr>
<tr><td>Bob <b>B</b></td><td>42</td></tr></table>{PARAGRAPH}</article>
<footer>Imprint</footer></body></html>"""
EXTRACTORS = ("resiliparse", "trafilatura")


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_code_and_tables_stay(extractor: str) -> None:
    text = tidy(extract_main_text(PAGE, extractor))
    assert CODE.replace("&lt;", "<") in text
    assert "for i in range(3):\n    print(i)" in text
    rows = [line.strip("| ") for line in text.splitlines() if "Ann" in line or "Bob" in line]
    between = "\t" if extractor == "resiliparse" else " | "
    assert rows == [f"Ann{between}31", f"Bob B{between}42"]
    assert "Login" not in text and "Imprint" not in text


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_cells_of_paragraphs_share_a_line_and_code_in_definitions_keeps_its_own(
    extractor: str,
) -> None:
    """As Sphinx writes tables and functions."""
    row = "<tr><td><p>Ann</p></td><td><p>31 <em>years</em></p></td></tr>"
    definition = f"<dl><dt>f(x)</dt><dd><p>Counts.</p><pre>{CODE}</pre></dd></dl>"
    page = f"<body><main><h1>Guide</h1>{PARAGRAPH}<table>{row * 3}</table>{definition}{PARAGRAPH}"
    text = tidy(extract_main_text(f"<html>{page}</main></body></html>", extractor))
    between = "\t" if extractor == "resiliparse" else " | "
    assert [line.strip("| ") for line in text.splitlines() if "Ann" in line] == [
        f"Ann{between}31 years"
    ] * 3
    assert "f(x)" in text and "Counts." in text
    code = [line for line in text.splitlines() if "for i in" in line or "return [i" in line]
    assert len(code) == 2 and code[1].index("f") - code[0].index("[") == 1


@pytest.mark.skipif(not bench.DATA.exists(), reason=f"needs the pages in {bench.DATA}")
@pytest.mark.parametrize(
    ("extractor", "peer", "f1", "recall", "every"),
    [
        ("resiliparse", "resiliparse, main_content=True", 0.89, 0.95, 2),
        ("trafilatura", "trafilatura, its defaults", 0.92, 0.94, 8),
    ],
)
def test_annotated_pages_are_told_from_their_boilerplate_better_than_by_the_library_itself(
    extractor: str,
    peer: str,
    f1: float,
    recall: float,
    every: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The bounds are a point under what the whole set gives (`python -m tests.bench extract`)."""
    rows = bench.annotations()[::every]
    monkeypatch.setattr(bench, "annotations", lambda: rows)
    html = bench.pages()
    found = bench.score(lambda html: extract_main_text(html, extractor), html)
    assert found["f1"] >= f1 and found["recall"] >= recall
    theirs = bench.score(bench.sides()[peer], html)
    assert found["f1"] >= theirs["f1"] and found["recall"] >= theirs["recall"]


def test_a_page_that_is_taken_for_boilerplate_as_a_whole_gives_its_prose() -> None:
    page = "<html><body><div class=sidebar><a href=/>Home</a>{}</div></body></html>"
    assert extract_main_text(page.format(PARAGRAPH * 3)).count("heart of the town") == 12
    assert "Home" not in extract_main_text(page.format(PARAGRAPH * 3))
    notice = "<p>We use cookies to improve this site, and by reading on you agree to them.</p>"
    assert extract_main_text(page.format(notice)) == ""


def test_labels_behind_the_last_sentence_go_and_what_is_told_stays() -> None:
    labels = "<div>Share this</div><div>Tags: sea, town</div>"
    assert extract_main_text(f"<main>{PARAGRAPH * 3}{labels}</main>").endswith("before sunrise.")
    things = "<ol><li>The nets of the fishermen</li><li>The boats of the town</li></ol>"
    assert extract_main_text(f"<main>{PARAGRAPH * 3}{things}{labels}</main>").endswith("the town")
    verses = "<p>" + "<br>".join(["the sea is wide", "the boat is small"] * 8) + "</p>"
    assert "the boat is small" in extract_main_text(f"<main>{PARAGRAPH}{verses}</main>")[-30:]


@pytest.mark.parametrize("extractor", EXTRACTORS)
@pytest.mark.parametrize("html", ["", " ", "<", "<html></html>", "<!--", "\0", "<p>\0\ud800</p>"])
def test_empty_and_broken_pages_give_text(html: str, extractor: str) -> None:
    text = tidy(extract_main_text(html, extractor))
    assert "\0" not in text and text == text.encode("utf-8", "strict").decode()


@pytest.mark.parametrize("element", ["div", "table><tr><td", "ul><li", "b", "blockquote"])
def test_elements_nested_without_end_are_refused_at_once(element: str) -> None:
    with pytest.raises(TooDeep, match="more than 1000 deep"):  # without the check it takes hours
        extract_main_text(f"<{element}>" * 50_000 + PARAGRAPH)
    deep = "<div>" * 400 + PARAGRAPH + "</div>" * 400
    assert "heart of the town" in extract_main_text(deep)


def test_a_long_sound_page_is_not_deep() -> None:
    rows = "<tr><td><b>a</b></td><td><div>b</div></td></tr>" * 5000
    assert extract_main_text(f"<main>{PARAGRAPH}<table>{rows}</table></main>")
