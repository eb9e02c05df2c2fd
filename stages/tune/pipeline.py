"""The decoder in DeepSpeed's pipeline: embedding, layers, and what makes the loss, in stages.

Between stages travel hidden states and document ids. Of a hollow decoder, what a stage has takes
memory as DeepSpeed builds it there. A tied head's weight lives on the first and the last stage;
DeepSpeed adds up its gradients.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from model.hollow import take_memory
from model.transformer import Decoder, Transformer
from stages.tune.decoder import TrainedDecoder, autocast, summed_loss, surroundings
from stages.tune.mesh import Mesh

TABLE = "table"
_PREFIX = f"tied_modules.{TABLE}.embed_tokens."


class _Table(nn.Module):
    """The embedding, which a tied head shares."""

    def __init__(self, embed_tokens: nn.Embedding, device: torch.device) -> None:
        super().__init__()
        self.embed_tokens = embed_tokens
        take_memory(self, device)

    def forward(self, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        input_ids_bt, document_ids_bt = inputs
        return self.embed_tokens(input_ids_bt), document_ids_bt


class _Layer(nn.Module):
    """One layer, which finds its own rotation and mask: they are cheaper made than sent."""

    def __init__(self, decoder: Decoder, index: int, bfloat16: bool, device: torch.device) -> None:
        super().__init__()
        self.config, self.in_bfloat16 = decoder.config, bfloat16
        self.window = decoder.config.windows[index]
        self.layer = decoder.layers[index]
        take_memory(self, device)

    def forward(self, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x_btd, document_ids_bt = inputs
        rotary, masks = surroundings(self.config, x_btd.shape[1], document_ids_bt)
        with autocast(self.in_bfloat16, x_btd.device):
            x_btd = self.layer(x_btd, rotary, masks[self.window], None)
        return x_btd, document_ids_bt


class _Last(nn.Module):
    """The last norm, and the head where it is not the embedding."""

    def __init__(self, model: Transformer, device: torch.device) -> None:
        super().__init__()
        self.norm = model.model.norm
        if not model.config.tie_word_embeddings:
            self.lm_head = model.lm_head
        take_memory(self, device)

    def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        return self.norm(inputs[0])


class _Loss:
    """Loss of a micro-batch, scaled as DeepSpeed will divide it; `nats` adds up the plain sums."""

    def __init__(self, bfloat16: bool) -> None:
        self.in_bfloat16 = bfloat16
        self.weight: Callable[[], Tensor] | None = None
        self.scale = 1.0
        self.nats: Tensor | float = 0.0

    def __call__(self, hidden_btd: Tensor, labels_bt: Tensor) -> Tensor:
        assert self.weight is not None  # the last stage, which alone computes it, has set it
        with autocast(self.in_bfloat16, hidden_btd.device):
            loss_sum = summed_loss(hidden_btd, self.weight(), labels_bt)
        self.nats = self.nats + loss_sum.detach().double()
        return loss_sum * self.scale


def pipeline_of(model: TrainedDecoder, stages: int, device: torch.device) -> Any:
    """DeepSpeed's PipelineModule of a decoder, as many layers to a stage as to any other."""
    from deepspeed.pipe import LayerSpec, PipelineModule, TiedLayerSpec

    decoder, tied = model.model, model.config.tie_word_embeddings
    weight = {"tied_weight_attr": "embed_tokens.weight"}
    table = (decoder.embed_tokens, device)
    first = TiedLayerSpec(TABLE, _Table, *table, **weight) if tied else LayerSpec(_Table, *table)
    layers = [
        LayerSpec(_Layer, decoder, index, model.in_bfloat16, device)
        for index in range(len(decoder.layers))
    ]
    last: list[Any] = [LayerSpec(_Last, model, device)]
    if tied:
        last.append(TiedLayerSpec(TABLE, _Table, *table, forward_fn=_pass_on, **weight))
    loss = _Loss(model.in_bfloat16)
    # It prints its layers, and hands tied weights round as if that were to be differentiated.
    with contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        pipe = PipelineModule(
            [first, *layers, *last], num_stages=stages, loss_fn=loss, partition_method="type:_Layer"
        )
    pipe._layer_specs = []  # else every rank keeps every layer
    if pipe.stage_id == stages - 1:
        holder = pipe.tied_modules[TABLE] if tied else pipe.forward_funcs[-1]
        head = holder.embed_tokens if tied else holder.lm_head
        loss.weight = lambda: head.weight
    for parameter in pipe.parameters():  # so that norms count the stages after the first
        parameter.model_parallel = not getattr(parameter, "ds_pipe_replicated", False)
    return pipe


def _pass_on(_: nn.Module, hidden_btd: Tensor) -> Tensor:
    """The tied table's second place in the pipeline: the loss uses its weight."""
    return hidden_btd


def renaming(mesh: Mesh) -> Callable[[str], str]:
    """From a trained module's parameter names to the decoder's."""
    return name_in_decoder if mesh.pipeline > 1 else str


def name_in_decoder(name: str) -> str:
    """A pipeline's parameter name as the decoder has it."""
    if name.startswith(_PREFIX):
        return "model.embed_tokens." + name.removeprefix(_PREFIX)
    index, part, rest = name.split(".", 2)
    if part == "layer":
        return f"model.layers.{int(index) - 1}.{rest}"
    return f"{part}.{rest}" if part == "lm_head" else f"model.{part}.{rest}"


def leave_the_step_out(engine: Any) -> None:
    """Let `train_batch` end with gradients reduced; the optimizer's step is taken by a guard."""
    from deepspeed.runtime.pipe.schedule import OptimizerStep, TrainSchedule

    class WithoutStep(TrainSchedule):
        def steps(self) -> Iterator[list[Any]]:
            for commands in super().steps():
                yield [c for c in commands if not isinstance(c, OptimizerStep)]

    engine._train_schedule = lambda: WithoutStep(
        micro_batches=engine.micro_batches, stages=engine.num_stages, stage_id=engine.stage_id
    )
