"""Launching workers through Ray Train: metrics and progress come back, errors keep their kind."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from cluster import session, trainer
from cluster.board import BOARD, WorkerError, report
from cluster.errors import UserError, disk_is_full
from cluster.rank import COLLECTIVE_S, told_to_leave
from cluster.trainer import START_TIMEOUT, _failures_allowed, _tune_launch, run_workers
from cluster.watch import START_S, Watch
from tests.cluster.test_board import fill

pytestmark = pytest.mark.dist


def _sum_of_ranks(config: dict[str, Any]) -> None:
    import torch
    import torch.distributed as dist
    from torch._inductor import config as inductor

    total = torch.tensor(float(dist.get_rank() + 1))
    dist.all_reduce(total)
    found = {"sum": total.item() * config["times"], "threads": torch.get_num_threads()}
    found["waits_s"] = [_waits_s(group) for group in (dist.group.WORLD, dist.new_group())]
    found["compilers"] = inductor.compile_threads
    found["watchdog_s"] = int(os.environ["TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC"])
    report(found | {"page_faults": _page_faults_of_a_tensor()}, 1, 2, "on")


def _waits_s(group: Any) -> float:
    import torch

    return float(group._get_backend(torch.device("cpu")).options._timeout.total_seconds())


def _page_faults_of_a_tensor() -> int:
    """Of one with 16384 pages, where one like it was freed before."""
    import torch

    torch.ones(1 << 24)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1 << 24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def _user_error(config: dict[str, Any]) -> None:
    with open(config["attempts"], "a") as file:
        file.write("x")
    raise UserError("the moon is 3; expected cheese: change it")


def _full_disk(config: dict[str, Any]) -> None:
    with open(config["attempts"], "a") as file:
        file.write("x")
    with open("/dev/full", "w") as file:
        file.write("more")


def _killed_once(config: dict[str, Any]) -> None:
    marker = Path(config["marker"])
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    report({"survived": True})


def _run(loop: Any, config: dict[str, Any], scratch: Path, **options: Any) -> dict[str, Any]:
    given = {"workers": 1, "threads": 1, **options}
    return run_workers(loop, config, scratch=scratch, name="test", **given)


def test_ranks_meet_and_rank_0_reports(ray_session: None, tmp_path: Path) -> None:
    seen: list[tuple[float, float, str]] = []
    on_interrupt = signal.getsignal(signal.SIGINT)
    metrics = _run(
        _sum_of_ranks, {"times": 2}, tmp_path, workers=(1, 2), progress=lambda *x: seen.append(x)
    )
    assert (metrics["sum"], metrics["threads"]) == (6.0, 1)
    assert metrics["waits_s"] == [COLLECTIVE_S, COLLECTIVE_S], "or torch ends what a watch explains"
    assert metrics["watchdog_s"] == COLLECTIVE_S > 10 * START_S
    assert 1 <= 2 * metrics["compilers"] <= max(2, session.cores()), "shared by a node's ranks"
    assert metrics["page_faults"] < 1000  # what is freed stays with the worker
    assert set(seen) <= {(1, 2, "on")}
    assert signal.getsignal(signal.SIGINT) is on_interrupt, "Ctrl-C is the command's to answer"


def test_a_users_mistake_in_a_worker_is_one_here(ray_session: None, tmp_path: Path) -> None:
    attempts = tmp_path / "attempts"
    with pytest.raises(UserError, match="the moon is 3; expected cheese: change it"):
        _run(_user_error, {"attempts": str(attempts)}, tmp_path)
    assert attempts.read_text() == "x"  # not tried again


def test_a_full_disk_is_not_tried_again(ray_session: None, tmp_path: Path) -> None:
    attempts = tmp_path / "attempts"
    with pytest.raises(WorkerError) as caught:
        _run(_full_disk, {"attempts": str(attempts)}, tmp_path)
    assert disk_is_full(caught.value)
    assert attempts.read_text() == "x"


def _too_large(config: dict[str, Any]) -> None:
    import torch

    with Path(config["tries"]).open("a") as tries:
        tries.write("x")
    torch.empty(2**50)


def test_a_device_without_room_is_not_tried_again(ray_session: None, tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    with pytest.raises(UserError, match=r"rank 0 of 1 found no memory.*raylm plan"):
        _run(_too_large, {"tries": str(tries)}, tmp_path)
    assert tries.read_text() == "x"


def _killed_then_too_large(config: dict[str, Any]) -> None:
    """The first group is killed; the second has no room; the third, none after its first report."""
    with Path(config["tries"]).open("a") as tries:
        tries.write("x")
    start = len(Path(config["tries"]).read_text())
    if start == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if start == 3:
        report({}, 1, 2)
    _too_large({"tries": os.devnull})


def test_a_group_that_took_over_is_given_another_try_for_room(
    ray_session: None, tmp_path: Path
) -> None:
    tries = tmp_path / "tries"
    with pytest.raises(UserError, match=r"rank 0 of 1 found no memory"):
        _run(_killed_then_too_large, {"tries": str(tries)}, tmp_path)
    assert tries.read_text() == "xxx"


def _fill_the_disk(config: dict[str, Any]) -> None:
    with open(config["attempts"], "a") as file:
        file.write("x")
    fill(Path(config["disk"]))
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_disk_that_stays_full_ends_the_run(
    ray_session: None, tmp_path: Path, tiny_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "RESTARTS_IN_ALL", 2)
    attempts = tmp_path / "attempts"
    (tmp_path / "test.launch").symlink_to(tiny_disk)  # the notes' folder
    config = {"attempts": str(attempts), "disk": str(tiny_disk)}
    with pytest.raises(WorkerError, match=r"^OSError: .*No space left on device") as caught:
        _run(_fill_the_disk, config, tmp_path)
    assert disk_is_full(caught.value)
    assert attempts.read_text() == "x", "the next group cannot even be counted"


def _hang(config: dict[str, Any]) -> None:
    def wait_for_ever() -> None:
        time.sleep(1000)

    with Watch(Path(os.environ[BOARD]), 0, 1, hang_s=1.0, start_s=2.0) as watch:
        watch.beat("forward")
        watch.beat("forward")
        wait_for_ever()


def test_a_hang_is_told_by_the_loops_place(ray_session: None, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"rank 0 .* is at wait_for_ever .*, during forward"):
        _run(_hang, {}, tmp_path, restarts=0)


@pytest.mark.parametrize(("elastic", "expected"), [(True, 100), (False, 3)])
def test_slow_starts_end_only_a_group_of_fixed_size(elastic: bool, expected: int) -> None:
    """Ray counts them over a run's whole life: a few dead nodes in weeks are no reason to end."""
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
    from ray.train.v2._internal.execution.failure_handling import (
        DefaultFailurePolicy,
        FailureDecision,
    )
    from ray.train.v2.api.exceptions import ControllerError

    policy = DefaultFailurePolicy(_failures_allowed(elastic, restarts=3))
    late = ControllerError(WorkerGroupStartupTimeoutError(num_workers=2))
    retried = 0
    while policy.make_decision(late) is FailureDecision.RETRY and retried < 100:
        retried += 1
    assert retried == expected


