"""Signals of the command's own process: how a run is stopped, whatever libraries it has loaded."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Iterable

STOPPING = (signal.SIGINT, signal.SIGTERM)
_ON_ALTERNATE_STACK = 0x08000000  # SA_ONSTACK, on Linux


class _Action(ctypes.Structure):
    """`struct sigaction` of the C library, on Linux."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ulong * (1024 // (8 * ctypes.sizeof(ctypes.c_ulong)))),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


def keep_handlers(numbers: Iterable[int] = STOPPING) -> None:
    """Let the signals' handlers run on the thread's own stack.

    Python asks for the alternate one. OpenVINO, once it has loaded a model, leaves the thread with
    an alternate stack that it has given back: the next signal would be a segmentation fault, with
    Ray's processes left behind. To be called after each `signal.signal`, which asks anew.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    for number in numbers:
        action = _Action()
        if library.sigaction(int(number), None, ctypes.byref(action)) == 0:
            action.flags &= ~_ON_ALTERNATE_STACK
            library.sigaction(int(number), ctypes.byref(action), None)
