"""`raylm import`: bring something made elsewhere into the store, so that a recipe may begin there.

A Hugging Face model or tokenizer folder, a JSONL of conversations, preferences or problems, or a
folder of token shards becomes an artifact with a name; its id is the hash of its files.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cluster.artifact import Artifact, canonical_hash, content_id, file_sha256, files_of, verify
from cluster.errors import UserError
from cluster.index import write_index
from cluster.storage import IMPORTS, Store
from model.config import ModelConfig
from stages.checked import sentences
from stages.graph import read_imports
from stages.pipeline import code_version

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
EXAMPLES = {"messages": "conversations", "chosen": "preferences", "solution": "problems"}
"""The key that tells what a JSONL file holds."""
WEIGHTS_INDEX = "model.safetensors.index.json"
MODEL_FILES = ("config.json", "generation_config.json", "special_tokens_map.json")


def import_artifact(store: Store, source: Path, name: str) -> Artifact:
    """Copy `source` into the store under `name`; what it is, is told from what it holds."""
    if not source.exists():
        raise UserError(f"there is nothing at {source} to import")
    if "/" in name or not name:
        raise UserError(f"name: found {name!r}, expected a word without '/'")
    with store.lease(f"raylm import {name}"):
        index = read_imports(store)
        folder = store.work / f"import-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        kind = _copy(source, folder)
        hashes = {str(path.relative_to(folder)): file_sha256(path) for path in files_of(folder)}
        identity = {"stage": "import", "files": hashes}
        fields = {
            "id": content_id(kind, identity),
            "kind": kind,
            "stage": "import",
            "stage_version": 1,
            "code_version": code_version(),
            "config": {"source": str(source.absolute())},
            "parents": {},
            "seed": 0,
            "fingerprint": hashes,
            "trajectory": canonical_hash(identity),
            "metrics": {},
            "seconds": 0.0,
            "cost": 0.0,
            "energy_kwh": 0.0,
        }
        _drop_damaged(store, str(fields["id"]))
        artifact = store.put(folder, fields)
        entry = {"id": artifact.id, "stage": artifact.stage, "source": str(source.absolute())}
        write_index(store, IMPORTS, {**index, name: entry})
    return artifact


def _drop_damaged(store: Store, artifact_id: str) -> None:
    """Make room for what is brought in again: the store keeps what it has under an id."""
    if not store.has(artifact_id):
        return
    try:
        whole = not verify(store.get(artifact_id))
    except UserError:  # its manifest cannot be read
        whole = False
    if not whole:
        store.remove(artifact_id)


def _copy(source: Path, folder: Path) -> str:
    """Copy what belongs to it; the artifact kind that `source` is."""
    if source.is_file():
        return _copy_examples(source, folder)
    if not source.is_dir():
        raise UserError(f"{source} is neither a file nor a folder")
    names = {path.name for path in source.iterdir()}
    if "config.json" in names:
        return _copy_model(source, folder)
    if "tokenizer.json" in names and "index.json" not in names:
        _take(source, folder, lambda name: name in TOKENIZER_FILES or name in MODEL_FILES)
        return "tokenizer"
    if {"train", "index.json"} <= names:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        return "tokens"
    if any(name.endswith(".jsonl") for name in names):
        for path in sorted(source.glob("*.jsonl")):
            _copy_examples(path, folder, path.name)
        return "examples"
    raise UserError(
        f"{source} holds {', '.join(sorted(names)[:8]) or 'nothing'}; expected a Hugging Face "
        "model (config.json and *.safetensors), a tokenizer (tokenizer.json), tokens (index.json "
        "and train/), or JSONL files"
    )


def _copy_model(source: Path, folder: Path) -> str:
    """A Hugging Face folder; pickled weights are refused, since loading them runs code."""
    weights = sorted(path.name for path in source.glob("*.safetensors"))
    if not weights:
        raise UserError(
            f"{source} has no *.safetensors; pickled weights (*.bin) are not read, since loading "
            "them runs code: save the model again with safe_serialization=True"
        )
    try:
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{source / 'config.json'} is not a model's JSON: {error}") from error
    _check_config(source / "config.json", config)
    _check_weights(source, weights)
    keep = {*TOKENIZER_FILES, *MODEL_FILES, *weights, WEIGHTS_INDEX}
    _take(source, folder, lambda name: name in keep)
    return "checkpoint"


def _check_config(path: Path, config: Any) -> None:
    """Refuse a shape that our decoder has not, and values that are no sizes."""
    if not isinstance(config, dict):
        raise UserError(f"{path} holds {type(config).__name__}, expected a model's JSON object")
    for name, field in ModelConfig.model_fields.items():
        value = config.get(name)
        if field.annotation is int and value is not None and type(value) is not int:
            raise UserError(f"{path}: {name}: found {value!r}, expected a whole number")
    try:
        ModelConfig.from_hugging_face(config)
    except ValidationError as error:
        said = sentences(ModelConfig, error, config, f"{path}: ")
        raise UserError("\n".join(said)) from error
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path}: {error}") from error


def _check_weights(source: Path, weights: Sequence[str]) -> None:
    """Refuse a folder of which a shard is lost or cut short."""
    from safetensors import safe_open

    index = source / WEIGHTS_INDEX
    if index.is_file():
        try:
            named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{index} does not say which file holds which weight: {error}"
            ) from error
        if lost := sorted(named - set(weights)):
            raise UserError(
                f"{source} lacks {', '.join(lost)}, of {len(named)} files that {WEIGHTS_INDEX} "
                "names: fetch the whole model"
            )
    for name in weights:
        try:
            with safe_open(source / name, framework="np"):
                pass
        except Exception as error:  # safetensors has its own exception, and files fail in many ways
            raise UserError(
                f"{source / name} cannot be read as safetensors: {error}; fetch it again"
            ) from error


def _take(source: Path, folder: Path, wanted: Callable[[str], bool]) -> None:
    for path in sorted(source.iterdir()):
        if path.is_file() and wanted(path.name):
            shutil.copyfile(path, folder / path.name)


def _copy_examples(source: Path, folder: Path, name: str | None = None) -> str:
    """A JSONL file under the name that its records' keys call for; all must be of one kind."""
    kind = ""
    with source.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                record = json.loads(line)
            except ValueError as error:
                raise UserError(
                    f"{source}, line {number}: not a JSON object ({error}); expected one a line"
                ) from error
            keys = list(record) if isinstance(record, dict) else []
            found = next((called for key, called in EXAMPLES.items() if key in keys), None)
            if found is None or found != (kind or found):
                raise UserError(
                    f"{source}, line {number}: found "
                    f"{'the keys ' + ', '.join(keys) if keys else type(record).__name__}, expected "
                    "an object with 'messages' (conversations), 'chosen' (preferences) or "
                    f"'solution' (problems){', as on the lines above' if kind else ''}"
                )
            kind = found
    if not kind:
        raise UserError(f"{source} is empty; expected JSON objects, one a line")
    shutil.copyfile(source, folder / (name or f"{kind}.jsonl"))
    return "examples"
