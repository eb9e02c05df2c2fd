"""`raylm plan` against what really happens here: peak memory and tokens/s of training runs.

Each run is a process of its own: it times this processor at the run's sizes, trains a few steps
with the loop that `pretrain` runs (DeepSpeed, one rank), and says its peak resident memory above
what the imports take and its best step, in CPU-seconds of its one thread. The last line's ratio is
planned over measured tokens/s of the run that is furthest off; memory is printed beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
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
STEPS = 4


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
        with step_times() as seconds:
            loop.train(job)
        memory = _status("VmHWM") - resident
        after = measured_machine(run, time.process_time)
        dist.destroy_process_group()
    rate = run.config.batch_tokens / min(seconds)
    best = {
        name: min(value, getattr(after, name)) if name == "kernel_s"
        else max(value, getattr(after, name)) if isinstance(value, float) else value
        for name, value in asdict(before).items()
    }  # fmt: skip
    return {"machine": best, "memory": memory, "rate": rate, "job": job}


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


def _status(key: str) -> int:
    text = Path("/proc/self/status").read_text()
    return int(re.findall(rf"{key}:\s+(\d+) kB", text)[0]) * 1024


def planned(measured: dict[str, Any]) -> tuple[Any, Any]:
    """(memory by part, seconds by part) that the plan says for what was measured."""
    from model.config import ModelConfig
    from stages.planning.machine import Machine
    from stages.planning.memory import training_memory
    from stages.planning.roofline import step_time
    from stages.planning.run_shape import RunShape
    from stages.pretrain import Config

    job = measured["job"]
    run = RunShape(ModelConfig(**job["shape"]), Config.model_validate(job["config"]))
    return training_memory(run), step_time(run, Machine(**measured["machine"])), run


def main(names: list[str]) -> None:
    worst: dict[str, Any] = {}
    for name in names:
        command = [sys.executable, "-m", "tests.bench.plan", "--measure", json.dumps(CASES[name])]
        # Large blocks from the system, so that what is freed is gone from the resident memory.
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=environment
        )
        measured = json.loads(done.stdout.splitlines()[-1])
        memory, time, run = planned(measured)
        rate = run.config.batch_tokens / time.total
        ratios = {"memory": memory.total / measured["memory"], "speed": rate / measured["rate"]}
        print(
            f"plan: {name:7}: memory MB {memory.total / 1e6:.0f} planned, "
            f"{measured['memory'] / 1e6:.0f} measured, x{ratios['memory']:.2f}; tokens/s "
            f"{rate:.0f} planned, {measured['rate']:.0f} measured, x{ratios['speed']:.2f}",
            flush=True,
        )
        if not worst or abs(ratios["speed"] - 1) > abs(worst["ratio"] - 1):
            worst = {
                "bench": "plan", "ours": round(rate, 1), "peer": round(measured["rate"], 1),
                "unit": f"tokens/s, planned against measured, worst of {len(names)}: {name}",
                "ratio": round(ratios["speed"], 3),
            }  # fmt: skip
    print(json.dumps(worst), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--measure")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(json.loads(arguments.measure))))
    else:
        main(arguments.cases.split(","))
