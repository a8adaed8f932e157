"""Takes documents out of runs, packs and mixtures: `dataeng remove`.

leases ─► what goes of each pack? ─► do the mixtures allow it? ─► runs and packs, one after the other ─► mixtures
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from dataeng.engine.lease import hold_lease
from dataeng.engine.run_removal import check_complete, finish_removal, remove_from_run, run_of_pack, run_packs
from dataeng.errors import ConfigError, FormatError
from dataeng.formats.mixture import Domain, load_mixture, save_mixture
from dataeng.formats.pack import MANIFEST_NAME, load_manifest
from dataeng.formats.pack_removal import PackRemoval, apply_removal, plan_removal, remove_leftovers
from dataeng.formats.removal_list import RemovalList, load_removals
from dataeng.mixture.build import refreshed


@dataclass
class Takedown:
    """What was removed, or would be."""

    packs: list[PackRemoval]
    num_ids: int = 0
    """Ids that were asked for."""
    ids_removed_before: int = 0
    ids_unknown: list[str] = field(default_factory=list)
    """Ids that no pack has, and that were not removed from one before."""
    mixtures: list[Path] = field(default_factory=list)
    """Manifests that were updated."""
    stale: list[Path] = field(default_factory=list)
    """Manifests that name the affected packs, and were not."""


def take_down(
    targets: Sequence[Path], wanted: RemovalList, mixtures: Sequence[Path], when: str, dry_run: bool = False
) -> Takedown:
    """Takes documents out of the packs of runs, and of packs that stand alone.

    Args:
      targets: run folders and pack folders.
      wanted: what to take out; a run adds what was taken out of it before.
      mixtures: manifests to update: numbers of documents and tokens, revision + 1. Weights stay.
      when: the time to note, ISO 8601.
      dry_run: only tell what would be done.

    Raises:
      ConfigError: a target is none, a run is not complete, or a domain of a mixture would lose all its tokens.
      LeaseError: somebody else works on a target.
      FormatError: a pack is damaged, or does not name its documents.
    """
    runs, alone = _sort_targets(targets)
    with ExitStack() as stack:
        if not dry_run:
            for folder in sorted([*runs, *alone], key=Path.resolve):  # always in one order: nobody waits in a circle
                stack.enter_context(hold_lease(folder))
            for run_dir in runs:
                check_complete(run_dir)
                finish_removal(run_dir)
        lists = {run_dir: _whole_list(run_dir, wanted) for run_dir in runs}
        plans = {run_dir: [plan_removal(folder, lists[run_dir]) for folder in run_packs(run_dir)] for run_dir in runs}
        plans |= {folder: [plan_removal(folder, wanted)] for folder in alone}
        every = [plan for group in plans.values() for plan in group]
        following = [path for path in mixtures if _follows(path, every)]
        result = _described(wanted, every)
        affected = [plan.folder for plan in every if plan.shards]
        result.mixtures = following
        result.stale = stale_mixtures(affected, mixtures)
        if dry_run:
            return result
        for run_dir in runs:
            remove_from_run(run_dir, lists[run_dir], plans[run_dir], when)
        for folder in alone:
            apply_removal(plans[folder][0], when)
            remove_leftovers(folder)
        for path in following:
            _update_mixture(path)
    return result


def _sort_targets(targets: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Returns run folders, and packs that stand alone."""
    runs, alone = [], []
    for target in {path.resolve(): path for path in targets}.values():
        if (target / MANIFEST_NAME).exists():
            if (run_dir := run_of_pack(target)) is not None:
                raise ConfigError(
                    f"{target} is a pack of the run {run_dir}, which has to know what goes, or it would bring it back. "
                    f"Give the run: dataeng remove {run_dir} …"
                )
            alone.append(target)
        elif run_packs(target):
            runs.append(target)
        else:
            raise ConfigError(
                f"{target} is neither a pack ({MANIFEST_NAME}) nor a run with packs (packs/DOMAIN/{MANIFEST_NAME})."
            )
    return runs, alone


