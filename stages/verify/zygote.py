"""The sandbox's warm process: forks one confined child for each piece of generated code.

Run as a script by `sandbox.py` (`python -s -P -S zygote.py`, empty environment), never imported by
the product: it holds a bare interpreter, a few pure modules of the standard library and the request
at hand - no answers, no torch, no Ray. Frames on stdin and stdout are a 4-byte big-endian length
and that many bytes of JSON.

The child has its own session and, before it runs a line of foreign code: an empty working directory
(its root, where chroot is permitted), no environment, no open file but its result pipe, another
user where permitted, and hard rlimits. Two of them do most of the work: NOFILE=0 means that no
file, socket or pipe can be opened any more, NPROC=0 that no process or thread can be started.
"""

from __future__ import annotations

# What generated code may import: loaded before the fork, because the child can open no file.
# ruff: noqa: F401
import array
import bisect
import cmath
import collections
import contextlib
import copy
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import gc
import heapq
import io
import itertools
import json
import math
import numbers
import operator
import os
import random
import re
import resource
import select
import signal
import statistics
import string
import struct
import sys
import textwrap
import time
import types
import typing
import unicodedata
from typing import Any, NoReturn

READ, WRITE = 0, 1


def main() -> None:
    """Answer requests until stdin closes."""
    work = sys.argv[1]
    random.seed(0)
    gc.collect()
    gc.freeze()
    write_frame({"ready": True})
    count = 0
    while (request := read_frame()) is not None:
        count += 1
        write_frame(run(request, os.path.join(work, str(count))))


def run(request: dict[str, Any], folder: str) -> dict[str, Any]:
    """Fork a child for one request; its raw output, how it ended, and nothing else."""
    os.mkdir(folder, 0o755)
    result, child_result = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        become_child(request, folder, child_result)
    os.close(child_result)
    try:
        output, ending = collect(result, started + request["wall_s"], request["output_bytes"])
    finally:
        os.close(result)
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        remove(folder)
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return {"ending": ending, "signal": number, "output": output.decode("utf-8", "replace")}


def collect(result: int, deadline: float, limit: int) -> tuple[bytes, str]:
    """Read the child's pipe to its end, the deadline, or `limit` bytes."""
    output = b""
    poll = select.poll()
    poll.register(result, select.POLLIN)
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            return output, "deadline"
        piece = os.read(result, 65536)
        if not piece:
            return output, "end"
        output += piece
        if len(output) > limit:
            return b"", "too much output"


def remove(folder: str) -> None:
    """Remove the child's folder; what it may have made there (folders, links) goes too."""
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in folders + files:
            path = os.path.join(parent, name)
            with contextlib.suppress(OSError):
                (os.rmdir if os.path.isdir(path) and not os.path.islink(path) else os.unlink)(path)
    with contextlib.suppress(OSError):
        os.rmdir(folder)


def become_child(request: dict[str, Any], folder: str, result: int) -> NoReturn:
    """Confine this process, run the code, write the report, end."""
    try:
        os.setsid()
        confine(request, folder, result)
        report = json.dumps(execute(request)).encode()
        while report:
            report = report[os.write(result, report) :]
    finally:
        os._exit(0)


def confine(request: dict[str, Any], folder: str, result: int) -> None:
    """Give up everything the code does not need. The order matters: privileges last but one."""
    os.closerange(0, result)
    os.closerange(result + 1, 1 << 16)
    os.environ.clear()
    sys.path.clear()
    sys.path_hooks.clear()
    sys.path_importer_cache.clear()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    os.chdir(folder)
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            os.chroot(folder)
            os.chdir("/")
        drop_root(request["user"])
    memory = request["memory_bytes"]
    for limit, value in (
        (resource.RLIMIT_CPU, request["cpu_s"]),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 0),
    ):
        resource.setrlimit(limit, (value, value))


def drop_root(user: int) -> None:
    """Become an unprivileged user that runs nothing else, or `nobody` where ids are mapped."""
    for candidate in (user, 65534):
        try:
            os.setgroups([])
            os.setgid(candidate)
            os.setuid(candidate)
            return
        except OSError:
            continue


class CappedText(io.StringIO):
    """What the code prints: the first `limit` characters are kept, the rest is dropped."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def write(self, text: str) -> int:
        super().write(text[: max(0, self.limit - self.tell())])
        return len(text)


def execute(request: dict[str, Any]) -> dict[str, Any]:
    """Run the code, then call the function once for each list of arguments."""
    printed = CappedText(request["stdout_characters"])
    sys.stdout = sys.stderr = printed
    sys.stdin = io.StringIO("")
    report: dict[str, Any] = {"failed": "", "cases": [], "stdout": ""}
    space: dict[str, Any] = {"__name__": "completion", "__builtins__": __builtins__}
    try:
        exec(compile(request["code"], "<completion>", "exec"), space)  # noqa: S102
        function = space[request["function"]]
    except KeyError:
        report["failed"] = f"there is no function {request['function']}"
    except BaseException as error:
        report["failed"] = describe(error)
    else:
        report["cases"] = [call(function, arguments) for arguments in request["arguments"]]
    report["stdout"] = CappedText.getvalue(printed)
    return report


def call(function: Any, arguments: list[Any]) -> dict[str, Any]:
    """One case: {"value": JSON value} or {"raised": why}."""
    try:
        value = plain(function(*arguments))
        json.dumps(value)
        return {"value": value}
    except BaseException as error:
        return {"raised": describe(error)}


def plain(value: Any) -> Any:
    """The value as JSON can hold it without losing its type; tuples become lists."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict) and all(type(key) is str for key in value):
        return {key: plain(item) for key, item in value.items()}
    raise TypeError(f"the result holds a {type(value).__name__}, which is not a JSON value")


def describe(error: BaseException) -> str:
    """The error's type and message, short; foreign `__str__` may itself fail."""
    try:
        return f"{type(error).__name__}: {error}"[:200]
    except BaseException:
        return type(error).__name__[:200]


def read_frame() -> dict[str, Any] | None:
    """The next request, or None when the other side has gone."""
    head = read_exactly(4)
    if head is None:
        return None
    body = read_exactly(struct.unpack(">I", head)[0])
    return None if body is None else json.loads(body)


def read_exactly(size: int) -> bytes | None:
    """`size` bytes of stdin, or None at its end."""
    data = b""
    while len(data) < size:
        piece = os.read(READ, size - len(data))
        if not piece:
            return None
        data += piece
    return data


def write_frame(message: dict[str, Any]) -> None:
    """One frame to stdout."""
    body = json.dumps(message).encode()
    data = struct.pack(">I", len(body)) + body
    while data:
        data = data[os.write(WRITE, data) :]


if __name__ == "__main__":
    main()
