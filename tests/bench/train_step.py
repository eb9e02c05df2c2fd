"""Tokens per second of a training step: our decoder against Hugging Face's Qwen3, the same model.

Forward, backward and AdamW at the size of recipe `tiny`, 16 sequences of 256 tokens, float32. Both
start from the same weights and see the same batches; the losses must agree.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import Qwen3ForCausalLM

from model import pretrained
from model.config import ModelConfig
from model.loss import cross_entropy
from model.optimizer import build_optimizer
from model.transformer import Transformer
from tests.bench.harness import compare

ROWS, LENGTH = 16, 256


def our_model() -> Transformer:
    torch.manual_seed(0)
    return Transformer(ModelConfig()).train()


def batch(vocabulary: int) -> tuple[Tensor, Tensor]:
    """(inputs, labels), already shifted."""
    ids = torch.randint(0, vocabulary, (ROWS, LENGTH + 1))
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def side_by_side(
    bench: str, ours: Transformer, peer: nn.Module, peer_loss: Callable[[Tensor, Tensor], Tensor]
) -> None:
    """Compare training steps, once the losses are seen to be equal."""
    inputs, labels = batch(ours.config.vocab_size)

    def our_loss(inputs: Tensor, labels: Tensor) -> Tensor:
        loss, count = cross_entropy(ours.hidden(inputs), ours.lm_head.weight, labels)
        return loss / count

    with torch.no_grad():
        torch.testing.assert_close(
            our_loss(inputs, labels), peer_loss(inputs, labels), rtol=1e-5, atol=0
        )

    def stepper(
        loss: Callable[[Tensor, Tensor], Tensor], optimizer: torch.optim.Optimizer
    ) -> Callable[[], float]:
        def step() -> float:
            loss(inputs, labels).backward()
            optimizer.step()
            optimizer.zero_grad()
            return ROWS * LENGTH

        return step

    our_step = stepper(our_loss, build_optimizer(ours, 1e-4, 0.1))
    adamw = torch.optim.AdamW(peer.parameters(), lr=1e-4, weight_decay=0.1, fused=True)
    compare(bench, our_step, stepper(peer_loss, adamw), "tokens/s")


def main() -> None:
    ours = our_model()
    with tempfile.TemporaryDirectory() as folder:
        pretrained.save(ours, folder)
        peer = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32).train()

    def loss(inputs: Tensor, labels: Tensor) -> Tensor:
        return peer(inputs, shift_labels=labels, labels=labels, use_cache=False).loss

    side_by_side("train_step", ours, peer, loss)


if __name__ == "__main__":
    main()
