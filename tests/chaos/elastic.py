"""An elastic training on a Ray cluster of several nodes on this machine, through faults.

`sudden`: a worker is killed, a node dies with all it runs, a new node comes. `told`: between two
checkpoints far apart a node comes, and is told that it will be taken away (SIGTERM). Prints one
JSON object: what each fault cost, and the losses. A script, so that its cluster is no other test's.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.errors import UserError
from stages.tune.journal import EVENTS, read_journal
from tests.dist.ranks import job, write_tokens

STEP_S = 0.25
EVERY = 2
FAR = 1000
ENOUGH = "enough"


def train(config: dict[str, Any]) -> None:
    """The pretraining loop, slowed down, with a note of each worker's process; it ends in an error
    once there has been ENOUGH.
    """
    from stages.pretrain import loop
    from tests.dist.faults import in_forward

    def slow(run: Any, loss: Any) -> Any:
        note = Path(config["scratch"]) / f"worker-{run.rank}.json"
        if (note.parent / ENOUGH).exists():
            raise UserError(ENOUGH)
        note.write_text(json.dumps({"pid": os.getpid(), "world": run.world, "step": run.step}))
        time.sleep(config["step_s"])
        return loss

    in_forward(slow)
    loop.train(config)


def wait(what: str, condition: Callable[[], Any], limit_s: float = 240) -> Any:
    deadline = time.monotonic() + limit_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {limit_s:.0f} s")
        time.sleep(0.1)
    return value


class Run:
    """What the training has left on the disk so far."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch

    def worker(self, rank: int = 0) -> dict[str, Any]:
        try:
            return dict(json.loads((self.scratch / f"worker-{rank}.json").read_text()))
        except (FileNotFoundError, ValueError):
            return {"pid": 0, "world": 0, "step": 0}

    def done(self) -> int:
        lines = read_journal(self.scratch)
        return int(lines[-1]["step"]) + 1 if lines else 0

    def resumes(self) -> list[dict[str, Any]]:
        return [e for e in read_journal(self.scratch, EVENTS) if e["event"] == "resumed"]

    def moving(self, world: int) -> bool:
        """Whether a group of that size has taken a step."""
        return self.worker()["world"] == world and self.worker()["step"] >= 1

    def fault(self, name: str, act: Callable[[], Any], world: int) -> dict[str, Any]:
        """Do harm, and time how long it takes until a group of `world` workers takes steps."""
        resumes, began, done = len(self.resumes()), time.monotonic(), self.done()
        act()
        resume = wait(f"a resume after {name}", lambda: self.resumes()[resumes:])[-1]
        wait(f"a step after {name}", lambda: self.done() > resume["step"])
        wait(f"{world} workers after {name}", lambda: self.moving(world))
        return {"fault": name, "seconds": time.monotonic() - began, "done": done,
                "resumed_at": resume["step"], "workers": self.worker()["world"]}  # fmt: skip


def begin_node(address: str) -> subprocess.Popen[bytes]:
    """A node as in a pod of its own: SIGTERM is how it hears that it will be taken away."""
    ray = Path(sys.executable).with_name("ray")
    return subprocess.Popen(
        [ray, "start", "--block", f"--address={address}", "--num-cpus=1"], stdout=sys.stderr
    )


def main(folder: Path, plan: str) -> None:
    from cluster import session

    session.prepare_environment(laptop=False)
    import ray
    from ray.cluster_utils import Cluster

    from cluster.trainer import run_workers

    tokens = write_tokens(folder / "tokens")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    node = cluster.add_node(num_cpus=1) if plan == "sudden" else None
    ray.init(address=cluster.address, log_to_driver=False)
    scratch = folder / "run"
    every, first = (EVERY, 2) if plan == "sudden" else (FAR, 1)
    fields = {"steps": 400, "checkpoint_every": every, "parallel": {"rows": 8, "workers": [1, 2]}}
    config = job(tokens, scratch, **fields) | {"step_s": STEP_S}

    def launch() -> None:
        with contextlib.suppress(UserError):
            run_workers(
                train,
                config,
                workers=(1, 2),
                scratch=scratch,
                name="elastic",
                threads=1,
                resize_s=3.0,
            )

    began = time.monotonic()
    thread = threading.Thread(target=launch, daemon=True)
    thread.start()
    run = Run(scratch)
    wait(f"a first step of {first}", lambda: run.moving(first) and run.done() > 2 * EVERY)
    faults = [{"fault": "launch", "seconds": time.monotonic() - began, "workers": first}]
    if plan == "sudden":
        pid = run.worker(1)["pid"]
        faults.append(run.fault("killed worker", lambda: os.kill(pid, signal.SIGKILL), 2))
        faults.append(
            run.fault("dead node", lambda: cluster.remove_node(node, allow_graceful=False), 1)
        )
        faults.append(run.fault("new node", lambda: cluster.add_node(num_cpus=1), 2))
    else:
        nodes: list[subprocess.Popen[bytes]] = []
        faults.append(run.fault("new node", lambda: nodes.append(begin_node(cluster.address)), 2))
        faults.append(run.fault("drained node", nodes[0].terminate, 1))
        nodes[0].wait(60)  # it ends as soon as the group has left it
    left = [e for e in read_journal(scratch, EVENTS) if e["event"] == "leaving"]
    losses = [line["loss"] for line in read_journal(scratch)]
    print(json.dumps({"faults": faults, "losses": losses, "left": left}))
    (scratch / ENOUGH).touch()
    thread.join(120)
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
