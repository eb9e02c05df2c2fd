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

import torch
import torch.distributed as dist

from cluster.errors import UserError
from cluster.trainer import BOARD, report
from cluster.watch import Stragglers, Watch
from model import pretrained
from model.config import ModelConfig
from model.moe import balance_experts
from model.schedule import learning_rate
from stages.pretrain import DECAY_FRACTION, Config
from stages.pretrain.data import HeldoutText, TrainingSet, folders_of, heldout_sets
from stages.pretrain.evaluation import HELDOUT, Stopping, heldout_losses, losses_by_source
from stages.pretrain.meter import StepMeter
from stages.text.token_shards import TokenBatch
from stages.tune.checkpoint import Checkpoint
from stages.tune.decoder import Rows, TrainedDecoder
from stages.tune.engine import (
    LEARNING_RATE_SCALE,
    StepGuard,
    client_optimizer,
    divided,
    start_engine,
)
from stages.tune.fragments import pieces, place_of, whole_shapes
from stages.tune.guards import Guard, Skip, batch_number
from stages.tune.journal import Journal
from stages.tune.memory import TrainingMemory
from stages.tune.mesh import Mesh, sum_over_ranks
from stages.tune.passes import micro_batches, passes_of
from stages.tune.pipeline import renaming
from stages.tune.precision import uses_bfloat16
from stages.tune.work_clock import WorkClock

REPORT_S = 2.0
NORM_NAMES = {"adamw": "gradient_norm", "muon": "update_norm"}
"""What DeepSpeed takes the norm of: with Muon, gradients are already made into updates."""


def train(job: dict[str, Any]) -> None:
    """Train the model a job describes (see `stages.pretrain.run`) and report its metrics."""
    config = Config.model_validate(job["config"])
    data = TrainingSet(config, folders_of(job["tokens"]), job["seed"])
    heldout = heldout_sets(config, folders_of(job["heldout"]))
    with contextlib.ExitStack() as stack:
        run = _Run(config, job, data, stack.enter_context(_watch(config, job)))
        meter = StepMeter(
            run.shape,
            config.sequence_length,
            "bfloat16" if run.bfloat16 else "float32",
            run.world,
            run.device,
        )
        stack.enter_context(meter.exchanges.exchanging())
        stopping = Stopping(config.early_stop, run.scratch, run.step)
        journal = stack.enter_context(
            Journal(run.scratch, run.step, active=run.rank == 0, reporting=config.metrics)
        )
        take = StepGuard(run.engine, run.clip_norm)
        started, reported = time.monotonic(), 0.0
        if run.resumed:
            journal.event("resumed", run.step, workers=run.world)
        while run.step < config.steps and not stopping.due:
            begun = meter.begin()
            rate = run.set_learning_rate()
            with run.working("reading a batch"), meter.reading():
                batch = run.batch()
            rows = run.tensors(batch)
            own_predicted = run.passes.predicted(rows)
            predicted = sum_over_ranks(own_predicted)
            own_loss = run.passes.gradients(rows, predicted, lambda: run.working("forward"))
            seen = run.share(own_loss, own_predicted)
            run.guard.judge(seen.loss, seen.by_rank)
            norm, taken = take.step(run.guard.accepts)
            run.count(seen, norm, taken)
            seconds = time.monotonic() - begun
            measured = meter.numbers(config.batch_tokens, seconds)
            if config.evaluates_at(run.step + 1):
                measured |= run.evaluate(batch, heldout)
                stopping.saw(run.step, measured[HELDOUT])
            journal.write(
                run.step, loss=seen.loss, learning_rate=rate, tokens=run.tokens,
                skipped=run.skipped, **{NORM_NAMES[config.optimizer]: norm}, **measured,
            )  # fmt: skip
            run.tell(journal, seen, taken)
            run.step += 1
            if run.guard.must_go_back:
                run.go_back(journal)
            elif (
                run.step % config.checkpoint_every == 0
                or run.step in run.milestones
                or stopping.due
            ):
                run.save()
            if time.monotonic() - reported > REPORT_S:
                reported = time.monotonic()
                speed = f"{measured['tokens_per_second']:,.0f} tokens/s"
                report({}, run.step, config.steps, f"loss {run.loss:.3f}, {speed}")
        run.finish()
        seconds = time.monotonic() - started
        metrics = run.metrics(seconds) | heldout_losses(run, heldout)
    if stopping.due:
        metrics["stopped_early_at"] = run.step
    report(metrics, config.steps, config.steps, "trained")


def _watch(config: Config, job: dict[str, Any]) -> Watch:
    """The thread that ends this process when it makes no progress."""
    folder = Path(os.environ.get(BOARD, Path(job["scratch"]) / "watch"))
    limits = config.watch
    return Watch(folder, dist.get_rank(), dist.get_world_size(), limits.hang_s, limits.start_s)


@dataclass(frozen=True)
class _Seen:
    """One step as all ranks see it: mean loss, that of each rank with tokens, seconds of work."""

    loss: float
    by_rank: dict[int, float]
    work_s: list[float]


