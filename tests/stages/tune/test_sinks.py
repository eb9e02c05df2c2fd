"""Where numbers go: TensorBoard, W&B offline, Prometheus; missing packages are said."""

from __future__ import annotations

import importlib
import socket
import urllib.request
from pathlib import Path

import pytest

from cluster.errors import UserError
from stages.tune.journal import Journal, read_journal
from stages.tune.sinks import Reporting, check_reporting


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def test_tensorboard_gets_every_number(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Journal(tmp_path) as journal:
        journal.write(0, loss=4.0, mfu=0.25)
        journal.write(1, loss=3.0, mfu=0.5)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.value for event in events.Scalars("train/loss")] == [4.0, 3.0]
    assert [event.value for event in events.Scalars("train/mfu")] == [0.25, 0.5]
    assert [line["loss"] for line in read_journal(tmp_path)] == [4.0, 3.0]


def test_prometheus_serves_the_newest_numbers(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    port = free_port()
    with Journal(tmp_path, reporting=Reporting(prometheus_port=port)) as journal:
        journal.write(6, loss=4.0)
        journal.write(7, loss=3.0, **{"loss/web": 2.5})
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            said = answer.read().decode()
    assert "raylm_train_loss 3.0" in said
    assert "raylm_train_step 7.0" in said
    assert 'raylm_train_loss_by_source{source="web"} 2.5' in said
    with Journal(tmp_path, reporting=Reporting(prometheus_port=port)) as journal:
        journal.rewind(0)  # the port is given back and taken again


def test_a_port_in_use_is_the_users_to_change(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"prometheus_port is {port}, which cannot"):
            Journal(tmp_path, reporting=Reporting(prometheus_port=port))


def test_wandb_writes_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    reporting = Reporting.model_validate({"wandb": {"project": "test"}})
    with Journal(tmp_path, reporting=reporting) as journal:
        journal.write(0, loss=4.0)
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    check_reporting(Reporting())
    with pytest.raises(UserError, match=r"metrics\.wandb .* pip install 'raylm\[wandb\]'"):
        check_reporting(Reporting.model_validate({"wandb": {}}))
