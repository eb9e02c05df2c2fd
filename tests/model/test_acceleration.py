from __future__ import annotations

import functools

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor, nn

from model.acceleration import accelerate
from model.layers import RMSNorm
from model.loss import cross_entropy
from model.rotary import rotary_tables, rotate
from model.transformer import Transformer
from tests.model.conftest import lively, small_config


def gradients(model: Transformer) -> dict[str, Tensor]:
    ids = torch.randint(0, 160, (2, 33), generator=torch.Generator().manual_seed(1))
    documents = (torch.arange(32) // 9).expand(2, -1)
    loss, _ = cross_entropy(model.hidden(ids[:, :-1], documents), model.lm_head.weight, ids[:, 1:])
    names, weights = zip(*model.named_parameters(), strict=True)
    return {"loss": loss, **dict(zip(names, torch.autograd.grad(loss, weights), strict=True))}


def test_recomputing_changes_no_bit() -> None:
    expected = gradients(lively(small_config()))
    model = accelerate(lively(small_config()), compiled=False, recompute=True)
    found = gradients(model)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with torch.no_grad():
        model(torch.zeros(1, 3, dtype=torch.long))


def test_what_a_compiler_sees_is_what_is_computed_by_hand() -> None:
    """Norm and rotation are plain formulas under torch.compile, hand-written gradients without."""
    torch.manual_seed(0)
    norm = RMSNorm(8, 1e-6).double()
    norm.weight.data.uniform_(0.5, 2)
    cos, sin = (t.double() for t in rotary_tables(torch.arange(5)[None], small_config(head_dim=8)))
    x = torch.randn(2, 3, 5, 8, dtype=torch.float64, requires_grad=True)

    def turned(x: Tensor) -> Tensor:
        return rotate(norm(x), (cos, sin)).sin().sum()

    compiled = torch.compile(turned, backend="aot_eager", fullgraph=True)
    inputs = [x, norm.weight]
    torch.testing.assert_close(compiled(x), turned(x))
    torch.testing.assert_close(
        torch.autograd.grad(compiled(x), inputs), torch.autograd.grad(turned(x), inputs)
    )


def test_every_shape_has_its_graph_and_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """More shapes than the compiler's own limit, with and without gradients: none runs uncompiled,
    and the first finds its graph again.
    """
    counter = torch._dynamo.testing.CompileCounterWithBackend("eager")
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter))
    torch._dynamo.reset()
    model = accelerate(lively(small_config(num_hidden_layers=1)))

    def graphs_after(rows: int, length: int) -> int:
        model.hidden(torch.zeros(rows, length, dtype=torch.long))
        return int(counter.frame_count)

    shapes = [(rows, length) for rows in (4, 3, 2, 1) for length in (8, 12, 16)]
    with torch.compiler.set_stance("default"):
        found = [graphs_after(*shape) for shape in shapes]
        assert found == [2 * (number + 1) for number in range(len(shapes))]  # a layer, the norm
        assert graphs_after(*shapes[0]) == found[-1]
        with torch.no_grad():
            assert graphs_after(*shapes[0]) == found[-1] + 2
    torch._dynamo.reset()


def test_layers_compile_as_one_graph_without_breaks() -> None:
    """All layers share what the first one compiled, and names stay."""
    model = lively(small_config()).double()
    expected = gradients(model)
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    for layer in model.model.layers:
        nn.Module.compile(layer, backend=counter, fullgraph=True)
    with torch.compiler.set_stance("default"):  # an engine started before may have set another
        found = gradients(model)
    torch.testing.assert_close(found, expected)
    assert counter.frame_count == 1
