"""TRL's trainers inside a Ray Train worker: arguments, counting, journal, checkpoints, the result.

A stage builds the trainer; `train_and_save` runs it from the last complete checkpoint and leaves a
Hugging Face folder. Checkpoints are TRL's own, in the run's own scratch folder and nowhere else;
one counts as complete once our note lies in it, written after everything else.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_pt_utils import BatchRebalanceSampler

from cluster.board import report
from cluster.rank import Leaving, told_to_leave
from model import pretrained
from model.optimizer import build_optimizer
from model.transformer import Transformer
from stages.tune.examples import Row
from stages.tune.fine_tuning import MODEL, FineTuning
from stages.tune.journal import Journal
from stages.tune.mesh import sum_over_ranks
from stages.tune.precision import uses_bfloat16
from stages.tune.transformers_decoder import run_by_our_decoder
from stages.tune.watching import Watching

COMPLETE = "complete.json"
NOTES = f"checkpoint-*/{COMPLETE}"
LOG_EVERY = 5
SAMPLED_ROWS = 2000
"""Conversations whose lengths tell how many tokens a step takes."""
LIKE_LENGTHS = "batch_rebalance"
"""A step's rows go into passes of like lengths and equal work: half of a random pass is padding."""


class Meter:
    """Counts the tokens a trainer puts through the model, padding included, and what they cost.

    `flops_per_token` is forward and backward of the student with every other forward pass that goes
    with it (reference, teacher); `used_before` is spent before the first step. A worker counts its
    own `tokens`, and `tokens_before` are those of the groups before it, of whatever size: to ask
    for all of them is a collective, which every rank must take part in.
    """

    def __init__(self, flops_per_token: float, budget: float | None = None) -> None:
        self.flops_per_token = flops_per_token
        self.budget = budget
        self.tokens = 0
        self.tokens_before = 0
        self.used_before = 0.0
        self.beat: Callable[[str, bool], None] = lambda doing, long: None
        """Told what comes next, and whether it always takes its time."""

    def all_tokens(self) -> int:
        """Of every rank since the run's first step."""
        return self.tokens_before + round(sum_over_ranks(self.tokens))

    def flops(self, tokens: int) -> float:
        return self.used_before + tokens * self.flops_per_token

    def spent(self) -> bool:
        """Whether the budget is used up: all ranks say the same, so that they stop together."""
        return self.budget is not None and self.flops(self.all_tokens()) >= self.budget


def counted(trainer_class: Any, meter: Meter, config: FineTuning) -> Any:
    """The trainer with its training step counted by `meter` and the optimizer of `config`."""

    class Counted(trainer_class):
        def create_optimizer(self, *model: Any) -> torch.optim.Optimizer:
            if config.optimizer == "adamw":
                return super().create_optimizer(*model)
            # Here, not before: by now adapters are in place and their weights are known.
            self.optimizer = build_optimizer(
                self.model, config.learning_rate, config.weight_decay, config.optimizer
            )
            return self.optimizer

        def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any) -> torch.Tensor:
            meter.tokens += inputs["input_ids"].numel()
            meter.beat("a pass", False)
            loss: torch.Tensor = super().training_step(model, inputs, *rest)
            meter.beat("what follows a pass", False)
            return loss

    return Counted


def arguments(job: dict[str, Any], config: FineTuning, steps: int) -> dict[str, Any]:
    """Keyword arguments common to the config classes of TRL's trainers."""
    rows, passes = rows_and_passes(config)
    gpu = config.parallel.gpu
    return {
        "output_dir": str(Path(job["scratch"]) / "trl"),
        "max_steps": steps,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": passes,
        "per_device_eval_batch_size": rows,
        "learning_rate": config.learning_rate,
        "weight_decay": config.weight_decay,
        "lr_scheduler_type": config.schedule,
        "warmup_steps": round(config.warmup_fraction * steps),
        "max_grad_norm": config.clip_norm,
        "max_length": config.sequence_length,
        "optim": "adamw_torch_fused",
        "use_cpu": not gpu,
        "bf16": uses_bfloat16(config.precision, gpu),
        "gradient_checkpointing": False,
        "logging_steps": min(LOG_EVERY, steps),
        "logging_nan_inf_filter": False,
        "save_steps": config.checkpoint_every,
        "save_total_limit": 2,
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "ddp_find_unused_parameters": False,
        "seed": job["seed"],
    }


def rows_and_passes(config: FineTuning) -> tuple[int, int]:
    """How a worker takes its share of a step: rows in one pass, and passes."""
    per_worker = config.batch_rows // dist.get_world_size()
    rows = min(per_worker, config.parallel.rows)
    while per_worker % rows:
        rows -= 1
    return rows, per_worker // rows


def load_model(auto_class: Any, folder: str, config: FineTuning, **fields: Any) -> Any:
    """A Hugging Face model with float32 weights to train, or to follow in training.

    On a CPU our decoder runs its layers, unless adapters are to go into them.
    """
    gpu = config.parallel.gpu
    if uses_bfloat16(config.precision, gpu) and not gpu:
        # torch's fused attention has no fast backward pass in bfloat16 on a CPU.
        fields["attn_implementation"] = "eager"
    model = auto_class.from_pretrained(folder, dtype="float32", local_files_only=True, **fields)
    return model if gpu or config.lora else run_by_our_decoder(model)


