"""Batched sampling over a KV cache, and the log-probabilities of given completions.

Rows are right-aligned in one preallocated cache, so a decoding step is one forward pass over one
column; equal prompts are read once; rows that are done leave the batch. A row's random numbers
depend on its seed and the token's index alone, so its completion does not depend on its batch mates
(up to the rounding of float32 sums, which may break exact ties differently).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.kv_cache import KVCache
from model.loss import token_logprobs
from model.stop_strings import StopStrings
from model.tokenizer import Tokenizer
from model.transformer import Transformer

PREFILL_TOKENS = 8192
"""Prompt tokens read in one forward pass, padding included: bounds the memory of a prefill."""
BLOCK = 64
"""Width of the blocks in which a distribution is searched: about the root of a vocabulary."""
GREEDY_BELOW = 1e-5
"""A temperature under which sampling is greedy (vLLM's): logits divided by it would overflow."""
COMPACT_BELOW = 0.75
"""Rows leave when fewer than this share of them still samples: copying a cache is not free."""


@dataclass(frozen=True)
class Completion:
    """What one row sampled: its tokens (those that made it stop included), and why it ended.

    `logprobs` are of the model's own distribution, at temperature 1 and without truncation,
    whatever the sampling was: what importance ratios need. `finished` is False where the length
    ran out.
    """

    token_ids: list[int]
    logprobs: list[float]
    finished: bool


@torch.inference_mode()
def generate(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    stop_ids: Sequence[int] = (),
    stop_strings: Sequence[str] = (),
    tokenizer: Tokenizer | None = None,
    seed: int | Sequence[int] = 0,
) -> list[Completion]:
    """One completion per prompt, in order; repeat a prompt for several samples of it.

    Temperature 0, or one below GREEDY_BELOW, takes the likeliest token. `top_k` (0: all) and
    `top_p` (1: all) truncate. A row ends with one of `stop_ids`, or with the token that completes
    one of `stop_strings` in the text that `tokenizer` makes of its new tokens (`before_stop` cuts
    it there). Row i's randomness is of (seed, i), or of seed[i] where a seed per row is given.
    """
    if isinstance(seed, Integral):  # numpy's integers too
        seed = int(seed)
    _check(prompts, max_new_tokens, temperature, top_k, top_p, seed)
    strings = StopStrings(stop_strings, tokenizer)
    rows = len(prompts)
    if rows == 0:
        return []
    device = next(model.parameters()).device
    tokens = torch.zeros(rows, max_new_tokens, dtype=torch.long, device=device)
    logprobs = torch.zeros(rows, max_new_tokens, device=device)
    lengths = torch.full((rows,), max_new_tokens, device=device)
    finished = torch.zeros(rows, dtype=torch.bool, device=device)
    uniforms = torch.from_numpy(_uniforms(seed, rows, max_new_tokens)).to(device)
    stops = torch.tensor(list(stop_ids), dtype=torch.long, device=device)

    cache, logits = _prefill(model, prompts, max_new_tokens)
    live = torch.arange(rows, device=device)
    running = torch.ones(rows, dtype=torch.bool, device=device)
    for index in range(max_new_tokens):
        sampled, logprob = _sample(logits, uniforms[live, index], temperature, top_k, top_p)
        tokens[live, index] = sampled
        logprobs[live, index] = logprob
        if len(stops) or strings.reach:
            ended = torch.isin(sampled, stops)
            if strings.reach:
                said = tokens[live, max(0, index + 1 - strings.reach) : index + 1].tolist()
                ended |= torch.tensor(strings.ended(said), device=device)
            ended &= running
            lengths[live[ended]] = index + 1
            finished[live[ended]] = True
            running &= ~ended
        if index + 1 == max_new_tokens or not (going := int(running.sum())):
            break
        if going < COMPACT_BELOW * len(live):
            kept = running.nonzero()[:, 0]
            live, sampled, running = live[kept], sampled[kept], running[kept]
            cache = cache.select(kept)
        logits = model(sampled[:, None], cache=cache)[:, 0]
    return [
        Completion(ids[:length], scores[:length], ended)
        for ids, scores, length, ended in zip(
            tokens.tolist(), logprobs.tolist(), lengths.tolist(), finished.tolist(), strict=True
        )
    ]


def sequence_logprobs(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    chunk_tokens: int = 1024,
) -> Tensor:
    """Log-probability of every completion token after its prompt, differentiable.

    float32 [rows, longest completion], 0 behind a row's end. Temperature 1, no truncation.
    """
    if len(prompts) != len(completions):
        raise ValueError(
            f"{len(prompts)} prompts and {len(completions)} completions; expected as many"
        )
    if any(len(prompt) == 0 for prompt in prompts):
        raise ValueError("a prompt is empty; expected at least one token before what is scored")
    device = next(model.parameters()).device
    sequences = [[*prompt, *answer] for prompt, answer in zip(prompts, completions, strict=True)]
    starts = torch.tensor([len(prompt) for prompt in prompts])
    lengths = torch.tensor([len(answer) for answer in completions])
    longest = int(lengths.max()) if len(lengths) else 0
    if longest == 0:
        return torch.zeros(len(prompts), 0, device=device)
    ids_bt = _padded(sequences, left=False).to(device)
    # Padding stands behind, where causal attention never looks.
    hidden_btd = model.hidden(ids_bt)
    inside_bc = torch.arange(longest) < lengths[:, None]
    rows_n, offsets_n = inside_bc.nonzero(as_tuple=True)
    columns_n = (starts[rows_n] + offsets_n).to(device)
    rows_n = rows_n.to(device)
    scored_n = token_logprobs(
        hidden_btd[rows_n, columns_n - 1],
        model.lm_head.weight,
        ids_bt[rows_n, columns_n],
        chunk_tokens,
    )
    out_bc = torch.zeros(len(prompts), longest, dtype=scored_n.dtype, device=device)
    return out_bc.index_put((rows_n, offsets_n.to(device)), scored_n)


def _prefill(
    model: Transformer, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> tuple[KVCache, Tensor]:
    """Read the prompts, equal ones once: a cache with room to decode, each row's next logits."""
    keys = [tuple(prompt) for prompt in prompts]
    unique = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    device = next(model.parameters()).device
    dtype = next(model.parameters()).dtype
    ids_bt = _padded(list(unique), left=True).to(device)
    width = ids_bt.shape[1]
    starts_r = torch.tensor([width - len(key) for key in unique], device=device)
    cache = KVCache(model.config, width, starts_r, dtype)
    pieces = []
    step = max(1, PREFILL_TOKENS // width)
    for begin in range(0, len(ids_bt), step):
        view = cache.rows(begin, begin + step)
        pieces.append(model.lm_head(model.hidden(ids_bt[begin : begin + step], cache=view)[:, -1]))
    cache.length = width
    origin = torch.tensor([unique[key] for key in keys], device=device)
    logits = torch.cat(pieces).float()[origin]
    return cache.select(origin, capacity=width + max_new_tokens), logits


def _sample(
    logits_rv: Tensor, uniform_r: Tensor, temperature: float, top_k: int, top_p: float
) -> tuple[Tensor, Tensor]:
    """One token per row by inverse distribution, and its log-probability at temperature 1."""
    top_r1 = logits_rv.amax(-1, keepdim=True)
    mass_rv = (logits_rv - top_r1).exp_()
    normalizer_r = mass_rv.sum(-1).log_() + top_r1[:, 0]
    if temperature < GREEDY_BELOW:
        sampled = logits_rv.argmax(-1)
    elif top_k or top_p < 1:
        sampled = _sample_truncated(logits_rv / temperature, uniform_r, top_k, top_p)
    elif temperature == 1:
        sampled = _invert(mass_rv, uniform_r)
    else:
        sampled = _invert(torch.softmax(logits_rv / temperature, -1), uniform_r)
    return sampled, logits_rv.gather(1, sampled[:, None])[:, 0] - normalizer_r


def _sample_truncated(logits_rv: Tensor, uniform_r: Tensor, top_k: int, top_p: float) -> Tensor:
    """Sample among the `top_k` likeliest, and of these the fewest that hold `top_p` of the mass."""
    count = min(top_k or logits_rv.shape[1], logits_rv.shape[1])
    values, order = logits_rv.topk(count, -1)
    probabilities = torch.softmax(values, -1)
    before = probabilities.cumsum(-1) - probabilities
    probabilities.masked_fill_(before >= top_p, 0.0)
    picked = _invert(probabilities, uniform_r)
    return order.gather(1, picked[:, None])[:, 0]


def _invert(mass_rv: Tensor, uniform_r: Tensor) -> Tensor:
    """The first index whose cumulative mass exceeds uniform * total; never one without mass.

    In two stages, a block and an index within it: summing is many times faster than accumulating.
    """
    rows, width = mass_rv.shape
    blocks_rnw = F.pad(mass_rv, (0, -width % BLOCK)).view(rows, -1, BLOCK)
    ends_rn = blocks_rnw.sum(-1).cumsum(-1)
    target_r1 = uniform_r[:, None] * ends_rn[:, -1:]
    block_r1 = _first_above(ends_rn, target_r1)
    before_r1 = ends_rn.gather(1, (block_r1 - 1).clamp_min(0)).where(block_r1 > 0, 0.0)
    row_r = torch.arange(rows, device=mass_rv.device)
    inside_r1 = _first_above(blocks_rnw[row_r, block_r1[:, 0]].cumsum(-1), target_r1 - before_r1)
    return (block_r1 * BLOCK + inside_r1)[:, 0]


def _first_above(cumulative_rn: Tensor, target_r1: Tensor) -> Tensor:
    """The first index above the target, [rows, 1]; if rounding leaves none, the last with mass."""
    # argmax is the first index that reaches the total, so nothing behind it adds any mass.
    last_r1 = cumulative_rn.argmax(-1, keepdim=True)
    return torch.searchsorted(cumulative_rn, target_r1, right=True).minimum(last_r1)


def _uniforms(seed: int | Sequence[int], rows: int, count: int) -> np.ndarray:
    """[rows, count] float32 in [0, 1): a row's numbers depend on its seed, not on any length."""
    seeds = [[seed, row] for row in range(rows)] if isinstance(seed, int) else [[s] for s in seed]
    out = np.empty((rows, count), np.float32)
    for row, entropy in enumerate(seeds):
        out[row] = np.random.Generator(np.random.PCG64(entropy)).random(count, np.float32)
    return out


def _padded(sequences: Sequence[Sequence[int]], *, left: bool) -> Tensor:
    """[rows, longest] int64, zeros before (left) or behind."""
    width = max(map(len, sequences), default=0)
    out = np.zeros((len(sequences), width), np.int64)
    for row, sequence in enumerate(sequences):
        begin = width - len(sequence) if left else 0
        out[row, begin : begin + len(sequence)] = sequence
    return torch.from_numpy(out)


def _check(
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    seed: int | Sequence[int],
) -> None:
    if any(len(prompt) == 0 for prompt in prompts):
        raise ValueError("a prompt is empty; expected at least one token to continue")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; expected at least 1")
    if not temperature >= 0:
        raise ValueError(f"temperature is {temperature}; expected 0 (greedy) or more")
    if top_k < 0 or not 0 < top_p <= 1:
        raise ValueError(f"top_k is {top_k}, top_p {top_p}; expected top_k >= 0, 0 < top_p <= 1")
    if not isinstance(seed, int) and len(seed) != len(prompts):
        raise ValueError(f"{len(seed)} seeds for {len(prompts)} prompts; expected one each")
    if negative := [each for each in ([seed] if isinstance(seed, int) else seed) if each < 0]:
        raise ValueError(f"a seed is {negative[0]}; expected 0 or more")
