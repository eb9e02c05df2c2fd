"""The meter against work of known size."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.meter import Meter, Pricing, gpus, tree_pss_bytes
from cluster.session import cores

BURN = "import time; x = bytearray(200_000_000); t = time.process_time()\n" \
       "while time.process_time() - t < 1.5: pass\ntime.sleep(1.5)"  # fmt: skip


def test_cpu_seconds_and_memory_of_children_count() -> None:
    with Meter() as meter:
        subprocess.run([sys.executable, "-c", BURN], check=True)
    usage = meter.usage()
    assert 1.4 < usage.cpu_seconds < 3.0
    assert usage.seconds >= 3.0
    assert usage.peak_pss_bytes > 200_000_000


def test_cost_is_time_held_and_energy_is_time_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.meter.gpus", lambda: 0)
    monkeypatch.setattr("cluster.meter.read_rapl", lambda: None)
    price = Pricing(cpu_core_hour=36.0, watts_per_core=10.0)
    with Meter(price) as meter:
        start = time.process_time()
        while time.process_time() - start < 0.5:
            pass
    usage = meter.usage()
    assert usage.cost == pytest.approx(usage.seconds * cores() * 0.01, rel=0.02)
    assert usage.energy_kwh == pytest.approx(usage.cpu_seconds * 10 / 3.6e6, rel=0.02)
    assert usage.energy_source == "estimate"


def test_the_processors_counter_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.meter.gpus", lambda: 0)
    joules = iter([1000.0, 4600.0])
    monkeypatch.setattr("cluster.meter.read_rapl", lambda: next(joules))
    with Meter() as meter:
        pass
    usage = meter.usage()
    assert usage.energy_kwh == pytest.approx(0.001) and usage.energy_source == "RAPL"


@pytest.mark.parametrize("counted", [True, False])
def test_gpus_of_this_machine_cost_and_draw(
    counted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.setattr("cluster.meter.DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    joules = iter([1000.0, 1036.0] if counted else [None, None])
    monkeypatch.setattr("cluster.meter.read_rapl", lambda: next(joules))
    price = Pricing(cpu_core_hour=0.0, watts_per_core=0.0, gpu_hour=3600.0, watts_per_gpu=500.0)
    with Meter(price) as meter:
        time.sleep(0.3)
    usage = meter.usage()
    assert usage.cost == pytest.approx(2 * usage.seconds, rel=0.05)
    expected = 1000.0 * usage.seconds + 36.0 * counted
    assert usage.energy_kwh * 3.6e6 == pytest.approx(expected, rel=0.05)
    assert usage.energy_source == ("RAPL and estimate" if counted else "estimate")


@pytest.mark.parametrize(("seen", "expected"), [("", 0), ("-1", 0), ("1", 1), ("0,1,2,3", 2)])
def test_gpus_that_are_not_in_sight_are_not_counted(
    seen: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("nvidia0", "nvidia1"):
        (tmp_path / name).touch()
    monkeypatch.setattr("cluster.meter.DEVICES", tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    assert gpus() == expected


def test_memory_of_this_process_is_counted() -> None:
    before = tree_pss_bytes()
    block = bytearray(100_000_000)
    assert tree_pss_bytes() - before > 90_000_000
    del block
