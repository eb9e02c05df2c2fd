"""Rollout workers and the learner as Ray actors, and the crew that joins them.

Rollout workers keep nothing that matters: a request carries a reference to the weights it is to be
sampled with, so a worker that dies is replaced by the pool and its request repeated. The learner
holds the state; when it dies the stage ends, and the next run goes on from the last commit.
Weights travel from the learner to the workers through the object store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError

from cluster.pool import ActorPool, Failure, PoolBroken, room
from cluster.session import KEEPING_MEMORY
from stages.reinforce.learner import Experience, Learner, LearnerSettings, Scores
from stages.reinforce.rollouts import Messages, Rollout, Sampling, sample

DEADLINE_S = 1800.0
START_S = 600.0
"""How long the learner may wait for a place and load its model."""


@dataclass(frozen=True)
class SampleRequest:
    """Prompts to sample, and the policy to sample them with."""

    prompts: Mapping[str, Messages]
    samples: int
    sampling: Sampling
    seed: int
    version: int
    weights: list[Any] = field(repr=False)
    """One object reference; in a list, or Ray would fetch it for workers that have it already."""


@dataclass(frozen=True)
class Sampled:
    """The rollouts of one request, and the reward model's score of each where there is one."""

    rollouts: list[Rollout]
    rewards: list[float]


class RolloutWorker:
    """Samples completions; scores them with a reward model when given its folder."""

    def __init__(self, model: str, threads: int, reward_model: str | None = None) -> None:
        import torch

        from model import pretrained
        from model.tokenizer import Tokenizer
        from stages.reinforce.reward_model import RewardModel

        torch.set_num_threads(threads)
        self.model = pretrained.load(model)
        self.tokenizer = Tokenizer.load(model)
        self.reward_model = RewardModel.load(Path(reward_model)) if reward_model else None
        self.version = -1

    def sample(self, request: SampleRequest) -> Sampled:
        """Rollouts of the request's prompts, prompt by prompt."""
        if request.version != self.version:
            self.model.load_state_dict(ray.get(request.weights[0]))
            self.version = request.version
        rollouts = sample(
            self.model, self.tokenizer, request.prompts,
            samples=request.samples, sampling=request.sampling, seed=request.seed,
        )  # fmt: skip
        rewards: list[float] = []
        if self.reward_model is not None:
            rewards = self.reward_model.score(
                self.tokenizer,
                [(request.prompts[rollout.prompt], rollout.text) for rollout in rollouts],
            )
        return Sampled(rollouts, rewards)


class LearnerActor:
    """A `Learner` in a process of its own."""

    def __init__(
        self,
        model: str,
        settings: LearnerSettings,
        threads: int,
        *,
        value_from: str | None = None,
        reference: bool = False,
    ) -> None:
        import torch

        from model import pretrained
        from stages.reinforce.reward_model import RewardModel

        torch.set_num_threads(threads)
        policy = pretrained.load(model)
        head = RewardModel.load(Path(value_from)).head if value_from else None
        self.learner = Learner(policy, settings, value_head=head, reference=reference)

    def shape(self) -> dict[str, Any]:
        """The model's config, as plain values."""
        return self.learner.model.config.model_dump()

    def weights(self) -> dict[str, Any]:
        """The policy's weights."""
        return self.learner.weights()

    def score(self, prompts: list[list[int]], completions: list[list[int]]) -> list[Scores]:
        """See `Learner.score`."""
        return self.learner.score(prompts, completions)

    def update(self, batch: list[Experience], seed: int) -> dict[str, float]:
        """See `Learner.update`."""
        return self.learner.update(batch, seed)

    def save(self, folder: Path) -> None:
        """The whole state into a folder."""
        self.learner.save(folder)

    def load(self, folder: Path) -> None:
        """The state that `save` wrote."""
        self.learner.load(folder)

    def export(self, folder: Path, tokenizer: Path) -> None:
        """The policy as a checkpoint in Hugging Face's layout."""
        from model import pretrained

        pretrained.save(self.learner.model, folder)
        pretrained.copy_tokenizer(tokenizer, folder)


class Crew:
    """One learner and a pool of rollout workers around one checkpoint. Needs a Ray session."""

    def __init__(
        self,
        model: Path,
        settings: LearnerSettings,
        *,
        workers: int,
        threads: int,
        reward_model: Path | None = None,
        reference: bool = False,
        start_s: float = START_S,
    ) -> None:
        reward = str(reward_model) if reward_model else None
        self.learner: Any = (
            ray.remote(LearnerActor)
            .options(num_cpus=1, runtime_env=_threads(threads))
            .remote(str(model), settings, threads, value_from=reward, reference=reference)
        )
        share = max(1, threads // workers)
        self.workers = ActorPool(
            RolloutWorker,
            workers,
            args=(str(model), share, reward),
            options={"num_cpus": 1, "runtime_env": _threads(share)},
            depth=1,
        )
        self.version = 0
        self._weights: Any = None
        self._start_s, self._started = start_s, False

    def ask(self, method: str, *args: Any) -> Any:
        """Call the learner and wait."""
        if not self._started:
            self._await_learner()
        return ray.get(getattr(self.learner, method).remote(*args))

    def _await_learner(self) -> None:
        """Raises PoolBroken where the learner finds no place, for which Ray would wait for ever."""
        try:
            ray.get(self.learner.__ray_ready__.remote(), timeout=self._start_s)
        except GetTimeoutError as error:
            raise PoolBroken(
                f"the learner did not start within {self._start_s:g} s. It asks for one CPU, as "
                f"each of {len(self.workers.actors)} rollout workers does, and {room()}"
            ) from error
        self._started = True

    def broadcast(self) -> None:
        """From now on sample with the learner's present weights."""
        self._weights = self.learner.weights.remote()
        self.version += 1

    def sample(
        self, prompts: Mapping[str, Messages], *, samples: int, sampling: Sampling, seed: int,
        parts: int,
    ) -> Iterator[Sampled]:  # fmt: skip
        """Rollouts in `parts` parts, each as soon as it and those before it are ready."""
        if self._weights is None:
            self.broadcast()
        names = list(prompts)
        size = -(-len(names) // parts)
        requests = [
            SampleRequest(
                {name: prompts[name] for name in names[at : at + size]},
                samples, sampling, seed, self.version, [self._weights],
            )
            for at in range(0, len(names), size)
        ]  # fmt: skip
        for sampled in self.workers.imap("sample", requests, deadline_s=DEADLINE_S):
            if isinstance(sampled, Failure):
                raise RuntimeError(f"rollouts failed {sampled.attempts} times: {sampled.reason}")
            yield sampled

    def close(self) -> None:
        """End the actors."""
        self.workers.close()
        ray.kill(self.learner)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _threads(count: int) -> dict[str, Any]:
    """What torch's OpenMP and malloc read when they start. Ray would set the threads to an actor's
    CPUs; and threads that wait must sleep, not spin: with the cores shared, spinning costs 50 times
    the work.
    """
    threads = {"OMP_NUM_THREADS": str(count), "OMP_WAIT_POLICY": "PASSIVE"}
    return {"env_vars": threads | KEEPING_MEMORY}


def together(parts: Sequence[Sampled]) -> Sampled:
    """Several parts as one."""
    return Sampled(
        [rollout for part in parts for rollout in part.rollouts],
        [reward for part in parts for reward in part.rewards],
    )
