"""What the formulas of a plan are about: one training run, its model and how it is spread."""

from __future__ import annotations

from dataclasses import dataclass, replace

from model.config import ModelConfig
from model.flops import Precision
from stages.pretrain import Config
from stages.tune.precision import uses_bfloat16


@dataclass(frozen=True)
class RunShape:
    """A pretraining run as the plan's formulas see it. Widths are numbers per token."""

    model: ModelConfig
    config: Config

    @property
    def precision(self) -> Precision:
        """What products are taken in, on a processor this one's choice; float8 is planned as
        bfloat16: it was seen to bring a sixth, not the datasheet's double.
        """
        config = self.config
        return "bfloat16" if uses_bfloat16(config.precision, config.parallel.gpu) else "float32"

    @property
    def workers(self) -> int:
        return self.config.parallel.bounds[1]

    def at(self, workers: int) -> RunShape:
        """The same run on so many workers."""
        parallel = self.config.parallel.model_copy(update={"workers": workers})
        return replace(self, config=self.config.model_copy(update={"parallel": parallel}))

    @property
    def sizes(self) -> list[RunShape]:
        """The run on as many workers as it may have, fewest first: one, or two where elastic."""
        return [self.at(workers) for workers in sorted(set(self.config.parallel.bounds))]

    @property
    def share(self) -> int:
        """Sequences of a step that one data rank takes, where some take one more than others."""
        return -(-self.config.rows // self.config.parallel.data)

    @property
    def accumulation(self) -> int:
        """Micro-batches of a step."""
        parallel = self.config.parallel
        return parallel.micro_batches(self.config.rows, parallel.data)

    @property
    def rows(self) -> int:
        """Sequences in the largest micro-batch of a data rank: its share in equal parts."""
        return -(-self.share // self.accumulation)

    @property
    def tokens(self) -> float:
        """Tokens of one micro-batch that one worker holds; sequence parallelism divides them."""
        return self.rows * self.config.sequence_length / self.config.parallel.sequence

    @property
    def step_tokens(self) -> float:
        """Tokens of a whole step that pass through one worker."""
        return self.share * self.config.sequence_length / self.config.parallel.sequence

    @property
    def layers(self) -> float:
        """Layers that one worker computes; pipeline stages divide them."""
        return self.model.num_hidden_layers / self.config.parallel.pipeline

    @property
    def query_width(self) -> int:
        return self.model.num_attention_heads * self.model.head_dim

    @property
    def key_width(self) -> int:
        return self.model.num_key_value_heads * self.model.head_dim

    @property
    def value_width(self) -> int:
        return self.model.num_key_value_heads * self.model.value_width

    @property
    def output_width(self) -> int:
        """What attention hands to its last product."""
        return self.model.num_attention_heads * self.model.value_width

    @property
    def latent_width(self) -> int:
        return self.model.kv_lora_rank + self.model.q_lora_rank

    @property
    def copies(self) -> float:
        """How often a token's hidden state is dealt to experts, on average over the layers."""
        model = self.model
        mixed = sum(model.has_experts(layer) for layer in range(model.num_hidden_layers))
        return model.num_experts_per_tok * mixed / model.num_hidden_layers

    @property
    def inner_width(self) -> float:
        """Width of the feed-forward part that a token meets, on average over the layers."""
        model = self.model
        chosen = model.num_experts_per_tok + (model.n_shared_experts or 0)
        widths = [
            chosen * model.moe_intermediate_size if model.has_experts(layer)
            else model.intermediate_size
            for layer in range(model.num_hidden_layers)
        ]  # fmt: skip
        return sum(widths) / len(widths)

    @property
    def masked(self) -> bool:
        """Whether attention gets a dense mask of the documents: GPUs have block-sparse kernels."""
        return not self.config.parallel.gpu

    @property
    def replicas(self) -> int:
        """Ranks that hold the same weights: gradients are reduced, and ZeRO divides, over them."""
        return self.config.parallel.data * self.config.parallel.sequence

    @property
    def matrices(self) -> float:
        """Parameters of one model rank's layers: tensor and pipeline parallelism divide them."""
        parallel, model = self.config.parallel, self.model
        tables = model.vocab_size * model.hidden_size * (1 if model.tie_word_embeddings else 2)
        return (model.parameters() - tables) / (parallel.tensor * parallel.pipeline)

    @property
    def tables(self) -> int:
        """Parameters of one model rank's embedding and head: tensor parallelism leaves them whole,
        a pipeline has one at either end.
        """
        both = not self.model.tie_word_embeddings and self.config.parallel.pipeline == 1
        return self.model.vocab_size * self.model.hidden_size * (2 if both else 1)

    @property
    def held(self) -> float:
        """Parameters of one model rank before ZeRO, of the one that has most."""
        return self.matrices + self.tables
