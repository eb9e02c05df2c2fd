from __future__ import annotations

import pytest
import torch

from model.loss import cross_entropy
from model.optimizer import Muon, build_optimizer, orthogonalize
from model.transformer import Transformer
from tests.model.conftest import small_config


def loss_of(model: Transformer, ids: torch.Tensor) -> torch.Tensor:
    labels = torch.cat((ids[:, 1:], torch.full((len(ids), 1), -100)), 1)
    loss, count = cross_entropy(model.hidden(ids), model.lm_head.weight, labels)
    return loss / count


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_once_and_only_matrices_decay(kind: str, tied: bool) -> None:
    model = Transformer(small_config(tie_word_embeddings=tied))
    optimizer = build_optimizer(model, 1e-3, 0.1, kind)  # type: ignore[arg-type]
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(held) == len({id(p) for p in held}) == len(list(model.parameters()))
    names = {id(p): name for name, p in model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            decays = names[id(parameter)].endswith("_proj.weight")
            assert group["weight_decay"] == (0.1 if decays else 0.0)


def test_frozen_parameters_are_left_out() -> None:
    model = Transformer(small_config())
    model.model.embed_tokens.weight.requires_grad_(False)
    optimizer = build_optimizer(model, 1e-3, 0.1)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert id(model.model.embed_tokens.weight) not in held


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_it_learns(kind: str) -> None:
    torch.manual_seed(0)
    model = Transformer(small_config())
    ids = torch.randint(0, 160, (4, 24))
    optimizer = build_optimizer(model, 3e-3, 0.1, kind)  # type: ignore[arg-type]
    first = loss_of(model, ids).item()
    for _ in range(30):
        loss = loss_of(model, ids)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < first - 1.5


@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (32, 32)])
def test_newton_schulz_is_near_the_polar_factor(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    found = orthogonalize(matrix)
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    singular = torch.linalg.svdvals(found)[values > 0.1 * values.max()]
    assert float(singular.min()) > 0.6 and float(singular.max()) < 1.3
    # Same singular directions: U^T X V is diagonal.
    turned = u.T @ found @ v.T
    assert float((turned - torch.diag(turned.diag())).abs().max()) < 1e-4
    assert bool((turned.diag() > 0).all())


def test_muon_steps_as_torchs_does() -> None:
    torch.manual_seed(0)
    ours = torch.nn.Parameter(torch.randn(24, 40))
    theirs = torch.nn.Parameter(ours.detach().clone())
    mine = Muon([ours], [], 1e-2, 0.1)
    peer = torch.optim.Muon(
        [theirs], lr=1e-2, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(4):
        gradient = torch.randn(24, 40)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        peer.step()
    # torch iterates in bfloat16, which is all that differs.
    assert float((ours - theirs).detach().abs().max()) < 2e-3


def test_muons_other_group_is_adamw() -> None:
    torch.manual_seed(0)
    ours = torch.nn.Parameter(torch.randn(50))
    theirs = torch.nn.Parameter(ours.detach().clone())
    mine = Muon([], [ours], 1e-2, 0.1)
    peer = torch.optim.AdamW([theirs], lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
    for _ in range(5):
        gradient = torch.randn(50)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        peer.step()
    torch.testing.assert_close(ours, theirs)


def test_muons_state_saves_and_loads() -> None:
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(8, 6)) for _ in range(2)]
    weights[1].data.copy_(weights[0].data)
    optimizers = [Muon([weight], [], 1e-2, 0.0) for weight in weights]
    gradient = torch.randn(8, 6)
    weights[0].grad = gradient
    optimizers[0].step()
    weights[1].data.copy_(weights[0].data)
    optimizers[1].load_state_dict(optimizers[0].state_dict())
    for weight, optimizer in zip(weights, optimizers, strict=True):
        weight.grad = gradient
        optimizer.step()
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-6, atol=1e-7)


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="'sgd'; expected 'adamw' or 'muon'"):
        build_optimizer(Transformer(small_config()), 1e-3, 0.0, "sgd")  # type: ignore[arg-type]


def test_a_stack_of_matrices_is_taken_one_by_one() -> None:
    torch.manual_seed(0)
    stack = torch.randn(3, 12, 7) * torch.tensor([1.0, 100.0, 0.01])[:, None, None]
    found = orthogonalize(stack)
    for matrix, alone in zip(stack, found, strict=True):
        torch.testing.assert_close(alone, orthogonalize(matrix), atol=1e-4, rtol=1e-4)
