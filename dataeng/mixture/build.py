"""From packs to a mixture manifest, and from a manifest to the table that a person reads before training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataeng.errors import ConfigError, FormatError, nearest
from dataeng.formats.mixture import Domain, MixtureManifest, Policy, relative_to_manifest
from dataeng.formats.pack import MANIFEST_NAME, PackManifest, load_manifest
from dataeng.formats.reweighting import Reweighting
from dataeng.mixture.policies import capped_shares, epochs_at_budget, given_weights, temperature_weights


def build_mixture(
    pack_folders: Sequence[Path],
    manifest_path: Path,
    *,
    policy: Policy,
    weights: Mapping[str, float] | None = None,
    max_epochs: float | Mapping[str, float] | None = None,
    reweighting: Reweighting | None = None,
    run: Path | None = None,
) -> MixtureManifest:
    """Returns the mixture of ``pack_folders``; paths are written relative to ``manifest_path``, which is not written.

    Packs of the same domain are read one after the other, as one domain. ``weights`` belong to policy ``given``.
    ``max_epochs`` is one cap for all domains, or one per domain name.

    Raises `FormatError` when packs do not fit together (another tokenizer or vocabulary, no tokens, a folder given
    twice) and `ConfigError` when the policy or the weights are wrong.
    """
    packs = _load_packs(pack_folders)
    _check_same_tokenizer(packs)
    by_domain: dict[str, list[tuple[Path, PackManifest]]] = {}
    for folder, pack in packs:
        by_domain.setdefault(pack.domain, []).append((folder, pack))
    names = sorted(by_domain)
    num_tokens = [sum(pack.num_tokens for _, pack in by_domain[name]) for name in names]
    for name, tokens in zip(names, num_tokens, strict=True):
        if tokens == 0:
            folders = ", ".join(str(folder) for folder, _ in by_domain[name])
            raise FormatError(f"domain '{name}' has 0 tokens ({folders}); leave it out of the mixture.")
    values = _policy_weights(policy, names, num_tokens, weights)
    caps = _caps_by_name(names, max_epochs)
    first = packs[0][1]
    return MixtureManifest(
        run=None if run is None else relative_to_manifest(run, manifest_path),
        tokenizer_sha256=first.tokenizer_sha256,
        vocab_size=first.vocab_size,
        domains={
            name: Domain(
                packs=[relative_to_manifest(folder, manifest_path) for folder, _ in by_domain[name]],
                num_documents=sum(pack.num_documents for _, pack in by_domain[name]),
                num_tokens=tokens,
                weight=float(weight),
                max_epochs=caps[name],
            )
            for name, tokens, weight in zip(names, num_tokens, values, strict=True)
        },
        policy=policy,
        reweighting=reweighting or Reweighting(),
    )


def _load_packs(pack_folders: Sequence[Path]) -> list[tuple[Path, PackManifest]]:
    if not pack_folders:
        raise ConfigError(f"a mixture needs at least one pack: a folder with {MANIFEST_NAME}.")
    seen: dict[Path, Path] = {}
    for folder in pack_folders:
        resolved = folder.resolve()
        if resolved in seen:
            raise FormatError(
                f"pack {folder} is given twice (as {seen[resolved]} before); its tokens would count twice."
            )
        seen[resolved] = folder
    return [(folder, load_manifest(folder)) for folder in pack_folders]


def _check_same_tokenizer(packs: Sequence[tuple[Path, PackManifest]]) -> None:
    first_folder, first = packs[0]
    for folder, pack in packs[1:]:
        for field in ("tokenizer_sha256", "vocab_size", "dtype", "eos_id"):
            expected, found = getattr(first, field), getattr(pack, field)
            if expected != found:
                raise FormatError(
                    f"packs of one mixture need one tokenizer: {field} is {found} in {folder} (domain '{pack.domain}') "
                    f"but {expected} in {first_folder} (domain '{first.domain}'). Tokenize them with the same one."
                )


def _policy_weights(
    policy: Policy, names: Sequence[str], num_tokens: Sequence[int], weights: Mapping[str, float] | None
) -> list[float]:
    if policy.name == "given" and weights is None:
        raise ConfigError(f"policy 'given' needs a weight for each of the domains {', '.join(names)}.")
    if policy.name != "given" and weights is not None:
        raise ConfigError(f"policy '{policy.name}' takes no weights; they go with policy 'given'.")
    if policy.name == "learned":
        raise ConfigError("policy 'learned' is what a training run writes; choose natural, temperature or given.")
    if policy.name == "temperature" and policy.temperature is None:
        raise ConfigError("policy 'temperature' needs a temperature (1 is natural, inf is uniform).")
    if weights is not None:
        return [float(weight) for weight in given_weights(names, weights)]
    temperature = 1.0 if policy.name == "natural" or policy.temperature is None else policy.temperature
    values = [float(weight) for weight in temperature_weights(num_tokens, temperature)]
    for name, value, tokens in zip(names, values, num_tokens, strict=True):
        if value == 0:
            raise ConfigError(f"temperature {temperature:g} leaves domain '{name}' ({tokens:,} tokens) a weight of 0.")
    return values


def _caps_by_name(names: Sequence[str], max_epochs: float | Mapping[str, float] | None) -> dict[str, float | None]:
    if max_epochs is None or isinstance(max_epochs, (int, float)):
        caps: dict[str, float | None] = dict.fromkeys(names, max_epochs)
    else:
        for name in max_epochs:
            if name not in names:
                raise ConfigError(f"an epoch cap is given for '{name}', which is no domain{nearest(name, names)}.")
        caps = {name: max_epochs.get(name) for name in names}
    for name, cap in caps.items():
        if cap is not None and not (cap > 0 and math.isfinite(cap)):
            raise ConfigError(f"the epoch cap of domain '{name}' is {cap:g}; expected a number above 0, or none.")
    return caps


@dataclass(frozen=True)
class MixtureRow:
    """What a token budget means for one domain."""

    domain: str
    num_documents: int
    num_tokens: int
    weight: float
    share: float  # the weight after epoch caps
    tokens_drawn: int
    epochs: float


def mixture_table(manifest: MixtureManifest, token_budget: int) -> list[MixtureRow]:
    """Returns one row per domain: what a training run of ``token_budget`` tokens will draw.

    Raises `ConfigError` when the epoch caps of all domains together allow fewer tokens.
    """
    if token_budget <= 0:
        raise ConfigError(f"the token budget is {token_budget}; expected a number above 0.")
    domains = manifest.domains.values()
    num_tokens = [domain.num_tokens for domain in domains]
    capacities = np.array([math.inf if d.max_epochs is None else d.max_epochs * d.num_tokens for d in domains])
    shares = capped_shares(np.array([domain.weight for domain in domains]), capacities, token_budget)
    epochs = epochs_at_budget(shares, num_tokens, token_budget)
    return [
        MixtureRow(
            name,
            domain.num_documents,
            domain.num_tokens,
            domain.weight,
            float(share),
            round(share * token_budget),
            float(e),
        )
        for (name, domain), share, e in zip(manifest.domains.items(), shares, epochs, strict=True)
    ]
