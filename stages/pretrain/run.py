"""The driver's side of pretraining: checks, the workers, and the finished model's folder."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from cluster.artifact import Artifact
from cluster.folder import Folder
from cluster.trainer import run_workers
from model.config import ModelConfig
from stages.pretrain import Config
from stages.pretrain.checks import check_course, check_tokens, shape_of, totals_of
from stages.pretrain.data import TrainingSet, heldout_sets
from stages.pretrain.evaluation import loss_by_size
from stages.pretrain.loop import train
from stages.pretrain.tasks import encoded_tasks
from stages.stage import Context, Inputs, Metrics
from stages.tune.checkpoint import check_model, check_space, damaged, find_checkpoints
from stages.tune.fragments import WEIGHT
from stages.tune.journal import EVENTS, LOG, TENSORBOARD
from stages.tune.sinks import check_reporting


def run(config: Config, inputs: Inputs, context: Context) -> Metrics:
    """Train a decoder on tokens; writes a Hugging Face folder, the log and TensorBoard events."""
    tokens, start = _tokens(config, inputs), inputs.get("start")
    check_tokens(config, list(tokens.values()), inputs.get("tokenizer"), start)
    totals = [totals_of(artifact) for artifact in tokens.values()]
    shape = shape_of(config, max(total["vocabulary_size"] for total in totals), start)
    check_reporting(config.metrics)
    tasks = encoded_tasks(config, _tokenizer_folder(inputs), context.seed)
    checkpoints = Folder(checkpoints_of(context), context.scratch / "fetched")
    order = TrainingSet(config, _folders(tokens, "train"), context.seed)
    sources = heldout_sets(config, _folders(tokens, "heldout"))
    _check_checkpoints(config, shape, checkpoints, order)
    context.connect()
    metrics = run_workers(
        train,
        {
            "config": config.model_dump(mode="json"),
            "shape": shape.model_dump(mode="json"),
            "tasks": tasks,
            "tokens": {name: str(path) for name, path in _folders(tokens, "train").items()},
            "heldout": {name: str(path) for name, path in _folders(tokens, "heldout").items()},
            "start": str(start.path.resolve()) if start else None,
            "scratch": str(context.scratch.resolve()),
            "checkpoints": checkpoints.url,
            "seed": context.seed,
        },
        workers=config.parallel.workers,
        scratch=context.scratch,
        name=context.name or "pretrain",
        threads=config.parallel.threads,
        gpu=config.parallel.gpu,
        progress=context.progress,
    )
    _write_model(shape, inputs, context, checkpoints)
    heldout_bytes = sum(total["heldout_bytes"] for total in totals)
    tokens_per_byte = sum(total["heldout_tokens"] for total in totals) / heldout_bytes
    nats = loss_by_size(metrics, {name: text.source.tokens for name, text in sources.items()})
    bits = nats / math.log(2) * tokens_per_byte
    return metrics | {"heldout_bits_per_byte": bits, "epochs": order.epochs()}


def checkpoints_of(context: Context) -> str:
    """Where a run's checkpoints lie: in the store if that is an object store, else in scratch."""
    return f"{context.durable or context.scratch.resolve()}/checkpoints"


def _check_checkpoints(
    config: Config, shape: ModelConfig, root: Folder, order: TrainingSet
) -> None:
    """Refuse, before any worker starts, a checkpoint of another model or with a lost shard, one
    whose progress this run would throw away, and a disk too small for those to come.
    """
    found = find_checkpoints(root)
    if found:
        check_model(found[-1], shape.model_dump(mode="json"))
        check_course(config, order, found)
        for entry in found[-1].files:
            if (size := found[-1].folder.size(entry["path"])) != entry["size"]:
                fault = f"{entry['path']} has {size or 'no'} bytes, expected {entry['size']}"
                raise damaged(found[-1], fault, found)
    copies = config.checkpoints.most(config.steps, config.checkpoint_every)
    check_space(root, shape.parameters(), states=2, copies=copies)


def _write_model(shape: ModelConfig, inputs: Inputs, context: Context, checkpoints: Folder) -> None:
    """The last checkpoint as a Hugging Face folder, with tokenizer, log and TensorBoard events."""
    from model import pretrained

    last = find_checkpoints(checkpoints)[-1]
    pretrained.save_tensors(shape, lambda name: last.whole(name, WEIGHT), context.out)
    checkpoints.forget_all()
    pretrained.copy_tokenizer(_tokenizer_folder(inputs), context.out)
    for name in (LOG, EVENTS):
        if (context.scratch / name).exists():
            shutil.copyfile(context.scratch / name, context.out / name)
    shutil.copytree(context.scratch / TENSORBOARD, context.out / TENSORBOARD)


def _tokenizer_folder(inputs: Inputs) -> Path:
    """The tokenizer named in the recipe, else the one the tokens were made with."""
    named: Artifact | None = inputs.get("tokenizer")
    tokens = inputs["tokens"]
    first: Artifact = tokens[0] if isinstance(tokens, list) else tokens
    return named.path if named is not None else first.file("tokenizer")


def _tokens(config: Config, inputs: Inputs) -> dict[str, Artifact]:
    """The tokens by the names that the recipe gives them, in its order."""
    tokens = inputs["tokens"]
    several: list[Artifact] = tokens if isinstance(tokens, list) else [tokens]
    return dict(zip(config.tokens_names, several, strict=True))


def _folders(tokens: dict[str, Artifact], split: str) -> dict[str, Path]:
    return {name: artifact.file(split).resolve() for name, artifact in tokens.items()}
