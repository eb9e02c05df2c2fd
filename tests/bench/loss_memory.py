"""Peak memory of head and loss, forward and backward: ours against Hugging Face's Qwen3.

Vocabulary 32 768, one row of 1024 tokens, float32: from the last hidden states to the gradients of
those and of the head. Both sides compute the same loss and gradients. Memory is what the process's
resident set rose by (the kernel's high-water mark, set back before each call); the line before the
last says what the speeds are.
"""

from __future__ import annotations

import ctypes
import gc
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import Qwen3Config
from transformers.loss.loss_utils import ForCausalLMLoss

from model.loss import cross_entropy
from tests.bench.harness import compare

VOCABULARY, LENGTH, WIDTH, ROUNDS = 32_768, 1024, 512, 5
MIB = 2**20


def peak_mib(work: Callable[[], object]) -> float:
    """How far the resident set rises above what it is before, MiB."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    work()
    return (_status("VmHWM") - before) / MIB


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


class Side:
    """A head and hidden states, with the gradients that they end with."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.hidden = torch.randn(1, LENGTH, WIDTH, requires_grad=True)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.labels = torch.randint(0, VOCABULARY, (1, LENGTH))
        self.loss = 0.0

    def finish(self, loss: Tensor) -> float:
        """Backward; the number of tokens."""
        self.hidden.grad = self.head.weight.grad = None
        loss.backward()
        self.loss = loss.item()
        return LENGTH

    def ours(self) -> float:
        total, count = cross_entropy(self.hidden, self.head.weight, self.labels)
        return self.finish(total / count)

    def peer(self) -> float:
        """The end of Qwen3ForCausalLM.forward with labels."""
        logits = self.head(self.hidden)
        loss = ForCausalLMLoss(logits, self.labels, VOCABULARY, shift_labels=self.labels)
        return self.finish(loss)


def main() -> None:
    assert Qwen3Config().vocab_size > VOCABULARY
    ours, peer = Side(), Side()
    ours.ours()
    peer.peer()
    assert ours.head.weight.grad is not None and peer.head.weight.grad is not None
    torch.testing.assert_close(ours.loss, peer.loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(ours.head.weight.grad, peer.head.weight.grad, atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(ours.hidden.grad, peer.hidden.grad, atol=1e-6, rtol=1e-3)
    compare("loss_speed", ours.ours, peer.peer, "tokens/s", rounds=ROUNDS)
    peaks: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(ROUNDS):
        for side in (ours, peer):  # both hold their gradients before and after
            side.hidden.grad = side.head.weight.grad = None
        peaks["ours"].append(peak_mib(ours.ours))
        ours.hidden.grad = ours.head.weight.grad = None
        peaks["peer"].append(peak_mib(peer.peer))
    best = {name: min(found) for name, found in peaks.items()}
    print(
        json.dumps(
            {
                "bench": "loss_memory",
                "ours": round(best["ours"], 1),
                "peer": round(best["peer"], 1),
                "unit": "MiB",
                "ratio": round(best["ours"] / best["peer"], 3),
            }
        )
    )


if __name__ == "__main__":
    main()
