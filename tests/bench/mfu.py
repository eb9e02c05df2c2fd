"""MFU of a training step on one GPU: a ~1B dense decoder at T = 4096 in bfloat16, beside a peer.

Ours against Qwen3 of transformers, the same shape and weights (SDPA, torch.compile), in turns; then
ours with packed documents and in float8. A step is forward and backward over some micro-batches,
clipping, and AdamW on float32 masters. MFU counts what a causal mask leaves (model/flops.py), over
the data sheet's dense bfloat16 peak, in float8 too. Needs torch and model/ only, no Ray; the peer
needs transformers.

    python -m tests.bench.mfu [--rows 4 --accumulation 4 --only plain,documents,float8,peer]
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from model.acceleration import accelerate
from model.config import ModelConfig
from model.flops import packed_flops_per_token, peak_flops
from model.loss import IGNORED, cross_entropy
from model.transformer import Transformer
from tests.bench.harness import best_rate, compare

MEAN_DOCUMENT = 800
"""Tokens of a packed document on average: about a web page's."""
VARIANTS = ("plain", "documents", "float8", "float8 documents", "recompute")


class Batch(NamedTuple):
    """One micro-batch: ids and labels [rows, length], document ids or None, FLOPs in the step."""

    ids: Tensor
    labels: Tensor
    documents: Tensor | None
    flops: float


class Masters:
    """AdamW on float32 copies of bfloat16 weights, as mixed-precision training keeps them."""

    def __init__(self, model: nn.Module) -> None:
        self.weights = list(model.parameters())
        self.masters = [w.detach().float().requires_grad_() for w in self.weights]
        self.adamw = torch.optim.AdamW(
            self.masters, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True
        )

    def step(self) -> None:
        for master, weight in zip(self.masters, self.weights, strict=True):
            assert weight.grad is not None
            master.grad, weight.grad = weight.grad.float(), None
        nn.utils.clip_grad_norm_(self.masters, 1.0, foreach=True)
        self.adamw.step()
        self.adamw.zero_grad()
        with torch.no_grad():
            torch._foreach_copy_(self.weights, self.masters)


