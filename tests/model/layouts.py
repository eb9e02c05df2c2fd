"""Shapes of every layout that others load, and what must hold for each against transformers.

`tests/parity` checks all of them; `test_layouts.py` all logits and a seeded sample of the rest.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from model import pretrained
from model.config import ModelConfig
from model.generate import generate
from model.kv_cache import KVCache
from model.loss import cross_entropy
from model.moe import Router
from model.transformer import Transformer
from tests.model.conftest import lively

LLAMA: dict[str, Any] = {"use_qk_norm": False}
SOFTMAX: dict[str, Any] = {"num_experts": 8, "scoring_func": "softmax"}
LATENT: dict[str, Any] = {"kv_lora_rank": 24, "tie_word_embeddings": False}
GROUPED: dict[str, Any] = {
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "n_group": 4,
    "topk_group": 2,
    "routed_scaling_factor": 2.5,
    "first_k_dense_replace": 1,
}


def _scaled(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_scaling": {"rope_type": kind, "factor": 4.0, **more}}


NONE_SLIDING = {"sliding_window": 7, "layer_types": ("full_attention",) * 3}
TRAINED = {"original_max_position_embeddings": 16}
LAYOUTS: dict[str, dict[str, Any]] = {
    "llama-multi-head": LLAMA | {"num_key_value_heads": 4, "head_dim": 12},
    "llama-grouped": LLAMA | {"tie_word_embeddings": False},
    "llama3-scaled": LLAMA | _scaled("llama3", **TRAINED),
    "llama-none-sliding": LLAMA | NONE_SLIDING,
    "mistral": LLAMA | {"sliding_window": 7},
    "qwen3": {"tie_word_embeddings": False},
    "qwen3-yarn": _scaled("yarn", **TRAINED),
    "qwen3-ntk": _scaled("ntk"),
    "qwen3-dynamic": _scaled("dynamic") | {"max_position_embeddings": 16},
    "qwen3-linear": _scaled("linear"),
    "qwen3-sliding": {"sliding_window": 7},
    "qwen3-some-sliding": {
        "sliding_window": 7,
        "layer_types": ("sliding_attention", "full_attention", "sliding_attention"),
    },
    "qwen3-moe": SOFTMAX,
    "qwen3-moe-none-sliding": SOFTMAX | NONE_SLIDING,
    "qwen3-moe-sliding": SOFTMAX
    | {"first_k_dense_replace": 1, "norm_topk_prob": False, "sliding_window": 7},
    "glm4-moe": {"num_experts": 8, "n_shared_experts": 2, "first_k_dense_replace": 1},
    "glm4-moe-groups": GROUPED | {"use_qk_norm": False},
    "deepseek-dense": LATENT,
    "deepseek-v3": LATENT | GROUPED | {"q_lora_rank": 32, "v_head_dim": 20},
    "deepseek-v3-yarn": LATENT
    | GROUPED
    | _scaled("yarn", mscale=1.0, mscale_all_dim=0.7, **TRAINED),
}
NAMES = sorted(LAYOUTS)
SAMPLE = ["qwen3-moe", "deepseek-v3", *random.Random(17).sample(NAMES, 3)]
LENGTH = 40
PROMPTS = [[5, 6, 7], [9], [11, 3, 8, 2, 40, 7, 1, 15, 20, 33]]


def shape(name: str) -> ModelConfig:
    base = {
        "vocab_size": 160,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
    }
    return ModelConfig.model_validate(base | LAYOUTS[name])


def ours(name: str) -> Transformer:
    """A lively model; what balances its experts is not zero either."""
    model = lively(shape(name), std=0.1)
    for module in model.modules():
        if isinstance(module, Router) and module.config.scoring_func == "sigmoid":
            module.e_score_correction_bias.normal_(std=0.1)
    return model


def theirs(folder: Path) -> PreTrainedModel:
    """transformers' model of a folder; nothing in it may be lacking or left over."""
    # Its grouped products take neither float64 nor widths that are not aligned.
    model, found = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, experts_implementation="eager", output_loading_info=True
    )
    assert not found["missing_keys"] and not found["unexpected_keys"]
    return model.eval()


def batch() -> Tensor:
    return torch.randint(0, 160, (2, LENGTH), generator=torch.Generator().manual_seed(1))


def check_round_trip(name: str, folder: Path) -> None:
    """Our files in transformers and its files here: the same logits, and the same weights again."""
    model, ids = ours(name), batch()
    pretrained.save(model, folder / "ours")
    twin = theirs(folder / "ours")
    twin.save_pretrained(folder / "theirs")
    again = pretrained.load(folder / "theirs")
    with torch.no_grad():
        expected, found = twin(ids).logits, model(ids)
        assert expected.std() > 0.1
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(again(ids), expected, atol=1e-5, rtol=1e-5)
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys() == twin.state_dict().keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    if name != "qwen3-ntk":  # whose larger theta is written instead of the factor
        assert again.config == model.config


def check_gradients(name: str, folder: Path) -> None:
    """Loss and every gradient, float64."""
    model, ids = ours(name), batch()
    pretrained.save(model, folder)
    twin = theirs(folder).double()
    model.double()
    labels = torch.cat((ids[:, 1:], torch.full((2, 1), -100)), 1)
    total, count = cross_entropy(model.hidden(ids), model.lm_head.weight, labels)
    (total / count).backward()
    expected = F.cross_entropy(twin(ids).logits.flatten(0, 1), labels.flatten())
    expected.backward()
    torch.testing.assert_close(total / count, expected, atol=1e-5, rtol=0)
    references = dict(twin.named_parameters())
    for key, parameter in model.named_parameters():
        reference = references[key].grad
        size = reference.abs().max()
        assert size > 0
        # Not closer: transformers' norms and rotary tables are float32 whatever the model's type.
        assert (parameter.grad - reference).abs().max() < 1e-5 * size, key


def check_greedy(name: str, folder: Path) -> None:
    """Twenty likeliest tokens after prompts of different length, which share our batch."""
    model = ours(name)
    pretrained.save(model, folder)
    found = generate(model, PROMPTS, max_new_tokens=20, temperature=0)
    for prompt, completion in zip(PROMPTS, found, strict=True):
        # A fresh one each time: its dynamic rotary embedding remembers the longest so far.
        expected = theirs(folder).generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=20, eos_token_id=None
        )
        assert completion.token_ids == expected[0, len(prompt) :].tolist()


def check_cache(name: str) -> None:
    """Read in pieces, right-aligned behind padding: each row's logits are those it has alone."""
    model, ids = ours(name), batch()[:, :24]
    starts = torch.tensor([0, 5])
    cache = KVCache(model.config, 24, starts, torch.float32)
    cuts = [(0, 10), (10, 11), (11, 12), (12, 20), (20, 24)]
    with torch.no_grad():
        pieces = torch.cat([model(ids[:, a:b], cache=cache) for a, b in cuts], 1)
        for row, start in enumerate(starts.tolist()):
            alone = model(ids[row : row + 1, start:])
            torch.testing.assert_close(pieces[row : row + 1, start:], alone, atol=1e-5, rtol=1e-5)


def check_documents(name: str) -> None:
    """Packed documents see nothing of each other."""
    model, ids = ours(name), batch()[:1, :27]
    documents = torch.tensor([[0] * 9 + [1] * 17 + [2]])
    with torch.no_grad():
        packed = model(ids, documents)
        apart = torch.cat([model(ids[:, a:b]) for a, b in ((0, 9), (9, 26), (26, 27))], 1)
    torch.testing.assert_close(packed, apart, atol=1e-5, rtol=1e-5)
