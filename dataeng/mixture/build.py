"""From packs to a mixture manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from dataeng.errors import ConfigError, FormatError, nearest
from dataeng.formats.mixture import (
    Domain,
    MixtureManifest,
    Order,
    Policy,
    pack_hashes,
    relative_to_manifest,
)
from dataeng.formats.pack import MANIFEST_NAME, PackManifest, load_manifest
from dataeng.formats.reweighting import Reweighting
from dataeng.mixture.curriculum import check_order
from dataeng.mixture.weighting import WantedStage, caps_by_name, mean_weights, policy_weights, schedule_stages

Packing = Literal["concatenate", "best-fit", "aligned"]


def build_mixture(
    pack_folders: Sequence[Path],
    manifest_path: Path,
    *,
    policy: Policy,
    weights: Mapping[str, float] | None = None,
    schedule: Sequence[WantedStage] = (),
    max_epochs: float | Mapping[str, float] | None = None,
    orders: Mapping[str, Order] | None = None,
    fixed: Sequence[str] = (),
    packing: Packing = "concatenate",
    reweighting: Reweighting | None = None,
    run: Path | None = None,
    pinned: bool = True,
) -> MixtureManifest:
    """Returns the mixture of ``pack_folders``; paths are written relative to ``manifest_path``, which is not written.

    Packs of the same domain are read one after the other, as one domain.

    Args:
      policy: how the weights come about; with a ``schedule`` it only is what the manifest says of it.
      weights: those of policy ``given`` or ``fitted``.
      schedule: stages in place of one set of weights; a domain's weight is then its mean over them.
      max_epochs: one cap for all domains, or one per domain name.
      orders: curricula, by domain.
      fixed: domains whose weight losses never move.
      pinned: whether the manifest names the packs' hashes and so fits no others.

    Raises:
      FormatError: packs do not fit together (another tokenizer, dtype or vocabulary, no tokens, a folder given twice).
      ConfigError: the policy, the weights, the schedule or a domain's name is wrong.
    """
    packs = _load_packs(pack_folders)
    _check_same_tokenizer(packs)
    by_domain: dict[str, list[tuple[Path, PackManifest]]] = {}
    for folder, pack in packs:
        by_domain.setdefault(pack.domain, []).append((folder, pack))
    num_tokens = _tokens_by_domain(by_domain)
    stages = schedule_stages(schedule, num_tokens, policy.token_budget)
    if stages and weights is not None:
        raise ConfigError("a schedule gives the weights stage by stage; it takes no others.")
    values = mean_weights(stages) if stages else policy_weights(policy, num_tokens, weights)
    caps = caps_by_name(list(num_tokens), max_epochs, policy)
    orders = orders or {}
    for what, chosen in (("a curriculum", orders), ("a fixed weight", fixed)):
        for name in chosen:
            if name not in num_tokens:
                raise ConfigError(f"{what} is given for '{name}', which is no domain{nearest(name, num_tokens)}")
    for name, order in orders.items():
        check_order(name, order, by_domain[name])
    first = packs[0][1]
    domains = {
        name: Domain(
            packs=[relative_to_manifest(folder, manifest_path) for folder, _ in by_domain[name]],
            num_documents=sum(pack.num_documents for _, pack in by_domain[name]),
            num_tokens=tokens,
            weight=values[name],
            max_epochs=caps[name],
            order=orders.get(name),
            reweighted=name not in fixed,
            pack_sha256=pack_hashes([folder for folder, _ in by_domain[name]]) if pinned else None,
        )
        for name, tokens in num_tokens.items()
    }
    return MixtureManifest(
        run=None if run is None else relative_to_manifest(run, manifest_path),
        tokenizer_sha256=first.tokenizer_sha256,
        vocab_size=first.vocab_size,
        domains=domains,
        schedule=stages,
        packing=packing,
        policy=policy,
        reweighting=reweighting or Reweighting(),
    )


def refreshed(domain: Domain, manifest_path: Path) -> Domain:
    """Returns a domain with the counts and hashes that its packs have now, after documents were taken out of them."""
    folders = [manifest_path.parent / pack for pack in domain.packs]
    packs = [load_manifest(folder) for folder in folders]
    counts = {
        "num_documents": sum(pack.num_documents for pack in packs),
        "num_tokens": sum(pack.num_tokens for pack in packs),
    }
    hashes = None if domain.pack_sha256 is None else pack_hashes(folders)
    return Domain.model_validate(domain.model_dump() | counts | {"pack_sha256": hashes})


def load_pack_tokens(pack_folders: Sequence[Path]) -> dict[str, int]:
    """Returns the tokens of each domain of the packs, by name."""
    tokens: dict[str, int] = {}
    for _, pack in _load_packs(pack_folders):
        tokens[pack.domain] = tokens.get(pack.domain, 0) + pack.num_tokens
    return dict(sorted(tokens.items()))


def _tokens_by_domain(by_domain: Mapping[str, Sequence[tuple[Path, PackManifest]]]) -> dict[str, int]:
    num_tokens = {name: sum(pack.num_tokens for _, pack in by_domain[name]) for name in sorted(by_domain)}
    for name, tokens in num_tokens.items():
        if tokens == 0:
            folders = ", ".join(str(folder) for folder, _ in by_domain[name])
            raise FormatError(f"domain '{name}' has 0 tokens ({folders}); leave it out of the mixture.")
    return num_tokens


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
