"""LoRA (Hu et al., arXiv 2106.09685) through PEFT: small trained matrices beside frozen ones.

A matrix W becomes W + (alpha / rank) · B A. Only A and B are trained and saved in checkpoints; the base stays the
folder that the run started from. The adapter files are PEFT's, for the base as transformers loads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from dataeng.errors import ConfigError
from dataeng.formats.atomic import AtomicFile, commit_all
from trainer.model.decoder import Decoder
from trainer.model.presets import LoraConfig

ADAPTER = "default"
ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"


def add_lora(model: Decoder, config: LoraConfig, seed: int) -> None:
    """Puts adapters beside the target matrices of all layers, and freezes everything else.

    At the start B is 0, so that the model computes what it did before. Raises `ConfigError` without PEFT.
    """
    peft = _peft()
    torch.manual_seed(seed)  # PEFT draws A from the global generator
    peft.inject_adapter_in_model(_peft_config(config, None), model, ADAPTER)


def adapter_tensors(trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a checkpoint's tensors under the names of PEFT's files for transformers' model."""
    return {f"base_model.model.model.{name.replace(f'.{ADAPTER}.', '.')}": tensor for name, tensor in trained.items()}


def lora_change(trained: Mapping[str, Tensor], name: str, config: LoraConfig) -> Tensor | None:
    """Returns what an adapter adds to the weight called ``name`` (``layers.0 … q_proj.weight``); None: nothing."""
    module = name.removesuffix(".weight")
    down, up = (trained.get(f"{module}.lora_{which}.{ADAPTER}.weight") for which in "AB")
    if down is None or up is None:
        return None
    return up.float() @ down.float() * (config.alpha / config.rank)


def save_adapter(trained: Mapping[str, Tensor], config: LoraConfig, base: Path, folder: Path) -> None:
    """Writes an adapter that ``PeftModel.from_pretrained(base_model, folder)`` loads."""
    values = {
        name: sorted(value) if isinstance(value, set) else value
        for name, value in _peft_config(config, str(base)).to_dict().items()
    }
    tensors = {name: tensor.contiguous() for name, tensor in adapter_tensors(trained).items()}
    contents = {
        ADAPTER_WEIGHTS: safetensors.torch.save(tensors, {"format": "pt"}),
        ADAPTER_CONFIG: (json.dumps({**values, "inference_mode": True}, indent=2) + "\n").encode(),
    }
    files = [AtomicFile(folder / name) for name in contents]
    try:
        for file in files:
            file.write(contents[file.target.name])
        commit_all(files)
    except BaseException:
        for file in files:
            file.discard()
        raise


def _peft_config(config: LoraConfig, base: str | None) -> Any:
    return _peft().LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=0.0,
        target_modules=sorted(config.targets),
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
    )


def _peft() -> Any:
    try:
        import peft
    except ModuleNotFoundError as error:
        raise ConfigError("--lora needs PEFT: pip install 'dataeng[lora]'.") from error
    return peft
