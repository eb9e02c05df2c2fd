"""What every worker runs: next batch, forward, backward, guard, step, log, checkpoint.

The data order is arithmetic (a batch is a function of seed and step), the learning rate is a
function of the step, and a checkpoint holds the rest, so a killed run continues as if nothing had
happened.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from cluster.trainer import report
from model.config import ModelConfig
from model.loss import cross_entropy
from model.schedule import learning_rate
from model.transformer import Transformer
from stages.pretrain import DECAY_FRACTION, Config
from stages.text.token_shards import TokenBatch, TokenShards
from stages.tune.checkpoint import (
    Checkpoint,
    discard_after,
    load_optimizer,
    newest,
    save_checkpoint,
)
from stages.tune.engine import LEARNING_RATE_SCALE, StepGuard, client_optimizer, start_engine
from stages.tune.journal import Journal
from stages.tune.precision import uses_bfloat16

REPORT_S = 2.0
NORM_NAMES = {"adamw": "gradient_norm", "muon": "update_norm"}
"""What DeepSpeed takes the norm of: with Muon, gradients are already made into updates."""


def train(job: dict[str, Any]) -> None:
    """Train the model a job describes (see `stages.pretrain.run`) and report its metrics."""
    config = Config.model_validate(job["config"])
    shards = TokenShards(Path(job["tokens"]))
    run = _Run(config, job)
    guard = StepGuard(run.engine)
    started, reported = time.monotonic(), 0.0
    with Journal(run.scratch, run.step, active=run.rank == 0) as journal:
        while run.step < config.steps:
            begun = time.monotonic()
            rate = run.set_learning_rate()
            batch = shards.batch(
                run.step, config.rows, config.sequence_length, job["seed"], run.rank, run.world
            )
            predicted = _sum_over_ranks(int((batch.labels >= 0).sum()))
            loss = 0.0
            for rows in run.micro_batches(batch):
                loss_sum = run.forward(rows)
                run.backward(loss_sum, predicted)
                loss += loss_sum.item()
            loss = _sum_over_ranks(loss) / predicted
            norm, taken = guard.step()
            run.count(predicted, loss, taken)
            seconds = time.monotonic() - begun
            journal.write(
                run.step, loss=loss, learning_rate=rate, tokens=run.tokens,
                tokens_per_second=config.batch_tokens / seconds, skipped=run.skipped,
                flops_per_second=run.flops_per_token * config.batch_tokens / seconds,
                **{NORM_NAMES[config.optimizer]: norm},
            )  # fmt: skip
            run.step += 1
            if run.step % config.checkpoint_every == 0 or run.step in run.milestones:
                run.save()
            if time.monotonic() - reported > REPORT_S:
                reported = time.monotonic()
                report({}, run.step, config.steps, f"loss {loss:.3f}")
    seconds = time.monotonic() - started
    heldout = heldout_loss(run, TokenShards(Path(job["heldout"])))
    metrics = run.metrics(seconds) | {"heldout_loss": heldout}
    report(metrics, config.steps, config.steps, "trained")


def heldout_loss(run: _Run, shards: TokenShards) -> float:
    """Mean nats per token of some held-out windows, shared out among the ranks."""
    length = run.config.sequence_length
    windows = min(shards.windows(length), max(1, run.config.heldout_tokens // length))
    rows = run.config.parallel.rows
    loss, predicted = 0.0, 0
    with torch.no_grad():
        for first in range(run.rank * rows, windows, run.world * rows):
            count = min(rows, windows - first)
            pieces = [shards.batch(first + i, 1, length, seed=0) for i in range(count)]
            batch = TokenBatch(
                *(np.concatenate([getattr(piece, name) for piece in pieces])
                  for name in ("input_ids", "labels", "document_ids"))
            )  # fmt: skip
            loss += run.forward(run.tensors(batch)).item()
            predicted += int((batch.labels >= 0).sum())
    return _sum_over_ranks(loss) / _sum_over_ranks(predicted)


class _Run:
    """One worker's model, engine and counts: made anew, or taken up from the newest checkpoint."""

    def __init__(self, config: Config, job: dict[str, Any]) -> None:
        self.config = config
        self.scratch = Path(job["scratch"])
        self.checkpoints = self.scratch / "checkpoints"
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.device = torch.device("cuda" if config.parallel.gpu else "cpu")
        self.milestones = (config.decay_start, config.steps)
        shape = ModelConfig.model_validate(job["shape"])
        torch.manual_seed(job["seed"])
        model = Transformer(shape).to(self.device)
        checkpoint = newest(
            self.checkpoints, lambda c: config.shares_course(c.step, c.state["steps"])
        )
        if checkpoint is not None:
            model.load_state_dict(checkpoint.weights(), strict=False)  # a tied head is stored once
        optimizer = client_optimizer(
            model, config.learning_rate, config.weight_decay, config.optimizer
        )
        rows_per_rank = -(-config.rows // self.world)
        self.accumulation = -(-rows_per_rank // config.parallel.rows)
        self.engine = start_engine(
            model, optimizer, config.parallel, self.accumulation,
            config.clip_norm if config.optimizer == "adamw" else 0.0,
        )  # fmt: skip
        self.parameters = shape.parameters()
        self.flops_per_token = 6 * shape.parameters(embedding=False)
        self._take_up(checkpoint)

    def _take_up(self, checkpoint: Checkpoint | None) -> None:
        state = checkpoint.state if checkpoint else {}
        self.step: int = state.get("step", 0)
        self.resumed = self.step
        self.tokens: int = state.get("tokens", 0)
        self.skipped: int = state.get("skipped", 0)
        self.loss: float = state.get("loss", float("nan"))
        if checkpoint is not None:
            load_optimizer(checkpoint, self.engine)
        if self.rank == 0:
            discard_after(self.checkpoints, self.step)

    def set_learning_rate(self) -> float:
        config = self.config
        rate = learning_rate(
            self.step, config.steps, config.learning_rate, config.warmup_steps, config.schedule,
            **({"decay_fraction": DECAY_FRACTION} if config.schedule == "wsd" else {}),
        )  # fmt: skip
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate * group.get(LEARNING_RATE_SCALE, 1.0)
        return rate

    def micro_batches(self, batch: TokenBatch) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """This rank's rows in equal pieces, as many as the engine accumulates."""
        pieces = [tensor.tensor_split(self.accumulation) for tensor in self.tensors(batch)]
        yield from zip(*pieces, strict=True)

    def tensors(self, batch: TokenBatch) -> tuple[Tensor, Tensor, Tensor]:
        """(input ids, labels, document ids) on this worker's device."""
        arrays = (batch.input_ids, batch.labels, batch.document_ids)
        ids, labels, documents = (torch.from_numpy(array).to(self.device) for array in arrays)
        return ids, labels, documents

    def forward(self, rows: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Summed loss in nats of some rows."""
        input_ids, labels, document_ids = rows
        model = self.engine.module
        bfloat16 = uses_bfloat16(self.config.precision, self.config.parallel.gpu)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bfloat16):
            hidden = model.hidden(input_ids, document_ids)
            loss_sum, _ = cross_entropy(hidden, model.lm_head.weight.to(hidden.dtype), labels)
        return loss_sum

    def backward(self, loss_sum: Tensor, predicted: float) -> None:
        """Gradients of the mean over every predicted token of the step, whatever rank holds it.

        The engine divides by accumulation and by ranks, so both are multiplied in.
        """
        self.engine.backward(loss_sum * (self.world * self.accumulation / predicted))
        if not self.engine.is_gradient_accumulation_boundary():
            self.engine.step()  # counts the micro-batch; the guard takes the step itself

    def count(self, predicted: float, loss: float, taken: bool) -> None:
        self.tokens += self.config.batch_tokens
        self.skipped += not taken
        self.loss = loss if taken else self.loss

    def save(self) -> None:
        state = {
            "steps": self.config.steps, "tokens": self.tokens, "skipped": self.skipped,
            "loss": self.loss,
        }  # fmt: skip
        pinned = self.config.decay_start
        save_checkpoint(self.checkpoints, self.step, self.engine, state, pinned)

    def metrics(self, seconds: float) -> dict[str, Any]:
        trained = (self.step - self.resumed) * self.config.batch_tokens
        return {
            "parameters": self.parameters,
            "steps": self.step,
            "tokens": self.tokens,
            "flops": self.flops_per_token * self.tokens,
            "loss": self.loss,
            "skipped_steps": self.skipped,
            "tokens_per_second": trained / max(seconds, 1e-9),
        }


def _sum_over_ranks(value: float) -> float:
    total = torch.tensor(value, dtype=torch.float64)
    if torch.distributed.get_backend() == "nccl":
        total = total.cuda()
    dist.all_reduce(total)
    return total.item()
