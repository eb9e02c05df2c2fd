"""The split by operands: order does not matter, shares are as said, the scan finds all of it."""

import pytest

from stages.tasks.split import (
    COLUMN_LIMIT,
    EVAL_SHARE,
    eval_pairs,
    number_pairs,
    operands_key,
    split_of,
)


def test_order_of_operands_does_not_matter():
    assert operands_key((47, 38)) == operands_key((38, 47)) == "38|47"
    assert split_of(("river", "stone")) == split_of(("stone", "river"))
    for a in range(20, 60):
        assert split_of((a, 31)) == split_of((31, a))


def test_about_a_fifth_is_for_evaluation():
    pairs = [(a, b) for a in range(100) for b in range(COLUMN_LIMIT, 100) if a <= b]
    share = sum(split_of(pair) == "eval" for pair in pairs) / len(pairs)
    assert share == pytest.approx(EVAL_SHARE, abs=0.02)


def test_column_steps_are_always_trained():
    assert {split_of((a, b)) for a in range(20) for b in range(20)} == {"train"}


@pytest.mark.parametrize(
    "text",
    [
        "47 + 38",
        "47+38",
        "38 plus 47",
        "take 38 from 47",
        "47加38",
        "Add 47 and 38.",
        "47 - 38 = 9",
    ],
)
def test_scan_finds_pairs_in_operations(text):
    assert "38|47" in number_pairs(text)


@pytest.mark.parametrize(
    "text",
    [
        "Anna has 47 apples and buys 38 more.",
        "multiplies x by 47 and adds 38",
        "安娜有47个苹果又买了38个",
    ],
)
def test_loose_scan_finds_pairs_that_stand_apart(text):
    assert "38|47" not in number_pairs(text)
    assert "38|47" in number_pairs(text, loose=True)


def test_scan_does_not_cross_sentences_or_cut_numbers():
    assert number_pairs("The sum was 47. Later 38 came.", loose=True) == set()
    assert number_pairs("147 + 38") == set()
    assert number_pairs("3.47 + 38") == set()


def test_eval_pairs_reports_a_leak():
    leaked = next(
        (a, b) for a in range(30, 99) for b in range(30, 99) if split_of((a, b)) == "eval"
    )
    kept = next((a, b) for a in range(30, 99) for b in range(30, 99) if split_of((a, b)) == "train")
    assert eval_pairs([f"What is {leaked[0]} + {leaked[1]}?"]) == {operands_key(leaked)}
    assert eval_pairs([f"What is {kept[0]} + {kept[1]}?"]) == set()
