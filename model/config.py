"""The decoder's shape, and what follows: parameters, FLOPs and cache bytes.

Field names are Hugging Face's; `model.layouts` writes its `config.json`, `model.foreign_config`
reads it. The arithmetic here is what plans, reports and metrics use; tests count it against a real
model.
"""

from __future__ import annotations

import math
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from model.shape_rules import check, derived

LayerType = Literal["full_attention", "sliding_attention"]


class RopeScaling(BaseModel):
    """How rotary positions are stretched beyond the length a model was trained on.

    * `linear`: all waves by `factor` (arXiv:2306.15595);
    * `ntk`: a larger theta, so that the longest wave grows by `factor` and the shortest stay;
    * `dynamic`: the same, for each sequence by as much as it is longer than the model's context;
    * `yarn` (arXiv:2309.00071) and `llama3`: short waves stay, long ones grow by `factor`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rope_type: Literal["linear", "ntk", "dynamic", "yarn", "llama3"]
    factor: float = Field(gt=0)
    original_max_position_embeddings: int | None = Field(default=None, gt=0)
    """The length trained on, in tokens: for yarn and llama3."""
    beta_fast: float = Field(default=32.0, gt=0)
    beta_slow: float = Field(default=1.0, gt=0)
    mscale: float | None = None
    mscale_all_dim: float | None = None
    attention_factor: float | None = None
    truncate: bool = True
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0

    @model_validator(mode="after")
    def _has_what_its_type_needs(self) -> Self:
        if self.rope_type in ("yarn", "llama3") and not self.original_max_position_embeddings:
            raise ValueError(
                f"rope_type {self.rope_type} needs original_max_position_embeddings: the length, "
                "in tokens, that the model was trained on"
            )
        if self.rope_type != "yarn" and (self.mscale or self.mscale_all_dim):
            raise ValueError(
                f"mscale or mscale_all_dim with rope_type {self.rope_type}; they are YaRN's: use "
                "rope_type yarn, or leave them out"
            )
        return self

    @property
    def trained_length(self) -> int:
        """Tokens; for the types that need it."""
        assert self.original_max_position_embeddings is not None
        return self.original_max_position_embeddings

    @property
    def table_size(self) -> float:
        """What YaRN multiplies the rotary tables by, as transformers infers it."""
        if self.rope_type != "yarn":
            return 1.0
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return self._growth(self.mscale) / self._growth(self.mscale_all_dim)
        return self._growth(1.0)

    @property
    def score_size(self) -> float:
        """What DeepSeek's latent attention multiplies its scores by."""
        return self._growth(self.mscale_all_dim) ** 2 if self.mscale_all_dim else 1.0

    def _growth(self, weight: float) -> float:
        return 0.1 * weight * math.log(self.factor) + 1.0 if self.factor > 1 else 1.0


