"""Reward modelling with TRL's RewardTrainer; accuracy on held-out pairs with its interval."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from cluster.trainer import report
from stages.align.reward import Config
from stages.stage import Context, Inputs, Metrics
from stages.tune.examples import read_preferences
from stages.tune.fine_tuning import fine_tune
from stages.tune.intervals import wilson


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
    folder = Path(job["examples"])
    rows = read_preferences(folder / "preferences.jsonl", config.examples_limit)
    heldout = read_preferences(folder / "heldout.jsonl", config.heldout_limit)
    random.Random(job["seed"]).shuffle(rows)
    tokenizer = tune.load_tokenizer(job["model"])
    set_seed(job["seed"])  # the head is new
    model = AutoModelForSequenceClassification.from_pretrained(
        job["model"], num_labels=1, dtype="float32", pad_token_id=tokenizer.pad_token_id
    )
    meter = tune.Meter(6 * model.num_parameters())
    trainer = tune.counted(RewardTrainer, meter)(
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
    pairs = len(trainer.eval_dataset)
    low, high = wilson(scores["eval_accuracy"] * pairs, pairs)
    metrics |= {
        "parameters": model.num_parameters(),
        "examples": len(rows),
        "heldout_loss": scores["eval_loss"],
        "accuracy": scores["eval_accuracy"],
        "accuracy_low": low,
        "accuracy_high": high,
        "heldout_pairs": pairs,
    }
    report(metrics, config.steps, config.steps, "trained")