class _Run:
    """One worker's model, engine and counts: made anew, or taken up from the newest checkpoint."""

    def __init__(
        self, config: Config, job: dict[str, Any], data: TrainingSet, watch: Watch
    ) -> None:
        self.config, self.data = config, data
        self._watch = watch
        self.seed: int = job["seed"]
        self.scratch = Path(job["scratch"])
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.device = torch.device("cuda" if config.parallel.gpu else "cpu")
        self.milestones = (config.decay_start, config.steps)
        self.shape = ModelConfig.model_validate(job["shape"])
        torch.manual_seed(job["seed"])
        self.mesh = Mesh.of(config.parallel)
        self.bfloat16 = uses_bfloat16(config.precision, config.parallel.gpu)
        model = TrainedDecoder(self.shape, config.parallel, self.bfloat16)
        if job.get("start"):
            model.load_state_dict(pretrained.load(job["start"]).state_dict())
        if self.mesh.tensor == self.mesh.pipeline == 1:  # else a device takes its part alone
            model.to(self.device)
        shapes = whole_shapes(model)
        module, groups = divided(model, self.mesh)
        optimizer = client_optimizer(
            module, config.learning_rate, config.weight_decay, config.optimizer
        )
        self.clip_norm = config.clip_norm if config.optimizer == "adamw" else 0.0
        accumulation = micro_batches(config.rows, config.parallel.rows, self.mesh)
        self.engine = start_engine(
            module, optimizer, config.parallel, accumulation, self.clip_norm,
            self.shape.hidden_size, groups,
        )  # fmt: skip
        self.passes = passes_of(self.engine, self.mesh, accumulation)
        self.parameters = self.shape.parameters()
        self.flops_per_token = self.shape.flops_per_token(config.sequence_length)
        self.memory = TrainingMemory(
            job.get("checkpoints", str(self.scratch / "checkpoints")), self.scratch / "fetched",
            self.engine, pieces(self.engine, shapes, place_of(self.engine), renaming(self.mesh)),
            self.shape.model_dump(), config.checkpoints.last, config.checkpoints.every,
            renaming(self.mesh),
        )  # fmt: skip
        self.clock = WorkClock(self.device)
        self.stragglers = Stragglers(self.world, config.watch.slow_ratio)
        self._take_up(self.memory.take_up(self._fits))
        self.resumed = self.step

    def _fits(self, checkpoint: Checkpoint) -> bool:
        """Whether this run had, up to the checkpoint, its learning rates and its data."""
        step, steps = checkpoint.step, checkpoint.state["steps"]
        return self.config.shares_course(step, steps) and self.data.shares_order(step, steps)

    def _take_up(self, state: Mapping[str, Any]) -> None:
        self.step: int = state.get("step", 0)
        self.tokens: int = state.get("tokens", 0)
        self.skipped: int = state.get("skipped", 0)
        self.loss: float = state.get("loss", float("nan"))
        self.skips: list[Skip] = list(state.get("skips", ()))
        self.guard = Guard(self.config.guards, self.world, state.get("guard"))

    def beat(self, doing: str) -> None:
        self._watch.beat(doing)

    @contextlib.contextmanager
    def working(self, doing: str) -> Iterator[None]:
        """Time spent inside is this rank's own, whatever the others do."""
        self.beat(doing)
        with self.clock.running():
            yield
        self.beat(f"what follows {doing}")

    def batch(self) -> TokenBatch:
        """This rank's rows of the step's batch, which is another one after data was skipped."""
        mesh = self.mesh
        return self.data.batch(self.step, self.skips, mesh.data_rank, mesh.data)

    def evaluate(self, batch: TokenBatch, heldout: Mapping[str, HeldoutText]) -> dict[str, float]:
        """Held-out losses, and that of the batch's rows by source where there are several."""
        found = heldout_losses(self, heldout)
        if len(self.data.names) > 1:
            mesh = self.mesh
            rows = self.data.row_sources(self.step, self.skips, mesh.data_rank, mesh.data)
            found |= losses_by_source(self, batch, rows, self.data.names)
        self.clock.take()  # not this step's work
        return found

    def share(self, loss_sum: float, predicted: float) -> _Seen:
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

    def tensors(self, batch: TokenBatch) -> Rows:
        """(input ids, labels, document ids) on this worker's device."""
        arrays = (batch.input_ids, batch.labels, batch.document_ids)
        ids, labels, documents = (torch.from_numpy(array).to(self.device) for array in arrays)
        return ids, labels, documents

    def count(self, seen: _Seen, norm: float, taken: bool) -> None:
        self.tokens += self.config.batch_tokens
        self.skipped += not taken
        self.loss = seen.loss if taken else self.loss
        self.guard.count(seen.loss, seen.by_rank, norm, taken)
        if taken:
            balance_experts(self.engine.module)

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
        state = self.memory.go_back(lambda c: c.step <= before and self._fits(c))
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
            "skips": self.skips,
            "slow_ranks": sorted(self.stragglers.named),
            "tokens_per_second": trained / max(seconds, 1e-9),
        }
