"""Measures one thing of one model at a time: what evaluate's actors do."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from cluster.errors import UserError
from model import pretrained
from model.gguf_file import load_gguf
from model.tokenizer import Tokenizer
from model.transformer import Transformer
from stages.evaluate.answers import encode_question, sample_answers, worked_examples
from stages.evaluate.certificate import check_certificate
from stages.evaluate.heldout import (
    Ints,
    TextCost,
    choose,
    model_cost,
    ngram_cost,
    read_all,
    token_sizes,
)
from stages.evaluate.measured import Tally
from stages.evaluate.ngram import KneserNey
from stages.tasks.problem import Problem, read_problems
from stages.text.token_shards import TokenShards
from stages.verify.verdict import Verdict
from stages.verify.verifier import verify

TEXT, PROBLEMS, PREFERENCES, FACTS, ANSWERS, NGRAM, CERTIFICATE = (
    "text",
    "problems",
    "preferences",
    "facts",
    "answers",
    "ngram",
    "certificate",
)


@dataclass(frozen=True)
class Subject:
    """A model to be measured: where it lies, and whether it knows chat turns."""

    name: str
    folder: Path
    chat: bool


@dataclass(frozen=True)
class Job:
    """One measurement, of `samples` where it samples; NGRAM and CERTIFICATE have no subject."""

    measurement: str
    subject: Subject | None = None
    samples: int = 1


@dataclass(frozen=True)
class Settings:
    """What all measurements share: fields of the config, and where the parents lie."""

    seed: int
    tokens: Path
    problems: Path | None
    preferences: Path | None
    corpus: Path | None
    scratch: Path
    questions: Sequence[dict[str, Any]] = field(default_factory=list)
    problems_per_task: int = 24
    temperature: float = 1.0
    max_new_tokens: int = 64
    shots: int = 2
    preference_prompts: int = 64
    heldout_tokens: int = 24_000
    sequence_length: int = 256
    overlap: int = 64
    ngram_order: int = 5
    shown_answers: int = 12
    batch: int = 256
    threads: int = 1


class Measurer:
    """Holds the data that measurements share and the model it measured last."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._loaded: tuple[Path, Transformer, Tokenizer] | None = None
        torch.set_num_threads(settings.threads)

    def measure(self, job: Job) -> Any:
        """The job's result: TextCost, {problem: Tally}, preferences, facts, or answers."""
        if job.measurement == NGRAM:
            return self._ngram()
        if job.measurement == CERTIFICATE:
            assert self.settings.corpus is not None
            return check_certificate(self.settings.corpus, self._all_problems)
        assert job.subject is not None
        measurements: dict[str, Callable[[Subject, int], Any]] = {
            TEXT: self._text,
            PROBLEMS: self._problems,
            PREFERENCES: self._preferences,
            FACTS: self._facts,
            ANSWERS: self._answers,
        }
        return measurements[job.measurement](job.subject, job.samples)

    # What is shared -----------------------------------------------------------------------------

    @cached_property
    def _heldout(self) -> list[Ints]:
        documents = read_all(TokenShards(self.settings.tokens / "heldout"))
        return choose(documents, self.settings.heldout_tokens, self.settings.seed)

    @cached_property
    def _sizes(self) -> Ints:
        vocabulary = TokenShards(self.settings.tokens / "heldout").vocabulary_size
        return token_sizes(self.settings.tokens / "tokenizer" / "tokenizer.json", vocabulary)

    @cached_property
    def _all_problems(self) -> list[Problem]:
        assert self.settings.problems is not None
        return read_problems(self.settings.problems)

    @cached_property
    def asked(self) -> list[Problem]:
        """The first `problems_per_task` evaluation problems of each task."""
        count: dict[str, int] = {}
        asked = []
        for problem in self._all_problems:
            if problem.split == "eval":
                count[problem.task] = count.get(problem.task, 0) + 1
                if count[problem.task] <= self.settings.problems_per_task:
                    asked.append(problem)
        if not asked:
            raise UserError(
                f"{self.settings.problems} holds no problem of split 'eval'; expected some: let the"
                " examples stage make evaluation problems"
            )
        return asked

    @cached_property
    def prompts(self) -> list[str]:
        """Held-out prompts of the preference examples: the user's last words."""
        assert self.settings.preferences is not None
        lines = (self.settings.preferences / "heldout.jsonl").read_text(encoding="utf-8")
        rows = [json.loads(line) for line in lines.splitlines() if line.strip()]
        prompts = dict.fromkeys(str(row["prompt"][-1]["content"]) for row in rows)
        return list(prompts)[: self.settings.preference_prompts]

    def _load(self, subject: Subject) -> tuple[Transformer, Tokenizer]:
        if self._loaded is None or self._loaded[0] != subject.folder:
            quantized = subject.folder / "model.gguf"
            model = load_gguf(quantized) if quantized.exists() else pretrained.load(subject.folder)
            self._loaded = (subject.folder, model, Tokenizer.load(subject.folder))
        return self._loaded[1], self._loaded[2]

    # Measurements -------------------------------------------------------------------------------

    def _text(self, subject: Subject, _samples: int) -> TextCost:
        model, tokenizer = self._load(subject)
        ours = Tokenizer.load(self.settings.tokens / "tokenizer")
        if tokenizer.backend.get_vocab() != ours.backend.get_vocab():
            raise UserError(
                f"{subject.name} has another tokenizer than the tokens artifact; perplexity is"
                " measured on the same tokens for all: evaluate it with tokens made by its own"
            )
        length = min(self.settings.sequence_length, model.config.max_position_embeddings)
        overlap = min(self.settings.overlap, length // 2)
        return model_cost(model, self._heldout, self._sizes, length, overlap)

    def _ngram(self) -> tuple[TextCost, list[int]]:
        """What the n-gram model spends, and how many n-grams of each order it holds."""
        shards = TokenShards(self.settings.tokens / "train")
        model = KneserNey.train(read_all(shards), shards.vocabulary_size, self.settings.ngram_order)
        return ngram_cost(model, self._heldout, self._sizes), model.ngrams

    def _problem_prompts(self, subject: Subject, problems: Sequence[Problem]) -> list[list[int]]:
        _, tokenizer = self._load(subject)
        known = [] if subject.chat else self._all_problems
        return [
            encode_question(
                tokenizer,
                problem.prompt,
                subject.chat,
                worked_examples(known, problem.task, problem.language, self.settings.shots),
            )
            for problem in problems
        ]

    def _sample(
        self, subject: Subject, prompts: Sequence[Sequence[int]], samples: int
    ) -> list[list[str]]:
        model, tokenizer = self._load(subject)
        return sample_answers(
            model,
            tokenizer,
            prompts,
            samples=samples,
            max_new_tokens=self.settings.max_new_tokens,
            temperature=self.settings.temperature,
            seed=self.settings.seed,
            chat=subject.chat,
            batch=self.settings.batch,
        )

    def _problems(self, subject: Subject, samples: int) -> dict[str, Tally]:
        answers = self._sample(subject, self._problem_prompts(subject, self.asked), samples)
        tallies = {}
        for problem, row in zip(self.asked, answers, strict=True):
            known: dict[str, Verdict] = {}  # equal answers get one verdict
            for answer in row:
                if answer not in known:
                    known[answer] = verify(problem, answer)
            verdicts = [known[answer] for answer in row]
            errors = sum(verdict.error for verdict in verdicts)
            correct = sum(verdict.passed for verdict in verdicts)
            tallies[problem.id] = Tally(problem.task, len(row) - errors, correct, errors)
        return tallies

    def _preferences(self, subject: Subject, samples: int) -> list[list[float]]:
        from stages.tasks.preference import true_preference

        _, tokenizer = self._load(subject)
        prompts = [encode_question(tokenizer, prompt, subject.chat) for prompt in self.prompts]
        answers = self._sample(subject, prompts, samples)
        return [
            [true_preference(prompt, answer) for answer in row]
            for prompt, row in zip(self.prompts, answers, strict=True)
        ]

    def _facts(self, subject: Subject, _samples: int) -> list[float]:
        from stages.evaluate import harness  # imports lm-evaluation-harness: seconds

        model, tokenizer = self._load(subject)
        folder = self.settings.scratch / f"facts-{subject.name}"
        harness.write_task(folder, self.settings.questions, subject.chat)
        return harness.facts_accuracy(
            model, tokenizer, folder, model.config.max_position_embeddings, subject.chat
        )

    def _answers(self, subject: Subject, _samples: int) -> list[dict[str, Any]]:
        """One answer to each of a few prompts, the same for every model."""
        shown = self._shown()
        if not shown:
            return []
        _, tokenizer = self._load(subject)
        problems = [source for source in shown if isinstance(source, Problem)]
        others = [source for source in shown if isinstance(source, str)]
        prompts = self._problem_prompts(subject, problems)
        prompts += [encode_question(tokenizer, prompt, subject.chat) for prompt in others]
        answers = [row[0] for row in self._sample(subject, prompts, 1)]
        rows: list[dict[str, Any]] = []
        for source, answer in zip([*problems, *others], answers, strict=True):
            row: dict[str, Any] = {"model": subject.name, "answer": answer}
            if isinstance(source, Problem):
                verdict = verify(source, answer)
                row |= {"prompt": source.prompt, "task": source.task, "passed": verdict.passed}
            else:
                row |= {"prompt": source, "task": "conversation", "passed": None}
            rows.append(row)
        return rows

    def _shown(self) -> list[Problem | str]:
        """Prompts whose answers the report shows: some of each task, then conversation."""
        count = self.settings.shown_answers
        shown: list[Problem | str] = []
        if self.settings.problems is not None:
            by_task: dict[str, list[Problem]] = {}
            for problem in self.asked:
                by_task.setdefault(problem.task, []).append(problem)
            share = max(1, count // (len(by_task) + 1))
            shown += [problem for group in by_task.values() for problem in group[:share]]
        if self.settings.preferences is not None:
            shown += self.prompts[: max(0, count - len(shown))]
        return shown[:count]
