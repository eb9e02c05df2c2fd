"""Values from outside as a typed model; what does not fit is a UserError, one sentence a fault."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from cluster.errors import UserError
from stages.registry import nearest

Model = TypeVar("Model", bound=BaseModel)


def checked(model: type[Model], tree: Any, place: str) -> Model:
    """`tree` as `model`; what does not fit is a UserError with one sentence for each fault."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        faults = [_sentence(model, dict(fault), place) for fault in error.errors()]
        raise UserError("\n".join(faults)) from error


def _sentence(model: type[BaseModel], fault: dict[str, Any], place: str) -> str:
    """One of pydantic's faults, with its place, what was found and what was expected."""
    keys = [str(part) for part in fault["loc"] if part != "[key]"]
    path = place + ".".join(keys)
    if fault["type"] == "extra_forbidden":
        known = _keys_at(model, keys[:-1])
        return f"{path}: there is no key {keys[-1]!r}{nearest(keys[-1], known)}"
    if fault["type"] == "missing":
        return f"{path}: missing; it has no default, so the recipe must give it"
    said = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return f"{path.rstrip('.')}: {said}"
    said = re.sub(r"^[A-Z]\w* should (be )?", lambda begin: "" if begin[1] else "to ", said)
    found = repr(fault["input"])
    found = found if len(found) <= 80 else found[:77] + "..."
    if fault["type"] == "invalid_key" or fault["loc"][-1:] == ("[key]",):
        return f"{path}: found {found} as a key, expected text: put it in quotes"
    return f"{path}: found {found}, expected {said}"


def _keys_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """The keys known at a path inside a model; several where a union leaves the choice."""
    if not path:
        return [*model.model_fields, *getattr(model, "also_known", ())]
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
