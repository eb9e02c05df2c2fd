"""A run is stopped in order, also where a library has left a broken stack for signals behind."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, mmap, os, signal, sys
from cluster.signals import STOPPING, keep_handlers

class Stack(ctypes.Structure):
    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

library = ctypes.CDLL(None)
library.mmap.restype = ctypes.c_void_p
library.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
library.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
start = library.mmap(None, 65536, mmap.PROT_READ | mmap.PROT_WRITE,
                     mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
assert library.sigaltstack(ctypes.byref(Stack(start, 0, 65536)), None) == 0
library.munmap(start, 65536)  # as OpenVINO leaves it

def stop(number, frame):
    sys.exit(130)

for number in STOPPING:
    signal.signal(number, stop)
if sys.argv[2] == "kept":
    keep_handlers()
os.kill(os.getpid(), int(sys.argv[1]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux's signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stack_that_was_given_back_is_not_used(number: signal.Signals) -> None:
    codes = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM, str(int(number)), how], check=False
        ).returncode
        for how in ("kept", "left")
    ]
    assert codes == [130, -signal.SIGSEGV]
