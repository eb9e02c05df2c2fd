"""What generated code can do, cannot do, and cannot make look like a pass."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.verify.code import verify_code
from stages.verify.sandbox import Limits, Outcome, Sandbox, SandboxFailure, read_outcome
from stages.verify.zygote import __file__ as zygote_file


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Limits(wall_s=5.0)) as box:
        yield box


def value(sandbox: Sandbox, code: str, *arguments: object) -> object:
    """What f(*arguments) gives, or the reason why nothing came."""
    outcome = sandbox.run(code, "f", [list(arguments)])
    if outcome.failed:
        return outcome.failed
    case = outcome.cases[0]
    return case.raised or case.value


def test_values_keep_their_types(sandbox: Sandbox) -> None:
    code = "def f(): return [True, 1, 1.0, '1', None, (2, [3]), {'k': 4}]"
    assert value(sandbox, code) == [True, 1, 1.0, "1", None, [2, [3]], {"k": 4}]
    found = value(sandbox, code)
    assert isinstance(found, list)
    assert [type(item) for item in found[:4]] == [bool, int, float, str]


def test_cases_are_answered_in_order(sandbox: Sandbox) -> None:
    outcome = sandbox.run("def f(x): return 10 // x", "f", [[1], [0], [5]])
    assert [case.value for case in outcome.cases] == [10, None, 2]
    assert outcome.cases[1].raised.startswith("ZeroDivisionError")


def test_printing_is_captured_and_capped(sandbox: Sandbox) -> None:
    outcome = sandbox.run("def f():\n    for _ in range(1000): print('x' * 99)", "f", [[]])
    assert outcome.stdout.startswith("x" * 99 + "\n")
    assert len(outcome.stdout) == sandbox.limits.stdout_characters


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("while True: pass", "CPU time limit exceeded"),
        ("x = []\nwhile True: x.append('a' * 10**7)", "MemoryError"),
        ("import os\nos._exit(0)", "crashed"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "crashed"),
        ("raise SystemExit", "SystemExit"),
        ("def g(): pass", "there is no function f"),
        ("def f(", "SyntaxError"),
        ("def f(): return 'a' * 10**7", "output limit exceeded"),
        ("def f(): return {1}", "holds a set"),
        ("def f():\n    r = []\n    for _ in range(10**5): r = [r]\n    return r", "Recursion"),
        ("def f(): return open('/etc/hostname').read()", "OSError"),
        ("import os\ndef f(): return os.listdir('/')", "OSError"),
        ("import os\ndef f(): return os.pipe()", "OSError"),
        ("import os\ndef f(): return os.fork()", "BlockingIOError"),
        ("import socket", "ModuleNotFoundError"),
        ("import ctypes", "ModuleNotFoundError"),
        ("import subprocess", "ModuleNotFoundError"),
        (
            "import resource\ndef f(): resource.setrlimit(resource.RLIMIT_NOFILE, (99, 99))",
            "ValueError",
        ),
    ],
)
def test_what_is_refused(sandbox: Sandbox, code: str, reason: str) -> None:
    assert reason in str(value(sandbox, code))


def test_sleeping_ends_at_the_wall_deadline() -> None:
    with Sandbox(Limits(wall_s=0.5)) as box:
        box.run("def f(): return 1", "f", [[]])
        started = time.monotonic()
        assert box.run("import time\ntime.sleep(60)", "f", [[]]).failed == "time limit exceeded"
        assert time.monotonic() - started < 5
        assert box.run("def f(): return 2", "f", [[]]).cases[0].value == 2
        assert box.restarts == 0


def test_the_child_holds_nothing_of_ours(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYLM_TEST_SECRET", "86")
    code = """
import os, sys, gc
def f():
    held = []
    for descriptor in range(64):
        try:
            os.fstat(descriptor)
            held.append(descriptor)
        except OSError:
            pass
    heavy = [name for name in ("torch", "ray", "numpy", "stages") if name in sys.modules]
    return [dict(os.environ), len(held), heavy]
