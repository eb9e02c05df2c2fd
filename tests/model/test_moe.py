from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from model.config import ModelConfig
from model.moe import Experts, MixtureOfExperts, Router, balance_experts, uncounted
from model.transformer import Transformer
from tests.model.conftest import lively, small_config


def mixture(**changes: object) -> ModelConfig:
    return small_config(**({"num_experts": 8, "num_experts_per_tok": 2} | changes))


def filled(config: ModelConfig) -> MixtureOfExperts:
    torch.manual_seed(0)
    module = MixtureOfExperts(config).double()
    for weight in module.parameters():
        weight.data.normal_(std=0.3)
    return module


@pytest.mark.parametrize("scoring", ["sigmoid", "softmax"])
def test_output_is_the_formula_token_by_token(scoring: str) -> None:
    """DeepSeek-V3's equations 12 to 16, written down plainly, in float64."""
    config = mixture(scoring_func=scoring, routed_scaling_factor=2.5 if scoring == "sigmoid" else 1)
    module = filled(config)
    x = torch.randn(2, 9, config.hidden_size, dtype=torch.float64)
    found = module(x)
    bias = torch.zeros(8, dtype=torch.float64)
    if scoring == "sigmoid":
        bias.normal_()
        module.gate.e_score_correction_bias.copy_(bias)
        assert (module(x) - found).abs().max() > 0.01
        found = module(x)
    experts = module.experts
    for row, column in ((0, 0), (0, 8), (1, 4)):
        token = x[row, column]
        logits = module.gate.weight @ token
        scores = logits.sigmoid() if scoring == "sigmoid" else logits.softmax(-1)
        chosen = (scores + bias).sort(descending=True).indices[:2]
        expected = torch.zeros_like(token)
        for expert in chosen:
            gate, up = (experts.gate_up_proj[expert] @ token).chunk(2)
            out = experts.down_proj[expert] @ (F.silu(gate) * up)
            share = scores[expert] / scores[chosen].sum() * config.routed_scaling_factor
            expected += share * out
        if scoring == "sigmoid":
            assert module.shared_experts is not None
            expected += module.shared_experts(token)
        torch.testing.assert_close(found[row, column], expected)


def test_gradients_are_numerical_ones_and_idle_experts_have_none() -> None:
    config = mixture(hidden_size=6, moe_intermediate_size=8)
    torch.manual_seed(0)
    experts = Experts(config).double()
    for weight in experts.parameters():
        weight.data.normal_()
    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(5, 2, dtype=torch.float64, requires_grad=True)
    chosen = torch.tensor([[3, 0], [0, 7], [3, 7], [1, 3], [3, 4]])
    assert torch.autograd.gradcheck(lambda x, w: experts(x, w, chosen), (x, weights))
    experts(x, weights, chosen).sum().backward()
    assert experts.down_proj.grad is not None
    used = experts.down_proj.grad.abs().amax((1, 2)) > 0
    assert used.tolist() == [True, True, False, True, True, False, False, True]


@pytest.mark.parametrize("width", [24, 13])
def test_grouped_products_equal_single_ones(width: int) -> None:
    """float32, through the grouped kernel (24) or where it is not aligned (13), against float64."""
    module = filled(mixture(moe_intermediate_size=width))
    x = torch.randn(3, 11, 48, dtype=torch.float64, requires_grad=True)
    exact = module(x)
    exact_grads = torch.autograd.grad(exact.sin().sum(), [x, *module.parameters()])
    module.float()
    single = x.detach().float().requires_grad_()
    found = module(single)
    torch.testing.assert_close(found.double(), exact, atol=1e-4, rtol=1e-4)
    grads = torch.autograd.grad(found.sin().sum(), [single, *module.parameters()])
    for grad, reference in zip(grads, exact_grads, strict=True):
        torch.testing.assert_close(grad.double(), reference, atol=1e-3, rtol=1e-3)


