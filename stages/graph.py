"""From a recipe to ids: what every step would make, known before anything runs.

An id is the hash of what decides the content (stage, version, identity and duration fields with
defaults filled in, parents' ids, fingerprint of outside sources, seed). The trajectory is the same
without duration fields: it names the folder in which a longer run continues a shorter one.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.artifact import ARTIFACTS, Artifact, canonical_hash, content_id, whole
from cluster.errors import UserError
from cluster.index import Index, read_index, read_json
from cluster.storage import IMPORTS, INDEX, Store
from stages.recipe import Recipe, Step, check_kind
from stages.registry import nearest
from stages.stage import role_of

DESCRIPTIONS = ("config.json", "index.json")
"""Files of an import that are read before a run: a model's, and a tokenizer's or tokens'."""


@dataclass(frozen=True)
class Node:
    """A step with everything that its id hangs on."""

    step: Step
    id: str
    trajectory: str
    parents: Mapping[str, list[str]]
    """Config field -> the parents' artifact ids."""
    fingerprint: Any
    done: bool
    """Whether the store has the artifact already."""

    @property
    def name(self) -> str:
        return self.step.name

    @property
    def work_name(self) -> str:
        """The folder below the store's `work` that every duration of this trajectory shares."""
        return f"{self.step.stage.name}-{self.trajectory}"

    def config_with(self, *roles: str) -> dict[str, Any]:
        """The config's fields of these roles, as JSON values, defaults filled in."""
        config = self.step.config.model_dump(mode="json")
        return {key: config[key] for key in config if role_of(type(self.step.config), key) in roles}


@dataclass(frozen=True)
class Graph:
    """The nodes of a recipe by name, parents first, and the names of all artifacts they touch."""

    nodes: Mapping[str, Node]
    names: Mapping[str, str]
    """Artifact id -> the recipe's (or the import's) name for it."""
    notes: Sequence[str] = ()
    """What a plan was made without."""

    def needed_for(self, name: str) -> list[str]:
        """A step and all the steps above it, parents first."""
        ids = {node.id: key for key, node in reversed(list(self.nodes.items()))}
        wanted, waiting = {name}, [name]
        while waiting:
            for above in self.nodes[waiting.pop()].parents.values():
                new = {ids[parent] for parent in above if parent in ids} - wanted
                wanted |= new
                waiting.extend(new)
        return [key for key in self.nodes if key in wanted]


def build_graph(recipe: Recipe, store: Store, *, sources_needed: bool = True) -> Graph:
    """Every step's id; a parent that is neither a step nor in the store is a UserError.

    A plan may be made before its sources are there (`sources_needed=False`): what is missing is
    then a note of the graph, and the ids that hang on it are not final.
    """
    notes: list[str] = []
    check_imports(recipe, store)
    imported = {name: entry["id"] for name, entry in read_imports(store).items()}
    nodes: dict[str, Node] = {}
    names: dict[str, str] = {}
    for step in recipe.steps.values():
        parents = {}
        for field, above in step.parents.items():
            parents[field] = [_find(step, field, name, nodes, imported, store) for name in above]
            names |= dict(zip(parents[field], above, strict=True))
        try:
            fingerprint = step.stage.fingerprint(step.config) if step.stage.fingerprint else None
        except UserError as error:
            if sources_needed:
                raise UserError(f"stages.{step.name}: {error}") from error
            fingerprint = {"missing": str(error)}
            notes.append(f"stages.{step.name}: {error}; ids from there on are not final")
        node = _node(step, parents, fingerprint, recipe.file.seed, store)
        nodes[step.name] = node
    # two steps of equal content are one artifact, known by the first one's name
    for name, node in reversed(list(nodes.items())):
        names[node.id] = name
    return Graph(nodes, names, notes)


def _node(
    step: Step, parents: Mapping[str, list[str]], fingerprint: Any, seed: int, store: Store
) -> Node:
    draft = Node(step, "", "", parents, _as_json(fingerprint), done=False)
    identity = {
        "stage": step.stage.name,
        "version": step.stage.version,
        "config": draft.config_with("identity"),
        "parents": {field: ids for field, ids in parents.items() if ids},
        "fingerprint": draft.fingerprint,
        "seed": seed,
    }
    trajectory = canonical_hash(identity)
    artifact_id = content_id(
        step.stage.kind, {**identity, "duration": draft.config_with("duration")}
    )
    return Node(step, artifact_id, trajectory, parents, draft.fingerprint, store.has(artifact_id))


