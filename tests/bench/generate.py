"""Tokens per second of greedy generation: ours against Hugging Face's generate, the same model.

Sixteen prompts of equal length (Hugging Face has no ragged batches without padding), 64 new tokens
each, float32, at the size of recipe `tiny`; the tokens must be the same. Then the same on prompts
of 8 to 64 tokens, which Hugging Face pads on the left.
"""

from __future__ import annotations

import tempfile

import torch
from torch import Tensor
from transformers import Qwen3ForCausalLM

from model import pretrained
from model.config import ModelConfig
from model.generate import generate
from model.transformer import Transformer
from tests.bench.harness import compare

ROWS, PROMPT, NEW = 16, 64, 64


def main() -> None:
    torch.manual_seed(0)
    ours = Transformer(ModelConfig()).eval()
    for weight in ours.parameters():  # an untrained model repeats one token
        weight.data.normal_(std=0.1) if weight.ndim > 1 else None
    with tempfile.TemporaryDirectory() as folder:
        pretrained.save(ours, folder)
        peer = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.randint(0, ours.config.vocab_size, (ROWS, PROMPT))
    ragged = [8 + row * (PROMPT - 8) // (ROWS - 1) for row in range(ROWS)]
    _side_by_side("generate_ragged", ours, peer, ids, ragged)
    _side_by_side("generate", ours, peer, ids, [PROMPT] * ROWS)


def _side_by_side(
    name: str, ours: Transformer, peer: Qwen3ForCausalLM, ids: Tensor, lengths: list[int]
) -> None:
    """Compare on the last `lengths` tokens of each row, once the tokens are seen to be equal."""
    prompts = [row[-length:].tolist() for row, length in zip(ids, lengths, strict=True)]
    mask = torch.tensor([[0] * (PROMPT - n) + [1] * n for n in lengths])

    def our_tokens() -> list[list[int]]:
        found = generate(ours, prompts, max_new_tokens=NEW, temperature=0)
        return [completion.token_ids for completion in found]

    def peer_tokens() -> Tensor:
        return peer.generate(
            ids, attention_mask=mask, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False,
            pad_token_id=0,
        )[:, PROMPT:]  # fmt: skip

    different = (torch.tensor(our_tokens()) != peer_tokens()).any(1)
    if bool(different.any()):
        raise SystemExit(f"{int(different.sum())} of {ROWS} rows differ from Hugging Face's")

    def our_work() -> float:
        our_tokens()
        return ROWS * NEW

    def peer_work() -> float:
        peer_tokens()
        return ROWS * NEW

    compare(name, our_work, peer_work, "tokens/s", rounds=5)


if __name__ == "__main__":
    main()
