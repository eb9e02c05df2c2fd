"""The learner: a policy, perhaps a value head and a frozen reference, and how a batch moves them.

`update` is a pure function of the learner's state, the batch, and the step's seed. `save` and
`load` keep the state (weights and AdamW's moments) in safetensors, so that a killed run goes on
to the bit.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model.loss import token_logprobs
from model.optimizer import build_optimizer
from model.transformer import Transformer
from stages.reinforce.objectives import (
    Aggregation,
    KLEstimator,
    clipped_surrogate,
    clipped_value_loss,
    kl_penalty,
    token_weights,
)
from stages.reinforce.token_batch import TokenBatch, micro_batches

STATE = "learner.safetensors"


@dataclass(frozen=True)
class LearnerSettings:
    """How a batch is learned from. A minibatch is one optimizer step."""

    learning_rate: float
    longest: int
    """The most tokens a completion may have."""
    warmup_updates: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    epochs: int = 1
    minibatches: int = 1
    micro_tokens: int = 8192
    """Tokens in one forward pass, padding included: bounds memory."""
    clip_low: float = 0.2
    clip_high: float = 0.2
    aggregation: Aggregation = "token"
    kl_coefficient: float = 0.0
    """Weight of the KL to the reference in the loss; 0 for none."""
    kl_estimator: KLEstimator = "k3"
    value_coefficient: float = 0.5
    value_clip: float = 0.2
    value_learning_rate: float = 1e-3


@dataclass(frozen=True)
class Experience:
    """One completion to learn from; lists have one entry per completion token.

    `values` and `returns` are empty where there is no value head.
    """

    prompt_ids: list[int]
    completion_ids: list[int]
    logprobs: list[float]
    advantages: list[float]
    values: list[float] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Scores:
    """Of one completion's tokens, without gradient; lists may be empty where not asked for."""

    values: list[float]
    reference_logprobs: list[float]


