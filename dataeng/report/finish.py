"""What is written when a run ends: statistics, evidence of deduplication, alarms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dataeng.config import Pipeline
from dataeng.engine.records import TaskRecord
from dataeng.report.alarms import ALARMS_FILE, write_alarms
from dataeng.report.evidence import CLUSTERS_FILE, write_clusters
from dataeng.report.funnel import has_stats, write_stats


def write_reports(pipeline: Pipeline, run_dir: Path, records: Mapping[str, list[TaskRecord]]) -> None:
    """Writes all tables that are made from the records of a whole run."""
    write_stats(run_dir, records)
    write_clusters(run_dir, records)
    write_alarms(pipeline, run_dir, records)


def has_reports(run_dir: Path) -> bool:
    """Whether what `write_reports` writes is there."""
    return has_stats(run_dir) and (run_dir / CLUSTERS_FILE).exists() and (run_dir / ALARMS_FILE).exists()
