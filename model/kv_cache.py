"""What past tokens leave behind for attention, preallocated, for rows of different length."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from model.config import ModelConfig


class KVCache:
    """Keys and values of some sequences, preallocated for `capacity` columns, filled rightwards.

    Sequences are right-aligned: row r's first token stands in column `starts_r[r]`, and all rows
    write the same next column. Positions count from a row's own first token. A layer holds
    (keys, values), each [rows, heads, columns, width], or with latent attention one tensor of the
    latent and the rotary key, [rows, 1, columns, width]. Sliding layers keep all columns, too, and
    look at the last ones.
    """

    def __init__(
        self, config: ModelConfig, capacity: int, starts_r: Tensor, dtype: torch.dtype
    ) -> None:
        self.starts_r = starts_r
        self.length = 0
        """Columns filled so far, the same for all layers once a forward pass is over."""
        self.padded = bool((starts_r > 0).any())
        shapes = [(config.num_key_value_heads, capacity, config.head_dim)] * 2
        if config.latent:
            shapes = [(1, capacity, config.kv_lora_rank + config.qk_rope_head_dim)]
        self.layers: list[tuple[Tensor, ...]] = [
            tuple(
                torch.empty((len(starts_r), *shape), dtype=dtype, device=starts_r.device)
                for shape in shapes
            )
            for _ in range(config.num_hidden_layers)
        ]

    @property
    def capacity(self) -> int:
        return self.layers[0][0].shape[2]

    def update(self, layer: int, *new: Tensor, window: int | None = None) -> tuple[Tensor, ...]:
        """Write a layer's new columns; returns views of all that these columns may look at."""
        length = new[0].shape[2]
        begin, end = self.length, self.length + length
        if end > self.capacity:
            raise ValueError(
                f"the KV cache holds {self.capacity} columns; {end} are needed: make it larger"
            )
        for held, columns in zip(self.layers[layer], new, strict=True):
            held[:, :, begin:end] = columns
        first = self._first_seen(window)
        return tuple(held[:, :, first:end] for held in self.layers[layer])

    def _first_seen(self, window: int | None) -> int:
        """The first column that the next one may look at."""
        return 0 if window is None else max(0, self.length + 1 - window)

    def positions(self, length: int) -> Tensor:
        """Positions of the next `length` columns, [rows, length]; [1, length] where all agree."""
        columns = torch.arange(self.length, self.length + length, device=self.starts_r.device)
        if not self.padded:
            return columns[None]
        return (columns[None] - self.starts_r[:, None]).clamp_min_(0)

    def mask(self, length: int, window: int | None = None) -> Tensor | None:
        """What the next `length` columns may look at, bool [1 or rows, 1, length, columns].

        Of the columns that `update` returns. None where plain causal attention says the same.
        """
        end = self.length + length
        if not self.padded and (length == 1 or (self.length == 0 and end <= (window or end))):
            return None
        keys = torch.arange(self._first_seen(window), end, device=self.starts_r.device)
        queries = torch.arange(self.length, end, device=self.starts_r.device)[:, None]
        # A padding column may look at itself: a row of the softmax must not be empty.
        seen = (keys >= self.starts_r[:, None, None]) | (keys == queries)
        near = keys <= queries
        if window is not None:
            near &= keys > queries - window
        return (seen & near)[:, None]

    def rows(self, begin: int, end: int) -> KVCache:
        """A view of some consecutive rows: what it is filled with is in this cache too."""
        return self._with(
            self.starts_r[begin:end],
            [tuple(held[begin:end] for held in layer) for layer in self.layers],
        )

    def select(self, rows: Tensor, *, capacity: int | None = None) -> KVCache:
        """A cache of the rows with these indices (repeats are copies), with room for `capacity`."""
        layers = []
        for layer in self.layers:
            copies = []
            for old in layer:
                shape = (len(rows), old.shape[1], capacity or old.shape[2], old.shape[3])
                new = old.new_empty(shape)
                new[:, :, : self.length] = old[rows, :, : self.length]
                copies.append(new)
            layers.append(tuple(copies))
        return self._with(self.starts_r[rows], layers)

    def _with(self, starts_r: Tensor, layers: list[tuple[Tensor, ...]]) -> KVCache:
        other = copy.copy(self)
        other.starts_r, other.layers = starts_r, layers
        other.padded = bool((starts_r > 0).any())
        return other
