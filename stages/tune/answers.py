"""The head applied to answers alone, for trainers whose loss is on answers alone.

TRL projects every position, prompts too, and measures entropy and accuracy on the way; most of a
small model's time goes there.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from trl import SFTTrainer

IGNORED = -100


def answer_logits(model: Any, head: Any, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """(logits [answer tokens, vocabulary], their labels) of a Hugging Face decoder.

    `model` may be wrapped for data parallelism: the call goes through it, and what reaches its
    `head` is cut down on the way.
    """
    labels_bt = inputs["labels"][:, 1:]
    answers_bt = labels_bt != IGNORED
    hook = head.register_forward_pre_hook(lambda _, states: (states[0][:, :-1][answers_bt],))
    try:
        output = model(inputs["input_ids"], attention_mask=inputs["attention_mask"])
    finally:
        hook.remove()
    return output.logits.float(), labels_bt[answers_bt]


class AnswersOnly(SFTTrainer):
    """SFTTrainer with TRL's loss at a fraction of its time."""

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        if return_outputs or not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        logits_nv, labels_n = self.answer_logits(model, inputs)
        loss = F.cross_entropy(logits_nv, labels_n)
        return loss * self.weight(len(labels_n), num_items_in_batch)

    def answer_logits(self, model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """`answer_logits` of the model in training."""
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        return answer_logits(model, head, inputs)

    def weight(self, answer_tokens: int, num_items_in_batch: Any) -> Any:
        """What a micro-batch's mean counts for, so that every answer token of a step, on whatever
        worker, weighs the same (the wrapper averages over workers)."""
        if num_items_in_batch is None:
            return 1.0
        return answer_tokens * self.args.world_size / num_items_in_batch
