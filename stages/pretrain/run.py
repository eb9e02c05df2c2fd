"""The driver's side of pretraining: checks, the workers, and the finished model's folder."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

from cluster.artifact import Artifact
from cluster.errors import UserError
from cluster.folder import Folder
from cluster.trainer import run_workers
from model.config import ModelConfig
from stages.pretrain import Config
from stages.pretrain.loop import train
from stages.stage import Context, Inputs, Metrics, one
from stages.tune.checkpoint import check_model, check_space, damaged, find_checkpoints
from stages.tune.journal import EVENTS, LOG, TENSORBOARD


def run(config: Config, inputs: Inputs, context: Context) -> Metrics:
    """Train a decoder on tokens; writes a Hugging Face folder, the log and TensorBoard events."""
    tokens = one(inputs, "tokens")
    totals = json.loads(tokens.file("index.json").read_text(encoding="utf-8"))
    if totals["train_tokens"] <= config.sequence_length:
        raise UserError(
            f"artifact {tokens.id} holds {totals['train_tokens']} training tokens, fewer than one "
            f"sequence of {config.sequence_length}: give the corpus more text, or shorten it"
        )
    shape = ModelConfig(**config.model.sizes(totals["vocabulary_size"]))
    checkpoints = Folder(checkpoints_of(context), context.scratch / "fetched")
    _check_checkpoints(config, shape, checkpoints)
    context.connect()
    metrics = run_workers(
        train,
        {
            "config": config.model_dump(mode="json"),
            "shape": shape.model_dump(),
            "tokens": str(tokens.file("train").resolve()),
            "heldout": str(tokens.file("heldout").resolve()),
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
    tokens_per_byte = totals["heldout_tokens"] / totals["heldout_bytes"]
    bits = metrics["heldout_loss"] / math.log(2) * tokens_per_byte
    return metrics | {"heldout_bits_per_byte": bits}


def checkpoints_of(context: Context) -> str:
    """Where a run's checkpoints lie: in the store if that is an object store, else in scratch."""
    return f"{context.durable or context.scratch.resolve()}/checkpoints"


def _check_checkpoints(config: Config, shape: ModelConfig, root: Folder) -> None:
    """Refuse, before any worker starts, a checkpoint of another model or with a lost shard, and a
    disk too small for those to come.
    """
    found = find_checkpoints(root)
    if found:
        check_model(found[-1], shape.model_dump())
        for entry in found[-1].files:
            if (size := found[-1].folder.size(entry["path"])) != entry["size"]:
                fault = f"{entry['path']} has {size or 'no'} bytes, expected {entry['size']}"
                raise damaged(found[-1], fault, found)
    check_space(root, shape.parameters(), states=2, copies=config.checkpoints.last + 2)


def _write_model(shape: ModelConfig, inputs: Inputs, context: Context, checkpoints: Folder) -> None:
    """The last checkpoint as a Hugging Face folder, with tokenizer, log and TensorBoard events."""
    from model import pretrained
    from model.transformer import Transformer

    last = find_checkpoints(checkpoints)[-1]
    model = Transformer(shape)
    model.load_state_dict(last.weights(), strict=False)
    checkpoints.forget_all()
    pretrained.save(model, context.out)
    pretrained.copy_tokenizer(_tokenizer_folder(inputs), context.out)
    for name in (LOG, EVENTS):
        if (context.scratch / name).exists():
            shutil.copyfile(context.scratch / name, context.out / name)
    shutil.copytree(context.scratch / TENSORBOARD, context.out / TENSORBOARD)


def _tokenizer_folder(inputs: Inputs) -> Path:
    """The tokenizer named in the recipe, else the one the tokens were made with."""
    named: Artifact | None = inputs.get("tokenizer")
    return named.path if named is not None else one(inputs, "tokens").file("tokenizer")
