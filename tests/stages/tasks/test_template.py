"""Templates, numerals and punctuation."""

from random import Random

import pytest

from stages.tasks.chinese import comma, full_width
from stages.tasks.numerals import in_words
from stages.tasks.template import expand, match


def test_choices_nest_and_slots_fill():
    random = Random(1)
    drawn = {expand(random, "[a|b[1|2]|] {x}!", x=7) for _ in range(200)}
    assert drawn == {"a 7!", "b1 7!", "b2 7!", " 7!"}


def test_match_reads_back_and_repeated_slots_must_agree():
    assert match("Take {b} from {a}.", "Take 3 from 10.") == {"a": "10", "b": "3"}
    assert match("{w} is {w}", "one is one") == {"w": "one"}
    assert match("{w} is {w}", "one is two") is None
    assert match("What is {a}?", "What is 3? Yes") is None


def test_numerals():
    assert [in_words(n) for n in (0, 9, 15)] == ["zero", "nine", "fifteen"]
    assert [in_words(n, "zh") for n in (3, 10, 18)] == ["三", "十", "十八"]
    with pytest.raises(ValueError, match="expected 0 to 19"):
        in_words(20)


def test_chinese_punctuation_is_full_width():
    assert full_width("a,b?c:d") == "a\uff0cb\uff1fc\uff1ad"
    assert (comma("en"), comma("zh")) == (", ", "\uff0c")