class Learner:
    """Owns `model`. `value_head` maps hidden states to values; `reference` keeps a frozen copy."""

    def __init__(
        self,
        model: Transformer,
        settings: LearnerSettings,
        *,
        value_head: nn.Linear | None = None,
        reference: bool = False,
    ) -> None:
        self.model = model.train()
        self.settings = settings
        self.value_head = value_head
        self.reference = copy.deepcopy(model).eval().requires_grad_(False) if reference else None
        self.optimizer = build_optimizer(
            model, settings.learning_rate, settings.weight_decay, betas=(0.9, 0.99)
        )
        for group in self.optimizer.param_groups:
            group["peak"] = settings.learning_rate
        if value_head is not None:
            self.optimizer.add_param_group(
                {
                    "params": list(value_head.parameters()),
                    "weight_decay": 0.0,
                    "peak": settings.value_learning_rate,
                }
            )
        self.updates = 0
        """Optimizer steps taken."""

    @torch.no_grad()
    def score(
        self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
    ) -> list[Scores]:
        """Values and the reference's log-probabilities of given completions."""
        scores: list[Scores | None] = [None] * len(prompts)
        for rows in micro_batches(prompts, completions, self.settings.micro_tokens):
            batch = TokenBatch([prompts[r] for r in rows], [completions[r] for r in rows])
            values_bt = reference_bt = None
            if self.value_head is not None:
                values_bt = batch.spread(self._values(batch.states(self.model)))
            if self.reference is not None:
                reference_bt = batch.spread(batch.logprobs(self.reference))
            for at, row in enumerate(rows):
                count = len(completions[row])
                scores[row] = Scores(
                    [] if values_bt is None else values_bt[at, :count].tolist(),
                    [] if reference_bt is None else reference_bt[at, :count].tolist(),
                )
        return [score for score in scores if score is not None]

    def update(self, batch: Sequence[Experience], seed: int) -> dict[str, float]:
        """Learn from a batch: `epochs` passes over random minibatches. Means of what happened.

        An empty batch changes nothing. "tokens" counts prompt and completion tokens passed through
        the policy, forward and backward.
        """
        totals: dict[str, float] = {}
        count = 0
        for epoch in range(self.settings.epochs):
            order = np.random.default_rng([seed, epoch]).permutation(len(batch))
            for part in np.array_split(order, self.settings.minibatches):
                if len(part):
                    count += 1
                    for name, value in self._minibatch([batch[row] for row in part]).items():
                        totals[name] = totals.get(name, 0.0) + value
        tokens = totals.pop("tokens", 0.0)
        return {**{name: total / count for name, total in totals.items()}, "tokens": tokens}

    def _minibatch(self, rows: Sequence[Experience]) -> dict[str, float]:
        """One optimizer step, in micro-batches whose gradients add up."""
        settings = self.settings
        lengths = torch.tensor([len(row.completion_ids) for row in rows])
        mask_bt = torch.arange(int(lengths.max())) < lengths[:, None]
        weights_bt = token_weights(mask_bt, settings.aggregation, settings.longest)
        prompts = [row.prompt_ids for row in rows]
        completions = [row.completion_ids for row in rows]
        metrics = {"loss": 0.0, "kl": 0.0, "clipped": 0.0, "value_loss": 0.0, "tokens": 0.0}
        self.optimizer.zero_grad(set_to_none=True)
        for micro in micro_batches(prompts, completions, settings.micro_tokens):
            chosen = [rows[r] for r in micro]
            weights_n = torch.cat([weights_bt[r, : lengths[r]] for r in micro])
            self._micro_step(chosen, weights_n, 1 / len(mask_bt[mask_bt]), metrics)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), settings.max_grad_norm)
        if self.value_head is not None:  # apart, or a poor value estimate would shrink the policy's
            nn.utils.clip_grad_norm_(self.value_head.parameters(), settings.max_grad_norm)
        if not torch.isfinite(norm):
            raise FloatingPointError(
                f"the gradient of update {self.updates} is {float(norm)}; lower the learning rate"
            )
        warm = min(1.0, (self.updates + 1) / max(1, settings.warmup_updates))
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * warm
        self.optimizer.step()
        self.updates += 1
        return {**metrics, "grad_norm": float(norm)}

    def _micro_step(
        self,
        rows: Sequence[Experience],
        weights_n: Tensor,
        token_share: float,
        metrics: dict[str, float],
    ) -> None:
        """Forward and backward of some rows; adds to `metrics`."""
        settings = self.settings
        batch = TokenBatch([row.prompt_ids for row in rows], [row.completion_ids for row in rows])
        states_nd = batch.states(self.model)
        logprobs_n = token_logprobs(states_nd, self.model.lm_head.weight, batch.labels_n)
        old_n = _flat([row.logprobs for row in rows])
        advantages_n = _flat([row.advantages for row in rows])
        loss_n = clipped_surrogate(
            logprobs_n,
            old_n,
            advantages_n,
            clip_low=settings.clip_low,
            clip_high=settings.clip_high,
        )
        if self.reference is not None and settings.kl_coefficient > 0:
            with torch.no_grad():
                reference_n = batch.logprobs(self.reference)
            kl_n = kl_penalty(logprobs_n, reference_n, settings.kl_estimator)
            loss_n = loss_n + settings.kl_coefficient * kl_n
            metrics["kl"] += float(kl_n.detach().sum()) * token_share
        if self.value_head is not None:
            value_n = clipped_value_loss(
                self._values(states_nd),
                _flat([row.values for row in rows]),
                _flat([row.returns for row in rows]),
                settings.value_clip,
            )
            loss_n = loss_n + settings.value_coefficient * value_n
            metrics["value_loss"] += float(value_n.detach().sum()) * token_share
        loss = (loss_n * weights_n).sum()
        loss.backward()
        ratio_n = (logprobs_n.detach() - old_n).exp()
        outside = (ratio_n < 1 - settings.clip_low) | (ratio_n > 1 + settings.clip_high)
        metrics["clipped"] += float(outside.sum()) * token_share
        metrics["loss"] += float(loss.detach())
        metrics["tokens"] += batch.tokens

    def _values(self, states_nd: Tensor) -> Tensor:
        """The value of each state; the head learns, the policy's trunk is left alone by it."""
        assert self.value_head is not None
        return self.value_head(states_nd.detach())[:, 0]

    def weights(self) -> dict[str, Tensor]:
        """The policy's weights, for those who sample."""
        return {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}

    def save(self, folder: Path) -> None:
        """Write the whole state."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self.model.config.tie_word_embeddings:
            tensors.pop("model.lm_head.weight")
        if self.value_head is not None:
            tensors |= {f"value.{n}": t for n, t in self.value_head.state_dict().items()}
        for index, entry in self.optimizer.state_dict()["state"].items():
            for name, tensor in entry.items():
                tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(tensor)
        tensors["updates"] = torch.tensor(self.updates)
        save_file({name: t.contiguous() for name, t in tensors.items()}, folder / STATE)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        tensors = load_file(folder / STATE)
        model = {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}
        if self.model.config.tie_word_embeddings:
            model["lm_head.weight"] = model["model.embed_tokens.weight"]
        self.model.load_state_dict(model)
        if self.value_head is not None:
            head = ("weight", "bias") if self.value_head.bias is not None else ("weight",)
            self.value_head.load_state_dict({name: tensors[f"value.{name}"] for name in head})
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, entry = name.split(".")
                state.setdefault(int(index), {})[entry] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.updates = int(tensors["updates"])


def _flat(rows: Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor([value for row in rows for value in row], dtype=torch.float32)
