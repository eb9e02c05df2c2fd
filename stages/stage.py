"""What a stage is: a name, a version, a frozen config, a function of its config and its parents.

A stage module exposes one `STAGE`. Its config declares each field's role:

* a plain field is *identity*: it decides the content and is hashed into the artifact's id;
* `parent(...)` names another stage of the recipe (or an artifact id); the parent's id is hashed;
* `execution(...)` says how the work is spread (workers, batching): never hashed;
* `duration(...)` says how long a training runs: hashed into the id, but not into the trajectory,
  so that a longer run continues a shorter one from the same working folder.

`run(config, inputs, context)` writes the artifact's files into `context.out` and returns metrics.
The pipeline publishes `context.out` in one step. What must survive a kill goes to
`context.scratch`, in units that commit by rename.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

from pydantic import BaseModel, ConfigDict, Field

from cluster.artifact import Artifact
from cluster.meter import Pricing

Metrics = dict[str, Any]
Inputs = Mapping[str, Any]  # config field name -> Artifact, list[Artifact] or None


FREE = ("description", "stage")
"""Keys that every stage has and whose values say nothing of the content."""


class StageConfig(BaseModel):
    """Base of every stage's config: frozen, unknown keys refused, `description` free to use."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False
    )
    also_known: ClassVar[tuple[str, ...]] = ("stage",)
    """Keys that a recipe may give beside the fields."""
    description: str = ""


def parent(*kinds: str, many: bool = False, optional: bool = False) -> Any:
    """A field that names a parent: `str`, `list[str]` when `many`, `str | None` when `optional`.

    `kinds` are the artifact kinds accepted ("corpus", "tokenizer", "tokens", "examples",
    "checkpoint", "quantized", "scores", "report").
    """
    extra: dict[str, Any] = {"role": "parent", "kinds": list(kinds), "many": many}
    if optional and many:
        return Field(default_factory=list, json_schema_extra=extra)
    if optional:
        return Field(default=None, json_schema_extra=extra)
    return Field(json_schema_extra=extra)


def execution(default: Any, **options: Any) -> Any:
    """A field that changes where and how fast the work runs, never what comes out."""
    return Field(default=default, json_schema_extra={"role": "execution"}, **options)


def duration(default: Any = ..., **options: Any) -> Any:
    """A field that says how long a training runs: left out of the trajectory's key."""
    return Field(default=default, json_schema_extra={"role": "duration"}, **options)


def role_of(config: type[StageConfig], name: str) -> str:
    """The role of a config field: "identity", "parent", "execution" or "duration"."""
    if name in FREE:
        return "execution"
    extra = config.model_fields[name].json_schema_extra
    return str(extra.get("role", "identity")) if isinstance(extra, dict) else "identity"


def _ignore_progress(done: float, total: float, text: str = "") -> None:
    """Progress goes nowhere unless the pipeline listens."""


@dataclass(frozen=True)
class Context:
    """What a stage is given besides its config and inputs.

    `connect()` starts or joins the run's one Ray session; a stage without Ray never calls it.
    """

    seed: int
    out: Path
    """An empty local folder: what lies here when `run` returns becomes the artifact."""
    scratch: Path
    """A folder that survives kills and is shared by every duration of the same trajectory."""
    durable: str = ""
    """URL of a folder for what must outlive this machine; empty where scratch does."""
    name: str = ""
    """The stage's name in the recipe, for logs."""
    progress: Callable[[float, float, str], None] = _ignore_progress
    connect: Callable[[], None] = lambda: None
    names: Mapping[str, str] = field(default_factory=dict)
    """Artifact id -> the recipe's name for it, for reports."""
    pricing: Pricing = field(default_factory=Pricing)
    """What the recipe says that resources cost."""


@dataclass(frozen=True)
class Stage:
    """A stage as the registry knows it; `entry` ("module:function") is imported when it runs."""

    name: str
    kind: str
    version: int
    config: type[StageConfig]
    entry: str
    fingerprint: Callable[[Any], Any] | None = None
    """Given the config, a JSON value that stands for sources outside the store."""

    def run(self, config: StageConfig, inputs: Inputs, context: Context) -> Metrics:
        """Run the stage's entry."""
        module, function = self.entry.split(":")
        entry = getattr(importlib.import_module(module), function)
        return cast(Metrics, entry(config, inputs, context))


def one(inputs: Inputs, name: str) -> Artifact:
    """The single parent under `name`."""
    return cast(Artifact, inputs[name])


def several(inputs: Inputs, name: str) -> Sequence[Artifact]:
    """The parents under `name`, in the recipe's order."""
    return cast(Sequence[Artifact], inputs[name])
