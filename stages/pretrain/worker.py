"""One worker of a run: its model, engine and counts, and what it does in each part of a step.

Made anew, or taken up from the newest checkpoint; `stages.pretrain.loop` says in which order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from cluster.board import report
from cluster.errors import UserError
from cluster.rank import Leaving, told_to_leave
from cluster.watch import Stragglers, Watch
from model.acceleration import accelerate
from model.config import ModelConfig
from model.flops import Precision
from model.hollow import hollow
from model.moe import BALANCE_RATE, balance_experts
from model.schedule import learning_rate
from stages.pretrain import DECAY_FRACTION, Config
from stages.pretrain.data import HeldoutText, TrainingSet
from stages.pretrain.evaluation import Stopping, heldout_losses, losses_by_source
from stages.pretrain.seen import Seen
from stages.pretrain.tasks import Question, accuracies
from stages.text.token_shards import TokenBatch
from stages.tune.checkpoint import Checkpoint
from stages.tune.decoder import Rows, TrainedDecoder
from stages.tune.engine import client_optimizer, divided, start_engine
from stages.tune.exchange_clock import ExchangeClock
from stages.tune.first_weights import FirstWeights
from stages.tune.fragments import pieces, place_of, whole_shapes
from stages.tune.guards import Guard, Skip
from stages.tune.journal import Journal, read_journal
from stages.tune.memory import TrainingMemory
from stages.tune.mesh import Mesh
from stages.tune.muon import LEARNING_RATE_SCALE
from stages.tune.passes import passes_of
from stages.tune.pipeline import renaming
from stages.tune.precision import uses_bfloat16
from stages.tune.work_clock import WorkClock


class Worker:
    """One worker's model, engine and counts: made anew, or taken up from the newest checkpoint."""

    def __init__(
        self, config: Config, job: dict[str, Any], data: TrainingSet, watch: Watch
    ) -> None:
        self.config, self.data = config, data
        self._watch = watch
        self.seed: int = job["seed"]
        self.scratch = Path(job["scratch"])
        self.tasks: dict[str, list[Question]] = job.get("tasks", {})
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.device = torch.device("cuda" if config.parallel.gpu else "cpu")
        self.milestones = (config.decay_start, config.steps)
        self.shape = ModelConfig.model_validate(job["shape"])
        torch.manual_seed(job["seed"])
        self.mesh = Mesh.of(config.parallel)
        self.bfloat16 = uses_bfloat16(config.precision, config.parallel.gpu)
        start = job.get("start")
        first = FirstWeights.of_folder(start) if start else FirstWeights.drawn(self.shape)
        model = hollow(
            lambda: TrainedDecoder(self.shape, config.parallel, self.bfloat16), self.device
        )
        self._accelerate(model)
        shapes = whole_shapes(model)
        module, groups = divided(model, self.mesh, self.device)
        optimizer = client_optimizer(
            module, config.learning_rate, config.weight_decay, config.optimizer, self.bfloat16
        )
        self.clip_norm = config.clip_norm if config.optimizer == "adamw" else 0.0
        accumulation = config.parallel.micro_batches(config.rows, self.mesh.data)
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
            self.shape.model_dump(mode="json"), config.checkpoints.last, config.checkpoints.every,
            renaming(self.mesh), lambda: self.beat("a checkpoint, loaded or waited for", long=True),
        )  # fmt: skip
        self.exchanges = ExchangeClock(self.device)
        self.clock = WorkClock(self.exchanges)
        self.stragglers = Stragglers(self.world, config.watch.slow_ratio, self.mesh.pipeline)
        self._take_up(self.memory.take_up(self._fits, first))
        self.resumed = self.saved = self.step
        self.trained = 0
        """Tokens of this launch, those of steps that it went back from too."""

    def _fits(self, checkpoint: Checkpoint) -> bool:
        """Whether this run had, up to the checkpoint, its learning rates and its data."""
        step, steps = checkpoint.step, checkpoint.state["steps"]
        return self.config.shares_course(step, steps) and self.data.shares_order(step, steps)

    def _accelerate(self, model: TrainedDecoder) -> None:
        """Compile layers, and let them multiply in float8, as the config says."""
        float8 = self.config.precision == "float8"
        try:
            accelerate(
                model, compiled=self.config.parallel.compiles, float8=float8,
                recompute=model.model.recompute, device=self.device,
            )  # fmt: skip
        except ValueError as error:
            raise UserError(f"precision is float8: {error}") from error

    def _take_up(self, state: Mapping[str, Any]) -> None:
        self.step: int = state.get("step", 0)
        self.tokens: int = state.get("tokens", 0)
        self.skipped: int = state.get("skipped", 0)
        self.loss: float = state.get("loss", float("nan"))
        self.skips: list[Skip] = list(state.get("skips", ()))
        self.guard = Guard(self.config.guards, self.world, state.get("guard"))
        self.stopping = Stopping(self.config.early_stop, state.get("heldout_losses", ()))

    @property
    def precision(self) -> Precision:
        """What passes are computed in, float8's too where layers do not multiply; its bfloat16
        peak is what MFU is of.
        """
        return "bfloat16" if self.bfloat16 else "float32"

    @property
    def goes_on(self) -> bool:
        """Whether there is another step to take."""
        return self.step < self.config.steps and not self.stopping.due

    @property
    def is_to_save(self) -> bool:
        """Whether a checkpoint of the step now reached is due.

        While steps are refused it waits: it would push out what the run may have to go back to.
        """
        every = self.config.checkpoint_every
        waiting = self.step // every > self.saved // every
        return self.step in self.milestones or (waiting and not self.guard.refused)

    def beat(self, doing: str, long: bool = False, shape: Hashable = None) -> None:
        self._watch.beat(doing, long, shape)

    @contextlib.contextmanager
    def working(self, doing: str, shape: Hashable = None) -> Iterator[None]:
        """Time spent inside is this rank's own, whatever the others do; for a new `shape` it may
        have to compile.
        """
        self.beat(doing, shape=shape)
        with self.clock.running():
            yield
        self.beat(f"what follows {doing}", shape=shape)

    def batch(self) -> TokenBatch:
        """This rank's rows of the step's batch, which is another one after data was skipped."""
        mesh = self.mesh
        return self.data.batch(self.step, self.skips, mesh.data_rank, mesh.data)

    def evaluate(self, heldout: Mapping[str, HeldoutText]) -> dict[str, float]:
        """Held-out losses, and accuracies of the tasks."""
        return heldout_losses(self, heldout) | accuracies(self, self.tasks)

    def losses_by_source(self, batch: TokenBatch) -> dict[str, float]:
        """The loss of the step's rows by source, where there are several; before the step."""
        if len(self.data.names) == 1:
            return {}
        mesh = self.mesh
        rows = self.data.row_sources(self.step, mesh.data_rank, mesh.data)
        return losses_by_source(self, batch, rows, self.data.names)

    def judge(self, seen: Seen) -> None:
        """Hand the step's losses to the guard, which has no measure for a new phase's yet."""
        if self.data.begins_a_phase(self.step):
            self.guard.forget()
        self.guard.judge(seen.loss, seen.by_rank)

    def share(self, rows: Rows, loss_sum: float, predicted: float, flops: float) -> Seen:
        """What all ranks see of the step, of which each brings its own part; the FLOPs are those of
        its rows, which all ranks of a data group name alike.
        """
        even = self.config.rows / self.mesh.data / len(rows[0])  # some ranks may have a row more
        work_s, own_flops = self.clock.take() * even, flops * self.mesh.data / self.world
        return Seen.by_all(loss_sum, predicted, work_s, own_flops, told_to_leave(), self.device)

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

    def count(self, seen: Seen, norm: float, taken: bool) -> None:
        self.tokens += self.config.batch_tokens
        self.trained += self.config.batch_tokens
        self.skipped += not taken
        self.loss = seen.loss if taken else self.loss
        self.guard.count(seen.loss, seen.by_rank, norm, taken)
        load = balance_experts(self.engine.module, BALANCE_RATE if taken else 0.0)
        self.load: dict[str, float] = {"expert_load": load} if self.shape.num_experts else {}

    def tell(self, journal: Journal, seen: Seen, taken: bool) -> None:
        """Log a skipped step and a rank that has become slow."""
        if not taken:
            journal.event("skipped", self.step, why=self.guard.reason)
        for rank, times in self.stragglers.observe(seen.work_s).items():
            host = self.memory.hosts[rank]
            journal.event("slow", self.step, rank=rank, host=host, times=round(times, 2))
            report({}, self.step, self.config.steps, f"rank {rank} on {host} is {times:.1f}x slow")

    def go_back(self, journal: Journal) -> None:
        """Return to a checkpoint before the refused steps, and to other data than led to them."""
        config, last = self.config, self.step - 1
        before = last - self.guard.refused + 1
        if self.skips and before <= self.skips[-1]["first"]:
            before = self.skips[-1]["first"] - 1  # no step was taken since: further back
        failed = f"{self.guard.refused} steps in a row were refused, up to step {last}"
        if len(self.skips) >= config.guards.rollbacks:
            raise UserError(
                f"{failed}, after {len(self.skips)} rollbacks: the run diverges; lower "
                "learning_rate, warm up longer, or look at events.jsonl for the reasons"
            )
        self.beat("going back to a checkpoint", long=True)
        state = self.memory.go_back(lambda c: c.step <= before and self._fits(c))
        if state is None:
            raise UserError(
                f"{failed}, and there is no checkpoint at or before step {before} to go back to: "
                "lower learning_rate or warm up longer; or save more often (checkpoint_every) and "
                "keep more (checkpoints.last)"
            )
        skip: Skip = {"first": state["step"], "last": last}
        seen = {"skips": [*self.skips, skip], "skipped": self.skipped}
        self._take_up({**state, **seen})
        self.saved, self.guard.refused = self.step, 0
        journal.event("rolled back", last, **skip)
        journal.rewind(self.step)

    def save(self) -> None:
        every = self.config.checkpoint_every
        late = self.step % every if self.step // every > self.saved // every else 0
        due = self.step - late  # the step that it stands for, where steps were refused
        state = {
            "steps": self.config.steps, "tokens": self.tokens, "skipped": self.skipped,
            "loss": self.loss, "skips": self.skips, "guard": self.guard.state(),
            "heldout_losses": self.stopping.losses,
            "workers": self.world, "zero": self.config.parallel.zero, "due": due,
        }  # fmt: skip
        self.beat("copying a checkpoint")
        self.memory.save(self.step, state, pinned=(self.config.decay_start,))
        self.saved = self.step

    def make_way(self, seen: Seen, journal: Journal) -> None:
        """Where a rank was told to leave: commit the step now reached, and end the group, which
        starts again on other nodes or at another size. While steps are refused it stays, as their
        checkpoint would push out the one to go back to.

        Raises Leaving.
        """
        if not seen.leaving or self.guard.refused:
            return
        if self.saved < self.step:
            self.save()
        self.finish()
        hosts = sorted({self.memory.hosts[rank] for rank in seen.leaving})
        journal.event("leaving", self.step, ranks=seen.leaving, hosts=hosts)
        said = f"ranks {seen.leaving} on {', '.join(hosts)} leave: the group starts again"
        report({}, self.step, self.config.steps, said)
        raise Leaving(said)

    def finish(self) -> None:
        """Wait for the last checkpoint."""
        self.memory.finish()

    def metrics(self, seconds: float) -> dict[str, Any]:
        """Of the run; `tokens_per_second` is this launch's, or the last logged where all steps
        were done before it.
        """
        speed = self.trained / max(seconds, 1e-9)
        if not self.trained and (logged := read_journal(self.scratch)):
            speed = logged[-1]["tokens_per_second"]
        return {
            "parameters": self.parameters,
            "steps": self.step,
            "tokens": self.tokens,
            "flops": self.flops_per_token * self.tokens,  # of whole rows: at most so many
            "loss": self.loss,
            "skipped_steps": self.skipped,
            "rollbacks": len(self.skips),
            "skips": self.skips,
            "slow_ranks": sorted(self.stragglers.named),
            "tokens_per_second": speed,
        }
