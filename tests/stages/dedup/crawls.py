"""Two crawls, deduplicated one after the other through an index: pipelines over JSON lines, run in this process."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from dataeng.config import load_pipeline
from dataeng.engine.executor import Pool
from dataeng.engine.runner import RunResult, run_plan
from dataeng.plan import Plan, make_plan
from tests.engine.conftest import Listener

PIPELINE = """\
name: {name}
sources:
  - read_files: {{paths: ["{pattern}"]}}
stages:
  - {stage}: {options}
"""


class Crawls:
    """Crawls in a folder, their pipelines and runs, and one index beside them."""

    def __init__(self, folder: Path, stage: str = "deduplicate_minhash") -> None:
        self.folder, self.stage, self.index = folder, stage, folder / "index"
        (folder / "crawls").mkdir(parents=True)

    def write(self, name: str, texts: Sequence[str]) -> Path:
        """Makes a crawl of one file; its documents' URLs are ``https://NAME/NUMBER``."""
        rows = [{"url": f"https://{name}/{number}", "text": text} for number, text in enumerate(texts)]
        path = self.folder / "crawls" / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def run_dir(self, name: str) -> Path:
        return self.folder / "runs" / name

    def file(self, name: str, index: str | None, pattern: str | None = None, options: str = "") -> Path:
        """Writes a pipeline; ``index`` are further options of ``dedup_index``, None leaves it out."""
        given = [options] if options else []
        if index is not None:
            given.append(f"dedup_index: {{path: index{', ' + index if index else ''}}}")
        path = self.folder / f"{name}.yaml"
        path.write_text(
            PIPELINE.format(
                name=name,
                stage=self.stage,
                pattern=f"crawls/{pattern or name + '.jsonl'}",
                options="{" + ", ".join(given) + "}",
            )
        )
        return path

    def plan(self, name: str, index: str | None, pattern: str | None = None, options: str = "") -> Plan:
        path = self.file(name, index, pattern, options)
        return make_plan(load_pipeline(path, [f"run={self.run_dir(name)}"]))

    def run(
        self, name: str, index: str | None = "add: true", pattern: str | None = None, options: str = ""
    ) -> RunResult:
        return run_made(self.plan(name, index, pattern, options), self.run_dir(name))

    def evidence(self, name: str) -> dict[str, Mapping[str, object]]:
        """Returns URL of a dropped document → its row of evidence."""
        parts = [pl.read_parquet(path) for path in sorted((self.run_dir(name) / "dedup").rglob("*.parquet"))]
        rejects = pl.read_parquet(self.run_dir(name) / "rejects/*/*.parquet").select("id", "url")
        rows = [part.join(rejects, on="id") for part in parts if part.height]
        return {row["url"]: row for part in rows for row in part.iter_rows(named=True)}

    def kept(self, name: str) -> dict[str, str]:
        """Returns URL → id of the documents that a run left."""
        documents = pl.read_parquet(self.run_dir(name) / f"documents/{self.stage}.apply/*.parquet")
        return dict(documents.select("url", "id").iter_rows())

    def results(self, name: str) -> dict[str, bytes]:
        """Returns every result file of a run, and of the index all but the lock."""
        tops = [self.run_dir(name) / top for top in ("documents", "rejects", "dedup")] + [self.index]
        files = [path for top in tops for path in sorted(top.rglob("*")) if path.is_file() and path.name != ".lock"]
        return {str(path): path.read_bytes() for path in files}


def run_made(plan: Plan, run_dir: Path) -> RunResult:
    pool = Pool("inline", 1)
    try:
        return run_plan(plan, run_dir, pool, Listener())
    finally:
        pool.close()
