"""Tokens per second of a training step: our decoder against Hugging Face's Qwen3, the same model.

Forward, backward and AdamW at the size of recipe `tiny`, 16 sequences of 256 tokens, float32. Both
start from the same weights and see the same batches; the losses must agree.
"""

from __future__ import annotations

import tempfile

import torch
from transformers import Qwen3ForCausalLM

from model import pretrained
from model.config import ModelConfig
from model.loss import cross_entropy
from model.optimizer import build_optimizer
from model.transformer import Transformer
from tests.bench.harness import compare

ROWS, LENGTH = 16, 256


def main() -> None:
    torch.manual_seed(0)
    ours = Transformer(ModelConfig()).train()
    with tempfile.TemporaryDirectory() as folder:
        pretrained.save(ours, folder)
        peer = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
    ids = torch.randint(0, ours.config.vocab_size, (ROWS, LENGTH + 1))
    inputs, labels = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    our_optimizer = build_optimizer(ours, 1e-4, 0.1)
    peer_optimizer = torch.optim.AdamW(peer.parameters(), lr=1e-4, weight_decay=0.1, fused=True)

    def our_step() -> float:
        loss, count = cross_entropy(ours.hidden(inputs), ours.lm_head.weight, labels)
        (loss / count).backward()
        our_optimizer.step()
        our_optimizer.zero_grad()
        return ROWS * LENGTH

    def peer_step() -> float:
        peer(inputs, shift_labels=labels, labels=labels, use_cache=False).loss.backward()
        peer_optimizer.step()
        peer_optimizer.zero_grad()
        return ROWS * LENGTH

    with torch.no_grad():
        loss, count = cross_entropy(ours.hidden(inputs), ours.lm_head.weight, labels)
        theirs = peer(inputs, shift_labels=labels, labels=labels, use_cache=False).loss
        torch.testing.assert_close(loss / count, theirs, rtol=1e-5, atol=0)
    compare("train_step", our_step, peer_step, "tokens/s")


if __name__ == "__main__":
    main()
