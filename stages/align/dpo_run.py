"""Direct preference optimisation with TRL's DPOTrainer; margin and accuracy on held-out pairs."""

from __future__ import annotations

from typing import Any

from cluster.board import report
from stages.align.dpo import Config
from stages.stage import Context, Inputs, Metrics
from stages.tune.examples import preferences
from stages.tune.fine_tuning import fine_tune
from stages.tune.intervals import accuracy_metrics


def run(config: Config, inputs: Inputs, context: Context) -> Metrics:
    """Train on preferences.jsonl, measure on heldout.jsonl; writes a Hugging Face folder."""
    return fine_tune(train, config, inputs, context)


def train(job: dict[str, Any]) -> None:
    """The worker's part. The reference is the start itself, frozen."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import DPOConfig, DPOTrainer

    from stages.tune import trl_worker as tune

    config = Config.model_validate(job["config"])
    rows, heldout = preferences(job, config)

    def load() -> Any:
        return tune.load_model(AutoModelForCausalLM, job["model"], config)

    model = load()
    meter = tune.Meter((6 + 2) * model.num_parameters())
    losses: dict[str, Any] = {}
    if config.supervised:
        losses = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, config.supervised]}
    trainer = tune.counted(DPOTrainer, meter, config)(
        model=model,
        ref_model=None if config.lora else load(),
        args=DPOConfig(**tune.arguments(job, config, config.steps), beta=config.beta, **losses),
        train_dataset=Dataset.from_list(rows[: config.steps * config.batch_rows]),
        eval_dataset=Dataset.from_list(heldout),
        processing_class=tune.load_tokenizer(job["model"]),
        peft_config=tune.lora_config(config, "CAUSAL_LM"),
    )
    metrics = tune.train_and_save(trainer, job, meter)
    scores = trainer.evaluate()
    metrics |= {
        "parameters": model.num_parameters(),
        "examples": len(rows),
        "heldout_loss": scores["eval_loss"],
        "margin": scores["eval_rewards/margins"],
    }
    metrics |= accuracy_metrics(scores["eval_rewards/accuracies"], len(trainer.eval_dataset))
    report(metrics, config.steps, config.steps, "trained")
