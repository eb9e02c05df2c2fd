"""The parallel shape of a training run, as a recipe writes it. Imports nothing heavy.

Workers = data x tensor x pipeline x sequence. Ranks of one tensor, pipeline or sequence group work
on the same rows and together hold (or compute) one copy of the model; the data degree is what is
left, and ZeRO divides over it. What DeepSpeed cannot combine is refused here, by name, when the
recipe is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from stages.stage import StageConfig

Place = Literal["cpu"]
"""Not DeepSpeed's nvme: what it has swapped to disk a checkpoint cannot reach."""
HEADS = ("num_attention_heads", "num_key_value_heads")


class Parallel(StageConfig):
    """`workers` ranks (a pair: elastic, minimum and maximum) and how they share the work.

    `threads` is torch's intra-op threads in each worker; `rows` is how many sequences one worker
    puts through the model at a time (the batch is split into as many micro-batches as that takes).
    """

    workers: int | tuple[int, int] = 1
    zero: Literal[0, 1, 2, 3] = 0
    """ZeRO stage (arXiv:1910.02054): what is divided over the data degree. 1: optimizer states,
    2: gradients too, 3: weights too."""
    tensor: int = Field(default=1, ge=1)
    """Tensor parallel degree (DeepSpeed's AutoTP): heads and feed-forward columns are divided."""
    pipeline: int = Field(default=1, ge=1)
    """Pipeline stages (DeepSpeed's PipelineModule): layers are divided."""
    sequence: int = Field(default=1, ge=1)
    """Sequence parallel degree (Ulysses, arXiv:2309.14509): positions are divided, and heads while
    they attend."""
    activation_checkpointing: bool = False
    """Keep only each layer's input and compute the rest again in the backward pass."""
    compiled: bool | None = None
    """Compile each layer (torch.compile). Unset: on GPUs, where no hook of DeepSpeed's stands in
    the way; on processors a run must be long to earn the compiler's minute."""
    offload_optimizer: Place | None = None
    """Where optimizer states live and are updated instead of on the accelerator; ZeRO 1-3. It is
    updated by `threads` cores: give each GPU's share of the machine's."""
    offload_weights: Place | None = None
    """Where weights wait until a layer needs them; ZeRO 3."""
    threads: int = Field(default=1, ge=1)
    rows: int = Field(default=16, ge=1)
    gpu: bool = False

    @model_validator(mode="after")
    def _check(self) -> Parallel:
        least, most = self.bounds
        if not 1 <= least <= most:
            raise ValueError(
                f"parallel.workers is {self.workers}: give a number from 1, or [least, most]"
            )
        self._check_degrees()
        self._check_offload()
        if self.compiled and self.opaque:
            raise ValueError(
                f"parallel.compiled is true with {self.opaque}: a compiler cannot see through what "
                "DeepSpeed puts around a layer there; leave compiled out"
            )
        return self

    def _check_degrees(self) -> None:
        degrees = {"tensor": self.tensor, "pipeline": self.pipeline, "sequence": self.sequence}
        used = {name: degree for name, degree in degrees.items() if degree > 1}
        said = " and ".join(f"parallel.{name} {degree}" for name, degree in used.items())
        if len(used) > 1:
            raise ValueError(
                f"{said} were asked for together; DeepSpeed combines each of tensor, pipeline and "
                "sequence parallelism with data parallelism only: keep one of them"
            )
        if not used:
            return
        if not isinstance(self.workers, int):
            raise ValueError(
                f"parallel.workers is {list(self.workers)} with {said}: an elastic group may take "
                f"any size between; give one number, a multiple of {self.model_ranks}"
            )
        if self.workers % self.model_ranks:
            raise ValueError(
                f"parallel.workers is {self.workers}, not a multiple of {said}: workers are data "
                f"degree times {self.model_ranks}"
            )
        if self.pipeline > 1 and self.zero > 1:
            raise ValueError(
                f"parallel.pipeline {self.pipeline} with parallel.zero {self.zero}: DeepSpeed's "
                "pipeline keeps gradients whole until the batch's end; use zero 0 or 1"
            )

        if self.sequence > 1 and self.zero == 3:
            raise ValueError(
                f"parallel.sequence {self.sequence} with parallel.zero 3: DeepSpeed 0.19's reduce-"
                "scatter averages gradients over sequence ranks that must be summed; use zero 0, 1 "
                "or 2"
            )

    def _check_offload(self) -> None:
        if self.offload_optimizer and not self.zero:
            raise ValueError(
                "parallel.offload_optimizer is set with parallel.zero 0: what is offloaded is what "
                "ZeRO divides; use zero 1, 2 or 3"
            )
        if self.offload_weights and self.zero != 3:
            raise ValueError(
                f"parallel.offload_weights is set with parallel.zero {self.zero}: only ZeRO 3 "
                "divides weights; use zero 3"
            )

    @property
    def bounds(self) -> tuple[int, int]:
        """(least, most) workers."""
        if isinstance(self.workers, int):
            return self.workers, self.workers
        return self.workers

    @property
    def model_ranks(self) -> int:
        """Ranks that work on the same rows."""
        return self.tensor * self.pipeline * self.sequence

    @property
    def opaque(self) -> str | None:
        """The setting for which DeepSpeed reaches into layers, to divide or gather what is in them;
        None where layers stay as they are.
        """
        degrees = {"tensor": self.tensor, "pipeline": self.pipeline, "sequence": self.sequence}
        found = [f"parallel.{name} {degree}" for name, degree in degrees.items() if degree > 1]
        return next(iter(found), "parallel.zero 3" if self.zero == 3 else None)

    @property
    def compiles(self) -> bool:
        """Whether layers are compiled."""
        return self.gpu and not self.opaque if self.compiled is None else self.compiled

    @property
    def data(self) -> int:
        """The data parallel degree, of the largest group where elastic."""
        return self.bounds[1] // self.model_ranks

    def micro_batches(self, rows: int, data: int) -> int:
        """In how many pieces, of at most `self.rows` rows, each of `data` groups takes its share of
        a step's `rows`. A pipeline's pieces are equal: its stages hand over buffers of one shape.
        """
        share = -(-rows // data)
        count = -(-share // self.rows)
        while self.pipeline > 1 and share % count:
            count += 1
        return count

    def check_optimizer(self, kind: str, sizes: Mapping[str, Any]) -> None:
        """Raise ValueError where DeepSpeed cannot run the optimizer on this shape, or not with a
        model of these sizes.
        """
        if kind == "muon" and sizes.get("num_experts"):
            raise ValueError(
                f"optimizer is muon and the model has {sizes['num_experts']} experts: they are "
                "stacked in one tensor, and DeepSpeed's Muon takes matrices; use adamw"
            )
        if kind == "muon" and self.offload_optimizer:
            raise ValueError(
                f"optimizer is muon with parallel.offload_optimizer {self.offload_optimizer}: "
                "DeepSpeed lays Muon's momentum out otherwise there, which a checkpoint cannot "
                "describe; use adamw, or leave offload out"
            )
        if kind == "muon" and self.tensor > 1:
            raise ValueError(
                f"optimizer is muon with parallel.tensor {self.tensor}: Muon orthogonalises whole "
                "matrices and a rank has slices of them; use adamw, or tensor 1"
            )

    def check_sizes(self, sizes: Mapping[str, Any], sequence_length: int) -> None:
        """Raise ValueError where the model or the sequence cannot be divided as asked.

        `sizes` are fields of `model.config.ModelConfig`.
        """
        self._check_kind(sizes)
        divided: list[tuple[str, str]] = []
        if self.tensor > 1:
            divided += [(name, "tensor") for name in (*HEADS, "intermediate_size")]
        if self.sequence > 1:
            divided += [(name, "sequence") for name in (*HEADS, "sequence_length")]
        known = {**sizes, "sequence_length": sequence_length}
        for name, field in divided:
            degree = getattr(self, field)
            if known[name] % degree:
                raise ValueError(
                    f"{name} is {known[name]}, which parallel.{field} {degree} does not divide: "
                    "change one of them"
                )
        layers = sizes["num_hidden_layers"]
        if self.pipeline > layers:
            raise ValueError(
                f"parallel.pipeline is {self.pipeline} and the model has {layers} layers: use at "
                "most one stage a layer"
            )

    def _check_kind(self, sizes: Mapping[str, Any]) -> None:
        """Raise ValueError for a kind of layer that a degree cannot divide."""
        latent, experts = sizes.get("kv_lora_rank"), sizes.get("num_experts")
        undivided = (
            ("tensor", latent), ("sequence", latent), ("tensor", experts), ("pipeline", experts)
        )  # fmt: skip
        for field, found in undivided:
            if found and getattr(self, field) > 1:
                kind = "a mixture of experts" if found is experts else "latent attention"
                raise ValueError(
                    f"parallel.{field} is {getattr(self, field)} and the model has {kind}, which "
                    f"{field} parallelism does not divide here: leave it 1 and use zero 3"
                )
