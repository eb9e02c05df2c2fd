"""What the same minutes teach: our pretraining against a GPT-2-style model under the HF Trainer.

The same corpus (documentation of installed packages), tokenizer, number of parameters, tokens a
batch and CPU-minutes on one thread. Each side first times a few steps, then plans its schedule to
end with its minutes, tokenization and start-up not counted. Ours runs the loop of stage `pretrain`
with recipe `tiny`'s settings; the peer is GPT2LMHeadModel (post-2019 practice: no dropout, AdamW,
cosine, warmup), in bfloat16 or float32, whichever is faster for it here, once for each learning
rate of `--peer-rates`, its best run counting. Scored on
held-out documents in bits per byte; `ratio` is peer over ours, 1.1 and more being the goal.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cluster.session import KEEPING_MEMORY

LENGTH, ROWS, VOCABULARY = 256, 16, 3072
PACKAGES = ["networkx", "pydantic", "numpy", "torch", "transformers", "pyarrow", "matplotlib"]
HELDOUT_EVERY = 20
CALIBRATION = 6
"""Steps that are timed first; the first of them is left out."""


def prepare(folder: Path, max_bytes: int) -> None:
    """Tokens and tokenizer of the corpus, and how many bytes the held-out tokens stand for."""
    from model.tokenizer import Tokenizer
    from stages.text.prose import read_packages
    from stages.text.token_shards import TokenWriter

    texts, size = [], 0
    for page in read_packages(PACKAGES):
        if page.text and len(page.text) > 400:
            texts.append(page.text)
            size += len(page.text.encode())
        if size > max_bytes:
            break
    tokenizer = Tokenizer.train(texts, VOCABULARY)
    tokenizer.save(folder)
    sizes = {}
    for split in ("train", "heldout"):
        chosen = [t for i, t in enumerate(texts) if (i % HELDOUT_EVERY == 0) == (split != "train")]
        writer = TokenWriter(folder / split, tokenizer.vocabulary_size, tokenizer.end_of_text_id)
        for number, ids in enumerate(tokenizer.encode_batch(chosen)):
            writer.add(f"{split}-{number}", ids)
        index = writer.close()
        sizes[split] = {
            "tokens": index["tokens"],
            "bytes": sum(len(text.encode()) for text in chosen),
        }
    sizes["vocabulary"] = tokenizer.vocabulary_size
    (folder / "sizes.json").write_text(json.dumps(sizes))


def train_ours(folder: Path, minutes: float) -> dict[str, float]:
    """Our loop, as recipe `tiny` sets it; nats per held-out token."""
    import torch
    import torch.distributed as dist

    from model.config import ModelConfig
    from stages.pretrain import Config, loop
    from tests.bench.plan import step_times

    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0",
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29520"}  # fmt: skip
    store = dist.FileStore(str(folder / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    torch.set_num_threads(1)
    vocabulary = json.loads((folder / "sizes.json").read_text())["vocabulary"]

    def run(name: str, steps: int) -> tuple[dict[str, Any], list[float]]:
        config = Config.model_validate(
            {"tokens": "t", "steps": steps, "warmup_steps": min(20, steps - 1),
             "batch_tokens": ROWS * LENGTH, "sequence_length": LENGTH, "optimizer": "muon",
             "learning_rate": 0.006, "precision": "auto", "checkpoint_every": 10**6,
             "heldout_tokens": 10**9,
             "watch": {"hang_s": 3600}, "parallel": {"rows": 8}}
        )  # fmt: skip
        shape = ModelConfig(vocab_size=vocabulary)
        said: list[dict[str, Any]] = []
        report, loop.report = loop.report, lambda metrics, *_: said.append(metrics)
        with step_times() as seconds:
            loop.train(
                {"config": config.model_dump(mode="json"), "shape": shape.model_dump(), "seed": 17,
                 "tokens": str(folder / "train"), "heldout": str(folder / "heldout"),
                 "scratch": str(folder / name)}
            )  # fmt: skip
        loop.report = report
        return said[-1], seconds

    per_step = statistics.median(run("calibrate", CALIBRATION)[1][1:])
    steps = max(CALIBRATION, round(60 * minutes / per_step))
    metrics, seconds = run("ours", steps)
    dist.destroy_process_group()
    return {"nats": metrics["heldout_loss"], "steps": steps, "seconds": sum(seconds),
            "parameters": metrics["parameters"]}  # fmt: skip


def train_peer(folder: Path, minutes: float, rate: float) -> dict[str, float]:
    """GPT-2 under the Trainer, of as many parameters; nats per held-out token."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    from model.config import ModelConfig
    from stages.text.token_shards import TokenShards

    torch.set_num_threads(1)
    shards, heldout = TokenShards(folder / "train"), TokenShards(folder / "heldout")
    target = ModelConfig(vocab_size=shards.vocabulary_size).parameters()

    def model_of(inner: int) -> Any:
        torch.manual_seed(17)
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=shards.vocabulary_size, n_positions=LENGTH, n_embd=128, n_layer=4,
                n_head=4, n_inner=inner, bos_token_id=0, eos_token_id=0,
                resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
            )
        )  # fmt: skip

    base = sum(p.numel() for p in model_of(128).parameters())
    inner = 128 + round((target - base) / (4 * 2 * 128))  # what makes the sizes equal
    model = model_of(inner)

    class Windows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
        def __len__(self) -> int:
            return shards.windows(LENGTH)

        def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
            tokens, _ = shards.span(number * LENGTH, (number + 1) * LENGTH)
            ids = torch.from_numpy(tokens)
            return {"input_ids": ids, "labels": ids}

    def trainer(name: str, steps: int, bf16: bool) -> Any:
        return Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=str(folder / name), max_steps=steps, learning_rate=rate,
                per_device_train_batch_size=ROWS, weight_decay=0.1, adam_beta2=0.95,
                lr_scheduler_type="cosine", warmup_steps=min(20, steps - 1), use_cpu=True,
                report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True, seed=17,
                bf16=bf16,
            ),
            train_dataset=Windows(),
        )  # fmt: skip

    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    per_step = {}
    for bf16 in (False, True):
        trainer("warm", 2, bf16).train()
        begun = time.process_time()
        trainer("calibrate", CALIBRATION, bf16).train()
        per_step[bf16] = (time.process_time() - begun) / CALIBRATION
        model.load_state_dict(state)
    faster = min(per_step, key=lambda bf16: per_step[bf16])
    steps = max(CALIBRATION, round(60 * minutes / per_step[faster]))
    begun = time.process_time()
    trainer("peer", steps, faster).train()
    seconds = time.process_time() - begun
    model.eval()
    nats, predicted = 0.0, 0
    with torch.no_grad():
        for number in range(heldout.windows(LENGTH)):
            batch = heldout.batch(number, 1, LENGTH, seed=0)
            logits = model(torch.from_numpy(batch.input_ids)).logits.flatten(0, 1)
            labels = torch.from_numpy(batch.labels).flatten()
            nats += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
            predicted += int((labels >= 0).sum())
    return {"nats": nats / predicted, "steps": steps, "seconds": seconds,
            "parameters": sum(p.numel() for p in model.parameters())}  # fmt: skip


