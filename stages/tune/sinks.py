"""Where a run's numbers go besides `log.jsonl`: TensorBoard, Weights & Biases, Prometheus.

TensorBoard events are always written. The other two are optional packages, imported when a recipe
asks for them: `pip install 'raylm[wandb]'`, `pip install 'raylm[prometheus]'`.
"""

from __future__ import annotations

import importlib
import uuid
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field

from cluster.errors import UserError
from stages.stage import StageConfig

TENSORBOARD = "tensorboard"


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

    def close(self) -> None: ...


def open_sinks(reporting: Reporting, folder: Path, first_step: int) -> list[Sink]:
    """The sinks of a run whose scratch is `folder`, which (re)starts at `first_step`."""
    sinks: list[Sink] = [_TensorBoard(folder, first_step)]
    if reporting.wandb is not None:
        sinks.append(_WandB(reporting.wandb, folder))
    if reporting.prometheus_port is not None:
        sinks.append(_Prometheus(reporting.prometheus_port))
    return sinks


class _TensorBoard:
    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(folder / TENSORBOARD), purge_step=first_step)

    def write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"train/{name}", value, step)

    def close(self) -> None:
        self.writer.close()


class _WandB:
    """One W&B run for each scratch folder; a resumed training resumes it."""

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

    def write(self, step: int, values: dict[str, float]) -> None:
        self.run.log(values, step=step)

    def close(self) -> None:
        self.run.finish()


class _Prometheus:
    """Gauges `raylm_train_NAME`; a slash in a name becomes a label, `loss/web` is source="web"."""

    def __init__(self, port: int) -> None:
        client = _optional("prometheus_client", "prometheus")
        self.client = client
        self.registry = client.CollectorRegistry()
        self.gauges: dict[str, Any] = {}
        try:
            self.server, self.thread = client.start_http_server(port, registry=self.registry)
        except OSError as error:
            raise UserError(
                f"metrics.prometheus_port is {port}, which cannot be listened on here: {error}; "
                "give a free port"
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

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def check_reporting(reporting: Reporting) -> None:
    """Refuse, before any worker starts, a place whose package is not installed."""
    if reporting.wandb is not None:
        _optional("wandb", "wandb")
    if reporting.prometheus_port is not None:
        _optional("prometheus_client", "prometheus")


def _optional(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"metrics.{extra} asks for the package {module}, which is not installed: "
            f"pip install 'raylm[{extra}]', or leave the option out"
        ) from error
