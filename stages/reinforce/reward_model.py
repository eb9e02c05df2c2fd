"""A reward model: our decoder with a linear score, from a Qwen3ForSequenceClassification folder.

The score is read at the last token of the chat template applied to prompt and response, as TRL's
RewardTrainer does it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cluster.errors import UserError
from model.config import ModelConfig
from model.tokenizer import Tokenizer
from model.transformer import Decoder
from stages.reinforce.rollouts import Messages

ARCHITECTURE = "Qwen3ForSequenceClassification"


class RewardModel:
    """Scores responses; `head` is the linear score, [1, hidden_size], without bias."""

    def __init__(self, decoder: Decoder, head: nn.Linear) -> None:
        self.decoder, self.head = decoder, head

    @classmethod
    def load(cls, folder: Path) -> RewardModel:
        """From a checkpoint folder; one that is no reward model is a UserError."""
        described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        found = (described.get("architectures") or ["nothing"])[0]
        tensors = load_file(folder / "model.safetensors")
        if found != ARCHITECTURE or "score.weight" not in tensors:
            raise UserError(
                f"{folder} holds a {found}; expected a reward model ({ARCHITECTURE}): name a stage "
                "of kind reward"
            )
        config = ModelConfig.from_hugging_face(described)
        decoder = Decoder(config)
        head = nn.Linear(config.hidden_size, 1, bias=False)
        head.load_state_dict({"weight": tensors.pop("score.weight").float()})
        decoder.load_state_dict({n.removeprefix("model."): t.float() for n, t in tensors.items()})
        return cls(decoder.eval(), head)

    @torch.inference_mode()
    def score(
        self, tokenizer: Tokenizer, answers: Sequence[tuple[Messages, str]], batch_rows: int = 128
    ) -> list[float]:
        """The score of each (prompt's messages, response), in order."""
        rows = [
            tokenizer.encode_chat([*messages, {"role": "assistant", "content": response}])[0]
            for messages, response in answers
        ]
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        scores = [0.0] * len(rows)
        for begin in range(0, len(order), batch_rows):
            chosen = order[begin : begin + batch_rows]
            for row, score in zip(chosen, self._batch([rows[r] for r in chosen]), strict=True):
                scores[row] = float(score)
        return scores

    def _batch(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Scores [rows]; padding stands behind, where causal attention never looks."""
        width = max(map(len, rows))
        ids_bt = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
        last_b = torch.tensor([len(row) - 1 for row in rows])
        hidden_btd = self.decoder(ids_bt, None, None)
        return self.head(hidden_btd[torch.arange(len(rows)), last_b])[:, 0]