def in_a_process(folder: Path, minutes: float, side: str, rate: float = 0.0) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.learning", "--side", side, "--minutes",
               str(minutes), "--rate", str(rate), "--folder", str(folder)]  # fmt: skip
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | KEEPING_MEMORY,
    )  # fmt: skip
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main(minutes: float, rates: list[float], max_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, max_bytes)
        sizes = json.loads((folder / "sizes.json").read_text())
        per_byte = sizes["heldout"]["tokens"] / sizes["heldout"]["bytes"] / math.log(2)
        found: dict[str, list[float]] = {"ours": [], "peer": []}
        for side, rate in [("ours", 0.0), *(("peer", rate) for rate in rates)]:
            result = in_a_process(folder, minutes, side, rate)
            bits = result["nats"] * per_byte
            found[side].append(bits)
            print(
                f"learning: {side}{f' at {rate:g}' if rate else ''}: {bits:.4f} bits per byte after"
                f" {result['steps']:.0f} steps of {ROWS * LENGTH} tokens in"
                f" {result['seconds'] / 60:.2f} CPU-minutes,"
                f" {result['parameters'] / 1e6:.3f}M parameters",
                flush=True,
            )
    ours, peer = min(found["ours"]), min(found["peer"])
    print(
        json.dumps(
            {"bench": "learning", "ours": round(ours, 4), "peer": round(peer, 4),
             "unit": f"bits per byte after {minutes:g} CPU-minutes; ratio: peer / ours",
             "ratio": round(peer / ours, 3)}
        )
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--peer-rates", default="0.001,0.003,0.006")
    parser.add_argument("--max-bytes", type=int, default=3_000_000)
    parser.add_argument("--side", choices=["ours", "peer"])
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.side == "ours":
        print(json.dumps(train_ours(options.folder, options.minutes)))
    elif options.side == "peer":
        print(json.dumps(train_peer(options.folder, options.minutes, options.rate)))
    else:
        rates = [float(rate) for rate in options.peer_rates.split(",")]
        main(options.minutes, rates, options.max_bytes)
