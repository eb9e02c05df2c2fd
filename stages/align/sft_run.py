"""Supervised fine-tuning with TRL's SFTTrainer; the chat template marks where the loss is."""

from __future__ import annotations

from typing import Any

from cluster.trainer import report
from stages.align.sft import Config
from stages.stage import Context, Inputs, Metrics
from stages.tune.examples import conversations
from stages.tune.fine_tuning import fine_tune


def run(config: Config, inputs: Inputs, context: Context) -> Metrics:
    """Train on conversations.jsonl, measure on heldout.jsonl; writes a Hugging Face folder."""
    return fine_tune(train, config, inputs, context)


def on_answers_only(trainer_class: Any) -> Any:
    """The trainer with the head applied to answers alone: TRL's loss at a fraction of its time.

    TRL projects every position, prompts too, and measures entropy and accuracy on the way. Under
    data parallelism gradients must pass through the wrapped model, so there its own loss stays.
    """
    import torch.nn.functional as F

    class OnAnswersOnly(trainer_class):
        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            if self.args.world_size > 1 or return_outputs or not model.training:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            network = self.accelerator.unwrap_model(model)
            states_btd = network.get_decoder()(
                inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
            ).last_hidden_state[:, :-1]
            labels_bt = inputs["labels"][:, 1:]
            answers_bt = labels_bt != -100
            logits_nv = network.get_output_embeddings()(states_btd[answers_bt])
            total = F.cross_entropy(logits_nv.float(), labels_bt[answers_bt], reduction="sum")
            count = answers_bt.sum() if num_items_in_batch is None else num_items_in_batch
            return total / count

    return OnAnswersOnly


def train(job: dict[str, Any]) -> None:
    """The worker's part."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    from stages.tune import trl_worker as tune

    config = Config.model_validate(job["config"])
    rows, heldout = conversations(job, config)
    tokenizer = tune.load_tokenizer(job["model"])
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype="float32")
    meter = tune.Meter(6 * model.num_parameters(), job["flops_budget"])
    steps = tune.planned_steps(config, tokenizer, rows, meter)
    trainer = tune.counted(on_answers_only(SFTTrainer), meter)(
        model=model,
        args=SFTConfig(**tune.arguments(job, config, steps), assistant_only_loss=True),
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
