"""The tokenizer behind a mixture's packs: where it is, and whether a pretrained model has the same.

A model that meets token ids of another tokenizer trains without any error, on nonsense. So sameness is proven, not
assumed: the same bytes, or the same vocabulary, merges, options of the model, normalizer and pre-tokenizer
(transformers writes a ``tokenizer.json`` anew whenever it saves one, in other bytes).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataeng.errors import ConfigError, FormatError
from dataeng.formats.atomic import sha256_file
from dataeng.formats.mixture import MixtureManifest
from dataeng.formats.pack import load_manifest

TOKENIZER_NAME = "tokenizer.json"
#: Besides vocabulary and merges, what decides the ids of a text. Files of old versions leave out what is not set.
MODEL_OPTIONS = (
    "unk_token", "unk_id", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges",
    "dropout",
)  # fmt: skip


@dataclass(frozen=True)
class PackTokenizer:
    """What the packs were made with."""

    path: Path
    sha256: str
    eos_id: int


def tokenizer_of(manifest: MixtureManifest, mixture: Path) -> PackTokenizer:
    """Returns the tokenizer of a mixture's packs. Raises `ConfigError` if its file is gone or was changed."""
    folder = mixture.parent / next(iter(manifest.domains.values())).packs[0]
    pack = load_manifest(folder)
    path = Path(os.path.normpath(folder / pack.tokenizer))
    if not path.exists():
        raise ConfigError(f"{path}, the tokenizer of the packs, is missing.")
    if (found := sha256_file(path)) != manifest.tokenizer_sha256:
        raise ConfigError(
            f"{path} is not the packs' tokenizer any more: its SHA-256 is {found}, not {manifest.tokenizer_sha256}."
        )
    return PackTokenizer(path, found, pack.eos_id)


def check_same_tokenizer(model_folder: Path, manifest: MixtureManifest, mixture: Path) -> None:
    """Raises `ConfigError` saying what differs, unless the model's tokenizer is the one of the packs."""
    theirs = model_folder / TOKENIZER_NAME
    if not theirs.exists():
        raise ConfigError(
            f"{model_folder} has no {TOKENIZER_NAME}, so nothing shows that the packs' token ids mean the same in it. "
            "Copy the tokenizer that it was trained with there."
        )
    if sha256_file(theirs) == manifest.tokenizer_sha256:
        return
    ours = tokenizer_of(manifest, mixture).path
    if ours.suffix != ".json":
        raise ConfigError(f"{ours}, the packs' tokenizer, cannot be compared with {theirs}: it is of another format.")
    difference = _difference(_read(theirs), _read(ours))
    if difference:
        raise ConfigError(
            f"{theirs} and the packs' tokenizer {ours} are different: {difference}. Make the packs with the model's "
            "own tokenizer (write_packs.tokenizer)."
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:
        raise FormatError(f"{path} is not JSON: {error}.") from error
    if not isinstance(values, dict) or not isinstance(values.get("model"), dict):
        raise FormatError(f"{path} is not a tokenizer.json: it has no model.")
    return values


def _difference(theirs: dict[str, Any], ours: dict[str, Any]) -> str | None:
    """Returns how two tokenizers differ, the model's first, or None if they give the same ids for the same text."""
    ids_theirs, ids_ours = (_tokens(values) for values in (theirs, ours))
    for token in sorted(ids_theirs.keys() | ids_ours.keys(), key=lambda t: ids_ours.get(t, ids_theirs.get(t, 0))):
        if ids_theirs.get(token) != ids_ours.get(token):
            return f"the token {token!r} has the id {ids_theirs.get(token)} there, {ids_ours.get(token)} here"
    if _merges(theirs) != _merges(ours):
        return "their merges differ"
    for option in MODEL_OPTIONS:
        if (theirs["model"].get(option) or None) != (ours["model"].get(option) or None):
            return f"their models' {option} differs"
    for part in ("normalizer", "pre_tokenizer"):
        if theirs.get(part) != ours.get(part):
            return f"their {part} differs"
    return None


def _tokens(values: dict[str, Any]) -> dict[str, int]:
    vocabulary = values["model"].get("vocab") or {}
    if isinstance(vocabulary, list):  # Unigram: pairs of token and score, in order of the ids
        vocabulary = {token: i for i, (token, _) in enumerate(vocabulary)}
    return {**vocabulary, **{added["content"]: added["id"] for added in values.get("added_tokens") or []}}


def _merges(values: dict[str, Any]) -> list[tuple[str, ...]]:
    """Merges as pairs: old files have them as one string."""
    return [tuple(m.split(" ") if isinstance(m, str) else m) for m in values["model"].get("merges") or []]