def test_a_killed_worker_starts_again(ray_session: None, tmp_path: Path) -> None:
    metrics = _run(_killed_once, {"marker": str(tmp_path / "marker")}, tmp_path)
    assert metrics == {"survived": True}


def _sight(config: dict[str, Any]) -> None:
    report({name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "DS_ACCELERATOR")})


def test_workers_that_asked_for_no_gpu_see_none(ray_session: None, tmp_path: Path) -> None:
    found = _run(_sight, {}, tmp_path)
    assert found == {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}


def _noticed(config: dict[str, Any]) -> None:
    """What this worker says of its node before a notice, after another node's, and after its own,
    noted as Ray's watcher of draining nodes does.
    """
    from ray.train import PreemptionInfo
    from ray.train.v2._internal.execution.context import get_train_context

    said = [told_to_leave()]
    for rank in (1, 0):
        notice = PreemptionInfo(deadline_ms=None, preempted_node_to_ranks={"node": [rank]})
        get_train_context().preemption_context.preemption_info = notice
        said.append(told_to_leave())
    report({"said": said})


def test_a_rank_hears_that_its_node_will_be_taken_away(ray_session: None, tmp_path: Path) -> None:
    assert not told_to_leave(), "no worker of Ray Train's"
    assert _run(_noticed, {}, tmp_path) == {"said": [False, False, True]}


WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"


def test_only_a_session_of_this_machine_goes_without_the_watcher_of_draining_nodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(WATCHER, raising=False)
    assert WATCHER not in session.prepare_environment(laptop=False)
    _tune_launch(elastic=True)
    assert WATCHER not in os.environ, "on by Ray's default"
    assert session.prepare_environment(laptop=True)[WATCHER] == "0"


def test_how_long_a_group_waits_for_its_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(START_TIMEOUT, raising=False)
    for here, elastic, expected in [
        (True, False, None), (False, False, "1800.0"), (False, True, "10.0"), (True, False, None)
    ]:  # fmt: skip
        monkeypatch.setattr(session, "started_here", lambda here=here: here)
        _tune_launch(elastic)
        assert os.environ.get(START_TIMEOUT) == expected
    monkeypatch.setenv(START_TIMEOUT, "77")
    _tune_launch(elastic=True)
    assert os.environ[START_TIMEOUT] == "77", "the user's own"


def test_a_worker_that_always_dies_is_given_up(ray_session: None, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="the workers failed 1 times"):
        _run(_always_killed, {}, tmp_path, restarts=0)


def _always_killed(config: dict[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
