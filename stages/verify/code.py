"""Generated Python functions against unit tests: inputs into the sandbox, comparison out here.

The code is the completion's last fenced block, or the whole completion when it has none. Results
are compared strictly by type as well as by value (True is not 1, 2.0 is not 2), lists and tuples
alike; floats may differ by a relative 1e-9; NaN equals nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from stages.verify.sandbox import Case, Sandbox
from stages.verify.verdict import Verdict, right, wrong

_FENCE = re.compile(r"```[ \t]*(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)


def verify_code(
    function: str, cases: Sequence[Mapping[str, Any]], completion: str, sandbox: Sandbox
) -> Verdict:
    """Call `function` of the completion on each case's "arguments" and compare with "expected".

    Raises SandboxFailure when the sandbox could not run, which is not a verdict.
    """
    if not cases:
        raise ValueError(f"the problem has no cases for {function}; expected at least one")
    outcome = sandbox.run(
        code_of(completion), function, [list(case["arguments"]) for case in cases]
    )
    if outcome.failed:
        return wrong(outcome.failed)
    reasons = [
        judge(result, case["expected"], case["arguments"])
        for result, case in zip(outcome.cases, cases, strict=True)
    ]
    failed = [reason for reason in reasons if reason]
    if failed:
        return wrong(f"{failed[0]} ({len(failed)} of {len(cases)} cases failed)",
                     1 - len(failed) / len(cases))  # fmt: skip
    return right()


def code_of(completion: str) -> str:
    """The code in a completion."""
    blocks = _FENCE.findall(completion)
    return str(blocks[-1]) if blocks else completion.strip()


def judge(result: Case, expected: Any, arguments: Sequence[Any]) -> str:
    """Empty when the result is the expected one, else why not."""
    call = f"f({', '.join(map(repr, arguments))})"[:100]
    if result.raised:
        return f"{call} raised {result.raised}"
    if not same(result.value, expected):
        return f"{call} gave {repr(result.value)[:60]}"
    return ""


def same(value: Any, expected: Any) -> bool:
    """Strict equality of JSON values."""
    if type(value) is not type(expected):
        return False
    if isinstance(expected, float):
        return math.isclose(value, expected, rel_tol=1e-9)
    if isinstance(expected, list):
        return len(value) == len(expected) and all(map(same, value, expected))
    if isinstance(expected, dict):
        return value.keys() == expected.keys() and all(same(value[k], expected[k]) for k in value)
    return bool(value == expected)
