"""Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1), with a latent cache."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.attention import attend
from model.config import ModelConfig
from model.kv_cache import KVCache
from model.layers import RMSNorm
from model.rotary import Rotary, halves, rotate

NORM_EPS = 1e-6
"""Of the latents' norms, whatever the other norms have: so do DeepSeek's code and transformers."""


class LatentAttention(nn.Module):
    """Keys and values are made of a narrow latent, beside one rotary key that all heads share.

    Whole sequences are expanded to full heads. A single new token is scored against the latents
    themselves, with the expansion moved into its query and output: the cache holds `kv_lora_rank +
    qk_rope_head_dim` numbers per token and layer, and they are never expanded again.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.nope, self.rope = config.qk_nope_head_dim, config.qk_rope_head_dim
        self.value, self.rank = config.v_head_dim, config.kv_lora_rank
        scaling = config.rope_scaling
        self.scale = config.head_dim**-0.5 * (scaling.score_size if scaling else 1.0)
        hidden, heads = config.hidden_size, config.num_attention_heads
        if config.q_lora_rank:
            self.q_a_proj = nn.Linear(hidden, config.q_lora_rank, bias=False)
            self.q_a_layernorm = RMSNorm(config.q_lora_rank, NORM_EPS)
            self.q_b_proj = nn.Linear(config.q_lora_rank, heads * config.head_dim, bias=False)
        else:
            self.q_proj = nn.Linear(hidden, heads * config.head_dim, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(hidden, self.rank + self.rope, bias=False)
        self.kv_a_layernorm = RMSNorm(self.rank, NORM_EPS)
        self.kv_b_proj = nn.Linear(self.rank, heads * (self.nope + self.value), bias=False)
        self.o_proj = nn.Linear(heads * self.value, hidden, bias=False)

    def forward(
        self, x_btd: Tensor, rotary: Rotary, mask: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        rows, length, _ = x_btd.shape
        queries = self._queries(x_btd).view(rows, length, -1, self.nope + self.rope).transpose(1, 2)
        plain, turned = queries.split((self.nope, self.rope), -1)
        turned = rotate(halves(turned), rotary)
        latent, key = self.kv_a_proj_with_mqa(x_btd).split((self.rank, self.rope), -1)
        key = rotate(halves(key)[:, None], rotary)
        held = torch.cat((self.kv_a_layernorm(latent)[:, None], key), -1)
        if cache is not None:
            (held,) = cache.update(self.layer, held)
        if length == 1:
            return self.o_proj(self._absorbed(plain, turned, held, mask))
        return self.o_proj(self._expanded(plain, turned, held, mask))

    def _queries(self, x_btd: Tensor) -> Tensor:
        if hasattr(self, "q_proj"):
            return self.q_proj(x_btd)
        return self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x_btd)))

    def _expanded(
        self, plain_bhtd: Tensor, turned_bhtd: Tensor, held_b1sr: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Attention with every head's keys and values made of the latents."""
        latent, key = held_b1sr.split((self.rank, self.rope), -1)
        both = self.kv_b_proj(latent[:, 0]).unflatten(-1, (-1, self.nope + self.value))
        keys, values = both.transpose(1, 2).split((self.nope, self.value), -1)
        keys = torch.cat((keys, key.expand(-1, keys.shape[1], -1, -1)), -1)
        queries = torch.cat((plain_bhtd, turned_bhtd), -1)
        return attend(queries, keys, values, mask, self.scale)

    def _absorbed(
        self, plain_bh1d: Tensor, turned_bh1d: Tensor, held_b1sr: Tensor, mask: Tensor | None
    ) -> Tensor:
        """The same for one new token, without making any head's keys or values."""
        weight_hdr = self.kv_b_proj.weight.view(-1, self.nope + self.value, self.rank)
        to_keys, to_values = weight_hdr.split((self.nope, self.value), 1)
        plain = torch.einsum("bhtd,hdr->bhtr", plain_bh1d, to_keys)
        queries = torch.cat((plain, turned_bh1d), -1)
        # The rotary key rides along as a value, and is dropped: so nothing is copied.
        out = attend(queries, held_b1sr, held_b1sr, mask, self.scale)
        latents = out.view(len(out), -1, self.rank + self.rope)[..., : self.rank]
        return torch.einsum("bhr,hdr->bhd", latents, to_values).flatten(1)[:, None]
