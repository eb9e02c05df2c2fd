"""lm-evaluation-harness over our Transformer, with a local task: nothing comes from the network.

`TransformerLM` is the harness's model interface; `facts_accuracy` writes the task's YAML and JSONL
next to each other and lets the harness ask. Importing this module imports the harness: seconds.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from model.generate import generate
from model.tokenizer import SPECIAL_TOKENS, Tokenizer
from model.transformer import Transformer
from stages.evaluate.scoring import Passage, score

TASK = "world_facts"
MARKERS = re.compile("(" + "|".join(re.escape(token) for token in SPECIAL_TOKENS) + ")")


class TransformerLM(TemplateLM):
    """Our model as the harness sees it: log-likelihoods of texts, and greedy generation."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer, max_length: int) -> None:
        super().__init__()
        self.model = model
        self.text = tokenizer
        self.max_length = max_length

    @property
    def eot_token_id(self) -> int:
        return int(self.text.end_of_text_id)

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Token ids; the chat template's markers become the tokens they name."""
        ids: list[int] = []
        for piece in MARKERS.split(string):
            marker = self.text.backend.token_to_id(piece) if MARKERS.fullmatch(piece) else None
            ids += self.text.encode(piece) if marker is None else [marker]
        return ids

    @property
    def tokenizer_name(self) -> str:
        """What the harness tells caches of prompts apart by."""
        return f"raylm-{self.text.vocabulary_size}"

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template's name for the harness's record."""
        return "chatml"

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The messages as text with the template's markers."""
        ids, _ = self.text.encode_chat(chat_history, add_generation_prompt=add_generation_prompt)
        return self.text.decode(ids, skip_special=False)

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """(log-probability of the continuation, whether greedy decoding gives it)."""
        passages = []
        for _texts, context, continuation in requests:
            ids = (context + continuation)[-self.max_length :]
            passages.append(Passage(ids, max(1, len(ids) - len(continuation))))
        scores = score(self.model, passages)
        return [(float(one.logprobs.sum()), bool(one.greedy.all())) for one in scores]

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-likelihood of whole texts behind an end-of-text token, each token scored once.

        Windows follow the harness's convention: the last one reaches back for a full context.
        """
        totals = []
        for request in requests:
            ids = [self.eot_token_id, *self.text.encode(request.args[0])]
            passages, done = [], 1
            while done < len(ids):
                end = min(len(ids), max(done, 1) + self.max_length - 1)
                start = max(0, end - self.max_length)
                passages.append(Passage(ids[start:end], done - start))
                done = end
            totals.append(sum(float(one.logprobs.sum()) for one in score(self.model, passages)))
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy continuations, cut before the first stopping string."""
        answers = []
        for request in requests:
            context, options = request.args
            limit = int(options.get("max_gen_toks", 64))
            until = options.get("until") or []
            prompt = self.tok_encode(context)[-(self.max_length - limit) :]
            completion = generate(
                self.model,
                [prompt],
                max_new_tokens=limit,
                temperature=0.0,
                stop_ids=(self.eot_token_id,),
            )[0]
            answer = self.text.decode(completion.token_ids)
            for stop in [until] if isinstance(until, str) else until:
                answer = answer.split(stop)[0]
            answers.append(answer)
        return answers


def write_task(folder: Path, questions: Sequence[dict[str, Any]], chat: bool) -> None:
    """Write the harness's task: `facts.yaml`, and `facts.jsonl` with question, choices, answer.

    With `chat` the question alone is a user's turn; else it stands as plain text.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(question, ensure_ascii=False) for question in questions]
    (folder / "facts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    task = {
        "task": TASK,
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(folder / "facts.jsonl")},
            "cache_dir": str(folder / "cache"),
        },
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}" if chat else "Question: {{question}}\nAnswer:",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "target_delimiter": "" if chat else " ",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }
    (folder / "facts.yaml").write_text(yaml.safe_dump(task, allow_unicode=True), encoding="utf-8")


def facts_accuracy(
    model: Transformer, tokenizer: Tokenizer, folder: Path, max_length: int, chat: bool
) -> list[float]:
    """1 or 0 for each question of the task in `folder`: did the true choice score highest?"""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    adapter = TransformerLM(model, tokenizer, max_length)
    with contextlib.redirect_stderr(io.StringIO()):  # the harness's progress bars
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        results = evaluate(
            adapter, manager.load([TASK]), bootstrap_iters=0, apply_chat_template=chat
        )
    if results is None:
        raise RuntimeError("lm-evaluation-harness returned no results on its first rank")
    samples = sorted(results["samples"][TASK], key=lambda sample: sample["doc_id"])
    return [float(sample["acc"]) for sample in samples]
