"""The decoder as it is trained: what it holds beside its weights."""

from __future__ import annotations

import torch

from model.config import ModelConfig
from stages.tune.decoder import TrainedDecoder
from stages.tune.parallel import Parallel


def test_a_recomputed_decoder_is_never_held_in_bfloat16_beside_itself() -> None:
    """PyTorch's own tracker of live tensors, with few tokens and gradients that go at once."""
    from torch.distributed._tools.mem_tracker import MemTracker

    config = ModelConfig(
        vocab_size=256, hidden_size=192, intermediate_size=768, num_hidden_layers=8,
        num_attention_heads=6, num_key_value_heads=6, head_dim=32,
    )  # fmt: skip
    model = TrainedDecoder(config, Parallel(activation_checkpointing=True), bfloat16=True)
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    ids = torch.zeros(1, 16, dtype=torch.long)
    tracker = MemTracker()
    tracker.track_external(model)
    with tracker:
        model(ids, ids, labels_bt=ids).backward()
    peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    layer = (config.parameters() - config.vocab_size * config.hidden_size) / 8
    assert 4 * config.parameters() < peak < 4 * config.parameters() + 8 * layer
