"""The decoder on a GPU: against float64, transformers, the dense mask, eager, and bfloat16."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from model.acceleration import accelerate
from model.attention import SHORTEST_IN_BLOCKS as TILE
from model.attention import document_mask
from model.config import ModelConfig
from model.generate import generate
from model.kernels import attend_blocks, block_mask
from model.loss import cross_entropy
from model.transformer import Transformer
from tests.model.conftest import lively, small_config

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here"),
]
LENGTH = 3 * TILE + 40
KINDS: dict[str, dict[str, object]] = {
    "sliding": {
        "sliding_window": 100,
        "layer_types": ("sliding_attention", "full_attention", "sliding_attention"),
    },
    "latent": {"kv_lora_rank": 64, "v_head_dim": 32, "tie_word_embeddings": False},
    "experts": {"num_experts": 8, "n_shared_experts": 1, "first_k_dense_replace": 1},
}


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch._dynamo.reset()


def shape(**changes: object) -> ModelConfig:
    """Wide enough for tensor cores: heads of 64, widths that are multiples of 16."""
    sizes = {"vocab_size": 512, "hidden_size": 256, "intermediate_size": 512, "head_dim": 64}
    return small_config(**sizes | {"num_attention_heads": 4, "num_key_value_heads": 2} | changes)


def batch(rows: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """(ids, labels, document ids) with borders within tiles, at their edge, and a document of 1."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 512, (rows, LENGTH + 1), generator=generator)
    lengths = ([70, 58, 1, LENGTH - 129], [TILE, 2 * TILE, LENGTH - 3 * TILE])
    documents = torch.stack(
        [torch.arange(len(n)).repeat_interleave(torch.tensor(n)) for n in lengths[:rows]]
    )
    return ids[:, :-1].cuda(), ids[:, 1:].contiguous().cuda(), documents.cuda()


def gradients(model: Transformer, packed: bool) -> dict[str, Tensor]:
    """The mean loss and its gradient to every weight."""
    ids, labels, documents = batch()
    hidden = model.hidden(ids, documents if packed else None)
    loss, count = cross_entropy(hidden, model.lm_head.weight, labels, chunk_tokens=300)
    names, weights = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss / count, weights)
    return {"loss": loss / count, **dict(zip(names, found, strict=True))}


def distance(found: Tensor, exact: Tensor) -> float:
    """Relative error, in the norm."""
    exact = exact.double()
    return float(((found.double() - exact).norm() / exact.norm()).detach())


@pytest.mark.parametrize("packed", [False, True])
def test_float64_is_what_a_cpu_computes(packed: bool) -> None:
    model = lively(shape(), std=0.05).double()
    ids, _, documents = batch()
    chosen = documents if packed else None
    with torch.no_grad():
        expected = model.hidden(ids.cpu(), None if chosen is None else chosen.cpu())
        found = model.cuda().hidden(ids, chosen).cpu()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)  # rotary is in float32


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_near_float64(dtype: torch.dtype, packed: bool, compiled: bool) -> None:
    exact = gradients(lively(shape(), std=0.05).double().cuda(), packed)
    model = lively(shape(), std=0.05).to(dtype).cuda()
    found = gradients(accelerate(model, compiled=compiled), packed)
    limit = 2e-5 if dtype == torch.float32 else 0.08
    far = {name: distance(found[name], exact[name]) for name in exact}
    assert all(error < limit for error in far.values()), far


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_layer_compiles_and_is_near_float64(kind: str, packed: bool) -> None:
    config = shape(**KINDS[kind])
    exact = gradients(lively(config, std=0.05).double().cuda(), packed)
    found = gradients(accelerate(lively(config, std=0.05).cuda()), packed)
    far = {name: distance(found[name], exact[name]) for name in exact}
    assert all(error < 5e-5 for error in far.values()), far


def test_bfloat16_is_as_near_to_float64_as_transformers() -> None:
    """Loss and every gradient: transformers' model rounds in the same places."""
    ours = lively(shape(), std=0.05)
    theirs = Qwen3ForCausalLM(Qwen3Config(**ours.config.to_hugging_face()))
    theirs.load_state_dict(ours.state_dict())
    theirs.bfloat16().cuda()
    exact = gradients(lively(shape(), std=0.05).double().cuda(), packed=False)
    found = gradients(accelerate(ours.bfloat16().cuda()), packed=False)
    ids, labels, _ = batch()
    theirs(ids, labels=labels, shift_labels=labels).loss.backward()
    for name, weight in theirs.named_parameters():
        assert weight.grad is not None
        assert distance(found[name], exact[name]) < 1.2 * distance(weight.grad, exact[name]), name


