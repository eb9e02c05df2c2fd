"""The recipe: one YAML file that names stages and how they feed each other, checked at the edge.

`load_recipe` reads it, lays it over what it `extends`, applies `--set` and checks every stage's
config against the stage's own types; what is wrong is said with its place, what was found and what
was expected. Whether names that no stage has lie in the store is the graph's question.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cluster.errors import UserError
from cluster.meter import Pricing
from cluster.storage import RESERVED
from stages.checked import checked
from stages.hardware import Hardware
from stages.registry import STAGES, find_stage, nearest
from stages.stage import Stage, StageConfig, role_of
from stages.yaml_tree import YamlMistake, parse

RECIPES = Path(__file__).parent / "recipes"
SERVED = ("checkpoint", "quantized")
"""The kinds of artifact that an endpoint serves."""
MAX_NAME = 64
DIALLED = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "tie_word_embeddings",
)  # fmt: skip
"""What a model's `depth` decides (`ModelConfig.from_depth`)."""


class Serve(BaseModel):
    """What `raylm serve RECIPE` serves, and where."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
    model: str
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    replicas: int = Field(default=1, ge=1, le=1000)


class RecipeFile(BaseModel):
    """The recipe's own keys; what stands under a stage is checked by that stage's config."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    also_known: ClassVar[tuple[str, ...]] = ("extends",)
    name: str
    seed: int = Field(default=17, ge=0, lt=2**31)
    store: str = Field(default="runs", min_length=1)
    description: str = ""
    pricing: Pricing = Pricing()
    hardware: Hardware | None = None
    """What the large stages are planned for."""
    memory_gib: float | None = Field(default=None, gt=0)
    cpus: int | None = Field(default=None, ge=1)
    stages: dict[str, dict[str, Any]] = Field(min_length=1)
    serve: Serve | None = None

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or len(name) > MAX_NAME:
            raise ValueError(
                f"found {name!r}, expected up to {MAX_NAME} of the letters a to z, digits and ._-, "
                "a letter or digit first: it names a folder"
            )
        if name in RESERVED:
            raise ValueError(f"a recipe cannot be called {name!r}: the store has a folder so named")
        return name

    @field_validator("stages")
    @classmethod
    def _name_files(cls, stages: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name in stages:
            if not re.fullmatch(r"\w[\w.-]*", name) or len(name) > MAX_NAME:
                raise ValueError(
                    f"found the name {name!r}, expected up to {MAX_NAME} letters, digits and ._-, "
                    "a letter or digit first: it names a log file"
                )
        return stages


@dataclass(frozen=True)
class Step:
    """One stage of a recipe: its name there, the stage, its typed config, its parents by field."""

    name: str
    stage: Stage
    config: StageConfig
    parents: Mapping[str, list[str]]


@dataclass(frozen=True)
class Recipe:
    """A checked recipe: its own keys, and its steps in an order in which parents come first."""

    file: RecipeFile
    steps: Mapping[str, Step]
    arguments: str
    """What a command takes to mean this recipe: the name or file it was given, and its settings."""

    @property
    def name(self) -> str:
        return self.file.name


def builtin_recipes() -> list[str]:
    """The names of the recipes that ship with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(name: str, settings: Iterable[str] = ()) -> Recipe:
    """The recipe of that name or at that path, with `--set path=value` settings applied."""
    tree = _read_tree(name, ())
    settings = list(settings)
    for setting in settings:
        _apply(tree, setting)
    stages = tree.get("stages")
    if isinstance(stages, dict):
        tree["stages"] = {key: value for key, value in stages.items() if value is not None}
    file = checked(RecipeFile, tree, "")
    steps = {key: _step(key, value) for key, value in file.stages.items()}
    order = _ordered(steps)
    for step in steps.values():
        _check_parents(step, steps)
    _check_served(file.serve, steps)
    words = [name, *(word for setting in settings for word in ("--set", setting))]
    return Recipe(file, {key: steps[key] for key in order}, shlex.join(words))


def find_recipe(name: str, beside: Path | None = None) -> Path:
    """The file of a built-in recipe or of a path (`beside`: the folder relative paths start at)."""
    if name in builtin_recipes():
        return RECIPES / f"{name}.yaml"
    with contextlib.suppress(OSError, RuntimeError):  # a name too long, a home that nobody has
        path = (beside or Path()) / Path(name).expanduser()
        if path.is_file():
            return path
    raise UserError(
        f"there is no recipe {name!r}{nearest(name, builtin_recipes())}; "
        "a recipe of your own is given by the path of its YAML file"
    )


def _read_tree(name: str, above: tuple[Path, ...], beside: Path | None = None) -> dict[str, Any]:
    """The YAML of a recipe laid over what it extends."""
    path = find_recipe(name, beside).resolve()
    if path in above:
        chain = " -> ".join(item.name for item in (*above, path))
        raise UserError(f"recipes extend each other in a circle: {chain}")
    try:
        tree = parse(path.read_text(encoding="utf-8"))
    except (YamlMistake, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path} holds {type(tree).__name__}, expected a mapping with 'stages'")
    tree.setdefault("name", path.stem)
    base = tree.pop("extends", None)
    if base is None:
        return tree
    return _overlay(_read_tree(str(base), (*above, path), path.parent), tree)


def _overlay(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`: mappings merge, all else replaces; another `stage` starts anew."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            other = "stage" in value and value["stage"] != old.get("stage")
            merged[key] = value if other else _overlay(old, value)
        else:
            merged[key] = value
    return merged


def _apply(tree: dict[str, Any], setting: str) -> None:
    """Set one `path.to.key=value`; the value is YAML, list items are reached by number."""
    path, equals, text = setting.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise UserError(f"--set {setting}: expected path=value, such as stages.base.steps=100")
    if keys[0] == "extends":
        raise UserError("--set extends: what a recipe extends stands in its file alone")
    try:
        value = parse(text)
    except YamlMistake as error:
        raise UserError(f"--set {path}: {text[:80]!r} is not a YAML value ({error})") from error
    here: Any = tree
    for depth, key in enumerate(keys):
        place = ".".join(keys[:depth]) or "the recipe"
        last = depth == len(keys) - 1
        if isinstance(here, list):
            if not key.isdigit() or int(key) >= len(here):
                raise UserError(f"--set {path}: {place} is a list of {len(here)}, found {key!r}")
            index: Any = int(key)
        elif isinstance(here, dict):
            if keys[:depth] == ["stages"] and key not in here and not last:
                raise UserError(f"--set {path}: no stage is called {key!r}{nearest(key, here)}")
            index = key
            if not last and here.get(key) is None:
                here[key] = {}
        else:
            raise UserError(f"--set {path}: {place} is {here!r}, which has nothing inside")
        if last:
            here[index] = value
        else:
            here = here[index]


def _step(name: str, tree: Mapping[str, Any]) -> Step:
    """One stage's entry, typed."""
    if "stage" not in tree:
        raise UserError(f"stages.{name} has no key 'stage'; it names what the stage does")
    if not isinstance(tree["stage"], str):
        known = nearest("", STAGES)
        raise UserError(f"stages.{name}.stage: found {tree['stage']!r}, expected a name{known}")
    try:
        stage = find_stage(tree["stage"])
    except UserError as error:
        raise UserError(f"stages.{name}.stage: {error}") from None
    rest = {key: value for key, value in tree.items() if key != "stage"}
    config = checked(stage.config, rest, f"stages.{name}.")
    _check_dial(name, config)
    parents = {}
    for field in stage.config.model_fields:
        if role_of(stage.config, field) == "parent":
            value = getattr(config, field)
            parents[field] = [] if value is None else [value] if isinstance(value, str) else value
    return Step(name, stage, config, parents)


def _check_dial(name: str, config: StageConfig) -> None:
    """A model's depth beside every size that would follow from it, as where a recipe extends one
    that gives them all: it would change nothing.
    """
    shape = getattr(config, "model", None)
    depth = getattr(shape, "depth", None)
    if depth is not None and all(getattr(shape, size) is not None for size in DIALLED):
        raise UserError(
            f"stages.{name}.model.depth: found {depth} beside every size that it decides "
            f"({', '.join(DIALLED)}), where it changes nothing; expected one or the other: change "
            "the sizes, or set them to null"
        )


def _check_parents(step: Step, steps: Mapping[str, Step]) -> None:
    """Parents that are stages of this recipe must make a kind that the field accepts."""
    for field, names in step.parents.items():
        for name in names:
            check_kind(step, field, name, steps[name].stage.kind if name in steps else None)


def _check_served(serve: Serve | None, steps: Mapping[str, Step]) -> None:
    """What is served must be a model of this recipe: better said before the run than after it."""
    if serve is None:
        return
    kind = steps[serve.model].stage.kind if serve.model in steps else None
    if kind not in SERVED:
        models = [name for name, step in steps.items() if step.stage.kind in SERVED]
        found = f"{serve.model!r}" + (f", which is of kind {kind!r}" if kind else "")
        hint = nearest(serve.model, models) or "; it has none: leave `serve` out, or null"
        raise UserError(f"serve.model: found {found}, expected a model of this recipe{hint}")


def check_kind(step: Step, field: str, name: str, kind: str | None) -> None:
    """A UserError if a parent of that kind does not fit the field (None: not known yet)."""
    extra = step.stage.config.model_fields[field].json_schema_extra
    accepted: Any = extra.get("kinds") if isinstance(extra, dict) else None
    if kind is not None and accepted and kind not in accepted:
        raise UserError(
            f"stages.{step.name}.{field}: found {name!r}, which is of kind {kind!r}, "
            f"expected {' or '.join(map(repr, accepted))}"
        )


def _ordered(steps: Mapping[str, Step]) -> list[str]:
    """Names in an order in which parents come first, else the recipe's; a cycle is a UserError."""
    order: list[str] = []
    path: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        if name in path:
            cycle = " -> ".join([*path[path.index(name) :], name])
            raise UserError(f"the stages feed each other in a circle: {cycle}")
        path.append(name)
        for parents in steps[name].parents.values():
            for above in parents:
                if above in steps:
                    visit(above)
        path.pop()
        order.append(name)

    for name in steps:
        visit(name)
    return order
