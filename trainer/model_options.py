"""From options to the shape of the model: a preset's, or that of the model to start from; and LoRA's.

Nothing here imports PyTorch.
"""

from __future__ import annotations

import math
from dataclasses import replace

from dataeng.errors import ConfigError, nearest
from dataeng.formats.mixture import MixtureManifest
from trainer.huggingface.config import read_model_config
from trainer.huggingface.tokenizer_files import check_same_tokenizer
from trainer.model.presets import MATRICES, PRESETS, LoraConfig, ModelConfig, Preset, parse_rope_scaling
from trainer.options import Options

DEFAULT_PRESET = "tiny"


def derive_preset(options: Options) -> str:
    """Returns the preset asked for; else, for a model to start from, the one whose matrices are nearest in size.

    Batch, length of rows and learning rate are a preset's unless given: those of a small one would spoil a large model.
    """
    if options.preset is not None:
        if options.preset not in PRESETS:
            raise ConfigError(f"--preset {options.preset} is unknown{nearest(options.preset, PRESETS)}")
        return options.preset
    if options.init_from is None:
        return DEFAULT_PRESET
    size = _matrix_weights(read_model_config(options.init_from))
    sizes = {name: _matrix_weights(p.model(vocab_size=1, max_positions=1)) for name, p in PRESETS.items()}
    return min(sizes, key=lambda name: abs(math.log(size / sizes[name])))


def _matrix_weights(model: ModelConfig) -> int:
    """Returns the weights of all layers' matrices; the vocabulary's are not counted."""
    heads = 2 * (model.num_heads + model.num_kv_heads) * model.head_dim
    return model.num_layers * model.dim * (heads + 3 * model.hidden_dim)


def derive_sequence_length(options: Options, preset: Preset) -> int:
    """Returns the length of rows asked for; else the preset's, or all that the model to start from can take."""
    if options.sequence_length is not None:
        return options.sequence_length
    if options.init_from is None:
        return preset.sequence_length
    return min(preset.sequence_length, read_model_config(options.init_from).max_positions)


def derive_model(options: Options, preset: Preset, manifest: MixtureManifest, sequence_length: int) -> ModelConfig:
    """Returns the preset's shape, or that of the model to start from, with rotary positions as asked for.

    Raises `ConfigError` where the model to start from does not fit the options or the packs.
    """
    if options.init_from is None:
        return preset.model(
            vocab_size=manifest.vocab_size,
            max_positions=sequence_length,
            rope_theta=options.rope_theta,
            rope_scaling=parse_rope_scaling(options.rope_scaling, None, sequence_length),
            tied_embeddings=options.tied_embeddings,
            qk_norm=options.qk_norm,
        )
    if options.qk_norm or options.tied_embeddings is not None:
        raise ConfigError("--qk-norm and --tied-embeddings are as in the model of --init-from; leave them out.")
    model = read_model_config(options.init_from)
    if model.vocab_size < manifest.vocab_size:
        raise ConfigError(
            f"the model in {options.init_from} knows {model.vocab_size:,} tokens, the packs have a vocabulary of "
            f"{manifest.vocab_size:,}: it was made with another tokenizer."
        )
    check_same_tokenizer(options.init_from, manifest, options.mixture)
    if options.rope_scaling is not None and model.rope_scaling is not None:
        raise ConfigError(
            f"--rope-scaling {options.rope_scaling} would replace the '{model.rope_scaling.kind}' scaling by "
            f"{model.rope_scaling.factor:g} that {options.init_from} was trained with, rather than add to it. Leave it "
            "out: the model keeps its own; --rope-theta stretches further."
        )
    scaling = parse_rope_scaling(options.rope_scaling, model.max_positions, sequence_length)
    if sequence_length > model.max_positions and scaling is None and options.rope_theta is None:
        raise ConfigError(
            f"--sequence-length {sequence_length:,} is longer than the {model.max_positions:,} positions of "
            f"{options.init_from}; extend them with --rope-scaling (yarn:4) or --rope-theta, or use shorter rows."
        )
    dynamic = scaling is not None and scaling.kind == "dynamic"  # stretches what is beyond the old context
    return replace(
        model,
        max_positions=model.max_positions if dynamic else max(model.max_positions, sequence_length),
        rope_theta=model.rope_theta if options.rope_theta is None else options.rope_theta,
        rope_scaling=model.rope_scaling if scaling is None else scaling,
    )


def derive_lora(options: Options) -> LoraConfig | None:
    """Returns the adapters asked for, or None. Raises `ConfigError`."""
    if options.lora is None:
        if options.lora_alpha is not None or options.lora_targets != Options.lora_targets:
            raise ConfigError("--lora-alpha and --lora-targets need --lora RANK.")
        return None
    if options.init_from is None:
        raise ConfigError("--lora trains beside frozen weights; say with --init-from whose.")
    alpha = 2.0 * options.lora if options.lora_alpha is None else options.lora_alpha
    if options.lora < 1 or not (math.isfinite(alpha) and alpha > 0):
        raise ConfigError(
            f"--lora {options.lora}, --lora-alpha {alpha:g}: expected a rank from 1 and an alpha above 0."
        )
    targets = tuple(name.strip() for name in options.lora_targets.split(","))
    for name in targets:
        if name not in MATRICES:
            raise ConfigError(f"--lora-targets: there is no matrix '{name}'{nearest(name, MATRICES)}")
    return LoraConfig(rank=options.lora, alpha=alpha, targets=targets)
