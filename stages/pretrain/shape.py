"""The decoder's shape as a recipe writes it."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from stages.stage import StageConfig


class Shape(StageConfig):
    """The decoder's shape: `depth` alone (one dial), or the sizes, by Hugging Face's names.

    The vocabulary's size comes from the tokens. `model.config.ModelConfig` explains every field.
    """

    depth: int | None = Field(default=None, ge=1)
    hidden_size: int | None = None
    intermediate_size: int | None = None
    num_hidden_layers: int | None = None
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    max_position_embeddings: int | None = None
    rope_theta: float | None = None
    tie_word_embeddings: bool | None = None
    vocab_size: int | None = None
    """Rows of the embedding, where they are to be more than the tokens' vocabulary (a multiple that
    devices like, room for later tokens)."""
    use_qk_norm: bool | None = None
    rope_scaling: dict[str, Any] | None = None
    sliding_window: int | None = None
    layer_types: tuple[str, ...] | None = None
    kv_lora_rank: int | None = None
    q_lora_rank: int | None = None
    qk_nope_head_dim: int | None = None
    qk_rope_head_dim: int | None = None
    v_head_dim: int | None = None
    num_experts: int | None = None
    num_experts_per_tok: int | None = None
    moe_intermediate_size: int | None = None
    n_shared_experts: int | None = None
    first_k_dense_replace: int | None = None
    scoring_func: str | None = None
    norm_topk_prob: bool | None = None
    routed_scaling_factor: float | None = None
    n_group: int | None = None
    topk_group: int | None = None

    def sizes(self, vocabulary_size: int) -> dict[str, Any]:
        """All fields of ModelConfig: the dial's or its defaults, then what the recipe set.

        Whether they fit together is for ModelConfig to say.
        """
        from model.config import ModelConfig

        base = ModelConfig()
        if self.depth is not None:
            base = ModelConfig.from_depth(self.depth, vocabulary_size)
        written = self.model_dump(exclude_none=True, exclude={"depth", "description"})
        return base.model_dump() | {"vocab_size": vocabulary_size} | written


DEFAULT_SHAPE = Shape(depth=4)
