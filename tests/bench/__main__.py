"""Run every benchmark here (or those named as arguments), each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NOT_BENCHMARKS = {"__init__", "__main__", "harness", "plain_training"}


def main(names: list[str]) -> int:
    """The number of benchmarks that failed."""
    found = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in NOT_BENCHMARKS)
    if unknown := set(names) - set(found):
        print(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(found)}")
        return 2
    failed = 0
    for name in names or found:
        command = [sys.executable, "-m", f"tests.bench.{name}"]
        failed += subprocess.run(command, cwd=HERE.parents[1], check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
