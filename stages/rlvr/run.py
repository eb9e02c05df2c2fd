"""The RLVR loop: sample, verify while sampling goes on, compare within groups, learn, commit."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from model.config import ModelConfig
from stages.reinforce.actors import Crew
from stages.reinforce.advantages import group_advantages, informative_groups
from stages.reinforce.learner import Experience, LearnerSettings
from stages.reinforce.rollouts import Rollout, Sampling
from stages.reinforce.steps import Steps
from stages.rlvr import Config
from stages.rlvr.problems import problems_of_step, training_problems
from stages.stage import Context, Inputs, Metrics, one
from stages.tasks.problem import Problem
from stages.verify.pool import VerifierPool
from stages.verify.verdict import Verdict

PART_SAMPLES = 128
"""Samples of a part: in half as many each takes a fourth longer."""


@dataclass(frozen=True)
class Judged:
    """A step's rollouts and their verdicts, in the same order: problem by problem."""

    rollouts: list[Rollout]
    verdicts: list[Verdict]


def run(config: Config, inputs: Inputs, context: Context) -> Metrics:
    """Train from the last committed step to `config.steps`; the stage's entry."""
    parent = one(inputs, "model").path
    problems = training_problems(one(inputs, "problems").path, config.tasks)
    context.connect()
    steps = Steps(context.scratch, config.commit_every)
    with (
        Crew(
            parent,
            settings_of(config),
            workers=config.workers,
            threads=config.threads,
            reference=config.kl_coefficient > 0,
        ) as crew,
        VerifierPool(config.verifiers) as verifiers,
    ):
        shape = ModelConfig(**crew.ask("shape"))
        done = steps.committed(config.steps)
        if done:
            crew.ask("load", steps.folder(done))
        for step in range(done + 1, config.steps + 1):
            crew.broadcast()
            asked = problems_of_step(problems, step, config.prompts_per_step, context.seed)
            judged = sample_and_judge(config, crew, verifiers, asked, context.seed + step)
            batch, figures = experiences(config, asked, judged)
            figures |= crew.ask("update", batch, context.seed + step) if batch else {"tokens": 0}
            figures["flops"] = flops(shape, judged.rollouts, int(figures["tokens"]), config)
            steps.record(step, figures, records(judged))
            if steps.due(step, config.steps):
                steps.commit(step, lambda folder: crew.ask("save", folder))
            context.progress(step, config.steps, f"pass rate {figures['pass_rate']:.2f}")
        crew.ask("export", context.out, parent)
    steps.publish(context.out, config.steps)
    return summary(steps, config, shape)


def settings_of(config: Config) -> LearnerSettings:
    """The learner's share of the config."""
    return LearnerSettings(
        learning_rate=config.learning_rate,
        longest=config.max_new_tokens,
        warmup_updates=config.warmup_updates,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        epochs=config.epochs,
        minibatches=config.minibatches,
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        aggregation=config.aggregation,
        kl_coefficient=config.kl_coefficient,
    )


def sample_and_judge(
    config: Config, crew: Crew, verifiers: VerifierPool, asked: Sequence[Problem], seed: int
) -> Judged:
    """Rollouts of all problems; each part is verified while the next is sampled."""
    by_id = {problem.id: problem for problem in asked}
    parts = crew.sample(
        {problem.id: [{"role": "user", "content": problem.prompt}] for problem in asked},
        samples=config.samples_per_prompt,
        sampling=Sampling(config.max_new_tokens, config.temperature),
        seed=seed,
        parts=parts_of(len(asked) * config.samples_per_prompt, config.workers),
    )
    rollouts: list[Rollout] = []
    with ThreadPoolExecutor(1) as checking:
        pending = []
        for part in parts:
            rollouts += part.rollouts
            pairs = [(by_id[rollout.prompt], rollout.text) for rollout in part.rollouts]
            pending.append(checking.submit(verifiers.verify_many, pairs))
        return Judged(rollouts, [verdict for part in pending for verdict in part.result()])


def parts_of(samples: int, workers: int) -> int:
    """In how many parts to sample: as many to each worker, none too small to sample well."""
    return workers * max(1, round(samples / (workers * PART_SAMPLES)))


