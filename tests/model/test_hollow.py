from __future__ import annotations

import torch
from torch import nn

from model.hollow import hollow, is_hollow, take_memory
from model.transformer import Transformer
from tests.model.conftest import small_config


def test_a_hollow_model_has_shapes_and_no_memory() -> None:
    config = small_config(tie_word_embeddings=True, num_experts=4, scoring_func="sigmoid")
    model, whole = hollow(lambda: Transformer(config)), Transformer(config)
    assert all(is_hollow(p) and p.untyped_storage().nbytes() == 4 for p in model.parameters())
    assert not any(is_hollow(p) for p in whole.parameters())
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert shapes == {name: value.shape for name, value in whole.state_dict().items()}
    buffers = list(model.buffers())
    assert buffers and not any(b.is_meta or b.any() for b in buffers)


def test_memory_is_taken_in_place() -> None:
    config = small_config(tie_word_embeddings=True)
    model = hollow(lambda: Transformer(config))
    before = list(model.parameters())
    optimizer = torch.optim.AdamW(before, fused=True)
    take_memory(model.model.layers[0])
    assert {is_hollow(p) for p in model.model.layers[0].parameters()} == {False}
    assert is_hollow(model.lm_head.weight)
    take_memory(model)
    assert all(a is b for a, b in zip(before, model.parameters(), strict=True))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    model.load_state_dict(Transformer(config).state_dict())
    old = model.lm_head.weight.detach().clone()
    model(torch.arange(6)[None]).square().mean().backward()
    optimizer.step()
    assert not torch.equal(model.lm_head.weight, old)


def test_a_module_may_take_only_its_own() -> None:
    model = hollow(lambda: nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)))
    take_memory(model, recurse=False)
    assert all(is_hollow(p) for p in model.parameters())
    model[0].weight.data = torch.ones(2, 3)
    take_memory(model)
    assert model[0].weight.eq(1).all()  # what had memory keeps it
