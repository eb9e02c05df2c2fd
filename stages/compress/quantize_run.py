"""Quantize a checkpoint and measure what that cost, against the float32 weights.

Perplexity is compared on the same held-out windows for both, so the interval is a paired bootstrap
over windows. The engine is compared token by token: it continues held-out prompts greedily, and the
float model says which token it would have taken after the same prefix.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cluster.errors import UserError
from model import gguf_file as dequantized
from model import pretrained
from model.transformer import Transformer
from serve.engine import Request
from serve.openvino_engine import OpenVINOEngine
from stages.compress.gguf_file import write_gguf
from stages.compress.quantize import Config
from stages.stage import Context, Inputs, Metrics, StageConfig, one
from stages.text.token_shards import TokenBatch, TokenShards

BOOTSTRAP_DRAWS = 2000
IGNORED_LABEL = -100


@dataclass(frozen=True)
class WindowLosses:
    """Summed negative log-likelihood (nats) and predicted tokens of each window, [rows]."""

    nats: np.ndarray
    tokens: np.ndarray

    @property
    def perplexity(self) -> float:
        """exp of the mean loss a token."""
        return math.exp(self.nats.sum() / self.tokens.sum())


def run(config: StageConfig, inputs: Inputs, context: Context) -> Metrics:
    """Write the artifact's files into `context.out`; the metrics say sizes and losses."""
    assert isinstance(config, Config)
    checkpoint, tokens = one(inputs, "model"), one(inputs, "tokens")
    target = context.out / "model.gguf"
    context.progress(0, 3, f"writing {config.format}")
    write_gguf(checkpoint.path, target, config.format, context.name or checkpoint.id)
    _copy_description(checkpoint.path, context.out)
    before, after = pretrained.load(checkpoint.path), dequantized.load_gguf(target)
    shards = TokenShards(tokens.path / "heldout")
    if shards.vocabulary_size > before.config.vocab_size:
        raise UserError(
            f"the tokens use {shards.vocabulary_size} ids, the model knows"
            f" {before.config.vocab_size}: give quantize the tokens of the model's own tokenizer"
        )
    context.progress(1, 3, "perplexity of both")
    losses = [measure_windows(model, shards, config, context.seed) for model in (before, after)]
    context.progress(2, 3, "greedy tokens of the engine")
    agreement = measure_engine(context.out, before, shards, config, context.seed)
    metrics: Metrics = {
        "format": config.format,
        "parameters": sum(weight.numel() for weight in before.parameters()),
        "bytes_before": _weight_bytes(checkpoint.path),
        "bytes_after": target.stat().st_size,
        "perplexity_before": losses[0].perplexity,
        "perplexity_after": losses[1].perplexity,
        **increase_percent(losses[0], losses[1], context.seed),
        **agreement,
        "heldout_tokens": int(losses[0].tokens.sum()),
        "heldout_windows": len(losses[0].tokens),
    }
    quality = json.dumps(metrics, indent=1)
    (context.out / "quality.json").write_text(quality + "\n", encoding="utf-8")
    context.progress(3, 3, "done")
    return metrics


def measure_windows(
    model: Transformer, shards: TokenShards, config: Config, seed: int
) -> WindowLosses:
    """The model's loss on held-out windows; windows and their order depend on `seed` alone."""
    length = min(config.row_tokens, model.config.max_position_embeddings, shards.tokens - 1)
    rows = min(config.measured_rows, shards.windows(length))
    batch = shards.batch(0, rows, length, seed)
    nats, counts = np.zeros(rows), np.zeros(rows)
    for begin in range(0, rows, config.batch_rows):
        part = slice(begin, begin + config.batch_rows)
        nats[part], counts[part] = _losses(model, batch, part)
    return WindowLosses(nats, counts)


@torch.inference_mode()
def _losses(model: Transformer, batch: TokenBatch, part: slice) -> tuple[np.ndarray, np.ndarray]:
    logits_btv = model(
        torch.from_numpy(batch.input_ids[part]), torch.from_numpy(batch.document_ids[part])
    )
    labels_bt = torch.from_numpy(batch.labels[part])
    losses_bt = torch.nn.functional.cross_entropy(
        logits_btv.transpose(1, 2), labels_bt, ignore_index=IGNORED_LABEL, reduction="none"
    )
    counts_b = (labels_bt != IGNORED_LABEL).sum(1)
    return losses_bt.double().sum(1).numpy(), counts_b.numpy()


def increase_percent(before: WindowLosses, after: WindowLosses, seed: int) -> dict[str, float]:
    """Relative growth of perplexity in percent, with the 95 % interval of a paired bootstrap."""
    difference = after.nats - before.nats
    draws = np.random.default_rng(seed).integers(
        0, len(difference), size=(BOOTSTRAP_DRAWS, len(difference))
    )
    drawn = difference[draws].sum(1) / before.tokens[draws].sum(1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    value = difference.sum() / before.tokens.sum()
    names = ("increase_percent", "increase_percent_low", "increase_percent_high")
    return {
        name: 100 * math.expm1(nats) for name, nats in zip(names, (value, low, high), strict=True)
    }


def measure_engine(
    folder: Path, model: Transformer, shards: TokenShards, config: Config, seed: int
) -> dict[str, float]:
    """How often the engine's greedy token is the float model's, after the same prefix.

    `greedy_agreement` is a share of tokens, its interval a bootstrap over prompts.
    """
    engine = OpenVINOEngine(folder, max_sequences=config.prompts)
    room = min(engine.context_tokens, shards.tokens - 1)
    prompt_tokens = min(config.prompt_tokens, room // 2)
    new_tokens = min(config.continuation_tokens, room - prompt_tokens)
    rows = min(config.prompts, shards.windows(prompt_tokens))
    prompts = shards.batch(0, rows, prompt_tokens, seed + 1).input_ids
    answers: dict[str, list[int]] = {}
    for number, prompt in enumerate(prompts):
        engine.add(Request(str(number), tuple(prompt.tolist()), new_tokens, temperature=0.0))
    while engine.has_work():
        for delta in engine.step():
            answers.setdefault(delta.request_id, []).extend(delta.token_ids)
    continued = np.array([answers[str(number)] for number in range(rows)])
    same = _same_tokens(model, prompts, continued).mean(1)
    draws = np.random.default_rng(seed).integers(0, rows, size=(BOOTSTRAP_DRAWS, rows))
    low, high = np.percentile(same[draws].mean(1), [2.5, 97.5])
    return {
        "greedy_agreement": float(same.mean()),
        "greedy_agreement_low": float(low),
        "greedy_agreement_high": float(high),
    }


@torch.inference_mode()
def _same_tokens(model: Transformer, prompts: np.ndarray, continued: np.ndarray) -> np.ndarray:
    """Where the model's likeliest next token is the one that was taken, bool [rows, new tokens]."""
    whole = torch.from_numpy(np.concatenate([prompts, continued], axis=1))
    logits_btv = model(whole[:, :-1])[:, prompts.shape[1] - 1 :]
    same: np.ndarray = logits_btv.argmax(-1).numpy() == continued
    return same


def _copy_description(checkpoint: Path, out: Path) -> None:
    """What a served model needs beside its weights: config, generation config, tokenizer."""
    pretrained.copy_tokenizer(checkpoint, out)
    for name in ("config.json", "generation_config.json"):
        if (checkpoint / name).exists():
            (out / name).write_bytes((checkpoint / name).read_bytes())


def _weight_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
