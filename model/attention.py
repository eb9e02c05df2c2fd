"""Grouped-query attention with QK-norm and rotary positions, its masks, and the KV cache."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import ModelConfig
from model.cpu_attention import attend_by_products, prefers_products
from model.layers import RMSNorm, Rotary, rotate


class KVCache:
    """Keys and values of some sequences, preallocated for `capacity` columns, filled rightwards.

    Sequences are right-aligned: row r's first token stands in column `starts_r[r]`, and all rows
    write the same next column. Positions count from a row's own first token.
    """

    def __init__(
        self, config: ModelConfig, capacity: int, starts_r: Tensor, dtype: torch.dtype
    ) -> None:
        self.starts_r = starts_r
        self.length = 0
        """Columns filled so far, the same for all layers once a forward pass is over."""
        self.padded = bool((starts_r > 0).any())
        shape = (len(starts_r), config.num_key_value_heads, capacity, config.head_dim)
        self.layers = [
            (
                torch.empty(shape, dtype=dtype, device=starts_r.device),
                torch.empty(shape, dtype=dtype, device=starts_r.device),
            )
            for _ in range(config.num_hidden_layers)
        ]

    @property
    def capacity(self) -> int:
        return self.layers[0][0].shape[2]

    def update(self, layer: int, keys_bktd: Tensor, values_bktd: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new columns of one layer; returns views of all its columns so far."""
        begin, end = self.length, self.length + keys_bktd.shape[2]
        if end > self.capacity:
            raise ValueError(
                f"the KV cache holds {self.capacity} columns; {end} are needed: make it larger"
            )
        keys, values = self.layers[layer]
        keys[:, :, begin:end] = keys_bktd
        values[:, :, begin:end] = values_bktd
        return keys[:, :, :end], values[:, :, :end]

    def positions(self, length: int) -> Tensor:
        """Positions of the next `length` columns, [rows, length]; [1, length] where all agree."""
        columns = torch.arange(self.length, self.length + length, device=self.starts_r.device)
        if not self.padded:
            return columns[None]
        return (columns[None] - self.starts_r[:, None]).clamp_min_(0)

    def mask(self, length: int) -> Tensor | None:
        """What the next `length` columns may look at, bool [rows, 1, length, columns so far].

        None where plain causal attention says the same.
        """
        end = self.length + length
        if not self.padded and (length == 1 or self.length == 0):
            return None
        keys = torch.arange(end, device=self.starts_r.device)
        queries = keys[self.length :, None]
        # A padding column may look at itself: a row of the softmax must not be empty.
        seen = (keys >= self.starts_r[:, None, None]) | (keys == queries)
        return (seen & (keys <= queries))[:, None]

    def rows(self, begin: int, end: int) -> KVCache:
        """A view of some consecutive rows: what it is filled with is in this cache too."""
        return self._with(
            self.starts_r[begin:end], [(k[begin:end], v[begin:end]) for k, v in self.layers]
        )

    def select(self, rows: Tensor, *, capacity: int | None = None) -> KVCache:
        """A cache of the rows with these indices (repeats are copies), with room for `capacity`."""
        layers = []
        for pair in self.layers:
            copies = []
            for old in pair:
                shape = (len(rows), old.shape[1], capacity or old.shape[2], old.shape[3])
                new = old.new_empty(shape)
                new[:, :, : self.length] = old[rows, :, : self.length]
                copies.append(new)
            layers.append((copies[0], copies[1]))
        return self._with(self.starts_r[rows], layers)

    def _with(self, starts_r: Tensor, layers: list[tuple[Tensor, Tensor]]) -> KVCache:
        other = copy.copy(self)
        other.starts_r, other.layers = starts_r, layers
        other.padded = bool((starts_r > 0).any())
        return other


def document_mask(document_ids_bt: Tensor) -> Tensor:
    """Causal attention within documents: bool [rows, 1, length, length], True where allowed."""
    length = document_ids_bt.shape[1]
    same = document_ids_bt[:, :, None] == document_ids_bt[:, None, :]
    return same.tril_()[:, None] if length else same[:, None]


class Attention(nn.Module):
    """Qwen3's attention (arXiv:2505.09388): shared key-value heads, RMSNorm on queries and keys."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        queries = config.num_attention_heads * config.head_dim
        keys = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps)

    def forward(
        self, x_btd: Tensor, rotary: Rotary, mask: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        rows, length, _ = x_btd.shape
        # -1, not the number of heads: under tensor parallelism a rank holds only some of them.
        heads = (rows, length, -1, self.head_dim)
        queries = rotate(self.q_norm(self.q_proj(x_btd).view(heads)).transpose(1, 2), rotary)
        keys = rotate(self.k_norm(self.k_proj(x_btd).view(heads)).transpose(1, 2), rotary)
        values = self.v_proj(x_btd).view(heads).transpose(1, 2)
        if cache is not None:
            keys, values = cache.update(self.layer, keys, values)
        return self.o_proj(_attend(queries, keys, values, mask))


def _attend(
    queries_bhtd: Tensor, keys_bksd: Tensor, values_bksd: Tensor, mask: Tensor | None
) -> Tensor:
    """Attention's output, [rows, length, heads * head_dim]; causal where there is no mask."""
    rows, heads, length, head_dim = queries_bhtd.shape
    if length == 1:
        # One new token: a key-value head's queries stand in for a sequence, nothing is repeated.
        grouped = queries_bhtd.view(rows, keys_bksd.shape[1], -1, head_dim)
        out = F.scaled_dot_product_attention(grouped, keys_bksd, values_bksd, attn_mask=mask)
        return out.reshape(rows, 1, heads * head_dim)
    if prefers_products(queries_bhtd):
        out = attend_by_products(queries_bhtd, keys_bksd, values_bksd, mask, head_dim**-0.5)
        return out.transpose(1, 2).reshape(rows, length, heads * head_dim)
    out = F.scaled_dot_product_attention(
        queries_bhtd,
        keys_bksd,
        values_bksd,
        attn_mask=mask,
        is_causal=mask is None,
        enable_gqa=heads != keys_bksd.shape[1],
    )
    return out.transpose(1, 2).reshape(rows, length, heads * head_dim)
