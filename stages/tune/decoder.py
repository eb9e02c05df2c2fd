"""The decoder as it is trained: its forward pass is the loss, with activations kept or recomputed.

DeepSpeed sees to weights in the hooks of a module's forward pass (ZeRO 3 gathers them there), so
the whole of a training step's forward, the head too, happens in one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from model.attention import document_mask
from model.config import ModelConfig
from model.kernels import Mask
from model.kv_cache import KVCache
from model.loss import cross_entropy
from model.rotary import Rotary, rotary_tables
from model.transformer import Transformer
from stages.tune.parallel import Parallel

Rows = tuple[Tensor, Tensor, Tensor]
"""(input ids, labels, document ids), each [rows, length]."""


class TrainedDecoder(Transformer):
    """A Transformer whose forward pass gives the summed loss where it is handed labels."""

    def __init__(self, config: ModelConfig, parallel: Parallel, bfloat16: bool = False) -> None:
        super().__init__(config)
        self.in_bfloat16 = bfloat16
        self.sequence_rank: int | None = None
        """Which slice of each row this rank is handed; None: all of it."""
        if parallel.activation_checkpointing:
            if parallel.compiles:
                self.model.recompute = True  # around what is compiled
            else:
                recompute_activations(self)

    def forward(
        self,
        input_ids_bt: Tensor,
        document_ids_bt: Tensor | None = None,
        cache: KVCache | None = None,
        labels_bt: Tensor | None = None,
    ) -> Tensor:
        """Summed loss in nats, a scalar; without labels, logits."""
        if labels_bt is None:
            return super().forward(input_ids_bt, document_ids_bt, cache)
        with autocast(self.in_bfloat16, input_ids_bt.device):
            hidden = self._hidden(input_ids_bt, document_ids_bt)
            return summed_loss(hidden, self.lm_head.weight, labels_bt)

    def _hidden(self, input_ids_bt: Tensor, document_ids_bt: Tensor | None) -> Tensor:
        if self.sequence_rank is None or document_ids_bt is None:
            return self.hidden(input_ids_bt, document_ids_bt)
        length = input_ids_bt.shape[1]
        first = self.sequence_rank * length
        rotary, masks = surroundings(self.config, length, document_ids_bt, first)
        return self.model.through(input_ids_bt, rotary, masks)


def surroundings(
    config: ModelConfig, length: int, document_ids_bt: Tensor, first: int = 0
) -> tuple[Rotary, dict[int | None, Mask]]:
    """What layers are told of `length` positions from `first` on: their rotation, and by a layer's
    window the mask of the documents, which are whole rows'.
    """
    positions = torch.arange(first, first + length, device=document_ids_bt.device)[None]
    masks = {window: document_mask(document_ids_bt, window) for window in set(config.windows)}
    return rotary_tables(positions, config), masks


def autocast(bfloat16: bool, device: torch.device) -> torch.autocast:
    """Matrix products in bfloat16 if so wanted; weights and statistics stay float32.

    A weight is cast where it multiplies, once a pass: kept casts would only hold the whole model
    in bfloat16 beside itself, also where ZeRO 3 has put the weights away.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16, cache_enabled=False)


def summed_loss(hidden_btd: Tensor, head_weight_vd: Tensor, labels_bt: Tensor) -> Tensor:
    """Summed loss in nats, the head in the hidden states' precision."""
    return cross_entropy(hidden_btd, head_weight_vd, labels_bt)[0]


def recompute_activations(model: Transformer) -> None:
    """Keep only what enters each layer; its backward pass runs the layer again (arXiv:1604.06174).

    The reentrant kind: the other compares the weights it saved, which ZeRO 3 has put away.
    """
    for layer in model.model.layers:
        layer.forward = _Recomputed(layer.forward)


class _Recomputed:
    """A layer's forward pass, checkpointed while gradients are wanted."""

    def __init__(self, forward: Any) -> None:
        self.run = forward

    def __call__(self, *inputs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.run(*inputs)
        return checkpoint(self.run, *inputs, use_reentrant=True)
