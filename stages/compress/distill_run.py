"""Distillation on TRL's SFTTrainer with the divergence of TRL's GKD, off-policy.

TRL's own distillation trainers generate with the student or re-render every batch; on given answers
one forward pass of the teacher and the divergence at the answers' tokens is all there is to do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from trl.experimental.gkd import GKDTrainer

from cluster.board import report
from cluster.errors import UserError
from stages.compress.distill import Config
from stages.compress.teacher_answers import answered
from stages.stage import Context, Inputs, Metrics
from stages.tune.answers import AnswersOnly, answer_logits
from stages.tune.examples import conversations
from stages.tune.fine_tuning import fine_tune
from stages.tune.transformers_decoder import run_by_our_decoder


def run(config: Config, inputs: Inputs, context: Context) -> Metrics:
    """Train on conversations.jsonl, measure on heldout.jsonl; writes a Hugging Face folder."""
    teacher = inputs.get("teacher")
    path = str(teacher.path.resolve()) if teacher is not None else None
    return fine_tune(train, config, inputs, context, teacher=path)


def train(job: dict[str, Any]) -> None:
    """The worker's part."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig

    from stages.tune import trl_worker as tune

    config = Config.model_validate(job["config"])
    rows, heldout = conversations(job, config)
    tokenizer = tune.load_tokenizer(job["model"])
    student = tune.load_model(AutoModelForCausalLM, job["model"], config)
    keep_layers(student, config.layers)
    flops_per_token = 6 * student.num_parameters()
    teacher = None
    if job["teacher"] is not None:
        teacher = tune.load_model(AutoModelForCausalLM, job["teacher"], config)
        check_vocabulary(student, teacher, job["teacher"])
        flops_per_token += 2 * teacher.num_parameters()
    meter = tune.Meter(flops_per_token, job["flops_budget"])
    steps = tune.planned_steps(config, tokenizer, rows, meter)
    rows = rows[: steps * config.batch_rows]
    if config.answers == "teacher":
        rows, meter.used_before = answered(rows, job["teacher"], config.max_new_tokens)
    trainer = tune.counted(Distiller, meter, config)(
        model=student,
        args=SFTConfig(
            **tune.arguments(job, config, steps),
            assistant_only_loss=True,
            train_sampling_strategy=tune.LIKE_LENGTHS,
        ),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(heldout),
        processing_class=tokenizer,
        peft_config=tune.lora_config(config, "CAUSAL_LM"),
    )
    trainer.teach(teacher, config.alpha, config.temperature)
    metrics = tune.train_and_save(trainer, job, meter)
    metrics |= {"parameters": student.num_parameters(), "examples": len(rows)}
    metrics |= {"heldout_loss": trainer.evaluate()["eval_loss"]}
    report(metrics, steps, steps, "trained")


class Distiller(AnswersOnly):
    """SFTTrainer whose training loss also follows a teacher; evaluation stays plain likelihood."""

    teacher: Any = None

    def teach(self, teacher: nn.Module | None, alpha: float, temperature: float) -> None:
        """Take a teacher (None: train without)."""
        if teacher is not None:
            self.teacher = teacher.to(self.args.device).eval().requires_grad_(False)
        self.alpha, self.temperature = alpha, temperature

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        if self.teacher is None or not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        logits_nv, labels_n = self.answer_logits(model, inputs)
        with torch.no_grad():
            head = self.teacher.get_output_embeddings()
            teacher_logits_nv, _ = answer_logits(self.teacher, head, inputs)
        loss = distillation_loss(
            logits_nv, teacher_logits_nv, labels_n, self.alpha, self.temperature
        )
        return loss * self.weight(len(labels_n), num_items_in_batch)


def distillation_loss(
    student_logits_nv: Tensor,
    teacher_logits_nv: Tensor,
    labels_n: Tensor,
    alpha: float,
    temperature: float,
) -> Tensor:
    """alpha·T²·KL(teacher || student, at T) + (1 - alpha)·cross-entropy: mean nats per token."""
    divergence = GKDTrainer.generalized_jsd_loss(
        student_logits_nv, teacher_logits_nv, beta=0, temperature=temperature
    )
    likelihood = nn.functional.cross_entropy(student_logits_nv, labels_n)
    return alpha * temperature**2 * divergence + (1 - alpha) * likelihood


def keep_layers(model: Any, count: int) -> None:
    """Cut a Hugging Face decoder to `count` evenly spaced layers, first and last included."""
    layers = model.model.layers
    if count > len(layers):
        raise UserError(
            f"layers is {count}, but the model to be cut has {len(layers)}: keep as many or fewer"
        )
    last = len(layers) - 1
    kept = [round(i * last / max(1, count - 1)) for i in range(count)]
    model.model.layers = nn.ModuleList(layers[i] for i in kept)
    for index, layer in enumerate(model.model.layers):
        layer.self_attn.layer_idx = index
    model.config.num_hidden_layers = count
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = [model.config.layer_types[i] for i in kept]
    if "forward" in vars(model.model):  # our decoder's, of all layers
        run_by_our_decoder(model)


def check_vocabulary(student: Any, teacher: Any, path: str) -> None:
    """Refuse a teacher that speaks of other tokens."""
    if student.config.vocab_size != teacher.config.vocab_size:
        raise UserError(
            f"the teacher at {path} has a vocabulary of {teacher.config.vocab_size}, the student "
            f"one of {student.config.vocab_size}: name a teacher with the same tokenizer"
        )
