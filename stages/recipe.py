"""The recipe: one YAML file that names stages and how they feed each other, checked at the edge.

`load_recipe` reads it, lays it over what it `extends`, applies `--set` and checks every stage's
config against the stage's own types; what is wrong is said with its place, what was found and what
was expected. Whether names that no stage has lie in the store is the graph's question.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cluster.errors import UserError
from cluster.meter import Pricing
from cluster.storage import RESERVED
from stages.hardware import Hardware
from stages.registry import find_stage, nearest
from stages.stage import Stage, StageConfig, role_of

RECIPES = Path(__file__).parent / "recipes"
Model = TypeVar("Model", bound=BaseModel)


class Serve(BaseModel):
    """What `raylm serve RECIPE` serves, and where."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
    model: str
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    replicas: int = Field(default=1, ge=1)


class RecipeFile(BaseModel):
    """The recipe's own keys; what stands under a stage is checked by that stage's config."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = 17
    store: str = "runs"
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
    def _not_the_stores_own(cls, name: str) -> str:
        if name in RESERVED:
            raise ValueError(f"a recipe cannot be called {name!r}: the store has a folder so named")
        return name


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

    @property
    def name(self) -> str:
        return self.file.name


def builtin_recipes() -> list[str]:
    """The names of the recipes that ship with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(name: str, settings: Iterable[str] = ()) -> Recipe:
    """The recipe of that name or at that path, with `--set path=value` settings applied."""
    tree = _read_tree(name, ())
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
    return Recipe(file, {key: steps[key] for key in order})


def find_recipe(name: str, beside: Path | None = None) -> Path:
    """The file of a built-in recipe or of a path (`beside`: the folder relative paths start at)."""
    if (RECIPES / f"{name}.yaml").is_file():
        return RECIPES / f"{name}.yaml"
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
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
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
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {path}: {text!r} is not a YAML value") from error
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
    if not isinstance(tree.get("stage"), str):
        raise UserError(f"stages.{name} has no key 'stage'; it names what the stage does")
    try:
        stage = find_stage(tree["stage"])
    except UserError as error:
        raise UserError(f"stages.{name}.stage: {error}") from None
    rest = {key: value for key, value in tree.items() if key != "stage"}
    config = checked(stage.config, rest, f"stages.{name}.")
    parents = {}
    for field in stage.config.model_fields:
        if role_of(stage.config, field) == "parent":
            value = getattr(config, field)
            parents[field] = [] if value is None else [value] if isinstance(value, str) else value
    return Step(name, stage, config, parents)


def _check_parents(step: Step, steps: Mapping[str, Step]) -> None:
    """Parents that are stages of this recipe must make a kind that the field accepts."""
    for field, names in step.parents.items():
        for name in names:
            check_kind(step, field, name, steps[name].stage.kind if name in steps else None)


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


def checked(model: type[Model], tree: Any, place: str) -> Model:
    """`tree` as `model`; what does not fit is a UserError with one sentence for each fault."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        faults = [_sentence(model, dict(fault), place) for fault in error.errors()]
        raise UserError("\n".join(faults)) from error


def _sentence(model: type[BaseModel], fault: dict[str, Any], place: str) -> str:
    """One of pydantic's faults, with its place, what was found and what was expected."""
    keys = [str(part) for part in fault["loc"]]
    path = place + ".".join(keys)
    if fault["type"] == "extra_forbidden":
        known = _keys_at(model, keys[:-1])
        return f"{path}: there is no key {keys[-1]!r}{nearest(keys[-1], known)}"
    if fault["type"] == "missing":
        return f"{path}: missing; it has no default, so the recipe must give it"
    said = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    found = repr(fault["input"])
    found = found if len(found) <= 80 else found[:77] + "..."
    if fault["type"] == "value_error":
        return f"{path.rstrip('.')}: {said}"
    return f"{path}: found {found}, expected {said}"


def _keys_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """The keys known at a path inside a model; several where a union leaves the choice."""
    if not path:
        extra = ["stage"] if issubclass(model, StageConfig) else []
        return [*model.model_fields, *extra, *(["extends"] if model is RecipeFile else [])]
    field = model.model_fields.get(path[0])
    inner = list(_models_in(field.annotation)) if field else []
    # past the field's name stand list positions and union tags, which are not fields
    rest = path[1:]
    while rest and not any(rest[0] in item.model_fields for item in inner):
        rest = rest[1:]
    return [key for item in inner for key in _keys_at(item, rest) if key != "stage"]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The pydantic models that a type annotation speaks of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
