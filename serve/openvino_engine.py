"""The CPU engine: OpenVINO GenAI's continuous batching over a GGUF file.

Token ids go in and come out; the file's own tokenizer is not used. Weights are read from GGUF with
no conversion step. The KV cache is kept in float16: the default 8-bit cache moves log-probabilities
by about 0.02, this one by about 0.0005.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai

from serve.engine import Delta, FinishReason, Request, Stats

KV_BLOCK_TOKENS = 32
"""Tokens in one block of the CPU plugin's paged KV cache."""


class OpenVINOEngine:
    """`serve.engine.Engine` over `ContinuousBatchingPipeline`.

    `max_sequences` requests are decoded together, each with room for a full context; more wait in
    the pipeline's own queue, and share cached prefixes.
    """

    name = "openvino"

    def __init__(self, folder: Path, *, max_sequences: int = 16, threads: int = 1) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.context_tokens = int(config["max_position_embeddings"])
        scheduler = genai.SchedulerConfig()
        scheduler.num_kv_blocks = max_sequences * math.ceil(self.context_tokens / KV_BLOCK_TOKENS)
        scheduler.max_num_seqs = max_sequences
        scheduler.max_num_batched_tokens = max(256, self.context_tokens)
        scheduler.enable_prefix_caching = True
        properties = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "KV_CACHE_PRECISION": "f16",
        }
        self._pipeline = genai.ContinuousBatchingPipeline(
            folder / "model.gguf", scheduler, "CPU", properties
        )
        self._handles: dict[str, Any] = {}
        self._numbers = 0
        self._generated = 0

    def add(self, request: Request) -> None:
        """Queue a request."""
        if request.id in self._handles:
            raise ValueError(f"request id {request.id!r} is in use")
        self._numbers += 1
        prompt = openvino.Tensor(np.array([request.prompt_ids], dtype=np.int64))
        self._handles[request.id] = self._pipeline.add_request(
            self._numbers, prompt, _generation_config(request)
        )

    def step(self) -> list[Delta]:
        """One scheduler step over all requests."""
        self._pipeline.step()
        deltas = []
        for request_id, handle in list(self._handles.items()):
            delta = _read(request_id, handle)
            if delta is None:
                continue
            self._generated += len(delta.token_ids)
            deltas.append(delta)
            if delta.finish_reason is not None:
                del self._handles[request_id]
        return deltas

    def abort(self, request_id: str) -> None:
        """Cancel at once; the pipeline frees its blocks in the next step."""
        handle = self._handles.pop(request_id, None)
        if handle is not None:
            handle.cancel()

    def has_work(self) -> bool:
        """Whether the pipeline holds an unfinished or just cancelled request."""
        return bool(self._pipeline.has_non_finished_requests())

    def stats(self) -> Stats:
        """The pipeline's own figures."""
        used = self._pipeline.get_metrics().cache_usage / 100.0
        return Stats(len(self._handles), used, self._generated)


def _generation_config(request: Request) -> genai.GenerationConfig:
    config = genai.GenerationConfig()
    config.apply_chat_template = False
    config.max_new_tokens = request.max_tokens
    config.logprobs = 1
    config.do_sample = request.temperature > 0
    if config.do_sample:
        config.temperature = request.temperature
        config.top_p = request.top_p
        config.rng_seed = request.seed if request.seed is not None else _fresh_seed()
    if request.stop_ids:
        config.stop_token_ids = set(request.stop_ids)
    else:
        config.ignore_eos = True
    return config


def _fresh_seed() -> int:
    """Another seed for every request that names none: the pipeline's default is always 0."""
    return int(np.random.SeedSequence().generate_state(1)[0])


def _read(request_id: str, handle: Any) -> Delta | None:
    """What a handle has to give: None when nothing new."""
    token_ids: list[int] = []
    logprobs: list[float] = []
    finish: FinishReason | None = None
    while handle.can_read():
        for output in handle.read().values():
            token_ids += output.generated_ids
            logprobs += output.generated_log_probs
            if output.finish_reason == genai.GenerationFinishReason.STOP:
                finish = "stop"
            elif output.finish_reason == genai.GenerationFinishReason.LENGTH:
                finish = "length"
    if finish is None and handle.get_status() in (
        genai.GenerationStatus.IGNORED,
        genai.GenerationStatus.CANCEL,
    ):
        finish = "abort"
    if not token_ids and finish is None:
        return None
    return Delta(request_id, tuple(token_ids), tuple(logprobs), finish)