def experiences(
    config: Config, asked: Sequence[Problem], judged: Judged
) -> tuple[list[Experience], dict[str, float]]:
    """What the learner gets, and the step's figures.

    Only groups whose rewards differ are kept: the others have no gradient and would only cost time.
    Samples without a verdict (an infrastructure error) are left out, not punished.
    """
    shape = (len(asked), config.samples_per_prompt)
    paid = [v.score if config.partial_credit else float(v.passed) for v in judged.verdicts]
    rewards_gs = torch.tensor(paid).reshape(shape)
    valid_gs = torch.tensor([not verdict.error for verdict in judged.verdicts]).reshape(shape)
    advantages_gs = group_advantages(rewards_gs, valid_gs, normalize=config.normalize_advantages)
    kept_gs = informative_groups(rewards_gs, valid_gs)[:, None] & valid_gs
    batch = [
        Experience(
            rollout.prompt_ids,
            rollout.completion_ids,
            rollout.logprobs,
            [advantage] * len(rollout.completion_ids),
        )
        for rollout, advantage, kept in zip(
            judged.rollouts, advantages_gs.flatten().tolist(), kept_gs.flatten().tolist(),
            strict=True,
        )
        if kept
    ]  # fmt: skip
    return batch, figures_of(asked, judged, len(batch))


def figures_of(asked: Sequence[Problem], judged: Judged, learned: int) -> dict[str, float]:
    """The step's rates and means; entropy is estimated by the samples' own log-probabilities."""
    valid = [verdict for verdict in judged.verdicts if not verdict.error]
    tokens = sum(len(rollout.completion_ids) for rollout in judged.rollouts)
    logprob = sum(sum(rollout.logprobs) for rollout in judged.rollouts)
    figures = {
        "pass_rate": sum(verdict.passed for verdict in valid) / max(1, len(valid)),
        "score": sum(verdict.score for verdict in valid) / max(1, len(valid)),
        "finished": sum(rollout.finished for rollout in judged.rollouts) / len(judged.rollouts),
        "completion_tokens": tokens / len(judged.rollouts),
        "entropy": -logprob / tokens,
        "learned_from": learned / len(judged.rollouts),
        "verifier_errors": len(judged.verdicts) - len(valid),
    }
    task_of = {problem.id: problem.task for problem in asked}
    for task in sorted(set(task_of.values())):
        passed = [
            verdict.passed
            for rollout, verdict in zip(judged.rollouts, judged.verdicts, strict=True)
            if task_of[rollout.prompt] == task and not verdict.error
        ]
        if passed:
            figures[f"pass_rate_{task}"] = sum(passed) / len(passed)
    return figures


def flops(shape: ModelConfig, rollouts: Sequence[Rollout], learned: int, config: Config) -> float:
    """Forward passes of the sampling, forward and backward of the learning, the reference's."""
    sampled = sum(len(r.prompt_ids) + len(r.completion_ids) for r in rollouts)
    length = sampled // len(rollouts)
    forward = shape.flops_per_token(length, training=False)
    reference = learned if config.kl_coefficient > 0 else 0
    return forward * (sampled + reference) + shape.flops_per_token(length) * learned


def records(judged: Judged) -> list[dict[str, object]]:
    """The rollout log's lines."""
    return [
        rollout.as_record(passed=v.passed, score=v.score, reason=v.reason, error=v.error)
        for rollout, v in zip(judged.rollouts, judged.verdicts, strict=True)
    ]


def summary(steps: Steps, config: Config, shape: ModelConfig) -> Metrics:
    """The stage's metrics. Pass rates are on training problems, over the first and last tenth."""
    log = steps.figures(config.steps)
    tenth = max(1, len(log) // 10)
    rate = [line["pass_rate"] for line in log]
    losses = [line["loss"] for line in log if "loss" in line]
    return {
        "parameters": shape.parameters(),
        "steps": config.steps,
        "tokens": int(sum(line["tokens"] for line in log)),
        "flops": sum(line["flops"] for line in log),
        "loss": losses[-1] if losses else 0.0,
        "pass_rate_first": sum(rate[:tenth]) / tenth,
        "pass_rate_last": sum(rate[-tenth:]) / tenth,
        "rollouts": config.steps * config.prompts_per_step * config.samples_per_prompt,
        "verifier_errors": int(sum(line["verifier_errors"] for line in log)),
    }
