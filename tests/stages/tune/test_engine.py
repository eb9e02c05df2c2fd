"""Muon under DeepSpeed: the reference optimizer's losses, whole matrices or flat slices."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from model.config import ModelConfig
from model.optimizer import build_optimizer
from model.transformer import Transformer
from stages.tune.engine import StepGuard, client_optimizer, start_engine
from stages.tune.parallel import Parallel


@pytest.mark.parametrize("zero", [0, 1, 2])
def test_muon_is_the_reference_muon_at_every_zero_stage(zero: int, one_rank: Path) -> None:
    shape = ModelConfig(vocab_size=50, hidden_size=16, intermediate_size=40, num_hidden_layers=2,
                        num_attention_heads=2, num_key_value_heads=1, head_dim=8)  # fmt: skip
    torch.manual_seed(1)
    ours = Transformer(shape)
    reference = copy.deepcopy(ours)
    engine = start_engine(
        ours, client_optimizer(ours, 1e-2, 0.1, "muon"), Parallel(zero=zero), clip_norm=0.0
    )
    plain = build_optimizer(reference, 1e-2, 0.1, "muon")
    losses = []
    for step in range(8):
        torch.manual_seed(100 + step)
        ids = torch.randint(0, 50, (4, 12))
        loss = F.cross_entropy(engine.module(ids).flatten(0, 1), ids.flatten())
        engine.backward(loss)
        assert StepGuard(engine).step()[1]
        expected = F.cross_entropy(reference(ids).flatten(0, 1), ids.flatten())
        expected.backward()
        plain.step()
        plain.zero_grad()
        losses.append((loss.item(), expected.item()))
    # DeepSpeed iterates in bfloat16, which is all that differs.
    assert losses[-1][0] < losses[0][0] - 0.5
    assert all(mine == pytest.approx(theirs, abs=0.02) for mine, theirs in losses)
