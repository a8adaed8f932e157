"""A small real run for the tests of reports and of the command line: every outcome that a document can have."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from dataeng.config import load_pipeline
from dataeng.engine.executor import Pool
from dataeng.engine.runner import RunResult, run_plan
from dataeng.plan import make_plan
from dataeng.report.finish import write_reports
from tests.engine.conftest import Listener

PIPELINE = """\
name: small
sources:
  - read_files: {paths: ["web/*.jsonl"], domain: web}
    name: web
  - read_files: {paths: ["code/*.jsonl"], domain: code}
    name: code
stages:
  - toy:Measure:
    name: measure
  - toy:DropContaining: {word: casino, reason_name: spam}
    name: rule
  - deduplicate_exact: {partitions: 2}
    name: same
  - deduplicate_minhash: {partitions: 2}
    name: near
  - train_tokenizer: {vocab_size: 300}
  - write_packs:
"""

WORDS = (
    "the people of the town keep a garden by the river and every spring they plant beans corn and squash in long rows "
    "while the children carry water from the well and the old ones tell how it was when the mill still turned"
)
HOSTILE = "Read [bold red]this[/bold red] \x1b]0;owned\x07\x1b[2Jnow :warning: \u202egnp.exe and the rest \\"
HOSTILE_URL = "https://evil.example/[link=x]\x1b[31m"

WEB = [
    {"url": "https://a.example/garden", "text": WORDS},
    {"url": "https://a.example/casino", "text": "the best casino of all, says nobody"},
    {"url": "https://a.example/copy", "text": WORDS},
    {"url": "https://a.example/other", "text": "Quite another page that has very little to do with all of the rest."},
    {"url": HOSTILE_URL, "text": HOSTILE},
]
WEB_2 = [
    {"url": "https://b.example/near", "text": WORDS.upper().replace("TURNED", "TURNS")},
    {"url": "https://b.example/copy", "text": WORDS},
    {"url": "https://a.example/casino", "text": "casino again"},
]
CODE = [
    {"url": None, "text": "def f(x):\n    return x + 1\n"},
    {"url": None, "text": "import this\nprint(this)\n"},
    {"text": None},
]


class SmallRun:
    """The pipeline in a folder, and shorthands."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file, self.run_dir = folder, folder / "small.yaml", folder / "runs" / "small"
        folder.mkdir(parents=True, exist_ok=True)
        self.file.write_text(PIPELINE)
        shutil.copy(Path(__file__).parent / "engine" / "toy.py", folder / "toy.py")
        for name, records in (("web/0.jsonl", WEB), ("web/1.jsonl", WEB_2), ("code/c0.jsonl", CODE)):
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(json.dumps(record) + "\n" for record in records))

    def run(self, *overrides: str) -> RunResult:
        """Runs the pipeline in this process, as ``dataeng run`` does."""
        pipeline = load_pipeline(self.file, [f"run={self.run_dir}", *overrides], allow_code=True)
        pool = Pool("inline", 1)
        try:
            result = run_plan(make_plan(pipeline), self.run_dir, pool, Listener(), import_path=(str(self.folder),))
        finally:
            pool.close()
        write_reports(pipeline, self.run_dir, result.records)
        return result