@pytest.mark.parametrize("window", [None, 2, 100, 3 * TILE])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_block_attention_is_the_dense_masks(dtype: torch.dtype, window: int | None) -> None:
    torch.manual_seed(0)
    _, _, documents = batch()
    inputs = [
        torch.randn(2, heads, LENGTH, 64, device="cuda", dtype=dtype, requires_grad=True)
        for heads in (4, 2, 2)
    ]
    position = torch.arange(LENGTH)
    dense = document_mask(documents.cpu())
    assert isinstance(dense, Tensor) and not isinstance(document_mask(documents), Tensor)
    if window is not None:
        dense = dense & (position[:, None] - position < window)
    wide = [x.detach().double().requires_grad_() for x in inputs]
    exact = F.scaled_dot_product_attention(*wide, attn_mask=dense.cuda(), enable_gqa=True)
    found = attend_blocks(*inputs, block_mask(LENGTH, documents.device, documents, window))
    upstream = torch.randn_like(found)
    limit = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    assert distance(found, exact) < limit
    expected = torch.autograd.grad(exact, wide, upstream.double())
    for grad, exact_grad in zip(
        torch.autograd.grad(found, inputs, upstream), expected, strict=True
    ):
        assert distance(grad, exact_grad) < limit


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_loss_is_float64s(dtype: torch.dtype) -> None:
    """In chunks of several sizes; in bfloat16 the head's gradient is rounded once, at the end."""
    torch.manual_seed(0)
    hidden = torch.randn(1000, 256, device="cuda", dtype=dtype, requires_grad=True)
    weight = (torch.randn(3000, 256, device="cuda") * 0.05).to(dtype).requires_grad_()
    labels = torch.randint(0, 3000, (1000,), device="cuda")
    labels[::7] = -100
    wide = [t.detach().double().requires_grad_() for t in (hidden, weight)]
    exact = F.cross_entropy(wide[0] @ wide[1].T, labels, reduction="sum", ignore_index=-100)
    expected = torch.autograd.grad(exact * 0.3, wide)
    limit = 1e-5 if dtype == torch.float32 else 8e-3
    for chunk_tokens in (64, 300, 4096):
        loss, count = cross_entropy(hidden, weight, labels, chunk_tokens)
        assert loss.dtype == torch.float32 and int(count) == int((labels >= 0).sum())
        torch.testing.assert_close(loss.double(), exact, rtol=limit / 10, atol=0)
        found = torch.autograd.grad(loss * 0.3, (hidden, weight))
        assert all(distance(a, b) < limit for a, b in zip(found, expected, strict=True))


def test_autocast_trains_wide_weights_in_bfloat16() -> None:
    exact = gradients(lively(shape(), std=0.05).double().cuda(), True)
    model = accelerate(lively(shape(), std=0.05).cuda())
    with torch.autocast("cuda", dtype=torch.bfloat16):
        found = gradients(model, True)
    assert all(gradient.dtype == torch.float32 for gradient in found.values())
    far = {name: distance(found[name], exact[name]) for name in exact}
    assert all(error < 0.08 for error in far.values()), far


def test_other_documents_need_no_new_compilation() -> None:
    model = accelerate(lively(shape(), std=0.05).bfloat16().cuda())
    ids, _, documents = batch()
    model.hidden(ids, documents).sum().backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        model.hidden(ids, documents.flip(0)).sum().backward()


def test_float8_is_near_bfloat16_and_learns_as_well() -> None:
    config = shape(hidden_size=512, intermediate_size=1024, num_attention_heads=8)
    ids, labels, documents = batch()
    courses = []
    for float8 in (False, True):
        torch.manual_seed(0)
        model = accelerate(Transformer(config).bfloat16().cuda().train(), float8=float8)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        course = []
        for _ in range(30):
            loss, count = cross_entropy(model.hidden(ids, documents), model.lm_head.weight, labels)
            (loss / count).backward()
            optimizer.step()
            optimizer.zero_grad()
            course.append(float(loss / count))
        courses.append(course)
    plain, eighth = courses
    assert plain[-1] < 0.8 * plain[0]
    assert abs(eighth[0] - plain[0]) < 0.01 * plain[0]
    assert abs(eighth[-1] - plain[-1]) < 0.05 * plain[0]


def test_greedy_tokens_are_a_cpus() -> None:
    model = lively(shape(), std=0.05)
    prompts = [[5, 6, 7], [9], [11, 3, 8, 2, 40, 7, 1]]
    expected = generate(model, prompts, max_new_tokens=12, temperature=0)
    found = generate(model.cuda(), prompts, max_new_tokens=12, temperature=0)
    assert [c.token_ids for c in found] == [c.token_ids for c in expected]