def test_experts_come_from_the_best_groups() -> None:
    config = mixture(n_group=4, topk_group=1)
    router = Router(config)
    router.weight.data = torch.randn(8, 48)
    _, chosen = router(torch.randn(200, 48))
    assert torch.equal(chosen[:, 0] // 2, chosen[:, 1] // 2)
    assert len(set((chosen // 2).flatten().tolist())) == 4


def test_balancing_evens_out_a_skewed_router() -> None:
    """Router weights stay as they are; the biases alone bring every expert near the mean."""
    torch.manual_seed(0)
    module = MixtureOfExperts(mixture()).train()
    module.gate.weight.data.normal_(std=0.2)
    module.gate.weight.data[0] += 0.1
    x = torch.randn(4000, 48) + 0.5
    before = after = 0.0
    for step in range(400):
        module.gate(x)
        after = balance_experts(module, rate=5e-3)
        before = before or after
        assert module.gate.load.sum() == 0, step
    assert before > 2 and after < 1.1
    assert module.gate.e_score_correction_bias[0] < 0


def test_uncounted_leaves_routers_as_they_were() -> None:
    model = lively(mixture())
    routers = [module for module in model.modules() if isinstance(module, Router)]
    for mode in (True, False):
        model.train(mode)
        with pytest.raises(RuntimeError, match="midway"), uncounted(model):
            assert not any(router.training for router in routers)
            raise RuntimeError("midway")
        assert all(router.training == mode for router in routers)


def test_only_training_counts_and_softmax_experts_are_only_counted() -> None:
    model = lively(mixture(scoring_func="softmax"))
    ids = torch.arange(30).view(2, 15)
    model(ids)
    assert balance_experts(model) == 0
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.train()(ids)
    assert balance_experts(model) >= 1
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert balance_experts(Transformer(small_config())) == 0


def test_the_bias_keeps_its_digits_in_half_precision() -> None:
    model = lively(mixture())
    gate = model.model.layers[0].mlp.gate
    gate.e_score_correction_bias.fill_(1.0001)
    model.bfloat16()
    assert gate.weight.dtype == torch.bfloat16
    assert gate.e_score_correction_bias.dtype == torch.float32
    assert float(gate.e_score_correction_bias[0]) == pytest.approx(1.0001, abs=1e-6)
    assert model(torch.arange(8)[None]).isfinite().all()


def test_autocast_leaves_the_router_its_digits() -> None:
    module = filled(mixture()).float().eval()
    x = torch.randn(2, 9, 48)
    exact, (weights, chosen) = module(x), module.gate(x.flatten(0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        half, (found, same) = module(x), module.gate(x.flatten(0, 1))
    assert torch.equal(chosen, same) and torch.equal(weights, found)
    assert found.dtype == torch.float32
    assert (half.float() - exact).abs().mean() < 0.02 * exact.abs().mean()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_it_is_the_same_and_twice_the_same(dtype: torch.dtype) -> None:
    module = filled(mixture(hidden_size=64, moe_intermediate_size=32)).cuda()
    x = torch.randn(4, 64, 64, dtype=torch.float64, device="cuda", requires_grad=True)
    exact = torch.autograd.grad(module(x).sum(), [x])[0]
    module.to(dtype)
    single = x.detach().to(dtype).requires_grad_()
    first, second = (torch.autograd.grad(module(single).sum(), [single])[0] for _ in range(2))
    assert torch.equal(first, second)
    close = (first.double() - exact).abs().amax(-1) < 0.05 * exact.abs().max()
    assert close.double().mean() > 0.95  # in 16 bits a token near a tie takes another expert


def test_experts_learn() -> None:
    """A few steps of AdamW over a fixed batch, with balancing, halve the loss."""
    torch.manual_seed(0)
    model = Transformer(mixture(num_hidden_layers=2)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    ids = torch.randint(0, 160, (4, 17))
    losses = []
    for _ in range(30):
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        balance_experts(model)
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
