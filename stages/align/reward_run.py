"""Reward modelling with TRL's RewardTrainer; accuracy on held-out pairs with its interval."""

from __future__ import annotations

from typing import Any

from cluster.board import report
from stages.align.reward import Config
from stages.stage import Context, Inputs, Metrics
from stages.tune.examples import preferences
from stages.tune.fine_tuning import fine_tune
from stages.tune.intervals import accuracy_metrics


def run(config: Config, inputs: Inputs, context: Context) -> Metrics:
    """Train on preferences.jsonl, measure on heldout.jsonl; writes a classifier's folder."""
    return fine_tune(train, config, inputs, context)


def train(job: dict[str, Any]) -> None:
    """The worker's part."""
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, set_seed
    from trl import RewardConfig, RewardTrainer

    from stages.tune import trl_worker as tune

    config = Config.model_validate(job["config"])
    rows, heldout = preferences(job, config)
    tokenizer = tune.load_tokenizer(job["model"])
    set_seed(job["seed"])  # the head is new
    model = tune.load_model(
        AutoModelForSequenceClassification, job["model"], config,
        num_labels=1, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    meter = tune.Meter(6 * model.num_parameters())
    trainer = tune.counted(RewardTrainer, meter, config)(
        model=model,
        args=RewardConfig(
            **tune.arguments(job, config, config.steps), center_rewards_coefficient=config.centre
        ),
        train_dataset=Dataset.from_list(rows[: config.steps * config.batch_rows]),
        eval_dataset=Dataset.from_list(heldout),
        processing_class=tokenizer,
        peft_config=tune.lora_config(config, "SEQ_CLS"),
    )
    metrics = tune.train_and_save(trainer, job, meter)
    scores = trainer.evaluate()
    metrics |= {
        "parameters": model.num_parameters(),
        "examples": len(rows),
        "heldout_loss": scores["eval_loss"],
    }
    metrics |= accuracy_metrics(scores["eval_accuracy"], len(trainer.eval_dataset))
    report(metrics, config.steps, config.steps, "trained")
