"""Completions packed for a forward pass, each prompt once for all of its completions.

A line holds [prompt, completion, completion, ...] of one prompt, and of further ones while there is
room. A completion's tokens see their own prompt and themselves, at the positions that they have
behind it alone; so each state is the one of a row of prompt and completion.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model.loss import token_logprobs
from model.rotary import rotary_tables
from model.transformer import Transformer

LINE_TOKENS = 192
"""Room of a line: more packs tighter, and attends over more that is hidden."""

Ids = Sequence[int]


def micro_batches(
    prompts: Sequence[Ids], completions: Sequence[Ids], limit: int
) -> list[list[int]]:
    """Row numbers in batches of at most `limit` tokens, rows of one prompt together."""
    order = sorted(
        range(len(prompts)), key=lambda row: (len(prompts[row]), tuple(prompts[row]), row)
    )
    batches: list[list[int]] = []
    used = 0
    last: tuple[int, ...] | None = None
    for row in order:
        prompt = tuple(prompts[row])
        more = len(completions[row]) + (0 if prompt == last else len(prompt))
        if not batches or used + more > limit:
            batches.append([])
            used, more = 0, len(completions[row]) + len(prompt)
        batches[-1].append(row)
        used, last = used + more, prompt
    return batches


class _Lines:
    """Tokens laid out in lines, with what positions, masks and predictions need of each."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.ids: list[list[int]] = []
        self.positions: list[list[int]] = []
        self.groups: list[list[int]] = []
        """The prompt that a token belongs to, numbered."""
        self.parts: list[list[int]] = []
        """0 in a prompt, else the number of its completion."""

    def place(
        self, group: int, prompt: Ids, completions: Sequence[Ids]
    ) -> list[tuple[int, list[int]]]:
        """Lay out a prompt and inputs that follow it; (line, columns of the states in which each
        completion's tokens are chosen) for each.
        """
        size = len(prompt) + sum(map(len, completions))
        line = next((n for n, ids in enumerate(self.ids) if len(ids) + size <= self.room), None)
        if line is None:
            line = len(self.ids)
            for rows in (self.ids, self.positions, self.groups, self.parts):
                rows.append([])
        asked = len(self.ids[line]) + len(prompt) - 1  # where a first token is chosen
        self._append(line, prompt, 0, group, part=0)
        places = []
        for part, ids in enumerate(completions, start=1):
            first = len(self.ids[line])
            self._append(line, ids, len(prompt), group, part)
            places.append((line, [asked, *range(first, first + len(ids))]))
        return places

    def _append(self, line: int, ids: Ids, position: int, group: int, part: int) -> None:
        self.ids[line] += ids
        self.positions[line] += range(position, position + len(ids))
        self.groups[line] += [group] * len(ids)
        self.parts[line] += [part] * len(ids)

    def tensor(self, rows: list[list[int]], filling: int) -> Tensor:
        """[lines, longest line]."""
        width = max(map(len, rows))
        return torch.tensor([row + [filling] * (width - len(row)) for row in rows])


class TokenBatch:
    """Prompts and completions in lines, and where in them completion tokens are predicted."""

    def __init__(self, prompts: Sequence[Ids], completions: Sequence[Ids]) -> None:
        lengths = torch.tensor([len(completion) for completion in completions])
        inside_bc = torch.arange(int(lengths.max())) < lengths[:, None]
        self.shape = inside_bc.shape
        self.rows_n, self.offsets_n = inside_bc.nonzero(as_tuple=True)
        self.labels_n = torch.tensor([token for completion in completions for token in completion])
        places = self._lay_out(prompts, completions)
        self.lines_n = torch.tensor([line for line, columns in places for _ in columns])
        self.columns_n = torch.tensor([column for _, columns in places for column in columns])

    def _lay_out(
        self, prompts: Sequence[Ids], completions: Sequence[Ids]
    ) -> list[tuple[int, list[int]]]:
        """Fill the lines; each row's line and columns. A completion's last token predicts nothing
        and stays out.
        """
        longest = max(len(p) + len(c) - 1 for p, c in zip(prompts, completions, strict=True))
        lines = _Lines(max(LINE_TOKENS, longest))
        places: dict[int, tuple[int, list[int]]] = {}
        for group, rows in enumerate(_shared(prompts, completions, lines.room)):
            inputs = [completions[row][:-1] for row in rows]
            places |= zip(rows, lines.place(group, prompts[rows[0]], inputs), strict=True)
        self.tokens = sum(map(len, lines.ids))
        self.ids_lt = lines.tensor(lines.ids, 0)
        self.positions_lt = lines.tensor(lines.positions, 0)
        self.groups_lt = lines.tensor(lines.groups, -1)
        self.parts_lt = lines.tensor(lines.parts, 0)
        return [places[row] for row in range(len(prompts))]

    def mask(self, window: int | None) -> Tensor:
        """What a token sees, bool [lines, 1, tokens, tokens]."""
        groups, parts, positions = self.groups_lt, self.parts_lt, self.positions_lt
        own = (parts[:, None, :] == 0) | (parts[:, None, :] == parts[:, :, None])
        seen = (own & (groups[:, None, :] == groups[:, :, None])).tril_()
        if window is not None:
            seen &= positions[:, :, None] - positions[:, None, :] < window
        return seen[:, None]

    def states(self, model: Transformer) -> Tensor:
        """Hidden states in which each completion token is chosen, [n, d], row by row."""
        masks = {window: self.mask(window) for window in set(model.config.windows)}
        rotary = rotary_tables(self.positions_lt, model.config)
        hidden_ltd = model.model.through(self.ids_lt, rotary, masks)
        return hidden_ltd[self.lines_n, self.columns_n]

    def logprobs(self, model: Transformer) -> Tensor:
        """Log-probability of each completion token, [n]."""
        return token_logprobs(self.states(model), model.lm_head.weight, self.labels_n)

    def spread(self, values_n: Tensor) -> Tensor:
        """[n] back to [rows, longest completion], zeros behind a row's end."""
        return torch.zeros(self.shape).index_put((self.rows_n, self.offsets_n), values_n)


def _shared(prompts: Sequence[Ids], completions: Sequence[Ids], room: int) -> list[list[int]]:
    """Rows of one prompt that a line has room for, the largest such groups first."""
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for row, prompt in enumerate(prompts):
        by_prompt.setdefault(tuple(prompt), []).append(row)
    groups: list[tuple[int, list[int]]] = []
    for prompt, rows in by_prompt.items():
        size = room + 1
        for row in rows:
            more = len(completions[row]) - 1
            if size + more > room:
                size = len(prompt)
                groups.append((0, []))
            size += more
            groups[-1] = (size, [*groups[-1][1], row])
    return [rows for _, rows in sorted(groups, key=lambda group: -group[0])]
