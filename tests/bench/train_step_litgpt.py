"""Tokens per second of a training step: our decoder against litgpt's GPT, the same model.

As `train_step`. litgpt's pins do not go with our transformers, so `make bench` installs it, and
what its import needs (26 MB), without dependencies and beside the environment; by hand:

    pip install --no-deps --target build/peers litgpt lightning lightning-utilities \
        pytorch-lightning torchmetrics
    PYTHONPATH=build/peers python -m tests.bench train_step_litgpt
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.transformer import Transformer
from tests.bench.train_step import our_model, side_by_side

NAMES = {
    "input_layernorm": "norm_1",
    "self_attn.q_norm": "attn.norm_q",
    "self_attn.k_norm": "attn.norm_k",
    "self_attn.o_proj": "attn.proj",
    "post_attention_layernorm": "norm_2",
    "mlp.gate_proj": "mlp.fc_1",
    "mlp.up_proj": "mlp.fc_2",
    "mlp.down_proj": "mlp.proj",
}
"""Our names within a layer, and litgpt's."""


def twin(ours: Transformer, config_class: Any, model_class: Any) -> nn.Module:
    """litgpt's model of the same shape and weights, its embedding tied as ours is."""
    shape = ours.config
    peer = model_class(
        config_class(
            name="twin", block_size=shape.max_position_embeddings, vocab_size=shape.vocab_size,
            padded_vocab_size=shape.vocab_size, n_layer=shape.num_hidden_layers,
            n_head=shape.num_attention_heads, n_embd=shape.hidden_size,
            n_query_groups=shape.num_key_value_heads, head_size=shape.head_dim, norm_qk=True,
            rotary_percentage=1.0, rope_base=int(shape.rope_theta), parallel_residual=False,
            bias=False, norm_class_name="RMSNorm", norm_eps=shape.rms_norm_eps,
            mlp_class_name="LLaMAMLP", intermediate_size=shape.intermediate_size,
        )
    )  # fmt: skip
    weights = ours.state_dict()
    found = {
        "transformer.wte.weight": weights["model.embed_tokens.weight"],
        "transformer.ln_f.weight": weights["model.norm.weight"],
        "lm_head.weight": weights["lm_head.weight"],
    }
    for layer in range(shape.num_hidden_layers):
        own, theirs = f"model.layers.{layer}", f"transformer.h.{layer}"
        for name, other in NAMES.items():
            found[f"{theirs}.{other}.weight"] = weights[f"{own}.{name}.weight"]
        parts = [weights[f"{own}.self_attn.{part}_proj.weight"] for part in "qkv"]
        found[f"{theirs}.attn.qkv.weight"] = torch.cat(parts)
    peer.load_state_dict(found)
    peer.lm_head.weight = peer.transformer.wte.weight
    return peer.train()


def main() -> None:
    try:
        from litgpt.config import Config
        from litgpt.model import GPT
    except ImportError as error:
        print(f"train_step_litgpt: not run, litgpt cannot be imported ({error}); see the module")
        return
    ours = our_model()
    peer = twin(ours, Config, GPT)

    def loss(inputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(peer(inputs).flatten(0, 1), labels.flatten())

    side_by_side("train_step_litgpt", ours, peer, loss)


if __name__ == "__main__":
    main()
