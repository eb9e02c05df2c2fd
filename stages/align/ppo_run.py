"""The PPO loop: sample, score, spread the reward over the tokens, estimate advantages, learn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cluster.errors import UserError
from model.config import ModelConfig
from stages.align.ppo import Config
from stages.reinforce.actors import Crew, Sampled, together
from stages.reinforce.advantages import generalized_advantages, whiten
from stages.reinforce.learner import Experience, LearnerSettings, Scores
from stages.reinforce.rollouts import Messages, Sampling
from stages.reinforce.steps import Steps
from stages.stage import Context, Inputs, Metrics, one

MEASURE_SEED = 7


def run(config: Config, inputs: Inputs, context: Context) -> Metrics:
    """Train from the last committed step to `config.steps`; the stage's entry."""
    parent, examples = one(inputs, "model").path, one(inputs, "examples").path
    prompts = read_prompts(examples / "preferences.jsonl")
    held_out = examples / "heldout.jsonl"
    measured = read_prompts(held_out if held_out.exists() else examples / "preferences.jsonl")
    measured = dict(list(measured.items())[: config.measure_prompts])
    context.connect()
    steps = Steps(context.scratch, config.commit_every)
    with Crew(
        parent,
        settings_of(config),
        workers=config.workers,
        threads=config.threads,
        reward_model=one(inputs, "reward").path,
        reference=True,
    ) as crew:
        shape = ModelConfig(**crew.ask("shape"))
        before = measure(config, crew, measured)
        done = steps.committed(config.steps)
        if done:
            crew.ask("load", steps.folder(done))
        for step in range(done + 1, config.steps + 1):
            crew.broadcast()
            asked = prompts_of_step(prompts, step, config.prompts_per_step, context.seed)
            sampled = take(config, crew, asked, context.seed + step)
            figures = learn(config, crew, sampled, context.seed + step)
            figures["flops"] = flops(shape, sampled, int(figures["tokens"]))
            steps.record(step, figures, records(sampled))
            if steps.due(step, config.steps):
                steps.commit(step, lambda folder: crew.ask("save", folder))
            context.progress(step, config.steps, f"reward {figures['reward']:.2f}")
        crew.broadcast()
        after = measure(config, crew, measured)
        crew.ask("export", context.out, parent)
    steps.publish(context.out, config.steps)
    return summary(steps, config, shape, before, after)


def settings_of(config: Config) -> LearnerSettings:
    """The learner's share of the config; the KL is in the reward, not in the loss."""
    return LearnerSettings(
        learning_rate=config.learning_rate,
        longest=config.max_new_tokens,
        warmup_updates=config.warmup_updates,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        epochs=config.epochs,
        minibatches=config.minibatches,
        clip_low=config.clip,
        clip_high=config.clip,
        aggregation=config.aggregation,
        value_clip=config.value_clip,
        value_learning_rate=config.value_learning_rate,
    )


def read_prompts(file: Path) -> dict[str, Messages]:
    """The different prompts of a file of preferences, by number of line."""
    if not file.is_file():
        raise UserError(f"{file} does not exist; expected an examples artifact of preferences")
    prompts: dict[str, Messages] = {}
    seen: set[str] = set()
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            messages = json.loads(line)["prompt"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f'{file} line {number} has no prompt ({error!r}); expected {{"prompt": [messages], '
                '"chosen": ..., "rejected": ...}}'
            ) from error
        if (text := json.dumps(messages, sort_keys=True)) not in seen:
            seen.add(text)
            prompts[str(number)] = messages
    if not prompts:
        raise UserError(f"{file} is empty; expected at least one preference")
    return prompts


def prompts_of_step(
    prompts: dict[str, Messages], step: int, count: int, seed: int
) -> dict[str, Messages]:
    """Different prompts for a step (from 1), a pure function of (seed, step)."""
    names = list(prompts)
    chosen = np.random.default_rng([seed, step]).permutation(len(names))[:count]
    return {names[index]: prompts[names[index]] for index in chosen}


def take(config: Config, crew: Crew, asked: dict[str, Messages], seed: int) -> Sampled:
    """A step's scored rollouts."""
    return together(
        list(
            crew.sample(
                asked,
                samples=config.samples_per_prompt,
                sampling=Sampling(config.max_new_tokens, config.temperature),
                seed=seed,
                parts=config.workers,
            )
        )
    )