"""
    environment, descriptors, heavy = value(sandbox, code)  # type: ignore[misc]
    assert environment == {}
    assert descriptors == 1
    assert heavy == []


def test_the_answer_is_nowhere_in_the_child(sandbox: Sandbox) -> None:
    """Everything reachable in the child's memory is searched for a telling expected value."""
    code = """
import gc
def f(x):
    seen, stack = set(), list(gc.get_objects())
    while stack:
        item = stack.pop()
        if id(item) in seen or len(seen) > 400000:
            continue
        seen.add(id(item))
        if type(item) is int and item > 0 and item - x == x:
            return "found"
        stack.extend(gc.get_referents(item))
    return "not found"
"""
    cases = [{"arguments": [9182736], "expected": 2 * 9182736}]
    verdict = verify_code("f", cases, code, sandbox)
    assert "gave 'not found'" in verdict.reason


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give up")
def test_root_is_given_up(sandbox: Sandbox) -> None:
    code = "import os\ndef f(): return [os.getuid(), os.getgid(), os.getgroups(), os.getcwd()]"
    user, group, groups, folder = value(sandbox, code)  # type: ignore[misc]
    assert user == group != 0
    assert (groups, folder) == ([], "/")
    assert "PermissionError" in str(value(sandbox, "import os\ndef f(): os.mkdir('x')"))


def test_hash_order_is_the_same_in_every_sandbox() -> None:
    code = "def f(): return list({'a', 'b', 'c', 'd', 'e', 'f'})"
    with Sandbox() as one, Sandbox() as other:
        assert value(one, code) == value(other, code)


def test_a_killed_zygote_is_an_infrastructure_error_that_heals() -> None:
    with Sandbox() as box:
        code = "def f(x): return x + 1"
        assert value(box, code, 1) == 2
        process = box._process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        assert value(box, code, 2) == 3


def test_a_zygote_that_dies_in_the_middle_is_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    with Sandbox() as box:
        box.run("def f(): return 1", "f", [[]])
        send = box._write
        killed: list[int] = []

        def kill_first(message: dict[str, object]) -> None:
            if not killed and box._process is not None:
                killed.append(box._process.pid)
                box._process.kill()
                box._process.wait()
            send(message)

        monkeypatch.setattr(box, "_write", kill_first)
        assert box.run("def f(): return 1", "f", [[]]).cases[0].value == 1
        assert (len(killed), box.restarts) == (1, 1)


def test_a_zygote_that_cannot_start_is_never_a_wrong_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "zygote.py"
    broken.write_text("raise SystemExit('no zygote today')")
    monkeypatch.setattr("stages.verify.sandbox.ZYGOTE", broken)
    with Sandbox(attempts=2) as box, pytest.raises(SandboxFailure, match="no zygote today"):
        box.run("def f(): return 1", "f", [[]])


def test_nothing_is_left_behind() -> None:
    box = Sandbox()
    box.run("import os\nos.mkdir('left')\ndef f(): return 1", "f", [[]])
    work, pid = Path(box._work), box.pid()
    assert work.exists() and list(work.iterdir()) == []
    box.close()
    assert not work.exists()
    assert pid is not None and not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    "output",
    ["", "[]", "86", '{"cases": 1}', '{"failed": "", "cases": [], "stdout": ""}', "[" * 50_000,
     '{"failed": "", "cases": [{}], "stdout": ""}', "9" * 5000, '{"failed": "", "cases": [5]'],
)  # fmt: skip
def test_a_forged_report_is_a_crash(output: str) -> None:
    outcome = read_outcome({"ending": "end", "signal": 0, "output": output}, 1)
    assert outcome == Outcome(outcome.failed) and outcome.failed.startswith("crashed")


def test_the_zygote_imports_nothing_of_the_product() -> None:
    source = Path(zygote_file).read_text()
    assert json.dumps(source).count("stages") == 0
    assert "import torch" not in source and "import ray" not in source
