"""What is to be taken out of a corpus: documents by id, and hosts, alone or with everything below them.

A run folder keeps its list as ``removals.parquet``: a document on it never gets into packs of this run again, whatever
of the run is done again later. Columns: ``kind`` (id, host, or domain: a host with all those below it), ``value``,
``reason`` and ``added`` (a time, ISO 8601).
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import polars as pl

from dataeng.errors import ConfigError, FormatError
from dataeng.formats.atomic import write_bytes

LIST_NAME = "removals.parquet"
KINDS = ("id", "host", "domain")
COLUMNS = ("kind", "value", "reason", "added")


@dataclass(frozen=True)
class RemovalList:
    """Entries of four strings each (`COLUMNS`), none twice."""

    entries: pl.DataFrame

    def __len__(self) -> int:
        return self.entries.height

    def and_also(self, other: RemovalList) -> RemovalList:
        """Returns this list with what only the other one has; of equal entries, this one's stays."""
        return RemovalList(
            pl.concat([self.entries, other.entries]).unique(["kind", "value"], keep="first", maintain_order=True)
        )

    def matches(self, ids: pl.Series, hosts: pl.Series | None) -> pl.DataFrame:
        """Returns, row by row, ``because`` (``id``, ``host a.example`` or ``domain a.example``) and ``reason``.

        Both are null where a document stays.
        """
        entries = self.entries.select("kind", "value", "reason")
        by_id = entries.filter(kind="id").select(value="value", id_reason="reason", by_id=pl.lit("id"))
        rows = pl.DataFrame({"id": ids.cast(pl.String)})
        rows = rows.join(by_id, left_on="id", right_on="value", how="left", maintain_order="left")
        because, reason = pl.col("by_id"), pl.col("id_reason")
        if hosts is not None and entries.filter(pl.col("kind") != "id").height:
            named = hosts.cast(pl.String).rename("host")
            rows = rows.with_columns(named).join(
                self._of_hosts(named), on="host", how="left", maintain_order="left"
            )  # fmt: skip
            because, reason = (
                pl.coalesce(because, "by_host"),
                pl.when(because.is_null()).then("host_reason").otherwise(reason),
            )
        return rows.select(because=because, reason=reason)

    def _of_hosts(self, hosts: pl.Series) -> pl.DataFrame:
        """Returns the hosts that are on the list, with the entry that they are on it by."""
        exact, below = (
            {row[0]: row[1] for row in self.entries.filter(kind=kind).select("value", "reason").iter_rows()}
            for kind in ("host", "domain")
        )
        found: list[tuple[str, str, str]] = []
        for host in hosts.unique().drop_nulls():  # a loop over hosts, of which there are few beside documents
            name = plain_host(host)
            labels = name.split(".")
            parents = (".".join(labels[i:]) for i in range(len(labels)))
            parent = next((parent for parent in parents if parent in below), None)
            if name in exact:
                found.append((host, f"host {name}", exact[name]))
            elif parent is not None:
                found.append((host, f"domain {parent}", below[parent]))
        schema = {"host": pl.String, "by_host": pl.String, "host_reason": pl.String}
        return pl.DataFrame(found, schema=schema, orient="row")

    def save(self, path: Path) -> None:
        """Writes the list atomically."""
        content = BytesIO()
        self.entries.write_parquet(content)
        write_bytes(path, content.getvalue())


def removal_list(ids: list[str], hosts: list[str], reason: str, added: str) -> RemovalList:
    """Makes a list of ids and hosts; a host that begins with ``*.`` or ``.`` stands for all those below it, too.

    Raises:
      ConfigError: a host is empty.
    """
    if nameless := [host for host in hosts if not plain_host(host)]:
        raise ConfigError(f"'{nameless[0]}' is no host.")
    rows = [("id", value) for value in ids]
    rows += [("domain" if host.startswith(("*.", ".")) else "host", plain_host(host)) for host in hosts]
    entries = pl.DataFrame(
        {"kind": [kind for kind, _ in rows], "value": [value for _, value in rows]},
        schema={"kind": pl.String, "value": pl.String},
    ).with_columns(reason=pl.lit(reason), added=pl.lit(added))
    return RemovalList(entries.unique(["kind", "value"], keep="first", maintain_order=True))


def plain_host(host: str) -> str:
    """Returns a host as hosts are compared: lower case, no dot or ``*.`` around it, Punycode for other scripts."""
    name = host.strip().lower().removeprefix("*").strip(".")
    if name.isascii():
        return name
    import ada_url

    # A name that is none comes back empty; it is compared as it is.
    return str(ada_url.idna_to_ascii(name).decode("ascii")) or name


def load_removals(run_dir: Path) -> RemovalList | None:
    """Reads a run folder's list; None where nothing was ever removed. Raises `FormatError` where it is damaged."""
    path = run_dir / LIST_NAME
    if not path.exists():
        return None
    try:
        entries = pl.read_parquet(path, memory_map=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise FormatError(f"{path} cannot be read ({str(error).splitlines()[0]}). Restore it.") from error
    if tuple(entries.columns) != COLUMNS or set(entries.schema.values()) != {pl.String()}:
        raise FormatError(f"{path} has the columns {', '.join(entries.columns)}; expected {', '.join(COLUMNS)}.")
    return RemovalList(entries)
