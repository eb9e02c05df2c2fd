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
from stages.tune.engine import (
    StepGuard,
    client_optimizer,
    deepspeed_config,
    start_engine,
)
from stages.tune.parallel import Parallel


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
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
    guard = StepGuard(engine, clip_norm=0.0)
    losses = []
    for step in range(8):
        torch.manual_seed(100 + step)
        ids = torch.randint(0, 50, (4, 12))
        loss = F.cross_entropy(engine(ids).flatten(0, 1), ids.flatten())
        engine.backward(loss)
        norm, taken = guard.step()
        expected = F.cross_entropy(reference(ids).flatten(0, 1), ids.flatten())
        expected.backward()
        theirs = torch.nn.utils.get_total_norm([p.grad for p in reference.parameters()])
        assert taken and norm == pytest.approx(theirs.item(), rel=1e-5)
        plain.step()
        plain.zero_grad()
        losses.append((loss.item(), expected.item()))
    assert losses[-1][0] < losses[0][0] - 0.5
    assert all(mine == pytest.approx(theirs, abs=1e-5) for mine, theirs in losses)


def test_the_generated_configuration_says_what_the_recipe_did() -> None:
    parallel = Parallel(
        workers=16, tensor=8, zero=3, rows=2, gpu=True, offload_optimizer="cpu",
        offload_weights="cpu",
    )  # fmt: skip
    config = deepspeed_config(parallel, accumulation=4, clip_norm=1.0, hidden_size=64, muon=False)
    assert config["train_micro_batch_size_per_gpu"] == 2
    assert config["gradient_accumulation_steps"] == 4 and "train_batch_size" not in config
    assert config["tensor_parallel"] == {"autotp_size": 8, "keep_module_on_host": True}
    zero = config["zero_optimization"]
    assert zero["stage"] == 3 and zero["overlap_comm"] and zero["reduce_scatter"]
    assert zero["offload_optimizer"] == {"device": "cpu", "pin_memory": True}
    assert zero["offload_param"] == {"device": "cpu", "pin_memory": True}


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
@pytest.mark.parametrize("gpu", [False, True])
def test_deepspeed_reads_every_generated_configuration(
    zero: int, gpu: bool, one_rank: Path
) -> None:
    from deepspeed.runtime.config import DeepSpeedConfig

    parallel = Parallel(zero=zero, gpu=gpu, rows=4)
    made = deepspeed_config(parallel, accumulation=2, clip_norm=0.5, hidden_size=16, muon=False)
    read = DeepSpeedConfig(made)
    assert read.zero_optimization_stage == zero and read.gradient_accumulation_steps == 2
    assert read.gradient_clipping == (0.5 if zero else 0.0)  # ours at ZeRO 0


def test_zero_0_clips_to_the_norm_asked_for(one_rank: Path) -> None:
    torch.manual_seed(2)
    model = torch.nn.Linear(4, 3, bias=False)
    before = model.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    engine = start_engine(model, optimizer, Parallel(), clip_norm=0.25)
    engine.backward(engine(torch.full((2, 4), 3.0)).sum())
    norm, taken = StepGuard(engine, clip_norm=0.25).step()
    assert taken and norm == pytest.approx((12 * 6.0**2) ** 0.5)
    assert (model.weight - before).norm().item() == pytest.approx(0.25, rel=1e-5)