def load_tokenizer(folder: str) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def lora_config(config: FineTuning, task: str) -> Any:
    """PEFT's configuration, None without LoRA. `task` is "CAUSAL_LM" or "SEQ_CLS"."""
    if config.lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        target_modules="all-linear",
        task_type=task,
    )


def train_and_save(trainer: Any, job: dict[str, Any], meter: Meter) -> dict[str, Any]:
    """Train from the last complete checkpoint, save the model, give the metrics all stages have."""
    scratch = Path(job["scratch"])
    resume, note = last_complete(scratch / "trl", trainer.args.max_steps)
    done, meter.tokens_before = note.get("step", 0), note.get("tokens", 0)
    # Its lines say how many steps were done, so that of the saved step is kept.
    watching = Watching.model_validate(job["config"]["watch"])
    journal = Journal(scratch, done + 1, active=trainer.is_world_process_zero())
    with watching.begin(scratch) as watch, journal:
        meter.beat = watch.beat
        trainer.add_callback(Telling(journal, meter, done))
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if trainer.is_world_process_zero():
        save_model(trainer.accelerator.unwrap_model(trainer.model), job, scratch / MODEL)
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    tokens = meter.all_tokens()
    return {
        "steps": trainer.state.global_step,
        "tokens": tokens,
        "flops": meter.flops(tokens),
        "loss": sum(losses[-5:]) / max(1, len(losses[-5:])),
    }


def last_complete(folder: Path, most: float = math.inf) -> tuple[Path | None, dict[str, Any]]:
    """The newest checkpoint that was wholly written, and its note; not one of more than `most`
    steps, which a longer run left.
    """
    found = {int(path.parent.name.split("-")[1]): path for path in folder.glob(NOTES)}
    steps = max((step for step in found if step <= most), default=None)
    if steps is None:
        return None, {}
    return found[steps].parent, json.loads(found[steps].read_text(encoding="utf-8"))


def save_model(model: Any, job: dict[str, Any], folder: Path) -> None:
    """Write `model` with its tokenizer: a language model in our own layout, a classifier in its."""
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    shutil.rmtree(folder, ignore_errors=True)
    if "ForCausalLM" in type(model).__name__:
        config = pretrained.ModelConfig.from_hugging_face(model.config.to_dict())
        ours = Transformer(config)
        ours.load_state_dict(model.state_dict())
        pretrained.save(ours, folder)
    else:
        model.save_pretrained(folder)
    pretrained.copy_tokenizer(job["model"], folder)


class Telling(TrainerCallback):
    """Journal and progress at each log, a note in each checkpoint, the end of a budget, and of a
    group that was told to leave.
    """

    def __init__(self, journal: Journal, meter: Meter, done: int) -> None:
        self.journal = journal
        self.meter = meter
        self.time, self.step = time.monotonic(), done
        self.leaving = False

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **rest: Any,
    ) -> None:
        numbers = {name: float(value) for name, value in (logs or {}).items()}
        if "loss" not in numbers:
            return
        now = time.monotonic()
        numbers["seconds_per_step"] = (now - self.time) / max(1, state.global_step - self.step)
        self.time, self.step = now, state.global_step
        numbers["tokens"] = self.meter.all_tokens()
        self.journal.write(state.global_step, **numbers)
        text = f"loss {numbers['loss']:.3f}"
        report({}, state.global_step, state.max_steps, text)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any
    ) -> None:
        if self.meter.spent():
            control.should_training_stop = True
        goes_on = state.global_step < state.max_steps and not control.should_training_stop
        if goes_on and sum_over_ranks(told_to_leave()):
            self.leaving = control.should_save = True
        self.meter.beat("what follows a step", control.should_save)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any
    ) -> None:
        note = {"step": state.global_step, "tokens": self.meter.all_tokens()}
        if state.is_world_process_zero:
            folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            partial = folder / f"{COMPLETE}.partial"
            partial.write_text(json.dumps(note), encoding="utf-8")
            partial.replace(folder / COMPLETE)
        if self.leaving:
            dist.barrier()
            self.journal.event("leaving", state.global_step)
            said = f"step {state.global_step} is saved, and the group starts again"
            report({}, state.global_step, state.max_steps, said)
            raise Leaving(said)


def planned_steps(
    config: FineTuning, tokenizer: PreTrainedTokenizerBase, rows: list[Row], meter: Meter
) -> int:
    """The recipe's steps, or as many as the meter's budget pays for: conversations are sampled."""
    if meter.budget is None:
        return config.steps
    conversations: Any = [row["messages"] for row in rows[:SAMPLED_ROWS]]
    encoded: Any = tokenizer.apply_chat_template(conversations, return_dict=True)
    lengths = [min(len(ids), config.sequence_length) for ids in encoded["input_ids"]]
    batch_rows = min(config.batch_rows, len(lengths))
    passes = min(rows_and_passes(config)[1], batch_rows)
    workers = min(dist.get_world_size(), batch_rows // passes)
    sampler = BatchRebalanceSampler(lengths, batch_rows, workers, passes)
    padded = [len(rows) * max(lengths[row] for row in rows) for rows in sampler]
    per_step = sum(padded) * workers / len(sampler) * passes * config.batch_rows / batch_rows
    return max(1, round(meter.budget / (per_step * meter.flops_per_token)))
