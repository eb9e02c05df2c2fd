from __future__ import annotations

import torch

from model.attention import KVCache, document_mask
from tests.model.conftest import small_config


def test_document_mask_is_causal_within_documents() -> None:
    documents = torch.tensor([[3, 3, 4, 4, 4], [0, 0, 0, 0, 1]])
    mask = document_mask(documents)
    assert mask.shape == (2, 1, 5, 5)
    for row in range(2):
        for query in range(5):
            for key in range(5):
                allowed = key <= query and documents[row, key] == documents[row, query]
                assert bool(mask[row, 0, query, key]) == bool(allowed)


def test_selected_rows_keep_their_keys_and_gain_room() -> None:
    config = small_config()
    cache = KVCache(config, 4, torch.tensor([0, 2, 1]), torch.float32)
    keys = torch.randn(3, 2, 4, 16)
    for layer in range(config.num_hidden_layers):
        cache.update(layer, keys, -keys)
    cache.length = 4
    chosen = cache.select(torch.tensor([2, 0, 0]), capacity=9)
    assert chosen.capacity == 9 and chosen.length == 4
    assert chosen.starts_r.tolist() == [1, 0, 0]
    for held_keys, held_values in chosen.layers:
        torch.testing.assert_close(held_keys[:, :, :4], keys[[2, 0, 0]])
        torch.testing.assert_close(held_values[:, :, :4], -keys[[2, 0, 0]])
    assert chosen.padded and not cache.select(torch.tensor([0])).padded


def test_positions_count_from_the_first_token() -> None:
    cache = KVCache(small_config(), 8, torch.tensor([0, 2]), torch.float32)
    assert cache.positions(4).tolist() == [[0, 1, 2, 3], [0, 0, 0, 1]]
    cache.length = 4
    assert cache.positions(1).tolist() == [[4], [2]]