def main(arguments: list[str] | None = None) -> None:
    options = _options(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("mfu: no GPU here, nothing to measure (--device cpu tries the script out, slowly)")
        return
    config = ModelConfig(
        vocab_size=options.vocabulary, hidden_size=options.width,
        intermediate_size=3 * options.width, num_hidden_layers=options.layers,
        num_attention_heads=options.width // 128, num_key_value_heads=options.width // 256,
        head_dim=128, max_position_embeddings=options.length,
    )  # fmt: skip
    name = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    peak = peak_flops(name) or 1e12
    print(
        f"{name}, torch {torch.__version__}: {config.parameters() / 1e9:.3f}B parameters, T = "
        f"{options.length}, {options.accumulation} x {options.rows} rows a step, MFU of "
        f"{peak / 1e12:.0f} TFLOP/s" + ("" if peak_flops(name) else " (unknown device)")
    )
    for variant in VARIANTS:
        if variant in options.only:
            _measure(variant, config, options, peak)
    if "peer" in options.only:
        _against_peer(config, options, peak)


def _measure(variant: str, config: ModelConfig, options: argparse.Namespace, peak: float) -> None:
    """Best of some steps of one way to run our model, as a line."""
    batch = _batch(config, options, packed="documents" in variant)
    model = _ours(config, options, variant)
    step = _step(Masters(model), options, lambda: _our_loss(model, batch))
    step()
    step()
    _reset_peak_memory(options)
    seconds = 1 / max(best_rate(step) for _ in range(options.rounds))
    _print_line(variant, batch, seconds, options, peak)


def _against_peer(config: ModelConfig, options: argparse.Namespace, peak: float) -> None:
    """Both models with the same weights and batch, in turns; the last line is the result."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    batch = _batch(config, options, packed=False)
    ours = _ours(config, options, "plain")
    shape = Qwen3Config(**config.to_hugging_face(), attn_implementation="sdpa")
    shape.use_cache = False
    with torch.device(options.device):
        peer = Qwen3ForCausalLM(shape).bfloat16().train()
    peer.load_state_dict(ours.state_dict())
    if not options.peer_eager:
        peer.compile()

    def peer_loss() -> Tensor:
        return peer(batch.ids, labels=batch.labels, shift_labels=batch.labels).loss

    found, expected = _our_loss(ours, batch).detach(), peer_loss().detach()
    torch.testing.assert_close(found.float(), expected.float(), rtol=2e-3, atol=0)
    our_step = _step(Masters(ours), options, lambda: _our_loss(ours, batch))
    peer_step = _step(Masters(peer), options, peer_loss)
    flops = batch.flops * options.accumulation
    result = compare(
        "mfu",
        lambda: our_step() * flops / peak,
        lambda: peer_step() * flops / peak,
        "MFU",
        rounds=options.rounds,
    )
    for side in ("ours", "peer"):
        rate = float(result[side]) * peak / (batch.flops / batch.ids.numel())
        print(f"{side}: MFU {float(result[side]):.1%}, {rate:,.0f} tokens/s")
    print(json.dumps(result))


def _ours(config: ModelConfig, options: argparse.Namespace, variant: str) -> Transformer:
    gc.collect()
    if options.device == "cuda":
        torch.cuda.empty_cache()
    torch.manual_seed(0)
    with torch.device(options.device):
        model = Transformer(config).bfloat16().train()
    return accelerate(
        model,
        compiled=not options.eager,
        float8="float8" in variant,
        recompute="recompute" in variant,
    )


def _our_loss(model: Transformer, batch: Batch) -> Tensor:
    hidden = model.hidden(batch.ids, batch.documents)
    loss, count = cross_entropy(hidden, model.lm_head.weight, batch.labels)
    return loss / count


def _step(
    optimizer: Masters, options: argparse.Namespace, loss: Callable[[], Tensor]
) -> Callable[[], float]:
    """One optimizer step over some micro-batches, finished when it returns 1."""

    def step() -> float:
        for _ in range(options.accumulation):
            (loss() / options.accumulation).backward()
        optimizer.step()
        if options.device == "cuda":
            torch.cuda.synchronize()
        return 1.0

    return step


def _batch(config: ModelConfig, options: argparse.Namespace, *, packed: bool) -> Batch:
    """Random tokens; packed, in documents of exponentially distributed length."""
    rows, length = options.rows, options.length
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, config.vocab_size, (rows, length + 1), generator=generator)
    inputs = ids[:, :-1].contiguous().to(options.device)
    labels = ids[:, 1:].contiguous().to(options.device)
    if not packed:
        flops = rows * length * config.flops_per_token(length)
        return Batch(inputs, labels, None, flops)
    lengths = [_document_lengths(length, row) for row in range(rows)]
    documents = torch.stack(
        [torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)) for row in lengths]
    ).to(options.device)
    labels = labels.clone()
    labels[:, :-1][documents[:, 1:] != documents[:, :-1]] = IGNORED
    flops = rows * length * packed_flops_per_token(config, [n for row in lengths for n in row])
    return Batch(inputs, labels, documents, flops)


def _document_lengths(total: int, seed: int) -> list[int]:
    rng, left, lengths = random.Random(seed), total, []
    while left:
        lengths.append(min(left, 1 + int(rng.expovariate(1 / MEAN_DOCUMENT))))
        left -= lengths[-1]
    return lengths


def _print_line(
    name: str, batch: Batch, seconds: float, options: argparse.Namespace, peak: float
) -> None:
    flops = batch.flops * options.accumulation / seconds
    tokens = batch.ids.numel() * options.accumulation / seconds
    memory = torch.cuda.max_memory_allocated() / 2**30 if options.device == "cuda" else 0.0
    print(
        f"{name:17} MFU {flops / peak:6.1%}  {flops / 1e12:6.1f} TFLOP/s  {tokens:9,.0f} tokens/s"
        f"  {seconds * 1e3:8.1f} ms a step  {memory:5.1f} GiB at most",
        flush=True,
    )


def _reset_peak_memory(options: argparse.Namespace) -> None:
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def _options(arguments: list[str] | None) -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    for name, default in {
        "layers": 20, "width": 2048, "vocabulary": 32_768, "length": 4096, "rows": 4,
        "accumulation": 4, "rounds": 5,
    }.items():  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", default=",".join((*VARIANTS[1:4], "peer")), help="comma between")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--eager", action="store_true", help="ours without torch.compile")
    parser.add_argument("--peer-eager", action="store_true", help="the peer without torch.compile")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    options.only = options.only.split(",")
    return options


if __name__ == "__main__":
    main()
