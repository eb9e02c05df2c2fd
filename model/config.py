"""The decoder's shape, and what follows: parameters, FLOPs, cache bytes, Hugging Face's config.

Field names are Hugging Face's, so a `config.json` of a Qwen3 model reads as one of ours. The
arithmetic here is what plans, reports and metrics use; tests count it against a real model.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

ARCHITECTURE = "Qwen3ForCausalLM"


class ModelConfig(BaseModel):
    """Shape of a Qwen3-style decoder: grouped-query attention, QK-norm, SwiGLU, RMSNorm, rotary."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    vocab_size: int = Field(default=4096, gt=0)
    hidden_size: int = Field(default=128, gt=0)
    intermediate_size: int = Field(default=384, gt=0)
    num_hidden_layers: int = Field(default=4, gt=0)
    num_attention_heads: int = Field(default=4, gt=0)
    num_key_value_heads: int = Field(default=2, gt=0)
    head_dim: int = Field(default=32, gt=0)
    max_position_embeddings: int = Field(default=2048, gt=0)
    """The longest context, in tokens, that the model is meant for."""
    rope_theta: float = Field(default=10_000.0, gt=0)
    rms_norm_eps: float = Field(default=1e-6, gt=0)
    tie_word_embeddings: bool = True

    @field_validator("head_dim")
    @classmethod
    def _even_head(cls, value: int) -> int:
        if value % 2:
            raise ValueError(
                f"head_dim is {value}; rotary embedding turns pairs, so it must be even: "
                f"use {value + 1}"
            )
        return value

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        heads = self.num_attention_heads
        if heads % self.num_key_value_heads:
            raise ValueError(
                f"num_key_value_heads is {self.num_key_value_heads}; it must divide "
                f"num_attention_heads ({heads}): use one of "
                f"{[n for n in range(1, heads + 1) if heads % n == 0]}"
            )
        return self

    @classmethod
    def from_depth(cls, depth: int, vocab_size: int) -> ModelConfig:
        """One dial: a well-proportioned model of `depth` layers (4 is about a million parameters).

        Width per layer grows from 32 to 128 with depth, as it does from GPT-2 to Llama; heads are
        32 to 128 wide; a SwiGLU of three times the width.
        """
        if depth < 1:
            raise ValueError(f"depth is {depth}; expected at least 1 layer")
        rough = depth * min(max(4 * depth, 32), 128)
        head_dim = 32 if rough < 512 else 64 if rough < 2048 else 128
        step = 4 * head_dim
        hidden = max(step, step * round(rough / step))
        heads = hidden // head_dim
        return cls(
            vocab_size=vocab_size,
            hidden_size=hidden,
            intermediate_size=3 * hidden,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            num_key_value_heads=heads // 4 if heads >= 16 else heads // 2,
            head_dim=head_dim,
            tie_word_embeddings=depth < 24,
        )

    @classmethod
    def from_hugging_face(cls, config: dict[str, Any]) -> ModelConfig:
        """From a Qwen3 model's parsed `config.json`; what we cannot compute is a ValueError."""
        if config.get("model_type") != "qwen3":
            raise ValueError(
                f"the model's config.json says model_type {config.get('model_type')!r}; expected "
                "'qwen3': only dense Qwen3 checkpoints can be loaded"
            )
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        unsupported = {
            "attention_bias": bool(config.get("attention_bias")),
            "use_sliding_window": bool(config.get("use_sliding_window")),
            "hidden_act": config.get("hidden_act", "silu") != "silu",
            "rope_type": rope.get("rope_type", "default") != "default",
        }
        if refused := [name for name, found in unsupported.items() if found]:
            raise ValueError(
                f"the model's config.json sets {', '.join(refused)} to something else than plain "
                "Qwen3 does; expected no bias, no sliding window, silu, unscaled rotary embedding"
            )
        fields = {name: config[name] for name in cls.model_fields if name in config}
        fields.setdefault("rope_theta", rope.get("rope_theta", 10_000.0))
        fields.setdefault("num_key_value_heads", config.get("num_attention_heads"))
        fields.setdefault("head_dim", 128)
        fields.setdefault("tie_word_embeddings", False)
        return cls(**fields)

    def to_hugging_face(self) -> dict[str, Any]:
        """The `config.json` with which transformers builds the same model as Qwen3ForCausalLM."""
        fields = self.model_dump()
        theta = fields.pop("rope_theta")
        return {
            "architectures": [ARCHITECTURE],
            "model_type": "qwen3",
            **fields,
            "rope_theta": theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": theta},
            "hidden_act": "silu",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "use_sliding_window": False,
            "initializer_range": 0.02,
            "use_cache": True,
            "dtype": "float32",
        }

    def parameters(self, *, embedding: bool = True) -> int:
        """Trainable numbers; without `embedding`, only those that multiply: no lookup table.

        A tied head is the embedding used as a matrix, so it counts either way.
        """
        attention_width = (
            2 * self.num_attention_heads + 2 * self.num_key_value_heads
        ) * self.head_dim
        layer = (
            self.hidden_size * attention_width
            + 3 * self.hidden_size * self.intermediate_size
            + 2 * self.hidden_size
            + 2 * self.head_dim
        )
        tables = 2 if embedding and not self.tie_word_embeddings else 1
        return (
            self.num_hidden_layers * layer
            + self.hidden_size
            + tables * self.vocab_size * self.hidden_size
        )

    def flops_per_token(self, sequence_length: int, *, training: bool = True) -> float:
        """FLOPs per token at `sequence_length`: forward and backward, or (not training) forward.

        6N + 12·L·H·Q·T of PaLM (arXiv:2204.02311, appendix B), with the attention term halved:
        a causal token looks at (T + 1) / 2 keys on average. N counts what multiplies: the lookup
        of an untied embedding costs nothing.
        """
        width = self.num_attention_heads * self.head_dim
        attention = 4 * self.num_hidden_layers * width * (sequence_length + 1) / 2
        forward = 2 * self.parameters(embedding=False) + attention
        return 3 * forward if training else forward

    def kv_bytes_per_token(self, bytes_per_number: int = 4) -> int:
        """Bytes of KV cache that one token of one sequence takes (float32 unless told)."""
        width = 2 * self.num_key_value_heads * self.head_dim
        return self.num_hidden_layers * width * bytes_per_number
