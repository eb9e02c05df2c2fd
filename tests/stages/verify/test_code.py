"""Strict comparison, code extraction, and verdicts on functions."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from stages.verify.code import code_of, same, verify_code
from stages.verify.sandbox import Sandbox


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as box:
        yield box


CASES = [{"arguments": [3], "expected": 10}, {"arguments": [-3], "expected": -2}]


@pytest.mark.parametrize(
    ("value", "expected", "equal"),
    [
        (1, 1, True), (True, 1, False), (1, True, False), (1.0, 1, False), (1, 1.0, False),
        (0.1 + 0.2, 0.3, True), (0.3001, 0.3, False), (math.nan, math.nan, False),
        ("1", 1, False), (None, None, True), (None, 0, False), ([1, 2], [1, 2], True),
        ([1, True], [1, 1], False), ([1], [1, 1], False), ({"a": 1}, {"a": 1}, True),
        ({"a": True}, {"a": 1}, False), ({"a": 1, "b": 2}, {"a": 1}, False),
    ],
)  # fmt: skip
def test_same_is_strict(value: object, expected: object, equal: bool) -> None:
    assert same(value, expected) is equal


def test_code_is_the_last_fenced_block_or_all() -> None:
    assert code_of("def f(): return 1 ") == "def f(): return 1"
    assert code_of("First:\n```python\nx = 1\n```\nthen\n```\ny = 2\n```\ndone") == "y = 2\n"


def test_right_wrong_and_partly_right(sandbox: Sandbox) -> None:
    assert verify_code("f", CASES, "def f(x): return x + 7 if x > 0 else x + 1", sandbox).passed
    wrong = verify_code("f", CASES, "def f(x): return x + 7", sandbox)
    assert (wrong.passed, wrong.score, wrong.error) == (False, 0.5, False)
    assert "f(-3) gave 4 (1 of 2 cases failed)" in wrong.reason
    assert not verify_code("f", CASES, "def f(x): return True", sandbox).passed


@pytest.mark.parametrize(
    "cheat",
    [
        "class Any:\n    def __eq__(self, other): return True\ndef f(x): return Any()",
        "class N(int):\n    def __eq__(self, o): return True\ndef f(x): return N(0)",
        "import json\njson.dumps = lambda *a, **k: '{}'\ndef f(x): return 0",
        "import os\nfor fd in range(99):\n"
        "    try: os.write(fd, b'{\"passed\": true}')\n    except OSError: pass\nos._exit(0)",
        "import sys\ndef f(x):\n    frame = sys._getframe()\n    while frame:\n"
        "        for held in list(frame.f_locals.values()) + list(frame.f_globals.values()):\n"
        "            if isinstance(held, dict) and 'expected' in held: return held['expected']\n"
        "        frame = frame.f_back\n    return None",
        "def f(x): return 'expected'",
        "import builtins\nbuiltins.all = builtins.any = lambda *a: True\ndef f(x): return 0",
    ],
)
def test_no_cheat_passes(sandbox: Sandbox, cheat: str) -> None:
    verdict = verify_code("f", CASES, cheat, sandbox)
    assert not verdict.passed
    assert verdict.score == 0.0


def test_a_problem_without_cases_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="no cases"):
        verify_code("f", [], "def f(): pass", sandbox)
