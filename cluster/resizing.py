"""An elastic group is resized without loss: its ranks commit the step they are in, and then go.

Ray Train ends the old group at once where it sees room for another size; what was trained since the
last checkpoint would be trained again, for each node of a cluster that grows node by node.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ray.train import PreemptionInfo
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback

if TYPE_CHECKING:
    from ray.train.v2._internal.execution.scaling_policy import ResizeDecision
    from ray.train.v2._internal.execution.worker_group import WorkerGroup

COMMIT_S = 600.0
"""How long a group may take to commit; it trains meanwhile. After that, as where a loop does
not listen, it is resized as it is."""
POLL_S = 0.5


class CommitFirst(ControllerCallback, WorkerGroupCallback):
    """Gives a running group the notice of `cluster.rank.told_to_leave` before it is resized."""

    def __init__(self) -> None:
        self._group: WorkerGroup | None = None

    def after_worker_group_training_start(self, worker_group: WorkerGroup) -> None:
        self._group = worker_group

    def before_worker_group_shutdown(self, worker_group: WorkerGroup) -> None:
        self._group = None

    def before_controller_execute_resize_decision(self, resize_decision: ResizeDecision) -> None:
        """Wait until a rank has ended: all have committed by then, or one has failed. Decisions to
        start anew after a failure come here too, and have nobody to ask.
        """
        group = self._group
        status = group.get_latest_poll_status() if group else None
        if group is None or status is None or status.errors or status.finished:
            return
        workers = group.get_workers()
        notice = PreemptionInfo(
            deadline_ms=None, preempted_node_to_ranks={"resized": list(range(len(workers)))}
        )
        for worker in workers:
            worker.actor.mark_preempt.remote(notice)
        deadline = time.monotonic() + COMMIT_S
        while time.monotonic() < deadline and not (status.errors or status.finished):
            time.sleep(POLL_S)
            status = group.poll_status(timeout=COMMIT_S)