def _find(
    step: Step,
    field: str,
    name: str,
    nodes: Mapping[str, Node],
    imported: Mapping[str, str],
    store: Store,
) -> str:
    """The artifact id that a parent's name stands for."""
    if name in nodes:
        return nodes[name].id
    found = imported.get(name, name)
    if not store.has(found):
        known = [*nodes, *imported]
        raise UserError(
            f"stages.{step.name}.{field}: found {name!r}, expected a stage of this recipe, an "
            f"imported name or an artifact id in {store.url}{nearest(name, known)}"
        )
    check_kind(step, field, name, store.manifest(found).kind)
    return found


def read_imports(store: Store) -> Index:
    """The imported names, with their artifacts' ids and what they were imported from."""
    try:
        return read_index(store, IMPORTS)
    except UserError as error:
        raise UserError(
            f"{store.url}/{IMPORTS}/{INDEX} is not what `raylm import` wrote there; remove it, and "
            "import again what recipes name: raylm import FOLDER --name NAME "
            f"--store {shlex.quote(store.url)}"
        ) from error


def check_imports(recipe: Recipe, store: Store) -> None:
    """Refuse an import that a recipe takes and that is lost or unreadable: no run would make it."""
    imported = read_imports(store)
    parents = [step.parents.values() for step in recipe.steps.values()]
    names = dict.fromkeys(name for above in parents for some in above for name in some)
    for name in names:
        if name not in recipe.steps and name in imported:
            _check_import(name, imported, store)


def _check_import(name: str, imported: Index, store: Store) -> None:
    artifact_id = imported[name]["id"]
    if not store.has(artifact_id):
        raise UserError(
            f"{name!r} was imported as {artifact_id}, which is no longer in {store.url}; "
            f"{_import_again(artifact_id, imported, store)}"
        )
    try:
        store.manifest(artifact_id)
        for file in DESCRIPTIONS:
            read_json(store, f"{ARTIFACTS}/{artifact_id}/{file}")
    except UserError as error:
        raise UserError(_of_import(error, artifact_id, imported, store)) from error


def whole_input(artifact_id: str, store: Store) -> Artifact:
    """The artifact with all its files; of one that is damaged, what brings it back."""
    artifact = store.get(artifact_id)
    try:
        return whole(artifact)
    except UserError as error:
        if artifact.stage != "import":
            raise
        said = _of_import(error, artifact_id, read_imports(store), store)
        raise UserError(said) from error


def _of_import(error: UserError, artifact_id: str, imported: Index, store: Store) -> str:
    """What is wrong with an import, without the advice that holds for what a stage makes."""
    fault = str(error).partition("; remove ")[0]
    return f"{fault}; {_import_again(artifact_id, imported, store)}"


def _import_again(artifact_id: str, imported: Index, store: Store) -> str:
    known = [(name, entry) for name, entry in imported.items() if entry["id"] == artifact_id]
    name, entry = next(iter(known), ("NAME", {}))
    words = [entry.get("source", "FOLDER"), "--name", name, "--store", store.url]
    return f"no run makes it again, import it again: raylm import {shlex.join(words)}"


def _as_json(value: Any) -> Any:
    """What the value is after a round through JSON, so that ids do not hang on Python's types."""
    return json.loads(json.dumps(value, sort_keys=True))


def chosen(graph: Graph, until: str | None, only: Iterable[str]) -> list[str]:
    """The steps that a run is about: all, those up to `until`, or `only` the named ones."""
    only = list(only)
    if until is not None and only:
        raise UserError(
            f"found --until {until} and --only {' '.join(only)}, expected one of the two: --until "
            "runs a stage and all above it, --only runs it alone"
        )
    for name in [*([until] if until is not None else []), *only]:
        if name not in graph.nodes:
            raise UserError(f"no stage is called {name!r}{nearest(name, graph.nodes)}")
    if until is not None:
        return graph.needed_for(until)
    wanted = set(only)
    return [name for name in graph.nodes if not wanted or name in wanted]
