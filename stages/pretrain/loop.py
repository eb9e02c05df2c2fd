"""What every worker runs: next batch, forward, backward, guard, step, log, checkpoint.

The data order is arithmetic (a batch is a function of seed and step), the learning rate is a
function of the step, and a checkpoint holds the rest, so a killed run continues as if nothing had
happened.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from cluster.errors import UserError
from cluster.trainer import BOARD, report
from cluster.watch import Stragglers, Watch
from model.config import ModelConfig
from model.loss import cross_entropy
from model.schedule import learning_rate
from model.transformer import Transformer
from stages.pretrain import DECAY_FRACTION, Config
from stages.text.token_shards import TokenBatch, TokenShards
from stages.tune.engine import LEARNING_RATE_SCALE, StepGuard, client_optimizer, start_engine
from stages.tune.fragments import pieces, place_of, whole_shapes
from stages.tune.guards import Guard, Skip, batch_number
from stages.tune.journal import Journal
from stages.tune.memory import TrainingMemory
from stages.tune.work_clock import WorkClock

REPORT_S = 2.0
NORM_NAMES = {"adamw": "gradient_norm", "muon": "update_norm"}
"""What DeepSpeed takes the norm of: with Muon, gradients are already made into updates."""


def train(job: dict[str, Any]) -> None:
    """Train the model a job describes (see `stages.pretrain.run`) and report its metrics."""
    config = Config.model_validate(job["config"])
    shards = TokenShards(Path(job["tokens"]))
    run = _Run(config, job)
    take = StepGuard(run.engine)
    started, reported = time.monotonic(), 0.0
    with run.watch(), Journal(run.scratch, run.step, active=run.rank == 0) as journal:
        if run.resumed:
            journal.event("resumed", run.step, workers=run.world)
        while run.step < config.steps:
            begun = time.monotonic()
            rate = run.set_learning_rate()
            with run.working("reading a batch"):
                batch = run.batch(shards)
            own_predicted = int((batch.labels >= 0).sum())
            predicted = _sum_over_ranks(own_predicted)
            own_loss = 0.0
            for rows in run.micro_batches(batch):
                with run.working("forward"):
                    loss_sum = run.forward(rows)
                run.backward(loss_sum, predicted)
                own_loss += loss_sum.item()
            seen = run.share(own_loss, own_predicted)
            run.guard.judge(seen.loss, seen.by_rank)
            norm, taken = take.step(run.guard.accepts)
            run.count(seen, norm, taken)
            seconds = time.monotonic() - begun
            journal.write(
                run.step, loss=seen.loss, learning_rate=rate, tokens=run.tokens,
                tokens_per_second=config.batch_tokens / seconds, skipped=run.skipped,
                flops_per_second=run.flops_per_token * config.batch_tokens / seconds,
                **{NORM_NAMES[config.optimizer]: norm},
            )  # fmt: skip
            run.tell(journal, seen, taken)
            run.step += 1
            if run.guard.must_go_back:
                run.go_back(journal)
            elif run.step % config.checkpoint_every == 0 or run.step in run.milestones:
                run.save()
            if time.monotonic() - reported > REPORT_S:
                reported = time.monotonic()
                report({}, run.step, config.steps, f"loss {run.loss:.3f}")
        run.finish()
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
            run.beat("measuring the held-out loss")
            loss += run.forward(run.tensors(batch)).item()
            predicted += int((batch.labels >= 0).sum())
    return _sum_over_ranks(loss) / _sum_over_ranks(predicted)


@dataclass(frozen=True)
class _Seen:
    """One step as all ranks see it: mean loss, that of each rank with tokens, seconds of work."""

    loss: float
    by_rank: dict[int, float]
    work_s: list[float]


class _Run:
    """One worker's model, engine and counts: made anew, or taken up from the newest checkpoint."""

    def __init__(self, config: Config, job: dict[str, Any]) -> None:
        self.config = config
        self.seed: int = job["seed"]
        self.scratch = Path(job["scratch"])
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.device = torch.device("cuda" if config.parallel.gpu else "cpu")
        self.milestones = (config.decay_start, config.steps)
        self.shape = ModelConfig.model_validate(job["shape"])
        torch.manual_seed(job["seed"])
        model = Transformer(self.shape).to(self.device)
        shapes = whole_shapes(model)
        optimizer = client_optimizer(
            model, config.learning_rate, config.weight_decay, config.optimizer
        )
        rows_per_rank = -(-config.rows // self.world)
        self.accumulation = -(-rows_per_rank // config.parallel.rows)
        self.engine = start_engine(
            model, optimizer, config.parallel, self.accumulation,
            config.clip_norm if config.optimizer == "adamw" else 0.0,
        )  # fmt: skip
        self.parameters = self.shape.parameters()
        self.flops_per_token = 6 * self.shape.parameters(embedding=False)
        self.memory = TrainingMemory(
            job.get("checkpoints", str(self.scratch / "checkpoints")), self.scratch / "fetched",
            self.engine, pieces(self.engine, shapes, place_of(self.engine)),
            self.shape.model_dump(), config.checkpoints.last, config.checkpoints.every,
        )  # fmt: skip
        self.clock = WorkClock(self.device)
        self.stragglers = Stragglers(self.world, config.watch.slow_ratio)
        self._take_up(self.memory.take_up(lambda c: config.shares_course(c.step, c.state["steps"])))
        self.resumed = self.step

    def _take_up(self, state: Mapping[str, Any]) -> None:
        self.step: int = state.get("step", 0)
        self.tokens: int = state.get("tokens", 0)
        self.skipped: int = state.get("skipped", 0)
        self.loss: float = state.get("loss", float("nan"))
        self.skips: list[Skip] = list(state.get("skips", ()))
        self.guard = Guard(self.config.guards, self.world, state.get("guard"))

    def watch(self) -> Watch:
        """The thread that ends this process when it makes no progress."""
        folder = Path(os.environ.get(BOARD, self.scratch / "watch"))
        limits = self.config.watch
        self._watch = Watch(folder, self.rank, self.world, limits.hang_s, limits.start_s)
        return self._watch

    def beat(self, doing: str) -> None:
        self._watch.beat(doing)

    @contextlib.contextmanager
    def working(self, doing: str) -> Iterator[None]:
        """Time spent inside is this rank's own, whatever the others do."""
        self.beat(doing)
        with self.clock.running():
            yield
        self.beat(f"what follows {doing}")

    def batch(self, shards: TokenShards) -> TokenBatch:
        """This rank's rows of the step's batch, which is another one after data was skipped."""
        number = batch_number(self.step, self.skips)
        config = self.config
        return shards.batch(
            number, config.rows, config.sequence_length, self.seed, self.rank, self.world
        )

    def share(self, loss_sum: float, predicted: int) -> _Seen:
        """Gather every rank's summed loss, predicted tokens and seconds of work."""
        own = torch.tensor([loss_sum, predicted, self.clock.take()], dtype=torch.float64)
        rows = [torch.empty_like(own.to(self.device)) for _ in range(self.world)]
        dist.all_gather(rows, own.to(self.device))
        losses, counts, seconds = (
            list(column) for column in zip(*torch.stack(rows).tolist(), strict=True)
        )
        return _Seen(
            sum(losses) / sum(counts),
            {rank: losses[rank] / n for rank, n in enumerate(counts) if n},
            seconds,
        )

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
        bfloat16 = self.config.precision == "bfloat16"
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

    def count(self, seen: _Seen, norm: float, taken: bool) -> None:
        self.tokens += self.config.batch_tokens
        self.skipped += not taken
        self.loss = seen.loss if taken else self.loss
        self.guard.count(seen.loss, seen.by_rank, norm, taken)

    def tell(self, journal: Journal, seen: _Seen, taken: bool) -> None:
        """Log a skipped step and a rank that has become slow."""
        if not taken:
            number = batch_number(self.step, self.skips)
            journal.event("skipped", self.step, why=self.guard.reason, batch=number)
        for rank, times in self.stragglers.observe(seen.work_s).items():
            host = self.memory.hosts[rank]
            journal.event("slow", self.step, rank=rank, host=host, times=round(times, 2))
            report({}, self.step, self.config.steps, f"rank {rank} on {host} is {times:.1f}x slow")

    def go_back(self, journal: Journal) -> None:
        """Return to a checkpoint before the refused steps, and to other data than led to them."""
        config, last = self.config, self.step - 1
        before = last - self.guard.refused + 1
        if self.skips and before <= self.skips[-1]["back_to"]:
            before = self.skips[-1]["back_to"] - 1  # no step was taken since: further back
        failed = f"{self.guard.refused} steps in a row were refused, up to step {last}"
        if len(self.skips) >= config.guards.rollbacks:
            raise UserError(
                f"{failed}, after {len(self.skips)} rollbacks: the run diverges; lower "
                "learning_rate, warm up longer, or look at events.jsonl for the reasons"
            )
        state = self.memory.go_back(
            lambda c: c.step <= before and config.shares_course(c.step, c.state["steps"])
        )
        if state is None:
            raise UserError(
                f"{failed}, and there is no checkpoint at or before step {before} to go back to: "
                "save more often (checkpoint_every), lower learning_rate, or warm up longer"
            )
        skip: Skip = {
            "first": batch_number(state["step"], self.skips),
            "last": batch_number(last, self.skips),
            "back_to": state["step"],
        }
        skips = [*self.skips, skip]
        self._take_up({**state, "skips": skips})
        self.guard.refused = 0
        journal.event("rolled back", last, **skip)
        journal.rewind(self.step)

    def save(self) -> None:
        state = {
            "steps": self.config.steps, "tokens": self.tokens, "skipped": self.skipped,
            "loss": self.loss, "skips": self.skips, "guard": self.guard.state(),
            "workers": self.world, "zero": self.config.parallel.zero,
        }  # fmt: skip
        self.beat("copying a checkpoint")
        self.memory.save(self.step, state, pinned=(self.config.decay_start,))

    def finish(self) -> None:
        """Wait for the last checkpoint."""
        self.beat("finishing a checkpoint")
        self.memory.saver.wait()

    def metrics(self, seconds: float) -> dict[str, Any]:
        trained = (self.step - self.resumed) * self.config.batch_tokens
        return {
            "parameters": self.parameters,
            "steps": self.step,
            "tokens": self.tokens,
            "flops": self.flops_per_token * self.tokens,
            "loss": self.loss,
            "skipped_steps": self.skipped,
            "rollbacks": len(self.skips),
            "slow_ranks": sorted(self.stragglers.named),
            "tokens_per_second": trained / max(seconds, 1e-9),
        }


def _sum_over_ranks(value: float) -> float:
    total = torch.tensor(value, dtype=torch.float64)
    if torch.distributed.get_backend() == "nccl":
        total = total.cuda()
    dist.all_reduce(total)
    return total.item()
