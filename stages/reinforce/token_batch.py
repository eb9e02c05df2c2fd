"""Prompts and completions as one padded batch, of which only the completions are predicted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model.loss import token_logprobs
from model.transformer import Transformer


def micro_batches(
    prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], limit: int
) -> list[list[int]]:
    """Row numbers by length, in batches of at most `limit` tokens, padding included."""
    sizes = [len(p) + len(c) for p, c in zip(prompts, completions, strict=True)]
    batches: list[list[int]] = []
    for row in sorted(range(len(sizes)), key=lambda row: (sizes[row], row)):
        if batches and (len(batches[-1]) + 1) * sizes[row] <= limit:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


class TokenBatch:
    """Prompts and completions padded behind, and where in them completion tokens are predicted."""

    def __init__(
        self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
    ) -> None:
        sequences = [[*p, *c] for p, c in zip(prompts, completions, strict=True)]
        width = max(map(len, sequences))
        self.ids_bt = torch.tensor([s + [0] * (width - len(s)) for s in sequences])
        self.tokens = sum(map(len, sequences))
        starts = torch.tensor([len(prompt) for prompt in prompts])
        lengths = torch.tensor([len(completion) for completion in completions])
        inside_bc = torch.arange(int(lengths.max())) < lengths[:, None]
        self.shape = inside_bc.shape
        self.rows_n, self.offsets_n = inside_bc.nonzero(as_tuple=True)
        columns_n = starts[self.rows_n] + self.offsets_n
        self.labels_n = self.ids_bt[self.rows_n, columns_n]
        self.before_n = columns_n - 1

    def states(self, model: Transformer) -> Tensor:
        """Hidden states in which each completion token is chosen, [n, d], row by row."""
        return model.hidden(self.ids_bt)[self.rows_n, self.before_n]

    def logprobs(self, model: Transformer) -> Tensor:
        """Log-probability of each completion token, [n]."""
        return token_logprobs(self.states(model), model.lm_head.weight, self.labels_n)

    def spread(self, values_n: Tensor) -> Tensor:
        """[n] back to [rows, longest completion], zeros behind a row's end."""
        return torch.zeros(self.shape).index_put((self.rows_n, self.offsets_n), values_n)
