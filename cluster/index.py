"""The names given to artifacts: a small index for each run and one for what was imported."""

from __future__ import annotations

import json
from typing import Any

from cluster.errors import UserError
from cluster.storage import INDEX, Store, unknown

Index = dict[str, dict[str, str]]  # name -> {"id": ..., "stage": ...}


def read_index(store: Store, run: str) -> Index:
    """A run's names -> {"id", "stage"}; empty if it has none, a UserError if it is damaged."""
    index = read_json(store, f"{run}/{INDEX}")
    if not all(isinstance(entry, dict) and "id" in entry for entry in index.values()):
        raise _damaged(store, f"{run}/{INDEX}")
    return index


def read_json(store: Store, name: str) -> dict[str, Any]:
    """A small file's JSON object; empty if it is not there, a UserError if it is damaged."""
    data = store.read(name)
    if data is None:
        return {}
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise _damaged(store, name)
    return value


def _damaged(store: Store, name: str) -> UserError:
    return UserError(
        f"{store.url}/{name} is not what a run wrote there; remove it, and the next run, which "
        "redoes nothing that is there, writes it anew"
    )


def write_index(store: Store, run: str, index: Index) -> None:
    """Replace a run's names in one step."""
    store.write(f"{run}/{INDEX}", json.dumps(index, indent=1, ensure_ascii=False).encode())


def find_artifact(store: Store, name: str) -> str:
    """The id meant by an id or its beginning, `recipe/stage`, an imported or a stage's name.

    A UserError if nothing, or more than one thing, answers to that name.
    """
    if store.has(name):
        return name
    run, _, rest = name.partition("/")
    if rest:
        entry = read_index(store, run).get(rest)
        found = {entry["id"]} if entry else set()
    else:
        found = {
            i["id"] for r in store.runs() for n, i in read_index(store, r).items() if n == name
        }
        found = found or {artifact for artifact in store.ids() if _begins(artifact, name)}
    found = {artifact for artifact in found if store.has(artifact)}
    if len(found) == 1:
        return found.pop()
    if found:
        raise UserError(
            f"{name!r} names several artifacts in {store.url}: {', '.join(sorted(found))}; "
            "give the id, or recipe/stage"
        )
    raise unknown(name, store)


def _begins(artifact_id: str, name: str) -> bool:
    """Whether an id, or its digits alone, begin with a name."""
    return bool(name) and any(
        text.startswith(name) for text in (artifact_id, artifact_id.rpartition("-")[2])
    )
