"""The model that a run starts from: drawn from the seed, or read from a folder of Hugging Face's; perhaps with LoRA."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainer.config import TrainConfig
from trainer.huggingface.weights import load_weights
from trainer.model.decoder import Decoder
from trainer.model.lora import add_lora


def initial_model(config: TrainConfig) -> Decoder:
    """Returns the model before its first step, on the CPU, in float32: every device starts from the same weights.

    Raises `ConfigError` or `FormatError` where ``init_from`` does not fit.
    """
    if config.init_from is None:
        model = Decoder(config.model, config.recompute_every)
        model.initialize(config.seed)
    else:
        with torch.device("meta"):
            model = Decoder(config.model, config.recompute_every)
        model.to_empty(device="cpu")
        load_weights(model, config.init_from)
    if config.lora is not None:
        add_lora(model, config.lora, config.seed)
    if config.compile:
        compile_layers(model)
    return model


def compile_layers(model: Decoder) -> None:
    """Has every layer compiled once it is called.

    Layers alone: all have the same code, so that one is compiled for all of them, in a fraction of the time that the
    whole model takes; between them is little to gain.
    """
    for layer in model.layers:
        layer.compile()
    if not model.embed_tokens.weight.requires_grad:  # LoRA: the first layer would be compiled by itself
        model.embed_tokens.register_forward_hook(_as_between_layers)


def _as_between_layers(module: nn.Module, inputs: Any, embedded: Tensor) -> Tensor:
    """Lets what goes into the first layer have a gradient, as what goes into all others has."""
    return embedded.requires_grad_(torch.is_grad_enabled())
