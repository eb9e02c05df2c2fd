from __future__ import annotations

import pytest
import torch
from transformers import Qwen3ForCausalLM

from model.attention import KVCache
from model.loss import cross_entropy
from model.transformer import Transformer
from tests.model.conftest import lively, small_config


def ids(rows: int, length: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 160, (rows, length), generator=generator)


def test_logits_are_hugging_faces(model: Transformer, twin: Qwen3ForCausalLM) -> None:
    x = ids(3, 33)
    with torch.no_grad():
        expected, found = twin(x).logits, model(x)
    assert found.dtype == torch.float32
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_gradients_are_hugging_faces(model: Transformer, twin: Qwen3ForCausalLM) -> None:
    x = ids(3, 33)
    twin.double().train()
    model.double().train()
    labels = torch.cat((x[:, 1:], torch.full((3, 1), -100)), 1)
    loss, count = cross_entropy(model.hidden(x), model.lm_head.weight, labels, chunk_tokens=10)
    (loss / count).backward()
    expected = twin(x, labels=x).loss
    expected.backward()
    # transformers computes the loss in float32, whatever the model's type.
    torch.testing.assert_close(loss.float() / count, expected.float())
    theirs = dict(twin.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, atol=1e-6, rtol=1e-4)


def test_state_dict_has_hugging_faces_names(model: Transformer, twin: Qwen3ForCausalLM) -> None:
    assert set(model.state_dict()) == set(twin.state_dict())


def test_packed_documents_equal_separate_ones(model: Transformer) -> None:
    first, second, third = ids(1, 9, 1), ids(1, 14, 2), ids(1, 1, 3)
    packed = torch.cat((first, second, third), 1)
    documents = torch.tensor([[0] * 9 + [5] * 14 + [6]])
    with torch.no_grad():
        together = model(packed, documents)
        apart = torch.cat([model(x) for x in (first, second, third)], 1)
        mixed = model(packed)
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)
    assert (mixed - apart).abs().max() > 0.01


@pytest.mark.parametrize("padding", [[0, 0], [0, 4], [3, 4]])
def test_cache_equals_the_whole_pass(model: Transformer, padding: list[int]) -> None:
    """Read in three pieces, right-aligned behind any padding: the logits of each row alone."""
    x = ids(2, 20)
    starts = torch.tensor(padding)
    cache = KVCache(model.config, 20, starts, torch.float32)
    with torch.no_grad():
        pieces = [model(x[:, a:b], cache=cache) for a, b in ((0, 8), (8, 9), (9, 14), (14, 20))]
        for row, start in enumerate(padding):
            alone = model(x[row : row + 1, start:])
            cached = torch.cat(pieces, 1)[row : row + 1, start:]
            torch.testing.assert_close(cached, alone, atol=1e-5, rtol=1e-5)
    assert cache.length == 20


def test_a_full_cache_says_so(model: Transformer) -> None:
    cache = KVCache(model.config, 4, torch.zeros(1, dtype=torch.long), torch.float32)
    with pytest.raises(ValueError, match="holds 4 columns; 5 are needed"):
        model(ids(1, 5), cache=cache)


def test_a_batch_of_one_head_group_and_untied_head() -> None:
    config = small_config(num_key_value_heads=6, tie_word_embeddings=False)
    model = lively(config)
    assert model.lm_head.weight is not model.model.embed_tokens.weight
    x = ids(2, 6)
    cache = KVCache(config, 6, torch.zeros(2, dtype=torch.long), torch.float32)
    with torch.no_grad():
        model(x[:, :5], cache=cache)
        last = model(x[:, 5:], cache=cache)
        torch.testing.assert_close(last[:, 0], model(x)[:, -1], atol=1e-5, rtol=1e-5)


def test_tensor_parallel_plan_names_every_matrix_in_a_layer(model: Transformer) -> None:
    planned = {name.replace("*", "0") for name in Transformer._tp_plan}
    inside = {n for n, m in model.named_modules() if n.startswith("model.layers.0.")}
    assert planned <= inside
    linears = {n for n in inside if n.endswith("_proj")}
    assert linears <= planned


def test_bfloat16_stays_close(model: Transformer) -> None:
    x = ids(2, 16)
    with torch.no_grad():
        exact = torch.log_softmax(model(x), -1)
        half = torch.log_softmax(model.bfloat16()(x), -1)
    assert (exact - half).abs().mean() < 0.1
