"""Where numbers go: TensorBoard, W&B offline, Prometheus; missing packages are said."""

from __future__ import annotations

import importlib
import json
import socket
import struct
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from cluster.errors import UserError
from stages.tune import sinks
from stages.tune.journal import EVENTS, Journal, read_journal
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


@pytest.mark.parametrize("freed", [True, False])
def test_a_run_taken_up_waits_for_its_port_and_does_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, freed: bool
) -> None:
    pytest.importorskip("prometheus_client")
    monkeypatch.setattr(sinks, "PORT_S", 5.0 if freed else 0.3, raising=False)
    with Journal(tmp_path) as journal:
        journal.write(0, loss=4.0)
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        if freed:
            threading.Timer(0.5, taken.close).start()
        with Journal(tmp_path, 1, reporting=Reporting(prometheus_port=port)) as journal:
            journal.write(1, loss=3.0)
    assert [line["step"] for line in read_journal(tmp_path)] == [0, 1]
    said = [(event["sink"], event["why"]) for event in read_journal(tmp_path, EVENTS)]
    assert len(said) == (0 if freed else 1)
    assert freed or (said[0][0] == "prometheus" and "cannot be listened on" in said[0][1])


def test_wandb_writes_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    reporting = Reporting.model_validate({"wandb": {"project": "test"}})
    with Journal(tmp_path, reporting=reporting) as journal:
        journal.write(0, loss=4.0)
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_wandb_gets_the_steps_that_are_taken_again(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    reporting = Reporting.model_validate({"wandb": {}})
    with Journal(tmp_path, reporting=reporting) as journal:
        for step in (0, 1, 2):
            journal.write(step, loss=float(step))
        journal.rewind(1)
        for step in (1, 2, 3):
            journal.write(step, loss=10.0 + step)
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    lines = list(_history(file))
    assert [line["step"] for line in lines] == [0, 1, 2, 1, 2, 3]
    assert [line["loss"] for line in lines] == [0, 1, 2, 11, 12, 13]


def _history(file: Path) -> Iterator[dict[str, float]]:
    """The logged lines in W&B's file: 7 bytes, then records (checksum, length, kind, protobuf)."""
    proto = importlib.import_module("wandb.proto.wandb_internal_pb2")
    data, at = file.read_bytes(), 7
    while at + 7 <= len(data):
        (length,) = struct.unpack_from("<H", data, at + 4)
        record = proto.Record.FromString(data[at + 7 : at + 7 + length])
        if record.HasField("history"):
            items = record.history.item
            yield {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}
        at += 7 + length


@pytest.mark.parametrize("place", ["nowhere", "environment", "netrc", "another server's"])
def test_a_missing_key_is_named_before_any_worker_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(importlib, "import_module", lambda name: None)  # it is installed
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine example.org login me password no\n")
    if place == "environment":
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    elif place == "netrc":
        line = "machine api.wandb.ai login user password " + "k" * 40 + "\n"
        (tmp_path / "netrc").write_text(line)
    elif place == "another server's":
        monkeypatch.setenv("WANDB_BASE_URL", "https://example.org:8080/")
    check_reporting(Reporting.model_validate({"wandb": {"mode": "offline"}}))
    online = Reporting.model_validate({"wandb": {"mode": "online"}})
    said = r"mode is online, and there is no key for api\.wandb\.ai: set WANDB_API_KEY"
    with pytest.raises(UserError, match=said) if place == "nowhere" else nullcontext():
        check_reporting(online)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    check_reporting(Reporting())
    with pytest.raises(UserError, match=r"metrics\.wandb .* pip install 'raylm\[wandb\]'"):
        check_reporting(Reporting.model_validate({"wandb": {}}))
