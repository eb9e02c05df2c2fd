"""Which model an endpoint serves: the newest of a recipe's run, or an artifact by its id."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import UserError
from cluster.index import find_artifact, read_index
from stages.graph import whole_input
from stages.opening import open_reachable
from stages.recipe import SERVED, Serve, builtin_recipes, load_recipe


@dataclass(frozen=True)
class Endpoint:
    """A model's folder on this machine, its name for clients, and where to serve it."""

    folder: Path
    name: str
    host: str = "127.0.0.1"
    port: int = 8000
    replicas: int = 1


def endpoint_of(what: str, settings: Iterable[str], store_url: str | None = None) -> Endpoint:
    """The endpoint meant by a recipe's name or file (as it last ran) or by an artifact.

    `store_url` is where an artifact lies ("runs" if not given), or another store than the recipe's.
    """
    settings = list(settings)
    if what in builtin_recipes() or Path(what).suffix in (".yaml", ".yml"):
        return _of_recipe(what, settings + ([f"store={store_url}"] if store_url else []))
    if settings:
        raise UserError(f"found --set {settings[0]} with the artifact {what!r}: it is a recipe's")
    store = open_reachable(store_url or "runs")
    artifact = whole_input(find_artifact(store, what), store)
    if artifact.kind not in SERVED:
        raise UserError(
            f"{what!r} is of kind {artifact.kind!r}, expected {' or '.join(map(repr, SERVED))}"
        )
    return Endpoint(artifact.path, artifact.id)


def _of_recipe(name: str, settings: Iterable[str]) -> Endpoint:
    recipe = load_recipe(name, settings)
    serve = recipe.file.serve
    if serve is None:
        raise UserError(f"recipe {recipe.name!r} has no 'serve' key; name an artifact instead")
    store = open_reachable(recipe.file.store)
    entry = read_index(store, recipe.name).get(serve.model)
    if entry is None or not store.has(entry["id"]):
        raise UserError(
            f"recipe {recipe.name!r} serves {serve.model!r}, which is not in {store.url} yet: "
            f"`raylm run {recipe.arguments}` makes it"
        )
    return _endpoint(recipe.name, whole_input(entry["id"], store).path, serve)


def _endpoint(name: str, folder: Path, serve: Serve) -> Endpoint:
    return Endpoint(folder, name, serve.host, serve.port, serve.replicas)
