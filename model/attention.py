"""Grouped-query attention with optional QK-norm and window, its masks, and the kernel's choice."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import ModelConfig
from model.cpu_attention import attend_by_products, prefers_products
from model.kv_cache import KVCache
from model.layers import RMSNorm
from model.rotary import Rotary, rotate

__all__ = ["Attention", "KVCache", "attend", "document_mask", "window_mask"]


def document_mask(document_ids_bt: Tensor, window: int | None = None) -> Tensor:
    """Causal attention within documents: bool [rows, 1, length, length], True where allowed."""
    length = document_ids_bt.shape[1]
    same = document_ids_bt[:, :, None] == document_ids_bt[:, None, :]
    seen = same.tril_() if length else same
    if window is not None and window < length:
        seen = seen.triu_(1 - window)
    return seen[:, None]


def window_mask(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """Causal attention to the last `window` tokens, bool [1, 1, length, length]; None: to all."""
    if window is None or window >= length:
        return None
    everything = torch.ones(length, length, dtype=torch.bool, device=device)
    return everything.tril_().triu_(1 - window)[None, None]


class Attention(nn.Module):
    """Shared key-value heads; as Qwen3 has it (arXiv:2505.09388), with RMSNorm on both sides.

    Equal numbers of heads make it multi-head attention; without the norms it is Llama's.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.attend = attend
        self.head_dim = config.head_dim
        self.window = config.windows[layer]
        queries = config.num_attention_heads * config.head_dim
        keys = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=False)
        self.normed = config.use_qk_norm
        if self.normed:
            self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
            self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps)

    def forward(
        self, x_btd: Tensor, rotary: Rotary, mask: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        rows, length, _ = x_btd.shape
        # -1, not the number of heads: under tensor parallelism a rank holds only some of them.
        heads = (rows, length, -1, self.head_dim)
        queries = self.q_proj(x_btd).view(heads)
        keys = self.k_proj(x_btd).view(heads)
        values = self.v_proj(x_btd).view(heads).transpose(1, 2)
        if self.normed:
            queries, keys = self.q_norm(queries), self.k_norm(keys)
        queries = rotate(queries.transpose(1, 2), rotary)
        keys = rotate(keys.transpose(1, 2), rotary)
        if cache is not None:
            keys, values = cache.update(self.layer, keys, values, window=self.window)
        return self.o_proj(self.attend(queries, keys, values, mask))


def attend(
    queries_bhtd: Tensor,
    keys_bksd: Tensor,
    values_bksd: Tensor,
    mask: Tensor | None,
    scale: float | None = None,
) -> Tensor:
    """Attention's output, [rows, length, heads * value width]; causal where there is no mask.

    Scores are multiplied by `scale`, 1 / sqrt(width) unless told. The kernel is chosen here and
    nowhere else.
    """
    rows, heads, length, width = queries_bhtd.shape
    if length == 1:
        # One new token: a key-value head's queries stand in for a sequence, nothing is repeated.
        grouped = queries_bhtd.reshape(rows, keys_bksd.shape[1], -1, width)
        out = F.scaled_dot_product_attention(
            grouped, keys_bksd, values_bksd, attn_mask=mask, scale=scale
        )
        return out.reshape(rows, 1, -1)
    if prefers_products(queries_bhtd):
        scale = width**-0.5 if scale is None else scale
        out = attend_by_products(queries_bhtd, keys_bksd, values_bksd, mask, scale)
        return out.transpose(1, 2).reshape(rows, length, -1)
    value_width = values_bksd.shape[-1]
    if value_width < width:  # the fused kernels want one width
        values_bksd = F.pad(values_bksd, (0, width - value_width))
    out = F.scaled_dot_product_attention(
        queries_bhtd,
        keys_bksd,
        values_bksd,
        attn_mask=mask,
        is_causal=mask is None,
        scale=scale,
        enable_gqa=heads != keys_bksd.shape[1],
    )
    return out[..., :value_width].transpose(1, 2).reshape(rows, length, -1)
