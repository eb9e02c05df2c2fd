"""Values from outside as a typed model; what does not fit is a UserError, one sentence a fault."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from cluster.errors import UserError
from stages.registry import nearest

Model = TypeVar("Model", bound=BaseModel)
SHOWN = 80
"""Characters of a value that a sentence shows."""
SHOWN_KEYS = 6
END = ".: "
"""What ends a place, where no key follows."""
ANOTHER_KIND = ("_type", "_parsing", "_parsing_size")
"""How pydantic's names of faults end where a value is of another kind than its place is for."""


@dataclass(frozen=True)
class _Fault:
    """One of pydantic's faults: the place it is at, and which of a union's choices it speaks of."""

    said: dict[str, Any]
    path: tuple[str, ...]
    choices: tuple[str, ...]

    @property
    def type(self) -> str:
        return str(self.said["type"])

    @property
    def of_another_kind(self) -> bool:
        return self.type.endswith(ANOTHER_KIND)


def checked(model: type[Model], tree: Any, place: str) -> Model:
    """`tree` as `model`; what does not fit is a UserError with one sentence for each fault."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise UserError("\n".join(sentences(model, error, tree, place))) from error


def sentences(model: type[BaseModel], error: ValidationError, tree: Any, place: str) -> list[str]:
    """What pydantic found wrong with `tree`, a sentence for each value that does not fit."""
    faults = [_located(tree, dict(fault)) for fault in error.errors()]
    by_path: dict[tuple[str, ...], list[_Fault]] = {}
    for fault in faults:
        deeper = any(_lies_in(fault, other) for other in faults)
        if not (fault.choices and deeper):  # the choice that went further is the one that was meant
            by_path.setdefault(fault.path, []).append(fault)
    return [_sentence(model, path, same, place) for path, same in by_path.items()]


def _lies_in(fault: _Fault, other: _Fault) -> bool:
    """Whether another fault is of the same value's inside."""
    deep = len(fault.path)
    return len(other.path) > deep and other.path[:deep] == fault.path


def _located(tree: Any, said: dict[str, Any]) -> _Fault:
    """Pydantic puts the names of a union's choices between the keys; only keys stand in `tree`."""
    path, choices, here = [], [], tree
    parts = [part for part in said["loc"] if part != "[key]"]
    for number, part in enumerate(parts, start=1):
        last = number == len(parts)
        of_itself = last and said["type"] != "missing" and said["input"] is here
        if _holds(here, part):
            here = here[part]
        elif not isinstance(here, dict) or not last or of_itself:
            choices.append(str(part))
            continue
        path.append(str(part))
    return _Fault(said, tuple(path), tuple(choices))


def _holds(value: Any, part: str | int) -> bool:
    if isinstance(value, list | tuple):
        return isinstance(part, int) and part < len(value)
    return isinstance(value, dict) and part in value


def _sentence(
    model: type[BaseModel], keys: tuple[str, ...], faults: list[_Fault], place: str
) -> str:
    """The faults of one value: its place, what was found and what was expected."""
    of_kind = [fault for fault in faults if not fault.of_another_kind]
    first = (of_kind or faults)[0]
    path = place + ".".join(keys)
    if first.type == "extra_forbidden":
        known = _keys_at(model, list(keys[:-1]))
        return f"{path}: there is no key {keys[-1]!r}{nearest(keys[-1], known)}"
    if first.type == "missing":
        return f"{path}: missing; it has no default, so the recipe must give it"
    if first.type == "value_error":
        said = str(first.said["msg"]).removeprefix("Value error, ")
        return f"{path.rstrip(END)}: {said}"
    found = repr(first.said["input"])
    found = found if len(found) <= SHOWN else found[: SHOWN - 3] + "..."
    path = path.rstrip(END)
    of_a_key = first.type == "invalid_key" or first.said["loc"][-1:] == ("[key]",)
    if of_a_key and not isinstance(first.said["input"], str):
        return f"{path}: found {found} as a key, expected text: put it in quotes"
    expected = [_expected(model, keys, fault) for fault in (of_kind[:1] or faults)]
    return f"{path}: found {found}, expected {' or '.join(dict.fromkeys(expected))}"


def _expected(model: type[BaseModel], keys: tuple[str, ...], fault: _Fault) -> str:
    """What a value should have been, in few words."""
    if fault.type in ("model_type", "model_attributes_type"):
        known = [key for key in _keys_at(model, list(keys)) if key not in ("description", "stage")]
        shown = ", ".join(known[:SHOWN_KEYS]) + (", ..." if len(known) > SHOWN_KEYS else "")
        return f"a mapping of {shown}"
    if fault.type == "dict_type":
        return "a mapping"
    if fault.type == "tuple_type":
        return "a list" + (fault.choices[-1].replace("tuple", " ", 1) if fault.choices else "")
    if fault.type.endswith("_parsing_size"):
        return "a smaller number"
    said = str(fault.said["msg"]).partition(", unable to parse")[0]
    said = said.replace(" after validation", "")
    return re.sub(r"^[A-Z]\w* should (be )?", lambda begin: "" if begin[1] else "to ", said)


def _keys_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """The keys known at a path inside a model; several where a union leaves the choice."""
    if not path:
        return [*model.model_fields, *getattr(model, "also_known", ())]
    field = model.model_fields.get(path[0])
    inner = list(_models_in(field.annotation)) if field else []
    # past the field's name stand list positions, which are not fields
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
