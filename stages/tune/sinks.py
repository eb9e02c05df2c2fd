"""Where a run's numbers go besides `log.jsonl`: TensorBoard, Weights & Biases, Prometheus.

TensorBoard events are always written. The other two are optional packages, imported when a recipe
asks for them: `pip install 'raylm[wandb]'`, `pip install 'raylm[prometheus]'`.

They serve a training and never end one: see `stages.tune.journal.Sinks`.
"""

from __future__ import annotations

import importlib
import netrc
import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from pydantic import Field

from cluster.errors import UserError
from stages.stage import StageConfig

TENSORBOARD = "tensorboard"
PORT_S = 10.0
"""How long a port may still be held by the process that is taken up from."""


class WandB(StageConfig):
    """Weights & Biases. "offline" writes to the run's folder; `wandb sync` uploads it later."""

    project: str = "raylm"
    name: str | None = None
    mode: Literal["online", "offline"] = "offline"


class Reporting(StageConfig):
    """Which further places get a run's numbers."""

    wandb: WandB | None = None
    prometheus_port: int | None = Field(default=None, ge=1, le=65535)
    """Rank 0 serves its newest numbers as gauges on this port of its node, at /metrics."""


class Sink(Protocol):
    """A place for numbers."""

    def write(self, step: int, values: dict[str, float]) -> None: ...

    def rewind(self, step: int) -> None:
        """What was written from `step` on will be written anew."""

    def close(self) -> None: ...


def openers(
    reporting: Reporting, folder: Path, first_step: int, *, fresh: bool
) -> dict[str, Callable[[], Sink]]:
    """How to open the sinks of a run whose scratch is `folder` and which (re)starts at
    `first_step`; one that is not `fresh` may have to wait for what its last process holds.
    """
    found: dict[str, Callable[[], Sink]] = {TENSORBOARD: lambda: _TensorBoard(folder, first_step)}
    if (wandb := reporting.wandb) is not None:
        found["wandb"] = lambda: _WandB(wandb, folder)
    if (port := reporting.prometheus_port) is not None:
        found["prometheus"] = lambda: _Prometheus(port, 0.0 if fresh else PORT_S)
    return found


class _TensorBoard:
    def __init__(self, folder: Path, first_step: int) -> None:
        self.folder = folder
        self.writer = self._open(first_step)

    def _open(self, first_step: int) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.folder / TENSORBOARD), purge_step=first_step)

    def write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"train/{name}", value, step)

    def rewind(self, step: int) -> None:
        self.writer.close()
        self.writer = self._open(step)

    def close(self) -> None:
        self.writer.close()


class _WandB:
    """One W&B run for each scratch folder; a resumed training resumes it.

    W&B drops what is logged at a step below its own newest, so steps that a training takes again
    would be lost: its own step only counts the lines, and ours is a value, the axis of all others.
    """

    def __init__(self, settings: WandB, folder: Path) -> None:
        wandb = _optional("wandb", "wandb")
        marker = folder / "wandb-run"
        if not marker.exists():
            marker.write_text(uuid.uuid4().hex[:8], encoding="utf-8")
        self.run: Any = wandb.init(
            project=settings.project,
            name=settings.name,
            mode=settings.mode,
            dir=str(folder),
            id=marker.read_text(encoding="utf-8"),
            resume="allow",
            settings=wandb.Settings(silent=True, disable_git=True, console="off"),
        )
        self.run.define_metric("*", step_metric="step")

    def write(self, step: int, values: dict[str, float]) -> None:
        self.run.log({"step": step, **values})

    def rewind(self, step: int) -> None:
        """Nothing: a step may be logged again."""

    def close(self) -> None:
        self.run.finish()


class _Prometheus:
    """Gauges `raylm_train_NAME`; a slash in a name becomes a label, `loss/web` is source="web"."""

    def __init__(self, port: int, patience_s: float) -> None:
        client = _optional("prometheus_client", "prometheus")
        self.client = client
        self.registry = client.CollectorRegistry()
        self.gauges: dict[str, Any] = {}
        deadline = time.monotonic() + patience_s
        while True:
            try:
                self.server, self.thread = client.start_http_server(port, registry=self.registry)
                break
            except OSError as error:
                if time.monotonic() < deadline:
                    time.sleep(0.2)
                    continue
                raise UserError(
                    f"metrics.prometheus_port is {port}, which cannot be listened on here: {error}"
                    "; give a free port"
                ) from error

    def write(self, step: int, values: dict[str, float]) -> None:
        for name, value in {"step": float(step), **values}.items():
            quantity, _, source = name.partition("/")
            key = f"raylm_train_{quantity}" + ("_by_source" if source else "")
            if key not in self.gauges:
                self.gauges[key] = self.client.Gauge(
                    key, f"{quantity} of the training run", ["source"] if source else [],
                    registry=self.registry,
                )  # fmt: skip
            gauge = self.gauges[key].labels(source=source) if source else self.gauges[key]
            gauge.set(value)

    def rewind(self, step: int) -> None:
        """Nothing: only the newest numbers are there."""

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def check_reporting(reporting: Reporting) -> None:
    """Refuse, before any worker starts, a place whose package is not installed, and W&B's server
    without a key for it.
    """
    if reporting.wandb is not None:
        _optional("wandb", "wandb")
        if reporting.wandb.mode == "online" and not _has_wandb_key(_wandb_server()):
            raise UserError(
                f"metrics.wandb.mode is online, and there is no key for {_wandb_server()}: set "
                "WANDB_API_KEY (WANDB_BASE_URL for a server of your own), run `wandb login`, or "
                "leave mode at offline"
            )
    if reporting.prometheus_port is not None:
        _optional("prometheus_client", "prometheus")


def _wandb_server() -> str:
    url = os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"
    return urlsplit(url).hostname or url


def _has_wandb_key(server: str) -> bool:
    """Whether this machine has one, where W&B looks: in the environment, or in netrc."""
    if any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")):
        return True
    named = os.environ.get("NETRC")
    for file in [named] if named else ["~/.netrc", "~/_netrc"]:
        with suppress(OSError, netrc.NetrcParseError):
            if netrc.netrc(Path(file).expanduser()).authenticators(server):
                return True
    return False


def _optional(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"metrics.{extra} asks for the package {module}, which is not installed: "
            f"pip install 'raylm[{extra}]', or leave the option out"
        ) from error
