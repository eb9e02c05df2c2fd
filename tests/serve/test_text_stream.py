"""Text out of token ids: whole characters, and stop strings that span tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers

from serve.text_stream import TextStream, TokenText
from tests.serve.tiny_checkpoint import TEXTS


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(checkpoint / "tokenizer.json"))


@pytest.fixture(scope="module")
def text(checkpoint: Path) -> TokenText:
    return TokenText.load(checkpoint)


@pytest.mark.parametrize("sample", [*TEXTS, "🙂🙃 naïve\x00\x7f ÿ", "", "a\u00adb\xa0c"])
def test_streaming_token_by_token_gives_the_text(
    tokenizer: tokenizers.Tokenizer, text: TokenText, sample: str
) -> None:
    ids = tokenizer.encode(sample).ids
    stream = TextStream(text)
    pieces = [stream.push([number]) for number in ids] + [stream.finish()]
    assert "".join(pieces) == sample == text.text(ids)
    assert all("\ufffd" not in piece for piece in pieces)


def test_special_tokens_and_unused_rows_have_no_text(text: TokenText) -> None:
    assert text.text([0, 1, 2, 3, 383]) == ""
    assert text.special_id("<|im_end|>") == 2
    assert text.special_id("Lena") is None


def test_half_a_character_at_the_end_is_marked(
    tokenizer: tokenizers.Tokenizer, text: TokenText
) -> None:
    ids = tokenizer.encode("ok 🚀").ids
    stream = TextStream(text)
    assert stream.push(ids[:-1]) + stream.finish() == "ok \ufffd"


@pytest.mark.parametrize(
    ("sample", "stop", "expected"),
    [
        ("one END two", ["END"], "one "),
        ("one EN two", ["END"], "one EN two"),
        ("ends with EN", ["END"], "ends with EN"),
        ("aab", ["ab"], "a"),
        ("xxabc", ["abc", "b"], "xxa"),
        ("stop", ["stop"], ""),
        ("桥是石头", ["石"], "桥是"),
    ],
)
def test_stop_strings(
    tokenizer: tokenizers.Tokenizer, text: TokenText, sample: str, stop: list[str], expected: str
) -> None:
    stream = TextStream(text, stop)
    got = ""
    for number in tokenizer.encode(sample).ids:
        got += stream.push([number])
        assert expected.startswith(got), "nothing is ever taken back"
        if stream.stopped:
            break
    assert got + stream.finish() == expected
    assert stream.stopped == (expected != sample)
