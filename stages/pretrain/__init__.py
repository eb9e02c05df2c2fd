"""pretrain: tokens -> a base model, under Ray Train with DeepSpeed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from stages.pretrain.shape import DEFAULT_SHAPE, Shape
from stages.stage import Stage, StageConfig, duration, execution, parent
from stages.text.mixture import Mixture
from stages.tune.guards import Guards
from stages.tune.parallel import Parallel
from stages.tune.precision import Precision, check_float8
from stages.tune.sinks import Reporting
from stages.tune.watching import Watching

DECAY_FRACTION = 0.3
"""The part of a warmup-stable-decay run in which the learning rate falls."""
BATCH_TOKENS = 8192
FACTS = "facts"
"""The task that is always at hand: questions about the sample crawl's world."""


class Retention(StageConfig):
    """Which checkpoints stay: the newest `last`, and those of every `every`-th step (0: none)."""

    last: int = Field(default=2, ge=1)
    every: int = Field(default=0, ge=0)

    def most(self, steps: int, saved_every: int) -> int:
        """How many lie there at once in a run of so many steps: those kept, the one from which a
        longer run would go on, and the one that is being written.
        """
        return self.last + 2 + (steps // math.lcm(self.every, saved_every) if self.every else 0)


class EarlyStop(StageConfig):
    """End the run when so many evaluations brought no lower held-out loss."""

    every: int = Field(default=100, ge=1)
    """Steps between evaluations."""
    patience: int = Field(default=3, ge=1)
    min_improvement: float = Field(default=0.0, ge=0)
    """In nats per token: what falls by less counts as nothing."""


class Config(StageConfig):
    """Base training. One step takes `batch_tokens` tokens in rows of `sequence_length`.

    A run is as long as `steps` says, or the recipe's `train_tokens` in its place. Without a
    `mixture`, all `tokens` are read by their size, epoch after epoch.
    """

    tokens: str | list[str] = parent("tokens", many=True)
    tokenizer: str | None = parent("tokenizer", optional=True)
    start: str | None = parent("checkpoint", optional=True)
    """A model to train on from (an imported Hugging Face folder, say); its shape stands for
    `model`."""
    model: Shape = DEFAULT_SHAPE
    mixture: Mixture | None = None
    """Shares of the sources within the tokens, of whole tokens artifacts, or both."""
    steps: int = duration(ge=1)
    batch_tokens: int = Field(default=BATCH_TOKENS, ge=1)
    sequence_length: int = Field(default=256, ge=2)
    learning_rate: float = Field(default=4e-3, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    warmup_steps: int = Field(default=20, ge=0)
    schedule: Literal["wsd", "cosine", "linear"] = "wsd"
    optimizer: Literal["adamw", "muon"] = "adamw"
    clip_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm. With muon there is nothing to clip: its updates have
    one size."""
    precision: Precision | Literal["float8"] = "float32"
    heldout_tokens: int = Field(default=1 << 16, ge=1)
    early_stop: EarlyStop | None = None
    evaluate_every: int = execution(0, ge=0)
    """Steps between evaluations: held-out losses by source, and `tasks`; 0: at the end, and as
    `early_stop` says."""
    tasks: list[str] = execution([])
    """Multiple-choice tasks of every evaluation: "facts", or JSONL files with lines of {"question",
    "choices", "answer" (an index)}."""
    task_questions: int = execution(64, ge=1)
    """Questions of each task, the first ones of a file."""
    metrics: Reporting = execution(Reporting())
    parallel: Parallel = execution(Parallel())
    checkpoint_every: int = execution(200, ge=1)
    checkpoints: Retention = execution(Retention())
    watch: Watching = execution(Watching())
    guards: Guards = Guards()

    @model_validator(mode="before")
    @classmethod
    def _duration_in_tokens(cls, written: Any) -> Any:
        """`train_tokens` as whole steps, rounded up, so that both ways name the same run."""
        if not isinstance(written, dict) or "train_tokens" not in written:
            return written
        if written["train_tokens"] is None:
            return {name: value for name, value in written.items() if name != "train_tokens"}
        rest = {name: value for name, value in written.items() if name != "train_tokens"}
        tokens, batch = written["train_tokens"], written.get("batch_tokens", BATCH_TOKENS)
        if rest.get("steps") is not None:
            raise ValueError(
                f"both steps ({rest['steps']}) and train_tokens ({tokens}) are given: keep one and "
                "set the other to null"
            )
        if type(tokens) not in (int, float) or not 1 <= tokens < math.inf:
            raise ValueError(f"train_tokens is {tokens!r}: give a number of tokens from 1")
        if isinstance(batch, float) and batch.is_integer():
            batch = int(batch)
        if not isinstance(batch, int) or batch < 1:
            return rest | {"steps": 1}  # batch_tokens' own check says what is wrong with it
        return rest | {"steps": -(-int(tokens) // batch)}

    @model_validator(mode="before")
    @classmethod
    def _mixture_of_tokens(cls, written: Any) -> Any:
        """A mixture of several tokens, with their names."""
        if isinstance(written, dict) and "phases" in written:
            raise ValueError(
                "phases stands beside mixture: write it inside, mixture: {weights: {...}, phases: "
                "[{begin: decay, weights: {...}}]}"
            )
        if not isinstance(written, dict) or not isinstance(written.get("mixture"), dict):
            return written
        tokens = written.get("tokens")
        names = tokens if isinstance(tokens, list) and len(tokens) > 1 else []
        return written | {"mixture": written["mixture"] | {"tokens": names}}

    @model_validator(mode="after")
    def _check(self) -> Config:
        if self.batch_tokens % self.sequence_length:
            raise ValueError(
                f"batch_tokens is {self.batch_tokens}, not a multiple of sequence_length "
                f"{self.sequence_length}: a batch is whole rows"
            )
        if self.start is None:
            self.check_shape(self.model.sizes(vocabulary_size=1))
        elif self.model != DEFAULT_SHAPE:
            raise ValueError(
                f"both start ({self.start}) and model are given: a run that goes on from a model "
                "has its shape; leave out one of them"
            )
        self._check_batch()
        self._check_mixture()
        if self.warmup_steps > self.steps:
            raise ValueError(
                f"warmup_steps is {self.warmup_steps} but the run has {self.steps} steps: warm up "
                "for fewer"
            )
        return self

    def _check_batch(self) -> None:
        data, stages = self.parallel.data, self.parallel.pipeline
        if self.rows < data:
            raise ValueError(
                f"a batch of {self.batch_tokens} tokens is {self.rows} rows, too few for "
                f"{data} workers that each take their own: raise batch_tokens or lower "
                "parallel.workers"
            )
        if stages > 1 and self.rows % data:
            raise ValueError(
                f"a batch of {self.batch_tokens} tokens is {self.rows} rows, not a multiple of the "
                f"{data} pipelines (parallel.workers {self.parallel.workers} over {stages} "
                "stages), which all run equal micro-batches: change batch_tokens or "
                "parallel.workers"
            )

    def check_shape(self, sizes: Mapping[str, Any]) -> None:
        """Raise ValueError where a model of these sizes cannot be trained as this config says."""
        self.parallel.check_sizes(sizes, self.sequence_length)
        self.parallel.check_optimizer(self.optimizer, sizes)
        if self.precision == "float8":
            check_float8(self.parallel, sizes, self.sequence_length)
        context = sizes["max_position_embeddings"]
        if context < self.sequence_length:
            raise ValueError(
                f"sequence_length is {self.sequence_length}, longer than the model's "
                f"max_position_embeddings {context}: raise that, or shorten it"
            )

    def _check_mixture(self) -> None:
        if not self.tokens_names:
            raise ValueError("tokens is an empty list: name at least one tokens artifact")
        if len(set(self.tokens_names)) < len(self.tokens_names):
            raise ValueError(
                f"tokens names {self.tokens_names}, one of them twice: give it a larger weight or "
                "more epochs in mixture instead"
            )
        if self.mixture is None:
            return
        if self.schedule != "wsd" and any(p.begin == "decay" for p in self.mixture.phases):
            raise ValueError(
                f"a phase begins at decay, which the schedule {self.schedule} has not: give a step"
            )
        self.mixture.stretches(self.decay_start)
        for name in sorted(self.mixture.names()) if len(self.tokens_names) > 1 else ():
            if name.partition("/")[0] not in self.tokens_names:
                raise ValueError(
                    f"mixture names {name!r}; expected one of tokens "
                    f"({', '.join(self.tokens_names)}), or NAME/SOURCE for a source of one"
                )

    @property
    def tokens_names(self) -> list[str]:
        """The recipe's names of the tokens, in order."""
        return [self.tokens] if isinstance(self.tokens, str) else list(self.tokens)

    def evaluates_at(self, step: int) -> bool:
        """Whether the held-out loss is measured once `step` steps are done."""
        often = [self.evaluate_every, self.early_stop.every if self.early_stop else 0]
        return any(every and step % every == 0 for every in often)

    @property
    def decay_start(self) -> int:
        """The step at which a warmup-stable-decay run's learning rate begins to fall."""
        return max(self.warmup_steps, self.steps - round(DECAY_FRACTION * self.steps))

    def shares_course(self, step: int, steps: int) -> bool:
        """Whether a run of `steps` steps had, up to `step`, the learning rates this one has."""
        if steps == self.steps:
            return True
        other = self.model_copy(update={"steps": steps})
        return self.schedule == "wsd" and step <= min(self.decay_start, other.decay_start)

    @property
    def rows(self) -> int:
        """Sequences per step, over all workers."""
        return self.batch_tokens // self.sequence_length


STAGE = Stage(
    name="pretrain",
    kind="checkpoint",
    version=2,
    config=Config,
    entry="stages.pretrain.run:run",
)
