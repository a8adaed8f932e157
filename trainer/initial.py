"""The model that a run starts from: drawn from the seed, or read from a folder of Hugging Face's; perhaps with LoRA."""

from __future__ import annotations

import torch

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
        # Layers alone: all have the same code, so that one is compiled for all of them, in a fraction of the time that
        # the whole model takes; between them is little to gain.
        for layer in model.layers:
            layer.compile()
    return model
