"""Curricula: a domain's documents in the order of one of their columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dataeng.errors import ConfigError, FormatError, nearest
from dataeng.formats.mixture import Order
from dataeng.formats.pack import PackManifest


def check_order(name: str, order: Order, packs: Sequence[tuple[Path, PackManifest]]) -> None:
    """Raises `ConfigError` unless every shard of a domain has the curriculum's column, a number, in its docs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for folder, pack in packs:
        for shard in pack.shards:
            if "docs" not in shard.files:
                raise ConfigError(f"domain '{name}' cannot be ordered: {folder / shard.name} has no docs.parquet.")
            path = folder / shard.files["docs"].name
            try:
                schema = pq.read_schema(path)
            except (OSError, pa.ArrowInvalid) as error:
                raise FormatError(f"cannot read {path}: {error}. Restore or rebuild the pack.") from error
            numeric = [field.name for field in schema if _is_number(field.type)]
            if order.by not in schema.names:
                raise ConfigError(
                    f"domain '{name}' cannot be ordered by '{order.by}', which is not in {path} (write_packs' option "
                    f"keep puts signals there){nearest(order.by, numeric)}"
                )
            if order.by not in numeric:
                raise ConfigError(
                    f"domain '{name}' cannot be ordered by '{order.by}': in {path} it is "
                    f"{schema.field(order.by).type}, expected numbers ({', '.join(numeric)})."
                )


def _is_number(kind: object) -> bool:
    import pyarrow.types as types

    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))