def measure(config: Config, crew: Crew, prompts: dict[str, Messages]) -> float:
    """Mean reward of one sample for each prompt; the same seeds whenever it is asked."""
    sampled = list(
        crew.sample(
            prompts,
            samples=1,
            sampling=Sampling(config.max_new_tokens),
            seed=MEASURE_SEED,
            parts=config.workers,
        )
    )
    rewards = together(sampled).rewards
    return sum(rewards) / len(rewards)


def learn(config: Config, crew: Crew, sampled: Sampled, seed: int) -> dict[str, float]:
    """One update from scored rollouts; the step's figures."""
    rollouts = sampled.rollouts
    scores = crew.ask(
        "score", [r.prompt_ids for r in rollouts], [r.completion_ids for r in rollouts]
    )
    batch, kl = experiences(config, sampled, scores)
    finished = sum(rollout.finished for rollout in rollouts) / len(rollouts)
    tokens = sum(len(rollout.completion_ids) for rollout in rollouts)
    figures = {
        "reward": sum(sampled.rewards) / len(rollouts),
        "kl": kl,
        "finished": finished,
        "completion_tokens": tokens / len(rollouts),
        "entropy": -sum(sum(rollout.logprobs) for rollout in rollouts) / tokens,
    }
    # The learner's own "kl" is that of its loss, which has none here.
    learned = {name: value for name, value in crew.ask("update", batch, seed).items()
               if name != "kl"}  # fmt: skip
    return figures | learned


def experiences(
    config: Config, sampled: Sampled, scores: Sequence[Scores]
) -> tuple[list[Experience], float]:
    """What the learner gets, and the mean KL of a response to the starting policy, in nats.

    The reward of token t is -kl_coefficient * (log p - log q) of that token (k1), and the last
    token also gets the reward model's score. Advantages are whitened over the batch.
    """
    rollouts = sampled.rollouts
    lengths = torch.tensor([len(rollout.completion_ids) for rollout in rollouts])
    mask_bt = (torch.arange(int(lengths.max())) < lengths[:, None]).float()
    logprobs_bt = padded([rollout.logprobs for rollout in rollouts])
    reference_bt = padded([score.reference_logprobs for score in scores])
    values_bt = padded([score.values for score in scores])
    kl_bt = (logprobs_bt - reference_bt) * mask_bt
    rewards_bt = -config.kl_coefficient * kl_bt
    final_b = torch.tensor(sampled.rewards) - config.unfinished_penalty * torch.tensor(
        [float(not rollout.finished) for rollout in rollouts]
    )
    rewards_bt[torch.arange(len(rollouts)), lengths - 1] += final_b
    advantages_bt, returns_bt = generalized_advantages(
        rewards_bt, values_bt, mask_bt, gamma=config.gamma, lam=config.gae_lambda
    )
    advantages_bt = whiten(advantages_bt, mask_bt)
    batch = [
        Experience(
            rollout.prompt_ids,
            rollout.completion_ids,
            rollout.logprobs,
            advantages_bt[row, : lengths[row]].tolist(),
            score.values,
            returns_bt[row, : lengths[row]].tolist(),
        )
        for row, (rollout, score) in enumerate(zip(rollouts, scores, strict=True))
    ]
    return batch, float(kl_bt.sum(1).mean())


def padded(rows: Sequence[Sequence[float]]) -> Tensor:
    """Rows of different lengths as one tensor, zeros behind."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)


def flops(shape: ModelConfig, sampled: Sampled, learned: int) -> float:
    """Four forward passes (sampling, reward, values, reference), and the learning."""
    tokens = sum(len(r.prompt_ids) + len(r.completion_ids) for r in sampled.rollouts)
    length = tokens // len(sampled.rollouts)
    forward = shape.flops_per_token(length, training=False)
    return 4 * tokens * forward + learned * shape.flops_per_token(length)


def records(sampled: Sampled) -> list[dict[str, Any]]:
    """The rollout log's lines."""
    return [
        rollout.as_record(reward=reward)
        for rollout, reward in zip(sampled.rollouts, sampled.rewards, strict=True)
    ]


def summary(
    steps: Steps, config: Config, shape: ModelConfig, before: float, after: float
) -> Metrics:
    """The stage's metrics; rewards before and after are of held-out prompts."""
    log = steps.figures(config.steps)
    return {
        "parameters": shape.parameters(),
        "steps": config.steps,
        "tokens": int(sum(line["tokens"] for line in log)),
        "flops": sum(line["flops"] for line in log),
        "loss": log[-1]["loss"],
        "reward_before": before,
        "reward_after": after,
        "kl": log[-1]["kl"],
        "rollouts": config.steps * config.prompts_per_step * config.samples_per_prompt,
    }
