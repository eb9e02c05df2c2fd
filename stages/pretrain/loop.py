"""What every worker runs: next batch, forward, backward, guard, step, log, checkpoint.

The data order is arithmetic (a batch is a function of seed and step), the learning rate is a
function of the step, and a checkpoint holds the rest, so a killed run continues as if nothing had
happened.
"""

from __future__ import annotations

import contextlib
import functools
import time
from pathlib import Path
from typing import Any

from cluster.board import report
from stages.pretrain import Config
from stages.pretrain.data import TrainingSet, folders_of, heldout_sets
from stages.pretrain.evaluation import HELDOUT, heldout_losses
from stages.pretrain.meter import StepMeter
from stages.pretrain.tasks import accuracies
from stages.pretrain.worker import Worker
from stages.tune.engine import StepGuard
from stages.tune.journal import Journal
from stages.tune.mesh import SumOverRanks

REPORT_S = 2.0


def train(job: dict[str, Any]) -> None:
    """Train the model a job describes (see `stages.pretrain.run`) and report its metrics."""
    config = Config.model_validate(job["config"])
    data = TrainingSet(config, folders_of(job["tokens"]), job["seed"])
    heldout = heldout_sets(config, folders_of(job["heldout"]))
    watch = config.watch.begin(Path(job["scratch"]))
    with contextlib.ExitStack() as stack:
        worker = Worker(config, job, data, stack.enter_context(watch))
        meter = StepMeter(
            worker.shape, worker.precision, worker.world, worker.device, worker.exchanges
        )
        stack.enter_context(worker.exchanges.exchanging())
        journal = stack.enter_context(
            Journal(worker.scratch, worker.step, active=worker.rank == 0, reporting=config.metrics)
        )
        take = StepGuard(worker.engine, worker.clip_norm)
        started, reported = time.monotonic(), 0.0
        if worker.resumed:
            journal.event("resumed", worker.step, workers=worker.world)
        while worker.goes_on:
            rate = worker.set_learning_rate()
            evaluates = config.evaluates_at(worker.step + 1)
            by_source = worker.losses_by_source(worker.batch()) if evaluates else {}
            begun = meter.begin()
            with worker.working("reading a batch"), meter.reading():
                batch = worker.batch()
            rows = worker.tensors(batch)
            own_predicted = worker.passes.predicted(rows)
            predicted = SumOverRanks(own_predicted)
            own_loss = worker.passes.gradients(
                rows, predicted, functools.partial(worker.working, "forward")
            )
            seen = worker.share(rows, own_loss, own_predicted, meter.flops(batch.document_ids))
            worker.judge(seen)
            worker.beat("the optimizer's step")
            norm, taken = take.step(worker.guard.accepts)
            worker.count(seen, norm, taken)
            seconds = time.monotonic() - begun
            measured = meter.numbers(config.batch_tokens, seen.flops, seconds) | worker.load
            if evaluates:
                measured |= by_source | worker.evaluate(heldout)
                worker.stopping.saw(worker.step + 1, measured[HELDOUT])
            journal.write(
                worker.step, loss=seen.loss, learning_rate=rate, tokens=worker.tokens,
                skipped=worker.skipped, gradient_norm=norm, **measured,
            )  # fmt: skip
            worker.tell(journal, seen, taken)
            worker.step += 1
            if worker.guard.must_go_back:
                worker.go_back(journal)
            elif worker.is_to_save or worker.stopping.due:
                worker.save()
            if worker.goes_on:
                worker.make_way(seen, journal)
            if time.monotonic() - reported > REPORT_S:
                reported = time.monotonic()
                speed = f"{measured['tokens_per_second']:,.0f} tokens/s"
                report({}, worker.step, config.steps, f"loss {worker.loss:.3f}, {speed}")
        worker.finish()
        seconds = time.monotonic() - started
        metrics = worker.metrics(seconds) | heldout_losses(worker, heldout)
        metrics |= accuracies(worker, worker.tasks)
        worker.beat("closing the journal", long=True)
    if worker.stopping.due:
        metrics["stopped_early_at"] = worker.step
    report(metrics, config.steps, config.steps, "trained")
