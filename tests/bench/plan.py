"""`raylm plan` against what really happens here: peak memory and tokens/s of training runs.

Each run is a process of its own: it times this processor at the run's sizes, trains a few steps
with the loop that `pretrain` runs (DeepSpeed, one rank), and says its peak resident memory above
what the imports take and its median step, in CPU-seconds of its one thread. A checkpoint's copy on
its way to disk, which a plan states by itself, is waited for: by the disk's speed it would lie
beside a step or not. Each run is held to the processor as it was just before and after it, and of
several runs the one in the middle counts. The last line's ratio is planned over measured tokens/s
of the case that is furthest off; memory is printed beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

SHAPE = {
    "vocab_size": 8192, "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64,
    "max_position_embeddings": 2048,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "wide": {"shape": {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 3}},
    "long": {"length": 1024, "rows": 2},
    "short": {"length": 128, "rows": 8, "accumulation": 2},
    "zero-1": {"zero": 1},
    "zero-2": {"zero": 2},
    "zero-3": {"zero": 3},
}
STEPS, ROUNDS = 4, 5


def job_of(case: dict[str, Any], folder: Path, steps: int = STEPS) -> dict[str, Any]:
    """What `stages.pretrain.loop.train` takes, with random tokens written to `folder`."""
    import numpy as np

    from stages.pretrain import Config
    from stages.text.token_shards import TokenWriter

    shape = SHAPE | case.get("shape", {})
    rows, length = case.get("rows", 4), case.get("length", 512)
    draw = np.random.default_rng(0)
    for split in ("train", "heldout"):
        writer = TokenWriter(folder / split, shape["vocab_size"], end_of_text=0)
        for number in range(200):
            writer.add(str(number), draw.integers(4, shape["vocab_size"], 1000).tolist())
        writer.close()
    config = Config.model_validate(
        {"tokens": "t", "steps": steps, "warmup_steps": 1, "sequence_length": length,
         "batch_tokens": rows * length * case.get("accumulation", 1), "checkpoint_every": 10**6,
         "heldout_tokens": length, "model": {k: v for k, v in shape.items() if k != "vocab_size"},
         "watch": {"hang_s": 3600},  # a busy machine is no hang
         "parallel": {"rows": rows, "zero": case.get("zero", 0)}}
    )  # fmt: skip
    return {
        "config": config.model_dump(mode="json"), "shape": shape, "seed": 1,
        "tokens": str(folder / "train"), "heldout": str(folder / "heldout"),
        "scratch": str(folder / "run"),
    }  # fmt: skip


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """Train here; {"machine", "memory" in bytes, "rate" in tokens/s}."""
    import torch
    import torch.distributed as dist

    from model.config import ModelConfig
    from stages.planning.machine import measured_machine
    from stages.planning.run_shape import RunShape
    from stages.pretrain import Config, loop

    torch.set_num_threads(1)
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0",
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29518"}  # fmt: skip
    small = {"shape": {"hidden_size": 64, "num_hidden_layers": 1, "intermediate_size": 64}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = dist.FileStore(str(folder / "store"), 1)
        dist.init_process_group("gloo", store=store, rank=0, world_size=1)
        loop.train(job_of(case | small, folder / "warm", steps=1))  # what is imported on the way
        job = job_of(case, folder / "real")
        run = RunShape(ModelConfig(**job["shape"]), Config.model_validate(job["config"]))
        before = measured_machine(run, time.process_time)
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        resident = _status("VmRSS")
        with step_times() as seconds, finished_saves():
            loop.train(job)
        memory = _status("VmHWM") - resident
        after = measured_machine(run, time.process_time)
        dist.destroy_process_group()
    rate = run.config.batch_tokens / statistics.median(seconds[1:])
    machine = between(asdict(before), asdict(after))
    return {"machine": machine, "memory": memory, "rate": rate, "job": job}


def between(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The mean of two measurements of this processor."""
    return {
        name: (value + other[name]) / 2 if isinstance(value, float) else value
        for name, value in one.items()
    }


def measured_runs(case: dict[str, Any], rounds: int) -> list[dict[str, Any]]:
    """What `measure` says in so many processes, one after another."""
    command = [sys.executable, "-m", "tests.bench.plan", "--measure", json.dumps(case)]
    # Large blocks from the system, so that what is freed is gone from the resident memory.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    outputs = [
        subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(rounds)
    ]
    return [json.loads(done.stdout.splitlines()[-1]) for done in outputs]


@contextmanager
def step_times() -> Iterator[list[float]]:
    """Fills with CPU-seconds between the loop's log lines: other programs' turns do not count."""
    from stages.tune.journal import Journal

    seconds: list[float] = []
    write, last = Journal.write, [time.process_time()]

    def timed(self: Journal, step: int, **values: float) -> None:
        seconds.append(time.process_time() - last[0])
        write(self, step, **values)
        last[0] = time.process_time()

    Journal.write = timed  # type: ignore[method-assign]
    try:
        yield seconds
    finally:
        Journal.write = write  # type: ignore[method-assign]


@contextmanager
def finished_saves() -> Iterator[None]:
    """Every save ends before the next step begins."""
    from stages.tune.saver import Saver

    save = Saver.save

    def waited(self: Saver, *what: Any, **more: Any) -> None:
        save(self, *what, **more)
        self.wait()

    Saver.save = waited  # type: ignore[method-assign]
    try:
        yield
    finally:
        Saver.save = save  # type: ignore[method-assign]


def _status(key: str) -> int:
    text = Path("/proc/self/status").read_text()
    return int(re.findall(rf"{key}:\s+(\d+) kB", text)[0]) * 1024


def compared(measured: dict[str, Any]) -> dict[str, Any]:
    """{"memory", "speed"}: (planned, measured), in bytes and tokens/s, of one run."""
    from model.config import ModelConfig
    from stages.planning.machine import Machine
    from stages.planning.memory import training_memory
    from stages.planning.roofline import step_time
    from stages.planning.run_shape import RunShape
    from stages.pretrain import Config

    job = measured["job"]
    run = RunShape(ModelConfig(**job["shape"]), Config.model_validate(job["config"]))
    rate = run.config.batch_tokens / step_time(run, Machine(**measured["machine"])).total
    return {
        "memory": (training_memory(run).total, measured["memory"]),
        "speed": (rate, measured["rate"]),
    }


def main(names: list[str], rounds: int) -> None:
    worst: dict[str, Any] = {}
    for name in names:
        runs = [compared(measured) for measured in measured_runs(CASES[name], rounds)]
        ratios = [run["speed"][0] / run["speed"][1] for run in runs]
        ratio = statistics.median_low(ratios)
        (memory, resident), (rate, reached) = runs[ratios.index(ratio)].values()
        print(
            f"plan: {name:7}: memory MB {memory / 1e6:.0f} planned, {resident / 1e6:.0f} measured, "
            f"x{memory / resident:.2f}; tokens/s {rate:.0f} planned, {reached:.0f} measured, "
            f"x{ratio:.2f} (runs {' '.join(f'{value:.2f}' for value in ratios)})",
            flush=True,
        )
        if not worst or abs(ratio - 1) > abs(worst["ratio"] - 1):
            worst = {
                "bench": "plan", "ours": round(rate, 1), "peer": round(reached, 1),
                "unit": f"tokens/s, planned against measured, worst of {len(names)}: {name}",
                "ratio": round(ratio, 3),
            }  # fmt: skip
    print(json.dumps(worst), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--measure")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(json.loads(arguments.measure))))
    else:
        main(arguments.cases.split(","), arguments.rounds)
