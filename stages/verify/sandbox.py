"""Running generated code: inputs go in, outputs come out, answers stay here.

A `Sandbox` owns one zygote (see `zygote.py`), a plain process started by exec, so it never holds
the memory of this one. For each run the zygote forks a confined child. What can go wrong inside
(an endless loop, a crash, a memory bomb) is an `Outcome`; a zygote that dies or falls silent is
restarted and the run repeated, and `SandboxFailure` is raised when that does not help: never a
wrong answer.

How strongly the child is held depends on the host. Always: rlimits (CPU, address space, no new file
descriptor of any kind, no new process), a wall deadline on the whole process group, no inherited
descriptor or environment. As root: another user id and an empty root directory. Where `unshare` is
permitted (root, or unprivileged user namespaces): no network and a process table of its own, so the
child sees and signals nobody. On a host with neither, the code can still signal or unlink what the
caller's user can; run hostile code as a user that owns nothing.
"""

from __future__ import annotations

import functools
import json
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ZYGOTE = Path(__file__).with_name("zygote.py")
START_S = 30.0
ANSWER_GRACE_S = 10.0
ENDINGS = {signal.SIGKILL: "CPU time limit exceeded", signal.SIGXCPU: "CPU time limit exceeded"}


class SandboxFailure(RuntimeError):
    """The sandbox could not do its work: an infrastructure error, not a verdict."""


@dataclass(frozen=True)
class Limits:
    """What one run may use, all its cases together.

    `cpu_s` is what ends an endless loop; `wall_s` is for code that sleeps, and is generous
    because a loaded machine must not turn a right answer into a wrong one.
    """

    wall_s: float = 5.0
    cpu_s: int = 1
    memory_bytes: int = 256 << 20
    output_bytes: int = 256 << 10
    stdout_characters: int = 4096


@dataclass(frozen=True)
class Case:
    """The outcome of one call: a value, or the reason why there is none."""

    value: Any = None
    raised: str = ""


@dataclass(frozen=True)
class Outcome:
    """`failed` is empty when the function was called; then `cases` follows the arguments' order."""

    failed: str
    cases: tuple[Case, ...] = ()
    stdout: str = ""


@functools.cache
def namespaces() -> tuple[str, ...]:
    """The command prefix that gives a process its own network and process table, if permitted."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return ()
    user = [] if os.geteuid() == 0 else ["--user"]
    prefix = [unshare, *user, "--net", "--ipc", "--pid", "--fork", "--kill-child"]
    try:
        probe = subprocess.run(
            [*prefix, sys.executable, "-S", "-c", ""], capture_output=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(prefix) if probe.returncode == 0 else ()


class Sandbox:
    """One zygote and the runs through it. Not thread-safe: one sandbox for each thread."""

    def __init__(self, limits: Limits | None = None, attempts: int = 3) -> None:
        self.limits = limits or Limits()
        self.attempts = attempts
        self.restarts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._work = ""
        self._stderr: IO[bytes] | None = None

    def run(self, code: str, function: str, arguments: list[list[Any]]) -> Outcome:
        """Define `code`, call `function` once per list of arguments, return what came back."""
        limits = self.limits
        request = {
            "code": code,
            "function": function,
            "arguments": arguments,
            "wall_s": limits.wall_s,
            "cpu_s": limits.cpu_s,
            "memory_bytes": limits.memory_bytes,
            "output_bytes": limits.output_bytes,
            "stdout_characters": limits.stdout_characters,
            "user": 200_000 + os.getpid() % 100_000,
        }
        reason = ""
        for attempt in range(self.attempts):
            try:
                self._ensure_started()
                self._write(request)
                answer = self._read(limits.wall_s + ANSWER_GRACE_S)
                return read_outcome(answer, len(arguments))
            except (OSError, EOFError, ValueError) as error:
                reason = f"{type(error).__name__}: {error} {self._complaint()}".strip()
                self.close()
                self.restarts += 1
                time.sleep(0.05 * attempt)
        raise SandboxFailure(f"the sandbox failed {self.attempts} times; last: {reason}")

    def pid(self) -> int | None:
        """The process id of the zygote (of `unshare` above it, where namespaces are in use)."""
        return self._process.pid if self._process else None

    def close(self) -> None:
        """End the zygote and remove its folder."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()
        if self._stderr:
            self._stderr.close()
            self._stderr = None
        if self._work:
            shutil.rmtree(self._work, ignore_errors=True)
            self._work = ""

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _ensure_started(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        self._work = tempfile.mkdtemp(prefix="raylm-sandbox-")
        os.chmod(self._work, 0o711)  # the child's user must be able to enter its own folder
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [*namespaces(), sys.executable, "-s", "-P", "-S", str(ZYGOTE), self._work],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            cwd="/",
            env={"PYTHONHASHSEED": "0"},  # sets of strings come in the same order in every run
            start_new_session=True,
            bufsize=0,
        )
        if not self._read(START_S).get("ready"):
            raise OSError("the zygote did not report ready")

    def _complaint(self) -> str:
        """The end of what the zygote wrote to stderr."""
        if self._stderr is None:
            return ""
        self._stderr.seek(0)
        return self._stderr.read()[-500:].decode("utf-8", "replace").strip()

    def _write(self, message: dict[str, Any]) -> None:
        assert self._process and self._process.stdin
        body = json.dumps(message).encode()
        data = memoryview(struct.pack(">I", len(body)) + body)
        while data:
            data = data[self._process.stdin.write(data) :]

    def _read(self, deadline_s: float) -> dict[str, Any]:
        """The next frame; OSError when none comes in time, EOFError when the zygote has gone."""
        until = time.monotonic() + deadline_s
        size = struct.unpack(">I", self._read_exactly(4, until))[0]
        message: dict[str, Any] = json.loads(self._read_exactly(size, until))
        return message

    def _read_exactly(self, size: int, until: float) -> bytes:
        assert self._process and self._process.stdout
        data = b""
        while len(data) < size:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise TimeoutError("the zygote did not answer in time")
            piece = self._process.stdout.read(size - len(data))
            if not piece:
                raise EOFError("the zygote ended")
            data += piece
        return data


def read_outcome(answer: dict[str, Any], count: int) -> Outcome:
    """What the zygote says about a child, as an outcome; the child's own words are not trusted."""
    if answer["ending"] == "deadline":
        return Outcome("time limit exceeded")
    if answer["ending"] == "too much output":
        return Outcome("output limit exceeded")
    try:
        report = json.loads(answer["output"])
        cases = tuple(
            Case(value=case["value"]) if "value" in case else Case(raised=str(case["raised"]))
            for case in report["cases"]
        )
        failed, stdout = str(report["failed"]), str(report["stdout"])
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return Outcome(ENDINGS.get(answer["signal"], "crashed"))
    if not failed and len(cases) != count:
        return Outcome("crashed: not every case was answered")
    return Outcome(failed, cases, stdout)
