"""Bare PyTorch on the pretraining stage's job: what benchmark `overhead` compares it with.

`python -m tests.bench.plain_training JOB OUT` trains in one process, under torchrun with DDP on
gloo. The same model, batches, loss, optimizer, schedule and clipping, and nothing else: no
checkpoint, no log, no guard. OUT gets a JSON list: the time at the end of each step.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from model.config import ModelConfig
from model.loss import cross_entropy
from model.optimizer import build_optimizer
from model.schedule import learning_rate
from model.transformer import Transformer
from stages.pretrain import DECAY_FRACTION, Config
from stages.text.token_shards import TokenShards


class _Loss(nn.Module):
    """DDP wants one forward pass that ends in the loss."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, ids: torch.Tensor, labels: torch.Tensor, documents: torch.Tensor
    ) -> torch.Tensor:
        return cross_entropy(self.model.hidden(ids, documents), self.model.lm_head.weight, labels)[
            0
        ]


def main(job_file: str, out: str) -> None:
    job = json.loads(Path(job_file).read_text())
    config = Config.model_validate(job["config"])
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    torch.set_num_threads(config.parallel.threads)
    if world > 1:
        dist.init_process_group("gloo")
    torch.manual_seed(job["seed"])
    model = Transformer(ModelConfig.model_validate(job["shape"]))
    optimizer = build_optimizer(model, config.learning_rate, config.weight_decay)
    module: nn.Module = _Loss(model)
    if world > 1:
        module = DistributedDataParallel(module)
    shards = TokenShards(Path(job["tokens"]))
    pieces = -(-(config.rows // world) // config.parallel.rows)
    times = []
    for step in range(config.steps):
        rate = learning_rate(
            step, config.steps, config.learning_rate, config.warmup_steps, config.schedule,
            decay_fraction=DECAY_FRACTION,
        )  # fmt: skip
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = shards.batch(step, config.rows, config.sequence_length, job["seed"], rank, world)
        predicted = torch.tensor(float((batch.labels >= 0).sum()))
        if world > 1:
            dist.all_reduce(predicted)
        arrays = (batch.input_ids, batch.labels, batch.document_ids)
        parts = zip(*(torch.from_numpy(a).tensor_split(pieces) for a in arrays), strict=True)
        for number, rows in enumerate(parts):
            last = number == pieces - 1
            with contextlib.nullcontext() if last or world == 1 else module.no_sync():
                loss = module(*rows) * (world / predicted)
                loss.backward()
        loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.time())
    if rank == 0:
        Path(out).write_text(json.dumps(times))
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
