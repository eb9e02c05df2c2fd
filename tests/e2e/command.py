"""The installed command in a process of its own, as a user starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path


def raylm(folder: Path, *arguments: str, limit_s: float) -> subprocess.CompletedProcess[str]:
    """Run `raylm` in `folder`; past the limit its whole process group is ended."""
    command = [str(Path(sys.executable).with_name("raylm")), *arguments]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "COLUMNS": "160"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        err += f"\nended after {limit_s} s"
    return subprocess.CompletedProcess(command, process.returncode, out, err)