class ModelConfig(BaseModel):
    """Shape of a decoder: rotary attention, RMSNorm, SwiGLU; dense or a mixture of experts.

    The defaults are Qwen3's kind. `kv_lora_rank` makes attention latent (DeepSeek's),
    `num_experts` the feed-forward layers a mixture, `sliding_window` attention local.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False
    )

    vocab_size: int = Field(default=4096, gt=0)
    hidden_size: int = Field(default=128, gt=0)
    intermediate_size: int = Field(default=384, gt=0)
    num_hidden_layers: int = Field(default=4, gt=0)
    num_attention_heads: int = Field(default=4, gt=0)
    num_key_value_heads: int = Field(default=2, gt=0)
    """With latent attention always num_attention_heads: no key is shared."""
    head_dim: int = Field(default=32, gt=0)
    """Width of a query; with latent attention qk_nope_head_dim + qk_rope_head_dim."""
    max_position_embeddings: int = Field(default=2048, gt=0)
    """The longest context, in tokens, that the model is meant for."""
    rope_theta: float = Field(default=10_000.0, gt=1)
    rope_scaling: RopeScaling | None = None
    rms_norm_eps: float = Field(default=1e-6, gt=0)
    tie_word_embeddings: bool = True
    use_qk_norm: bool = True
    """RMSNorm on queries and keys: as Qwen3 has it, Llama and DeepSeek do not."""

    sliding_window: int | None = Field(default=None, gt=0)
    """Tokens that a token of a sliding layer sees, itself included."""
    layer_types: tuple[LayerType, ...] | None = None
    """Which layers slide: all where there is a window and nothing is said. vLLM serves no model of
    which only some do."""

    kv_lora_rank: int = Field(default=0, ge=0)
    """Width of the latent that keys and values are made of; 0: no latent attention."""
    q_lora_rank: int = Field(default=0, ge=0)
    """Width of the latent that queries are made of; 0: made of the hidden state."""
    qk_nope_head_dim: int = Field(default=0, ge=0)
    """Width of a latent query's part without position; 0 is head_dim."""
    qk_rope_head_dim: int = Field(default=0, ge=0)
    """Width of its rotary part; 0 is half of head_dim."""
    v_head_dim: int = Field(default=0, ge=0)
    """Width of a latent value; 0 is head_dim."""

    num_experts: int = Field(default=0, ge=0)
    """Routed experts of a layer; 0: a dense model."""
    num_experts_per_tok: int = Field(default=2, gt=0)
    moe_intermediate_size: int = Field(default=0, ge=0)
    """Width of an expert; 0: a token's experts together are as wide as intermediate_size."""
    n_shared_experts: int | None = Field(default=None, ge=0)
    """Experts that every token takes; None is 1 where scores are sigmoid, else 0."""
    first_k_dense_replace: int = Field(default=0, ge=0)
    """Layers at the bottom that stay dense."""
    scoring_func: Literal["sigmoid", "softmax"] = "sigmoid"
    """sigmoid: balanced by a bias instead of a loss (arXiv:2408.15664); softmax: Qwen3-MoE's."""
    norm_topk_prob: bool = True
    """A token's expert weights are made to sum to one."""
    routed_scaling_factor: float = Field(default=1.0, gt=0)
    n_group: int = Field(default=1, gt=0)
    """Experts are chosen from the best `topk_group` of so many groups."""
    topk_group: int = Field(default=1, gt=0)

    @field_validator("head_dim", "qk_nope_head_dim", "qk_rope_head_dim")
    @classmethod
    def _even_head(cls, value: int, info: Any) -> int:
        if value % 2:
            raise ValueError(
                f"{info.field_name} is {value}; rotary embedding turns pairs, so it must be even: "
                f"use {value + 1}"
            )
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name, value in derived(self).items():
            object.__setattr__(self, name, value)  # frozen for everyone else
        check(self)
        return self

    @classmethod
    def from_depth(cls, depth: int, vocab_size: int, **changes: Any) -> ModelConfig:
        """One dial: a well-proportioned model of `depth` layers (4 is about a million parameters).

        Width per layer grows from 32 to 128 with depth, as it does from GPT-2 to Llama; heads are
        32 to 128 wide; a SwiGLU of three times the width. `changes` are set on top.
        """
        if depth < 1:
            raise ValueError(f"depth is {depth}; expected at least 1 layer")
        rough = depth * min(max(4 * depth, 32), 128)
        head_dim = 32 if rough < 512 else 64 if rough < 2048 else 128
        step = 4 * head_dim
        hidden = max(step, step * round(rough / step))
        heads = hidden // head_dim
        dial = {
            "vocab_size": vocab_size,
            "hidden_size": hidden,
            "intermediate_size": 3 * hidden,
            "num_hidden_layers": depth,
            "num_attention_heads": heads,
            "num_key_value_heads": heads // 4 if heads >= 16 else heads // 2,
            "head_dim": head_dim,
            "tie_word_embeddings": depth < 24,
        }
        return cls.model_validate(dial | changes)

    @classmethod
    def from_hugging_face(cls, config: dict[str, Any]) -> ModelConfig:
        """From a parsed `config.json`; what we cannot compute is a ValueError that names it."""
        from model.foreign_config import from_hugging_face

        return from_hugging_face(config)

    def to_hugging_face(self) -> dict[str, Any]:
        """The `config.json` with which transformers builds the same model."""
        from model.layouts import to_hugging_face

        return to_hugging_face(self)

    @property
    def latent(self) -> bool:
        """Whether attention is multi-head latent attention."""
        return self.kv_lora_rank > 0

    @property
    def rotary_width(self) -> int:
        """How much of a query and key turns with its position."""
        return self.qk_rope_head_dim if self.latent else self.head_dim

    @property
    def value_width(self) -> int:
        """Width of one head's output."""
        return self.v_head_dim if self.latent else self.head_dim

    @property
    def ntk_theta(self) -> float:
        """The theta whose longest wave is `rope_scaling.factor` times that of `rope_theta`."""
        if self.rope_scaling is None or self.rope_scaling.rope_type != "ntk":
            return self.rope_theta
        width = self.rotary_width
        return self.rope_theta * self.rope_scaling.factor ** (width / (width - 2))

    @property
    def windows(self) -> tuple[int | None, ...]:
        """Each layer's sliding window in tokens, None where it sees everything before."""
        if self.layer_types is None:
            return (self.sliding_window,) * self.num_hidden_layers
        slides = [kind == "sliding_attention" for kind in self.layer_types]
        return tuple(self.sliding_window if slide else None for slide in slides)

    def has_experts(self, layer: int) -> bool:
        """Whether a layer's feed-forward part is a mixture of experts."""
        return self.num_experts > 0 and layer >= self.first_k_dense_replace

    def parameters(self, *, embedding: bool = True, active: bool = False) -> int:
        """Trainable numbers; without `embedding`, only those that multiply: no lookup table.

        A tied head is the embedding used as a matrix, so it counts either way. `active` counts
        those that one token meets: its own experts, not all.
        """
        layers = sum(
            self._attention_parameters()
            + self._mlp_parameters(layer, active)
            + 2 * self.hidden_size
            for layer in range(self.num_hidden_layers)
        )
        tables = 2 if embedding and not self.tie_word_embeddings else 1
        return layers + self.hidden_size + tables * self.vocab_size * self.hidden_size

    def _attention_parameters(self) -> int:
        hidden, heads = self.hidden_size, self.num_attention_heads
        if not self.latent:
            width = 2 * heads + 2 * self.num_key_value_heads
            return hidden * width * self.head_dim + 2 * self.head_dim * self.use_qk_norm
        source = self.q_lora_rank or hidden
        queries = source * heads * self.head_dim + self.q_lora_rank * (hidden + 1)
        keys = hidden * (self.kv_lora_rank + self.qk_rope_head_dim) + self.kv_lora_rank
        keys += self.kv_lora_rank * heads * (self.qk_nope_head_dim + self.v_head_dim)
        return queries + keys + heads * self.v_head_dim * hidden

    def _mlp_parameters(self, layer: int, active: bool) -> int:
        if not self.has_experts(layer):
            return 3 * self.hidden_size * self.intermediate_size
        routed = self.num_experts_per_tok if active else self.num_experts
        experts = (routed + (self.n_shared_experts or 0)) * self.moe_intermediate_size
        return self.hidden_size * (3 * experts + self.num_experts)

    def flops_per_token(self, sequence_length: int, *, training: bool = True) -> float:
        """FLOPs per token at `sequence_length`: forward and backward, or (not training) forward.

        6N + 12·L·H·Q·T of PaLM (arXiv:2204.02311, appendix B), with the attention term halved:
        a causal token looks at (T + 1) / 2 keys on average, in a sliding layer at fewer. N counts
        what multiplies one token: not the lookup of an untied embedding, not others' experts.
        """
        pairs = 2 * self.num_attention_heads * (self.head_dim + self.value_width)
        keys = sum(keys_seen(sequence_length, window) for window in self.windows)
        forward = 2 * self.parameters(embedding=False, active=True) + pairs * keys
        return 3 * forward if training else forward

    def kv_bytes_per_token(self, bytes_per_number: int = 4) -> int:
        """Bytes of KV cache that one token of one sequence takes (float32 unless told).

        A latent cache holds the latent and the one rotary key that all heads share.
        """
        width = 2 * self.num_key_value_heads * self.head_dim
        if self.latent:
            width = self.kv_lora_rank + self.qk_rope_head_dim
        return self.num_hidden_layers * width * bytes_per_number


def keys_seen(length: int, window: int | None) -> float:
    """Keys that a causal token of a sequence looks at, itself included, on average."""
    reach = min(window or length, length)
    return (reach * (reach + 1) / 2 + (length - reach) * reach) / length
