"""One document's whole story: where it came from, what was measured, who dropped it and why, or where it ended up."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataeng.errors import ConfigError, DataengError
from dataeng.formats.atomic import read_json
from dataeng.report.judged import StoredRun
from dataeng.report.judgements import StepJudgement, judge_document
from dataeng.report.sql import connect


@dataclass
class Story:
    """What a run knows about one document."""

    identity: dict[str, Any]
    outcome: str
    """One sentence: kept, or dropped by which stage and why."""
    signals: dict[str, Any] = field(default_factory=dict)
    evidence: dict[str, Any] = field(default_factory=dict)
    """For a duplicate: what it is a duplicate of."""
    pack: dict[str, Any] = field(default_factory=dict)
    removed_for_it: list[str] = field(default_factory=list)
    """Ids of duplicates that were dropped in favour of this document."""
    text: str | None = None
    judgements: list[StepJudgement] = field(default_factory=list)
    """How the rules steps that it reached judged it, in order."""
    unjudged: str = ""
    """Why the rules cannot be shown, where a preset file of the run is gone or was broken since."""


MOST_ROWS = 20  # of one kind that a story, or a list of candidates, goes into
IDENTITY = ("id", "url", "host", "domain", "language", "date", "source", "source_offset")


def explain(run_dir: Path, wanted: str) -> Story:
    """Finds a document by id, by the beginning of its id, or by URL, and tells its story.

    Raises:
      DataengError: no document matches, or more than one does.
    """
    with connect(run_dir) as connection:
        views = {
            row[0] for row in connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        }

        def rows(view: str, where: str, *values: object) -> list[dict[str, Any]]:
            if view not in views:
                return []
            result = connection.execute(f"SELECT * FROM {view} WHERE {where}", list(values))
            names = [column[0] for column in result.description or []]
            return [dict(zip(names, row, strict=True)) for row in result.fetchmany(MOST_ROWS)]

        match = "id = ? OR url = ?" if len(wanted) >= 24 or "/" in wanted else "starts_with(id, ?) OR url = ?"
        kept = rows("documents", match, wanted, wanted)
        dropped = rows("rejects", match, wanted, wanted)
        # A page has its URL in common with the crawler's request for it, which is not what anybody asks about.
        dropped = [row for row in dropped if not _is_by_product(row)] or ([] if kept else dropped)
        found = {row["id"] for row in kept + dropped}
        if not found:
            raise DataengError(
                f"no document '{wanted}' in {run_dir}. Ids are 24 hex digits (their beginning is enough); "
                'find one with: dataeng sql RUN "SELECT id, url, stage, reason FROM rejects LIMIT 20"'
            )
        if len(found) > 1:
            listed = "\n".join(f"  {row['id']}  {row.get('reason') or 'kept'}  {row['url']}" for row in kept + dropped)
            number = len(found) if len(kept) < MOST_ROWS > len(dropped) else f"{len(found)} or more"
            raise DataengError(f"'{wanted}' matches {number} documents; give one of these ids:\n{listed}")
        document = (kept or dropped)[0]
        identity = {key: document.get(key) for key in IDENTITY if document.get(key) is not None}
        signals = next(iter(rows("signals", "id = ?", document["id"])), {})
        story = Story(
            identity=identity,
            outcome=_outcome(run_dir, kept, dropped),
            signals={key: value for key, value in signals.items() if key != "id" and value is not None},
            text=document.get("text"),
        )
        for gone in rows("removed", "id = ?", document["id"]):
            story.outcome = (
                f"kept, then removed from its pack on {gone['removed']} ({gone['because']}: {gone['reason']})"
            )
        try:
            story.judgements = _judgements(run_dir, document, signals)
        except ConfigError as error:
            story.unjudged = str(error)
        hidden = ("part", "row", "reason", "detail", "id")
        for verdict in rows("dedup", "id = ?", document["id"]):
            story.evidence = {key: value for key, value in verdict.items() if key not in hidden and value is not None}
        if "dedup" in views:
            removed = connection.execute("SELECT id FROM dedup WHERE kept_id = ?", [document["id"]])
            story.removed_for_it = [row[0] for row in removed.fetchall()]
        for packed in rows("packs", "id = ?", document["id"]):
            story.pack = {key: packed[key] for key in ("domain", "num_tokens", "text_bytes")}
        return story


def _is_by_product(row: dict[str, Any]) -> bool:
    """Whether a reject is a WARC record that only goes with a page: request, metadata, revisit."""
    return str(row.get("reason", "")).startswith(("record_type:", "revisit"))


def _judgements(run_dir: Path, document: dict[str, Any], signals: dict[str, Any]) -> list[StepJudgement]:
    stored = StoredRun(run_dir)
    order = [entry["name"] for entry in stored.run["pipeline"]["stages"]]
    return judge_document(stored.rules_steps(), order, document, signals)


def _outcome(run_dir: Path, kept: list[dict[str, Any]], dropped: list[dict[str, Any]]) -> str:
    if kept:
        complete = read_json(run_dir / "run.json")["status"] == "complete"
        return "kept" if complete else "kept so far (the run is not complete)"
    row = dropped[0]
    detail = f" ({row['detail']})" if row.get("detail") else ""
    return f"dropped by {row['stage']}: {row['reason']}{detail}"
