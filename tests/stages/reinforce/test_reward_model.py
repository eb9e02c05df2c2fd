"""Scores equal those of transformers' Qwen3ForSequenceClassification on the same folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cluster.errors import UserError
from model.tokenizer import Tokenizer
from stages.reinforce.reward_model import RewardModel
from tests.stages.reinforce.tiny import tiny_checkpoint, tiny_reward_model


def test_scores_equal_transformers(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, Qwen3ForSequenceClassification

    folder = tiny_reward_model(tmp_path)
    answers = [
        ([{"role": "user", "content": "What is 12 + 30?"}], "answer 42"),
        ([{"role": "user", "content": "def f(x):"}], "what?"),
        ([{"role": "user", "content": "hi"}], "a much longer answer than the others have"),
    ]
    found = RewardModel.load(folder).score(Tokenizer.load(folder), answers, batch_rows=2)
    reference = Qwen3ForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for (messages, response), score in zip(answers, found, strict=True):
        conversation = [*messages, {"role": "assistant", "content": response}]
        ids = tokenizer.apply_chat_template(conversation, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            expected = float(reference(ids["input_ids"]).logits[0, 0])
        assert score == pytest.approx(expected, abs=1e-4)
    assert len(set(found)) == 3


def test_a_language_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds a Qwen3ForCausalLM; expected a reward model"):
        RewardModel.load(tiny_checkpoint(tmp_path))
