"""Supervised fine-tuning with TRL's SFTTrainer; the chat template marks where the loss is."""

from __future__ import annotations

from typing import Any

from cluster.board import report
from stages.align.sft import Config
from stages.stage import Context, Inputs, Metrics
from stages.tune.examples import conversations
from stages.tune.fine_tuning import fine_tune


def run(config: Config, inputs: Inputs, context: Context) -> Metrics:
    """Train on conversations.jsonl, measure on heldout.jsonl; writes a Hugging Face folder."""
    return fine_tune(train, config, inputs, context)


def train(job: dict[str, Any]) -> None:
    """The worker's part."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig

    from stages.tune import trl_worker as tune
    from stages.tune.answers import AnswersOnly

    config = Config.model_validate(job["config"])
    rows, heldout = conversations(job, config)
    tokenizer = tune.load_tokenizer(job["model"])
    model = tune.load_model(AutoModelForCausalLM, job["model"], config)
    meter = tune.Meter(6 * model.num_parameters(), job["flops_budget"])
    steps = tune.planned_steps(config, tokenizer, rows, meter)
    trainer = tune.counted(AnswersOnly, meter, config)(
        model=model,
        args=SFTConfig(
            **tune.arguments(job, config, steps),
            assistant_only_loss=True,
            train_sampling_strategy=tune.LIKE_LENGTHS,
        ),
        train_dataset=Dataset.from_list(rows[: steps * config.batch_rows]),
        eval_dataset=Dataset.from_list(heldout),
        processing_class=tokenizer,
        peft_config=tune.lora_config(config, "CAUSAL_LM"),
    )
    metrics = tune.train_and_save(trainer, job, meter)
    metrics |= {"parameters": model.num_parameters(), "examples": len(rows)}
    scores = trainer.evaluate()
    metrics |= {"heldout_loss": scores["eval_loss"]}
    report(metrics, steps, steps, "trained")
