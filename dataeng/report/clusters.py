"""The largest clusters of duplicates of a run: who stayed, who went, how alike they are, and the texts side by side."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataeng.engine.runner import load_records
from dataeng.errors import DataengError
from dataeng.formats.atomic import read_json
from dataeng.report.sql import connect, files_of, read_parquet

Span = tuple[int, int]
COMPARED_WORDS = 4000
_PIECE = re.compile(r"\s*\S+")


@dataclass(frozen=True)
class Member:
    """A document of a cluster."""

    id: str
    url: str | None
    text: str | None
    similarity: float | None = None
    matched_id: str | None = None


@dataclass(frozen=True)
class Cluster:
    """One survivor and some of those that were removed for it, least similar first."""

    stage: str
    method: str | None
    size: int
    kept: Member
    removed: list[Member] = field(default_factory=list)
    least_similar: float | None = None
    domains: tuple[str, ...] = ()


def largest_clusters(
    run_dir: Path, number: int, shown: int, stage: str | None = None, kept_id: str | None = None
) -> list[Cluster]:
    """Returns the clusters with the most documents.

    Args:
      number: how many clusters.
      shown: how many removed documents of each.
      stage: only this step's.
      kept_id: only the one whose survivor's id begins like this.

    Raises:
      DataengError: the run removed no duplicates, or none that fit.
    """
    with connect(run_dir) as connection:

        def rows(statement: str, *values: Any) -> list[dict[str, Any]]:
            result = connection.execute(statement, list(values))
            names = [column[0] for column in result.description or []]
            return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

        views = {row[0] for row in connection.execute("SELECT table_name FROM information_schema.tables").fetchall()}
        if "clusters" not in views:
            raise DataengError(
                f"{run_dir} has no table of clusters: its pipeline removes no duplicates, or did not finish."
            )
        largest = rows(
            "SELECT stage, kept_id, any_value(method) AS method, count(*) + 1 AS size, min(similarity) AS least "
            "FROM clusters WHERE (? IS NULL OR stage = ?) AND (? IS NULL OR starts_with(kept_id, ?)) "
            "GROUP BY stage, kept_id ORDER BY size DESC, stage, kept_id LIMIT ?",
            stage, stage, kept_id, kept_id, number,
        )  # fmt: skip
        if not largest:
            raise DataengError(f"no cluster of duplicates in {run_dir} fits.")
        clusters = []
        for row in largest:
            members = rows(
                "SELECT c.id, c.similarity, c.matched_id, r.url, r.text, r.domain FROM clusters c "
                "LEFT JOIN rejects r ON r.id = c.id AND r.stage = c.stage WHERE c.stage = ? AND c.kept_id = ? "
                "ORDER BY c.similarity, c.id LIMIT ?",
                row["stage"], row["kept_id"], shown,
            )  # fmt: skip
            # As they were when they were compared: later stages may have edited or dropped the survivor.
            found = f"SELECT url, text, domain FROM {_compared_documents(run_dir, row['stage'])} WHERE id = ? LIMIT 1"
            survivor = (rows(found, row["kept_id"]) or [{"url": None, "text": None, "domain": None}])[0]
            domains = {member["domain"] for member in [*members, survivor] if member["domain"]}
            clusters.append(
                Cluster(
                    row["stage"],
                    row["method"],
                    row["size"],
                    Member(row["kept_id"], survivor["url"], survivor["text"]),
                    [Member(m["id"], m["url"], m["text"], m["similarity"], m["matched_id"]) for m in members],
                    row["least"],
                    tuple(sorted(domains)),
                )
            )
        return clusters


def _compared_documents(run_dir: Path, stage: str) -> str:
    """Returns, as a table in SQL, the documents that a deduplication step compared."""
    records = load_records(run_dir)
    rows = [phase["name"] for phase in read_json(run_dir / "run.json")["phases"] if phase["kind"] == "rows"]
    before = rows[rows.index(f"{stage}.apply") - 1]
    return read_parquet(files_of(run_dir.resolve(), records[before], "documents"))


def differences(first: str, second: str) -> tuple[list[Span], list[Span]]:
    """Returns the pieces of each text, as character spans, that the other does not have; word by word."""
    pieces = [[match.span() for match in _PIECE.finditer(text)][:COMPARED_WORDS] for text in (first, second)]
    words = [[text[a:b].strip() for a, b in spans] for text, spans in zip((first, second), pieces, strict=True)]
    spans: tuple[list[Span], list[Span]] = ([], [])
    for tag, a, b, c, d in difflib.SequenceMatcher(None, words[0], words[1], autojunk=False).get_opcodes():
        if tag != "equal":
            for side, (start, end) in enumerate(((a, b), (c, d))):
                if end > start:
                    left, right = pieces[side][start][0], pieces[side][end - 1][1]
                    lead = len((first, second)[side][left:right]) - len((first, second)[side][left:right].lstrip())
                    spans[side].append((left + lead, right))
    return spans
