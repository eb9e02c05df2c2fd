"""Our decoder in a transformers model: its logits and gradients, and what is left to it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
)

from stages.tune.transformers_decoder import run_by_our_decoder

SIZES = {
    "vocab_size": 60, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0,
}  # fmt: skip


def batch() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    ids, mask = torch.randint(1, 60, (3, 9)), torch.ones(3, 9, dtype=torch.long)
    mask[0, 5:] = mask[2, 8:] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


def twins(kind: Any, **sizes: Any) -> tuple[Any, Any]:
    """Two equal models, of which the second has our decoder."""
    torch.manual_seed(0)
    plain = kind(kind.config_class(**SIZES | sizes)).train()
    ours = kind(kind.config_class(**SIZES | sizes)).train()
    for weight in plain.parameters():  # norms of ones would hide their place
        weight.data.normal_(std=0.3)
    ours.load_state_dict(plain.state_dict())
    return plain, run_by_our_decoder(ours)


@pytest.mark.parametrize("kind", [Qwen3ForCausalLM, LlamaForCausalLM])
def test_logits_and_gradients_are_transformers(kind: Any) -> None:
    plain, ours = twins(kind)
    inputs = batch()
    inside = inputs["attention_mask"].bool()
    expected, found = plain(**inputs).logits[inside], ours(**inputs).logits[inside]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    expected.square().mean().backward()
    found.square().mean().backward()
    for (name, weight), mine in zip(plain.named_parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, weight.grad, atol=1e-5, rtol=1e-4, msg=name)
    assert list(ours.state_dict()) == list(plain.state_dict())


def test_a_judge_scores_alike() -> None:
    plain, ours = twins(Qwen3ForSequenceClassification, num_labels=1)
    torch.testing.assert_close(ours(**batch()).logits, plain(**batch()).logits)


def test_the_decoder_follows_the_weights() -> None:
    _, ours = twins(Qwen3ForCausalLM)
    before = ours(**batch()).logits
    ours.load_state_dict({name: tensor * 0.5 for name, tensor in ours.state_dict().items()})
    assert not torch.allclose(ours(**batch()).logits, before)


def test_padding_in_front_and_generation_stay_with_transformers() -> None:
    plain, ours = (model.eval() for model in twins(Qwen3ForCausalLM))
    inputs = batch()
    inputs["attention_mask"] = inputs["attention_mask"].flip(1)
    inside = inputs["attention_mask"].bool()
    torch.testing.assert_close(ours(**inputs).logits[inside], plain(**inputs).logits[inside])
    prompt = {"input_ids": inputs["input_ids"][:1], "max_new_tokens": 4, "do_sample": False}
    assert torch.equal(ours.generate(**prompt), plain.generate(**prompt))


def test_a_kind_that_we_have_not_is_left_alone() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=16, n_layer=1, n_head=2))
    assert run_by_our_decoder(model) is model
    assert "forward" not in vars(model.transformer)