def _whole_list(run_dir: Path, wanted: RemovalList) -> RemovalList:
    before = load_removals(run_dir)
    return wanted if before is None else before.and_also(wanted)


def _described(wanted: RemovalList, plans: Sequence[PackRemoval]) -> Takedown:
    ids = wanted.entries.filter(kind="id").get_column("value")
    going = [shard.removed.get_column("id") for plan in plans for shard in plan.shards]
    missing = ids.filter(~ids.is_in(pl.concat(going).implode())) if going else ids
    before = [
        pl.read_parquet(plan.folder / plan.manifest.removed.name, columns=["id"], memory_map=False).get_column("id")
        for plan in plans
        if plan.manifest.removed is not None
    ]
    unknown = missing.filter(~missing.is_in(pl.concat(before).implode())) if before else missing
    return Takedown(list(plans), len(ids), len(missing) - len(unknown), unknown.to_list())


def _packs_of(path: Path, domain: Domain) -> list[Path]:
    return [(path.parent / pack).resolve() for pack in domain.packs]


def _follows(path: Path, plans: Sequence[PackRemoval]) -> bool:
    """Returns whether a mixture manifest has to be updated.

    Raises:
      ConfigError: it has none of the packs, or a domain would be left without tokens.
    """
    manifest = load_mixture(path)
    removals: Mapping[Path, PackRemoval] = {plan.folder.resolve(): plan for plan in plans}
    named = {pack for domain in manifest.domains.values() for pack in _packs_of(path, domain)}
    if not named & removals.keys():
        listed = ", ".join(str(pack) for pack in sorted(named))
        raise ConfigError(f"{path} has none of the packs that were given; its packs: {listed}.")
    follows = False
    for name, domain in manifest.domains.items():
        going = [removals[pack] for pack in _packs_of(path, domain) if pack in removals]
        now = _counts_now(path, domain)
        if now[1] == sum(plan.num_tokens for plan in going):
            raise ConfigError(
                f"domain '{name}' of {path} would be left without tokens: all its {domain.num_tokens:,} go. A mixture "
                "cannot have such a domain: leave this manifest out of --mixture, remove, and make it again without "
                f"'{name}' (dataeng mix). Nothing was removed."
            )
        follows |= any(plan.shards for plan in going) or now != (domain.num_documents, domain.num_tokens)
        follows |= domain.pack_sha256 is not None and refreshed(domain, path) != domain
    return follows


def _counts_now(path: Path, domain: Domain) -> tuple[int, int]:
    """Returns the documents and tokens that a domain's packs have now."""
    manifests = [load_manifest(pack) for pack in _packs_of(path, domain)]
    return sum(pack.num_documents for pack in manifests), sum(pack.num_tokens for pack in manifests)


def _update_mixture(path: Path) -> None:
    """Brings a manifest's numbers (and its packs' hashes) up to date. Weights stay."""
    manifest = load_mixture(path)
    domains = {name: refreshed(domain, path) for name, domain in manifest.domains.items()}
    save_mixture(path, manifest.model_copy(update={"domains": domains, "revision": manifest.revision + 1}))


def stale_mixtures(packs: Sequence[Path], updated: Sequence[Path] = ()) -> list[Path]:
    """Returns manifests near the packs, or in ``manifests/`` here, that name one of them and are not in ``updated``."""
    wanted, known = {pack.resolve() for pack in packs}, {path.resolve() for path in updated}
    folders = [
        Path.cwd(),
        *(pack.resolve().parents[i] for pack in packs for i in range(min(4, len(pack.resolve().parents)))),
    ]
    stale = []
    for path in dict.fromkeys(path.resolve() for folder in folders for path in sorted(folder.glob("manifests/*.json"))):
        try:
            manifest = load_mixture(path)
        except FormatError:
            continue  # some other JSON file
        if path not in known and any(wanted & {*_packs_of(path, domain)} for domain in manifest.domains.values()):
            stale.append(path)
    return stale
