"""The decoder, one screen: embed, attend and transform in each layer, normalise, predict.

Submodules are named as Hugging Face names Qwen3's, so state dicts map one to one, and DeepSpeed's
tensor parallelism finds what to split by `_tp_plan`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.attention import Attention, document_mask, window_mask
from model.config import ModelConfig
from model.initial import draw_seed, initial_rows
from model.kernels import Mask
from model.kv_cache import KVCache
from model.latent_attention import LatentAttention
from model.layers import RMSNorm, SwiGLU
from model.moe import MixtureOfExperts
from model.rotary import Rotary, rotary_tables


class Layer(nn.Module):
    """Pre-norm attention and SwiGLU or experts, each added to the residual stream."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        kind = LatentAttention if config.latent else Attention
        self.self_attn = kind(config, index)
        self.mlp: nn.Module
        if config.has_experts(index):
            self.mlp = MixtureOfExperts(config)
        else:
            self.mlp = SwiGLU(config.hidden_size, config.intermediate_size)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, x_btd: Tensor, rotary: Rotary, mask: Mask | None, cache: KVCache | None
    ) -> Tensor:
        x_btd = x_btd + self.self_attn(self.input_layernorm(x_btd), rotary, mask, cache)
        return x_btd + self.mlp(self.post_attention_layernorm(x_btd))


class Decoder(nn.Module):
    """Tokens to normalised hidden states."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.recompute = False
        """Keep only each layer's input for backward: less memory, a third more arithmetic."""

    def forward(
        self, input_ids_bt: Tensor, document_ids_bt: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        length, device = input_ids_bt.shape[1], input_ids_bt.device
        windows = self.config.windows
        if cache is not None:
            positions = cache.positions(length)
            masks: dict[int | None, Mask | None] = {
                window: cache.mask(length, window) for window in set(windows)
            }
        else:
            # Rotary attention sees differences of positions only: documents need no restart.
            positions = torch.arange(length, device=device)[None]
            masks = {
                window: window_mask(length, window, device)
                if document_ids_bt is None
                else document_mask(document_ids_bt, window)
                for window in set(windows)
            }
        hidden_btd = self.through(input_ids_bt, rotary_tables(positions, self.config), masks, cache)
        if cache is not None:
            cache.length += length
        return hidden_btd

    def through(
        self,
        input_ids_bt: Tensor,
        rotary: Rotary,
        masks: Mapping[int | None, Mask | None],
        cache: KVCache | None = None,
    ) -> Tensor:
        """Normalised hidden states of tokens at any positions, with a mask for each window."""
        x_btd = self.embed_tokens(input_ids_bt)
        recompute = self.recompute and torch.is_grad_enabled()
        for layer, window in zip(self.layers, self.config.windows, strict=True):
            if recompute:
                x_btd = checkpoint(layer, x_btd, rotary, masks[window], cache, use_reentrant=False)
            else:
                x_btd = layer(x_btd, rotary, masks[window], cache)
        return self.norm(x_btd)


class Transformer(nn.Module):
    """The language model: `hidden` for losses that never hold all logits, `forward` for logits."""

    _tp_plan: ClassVar[dict[str, str]] = {
        "model.layers.*.self_attn.q_proj": "colwise",
        "model.layers.*.self_attn.k_proj": "colwise",
        "model.layers.*.self_attn.v_proj": "colwise",
        "model.layers.*.self_attn.q_norm": "replicated_with_grad_allreduce",
        "model.layers.*.self_attn.k_norm": "replicated_with_grad_allreduce",
        "model.layers.*.self_attn.o_proj": "rowwise",
        "model.layers.*.mlp.gate_proj": "colwise",
        "model.layers.*.mlp.up_proj": "colwise",
        "model.layers.*.mlp.down_proj": "rowwise",
    }

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        seed = draw_seed()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if not weight.is_meta:
                    rows = initial_rows(name, weight.shape, config, seed, 0, len(weight))
                    weight.copy_(rows)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def hidden(
        self,
        input_ids_bt: Tensor,
        document_ids_bt: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Last hidden states [rows, length, hidden_size], ready for the head.

        `document_ids_bt` keeps attention within documents; `cache` continues cached sequences.
        """
        return self.model(input_ids_bt, document_ids_bt, cache)

    def forward(
        self,
        input_ids_bt: Tensor,
        document_ids_bt: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Logits [rows, length, vocab_size], float32."""
        return self.lm_head(self.hidden(input_ids_bt, document_ids_bt, cache)).float()
