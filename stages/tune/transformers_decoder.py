"""Our decoder inside a transformers model, on the same weights: what TRL trains, at our speed.

What is around the layers (head, loss, saving) and the names of the parameters stay transformers'.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPast

from model.config import ModelConfig
from model.transformer import Decoder

_HARMLESS = {"use_cache", "return_dict"}
"""Arguments whose answer is the same from a decoder without a cache."""


def run_by_our_decoder(model: Any) -> Any:
    """The same model, whose hidden states are ours from now on, in place.

    For batches padded behind, without a cache; what else it may be asked stays transformers'. A
    kind of model that we do not have is left as it is. Layers are taken as they are now: where they
    are cut or replaced, call it again.
    """
    try:
        config = ModelConfig.from_hugging_face(model.config.to_dict())
    except ValueError:
        return model
    body = model.base_model
    with torch.device("meta"):
        decoder = Decoder(config)
    decoder.load_state_dict(dict(body.named_parameters()), assign=True)
    body.forward = functools.partial(_hidden, decoder, functools.partial(type(body).forward, body))
    return model


def _hidden(
    decoder: Decoder,
    otherwise: Any,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    **rest: Any,
) -> Any:
    """transformers' answer of a decoder."""
    asked = {name for name, value in rest.items() if value is not None and value is not False}
    padded_before = attention_mask is not None and not bool(attention_mask[:, 0].all())
    if input_ids is None or padded_before or asked - _HARMLESS:
        return otherwise(input_ids=input_ids, attention_mask=attention_mask, **rest)
    # Padding stands behind, where causal attention never looks.
    return BaseModelOutputWithPast(last_hidden_state=decoder(input_ids, None, None))
