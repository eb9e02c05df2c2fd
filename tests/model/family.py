"""The family of shapes on which our decoder must equal transformers' Qwen3, and the comparison.

`tests/parity` walks all of it; `test_family.py` a seeded sample.
"""

from __future__ import annotations

import itertools
import random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from model.generate import generate
from model.loss import IGNORED, cross_entropy
from model.transformer import Transformer
from tests.model.conftest import lively, small_config

HEADS = [(1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (4, 4), (6, 2), (6, 3), (8, 2), (8, 8)]
FAMILY: list[dict[str, Any]] = [
    {
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "num_hidden_layers": layers,
        "tie_word_embeddings": tied,
        "rope_theta": theta,
    }
    for (heads, kv_heads), head_dim, layers, tied, theta in itertools.product(
        HEADS, (8, 16, 64), (1, 2, 4), (True, False), (1e4, 1e6)
    )
]
SAMPLE = random.Random(17).sample(FAMILY, 6)
LENGTH = 24
DOCUMENTS = ([9, 14, 1], [5, 19])
"""Lengths of the documents packed in each of the two rows."""
PROMPTS = [[5, 6, 7], [9], [11, 3, 8, 2, 40, 7, 1]]


def name(shape: dict[str, Any]) -> str:
    """What pytest calls a member of the family."""
    heads = "x".join(str(shape[f"num_{kind}_heads"]) for kind in ("attention", "key_value"))
    tied = "tied" if shape["tie_word_embeddings"] else "untied"
    layers, theta = shape["num_hidden_layers"], shape["rope_theta"]
    return f"{heads}-dim{shape['head_dim']}-layers{layers}-{tied}-theta{theta:.0e}"


def twins(shape: dict[str, Any]) -> tuple[Transformer, Qwen3ForCausalLM]:
    """Our model and transformers' with the same weights."""
    # Milder than elsewhere: through four layers of wild weights, rounding alone reaches 1e-5.
    ours = lively(small_config(**shape), std=0.1)
    theirs = Qwen3ForCausalLM(Qwen3Config(**ours.config.to_hugging_face())).eval()
    # lm_head.weight of a tied head is in both state dicts: strict loading checks every name.
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def batch(packed: bool) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """(input ids, labels, our document ids or None, transformers' positions), of two rows.

    transformers knows packed documents by positions that start again from 0.
    """
    ids = torch.randint(0, 160, (2, LENGTH + 1), generator=torch.Generator().manual_seed(1))
    inputs, labels = ids[:, :-1], ids[:, 1:].clone()
    if not packed:
        return inputs, labels, None, torch.arange(LENGTH).expand(2, -1)
    documents = torch.tensor(
        [[n for n, size in enumerate(row) for _ in range(size)] for row in DOCUMENTS]
    )
    positions = torch.tensor([[i for size in row for i in range(size)] for row in DOCUMENTS])
    labels[:, :-1][documents[:, 1:] != documents[:, :-1]] = IGNORED
    return inputs, labels, documents, positions


def check_logits_and_gradients(shape: dict[str, Any], packed: bool) -> None:
    """Logits and loss in float32, gradients in float64."""
    ours, theirs = twins(shape)
    inputs, labels, documents, positions = batch(packed)
    for dtype in (torch.float32, torch.float64):
        ours.to(dtype)
        theirs.to(dtype)
        expected = theirs(inputs, position_ids=positions, use_cache=False).logits
        expected_loss = F.cross_entropy(expected.flatten(0, 1), labels.flatten())
        hidden = ours.hidden(inputs, documents)
        total, count = cross_entropy(hidden, ours.lm_head.weight, labels, chunk_tokens=10)
        assert expected.std() > 0.1
        found = F.linear(hidden, ours.lm_head.weight)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(total / count, expected_loss, atol=1e-5, rtol=0)
    expected_loss.backward()
    (total / count).backward()
    references = dict(theirs.named_parameters())
    for key, parameter in ours.named_parameters():
        reference = references[key].grad
        size = reference.abs().max()
        assert size > 0
        # Not closer: transformers' norms and rotary tables are float32 whatever the model's type.
        assert (parameter.grad - reference).abs().max() < 1e-5 * size, key


def check_greedy(shape: dict[str, Any]) -> None:
    """Twelve likeliest tokens after each prompt; prompts of different length share our batch."""
    ours, theirs = twins(shape)
    found = generate(ours, PROMPTS, max_new_tokens=12, temperature=0)
    for prompt, completion in zip(PROMPTS, found, strict=True):
        expected = theirs.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=12, eos_token_id=None
        )
        assert completion.token_ids == expected[0, len(prompt) :].tolist()
