"""The corpus of `tests.accuracy.reweighting`: packs of unlike domains, a sixth of whose documents nobody trains on.

One `dataeng run`: the sample's crawl and code, and with a folder in the layout of the test data nine collections of it;
without exact and near duplicates, so that no held-out document has a twin among the others. The split goes by the
document's id, which is a hash. The tokenizer is trained on all of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HELD_OUT = "-held-out"
#: Ids are hexadecimal; those below are 40 of 256.
FIRST_KEPT_ID = "28"

#: Files of the test data's folder ``domains``, by the domain that they become.
COLLECTIONS = {
    "code": "code",
    "c4": "c4-rp",
    "stackexchange": "stackexchange",
    "manpages": "manpages",
    "packages": "package_descriptions",
    "dictionary": "dictionaries",
    "quotations": "quotations",
    "changelogs": "changelogs",
    "literature": "literature_speeches",
}
SAMPLE_FILES = {"code": "sample:*/code.jsonl.gz"}
#: What makes five domains of the sample alone.
SAMPLE_ONLY_FILES = {**SAMPLE_FILES, "books": "sample:books/*.jsonl.gz", "reference": "sample:reference/*.jsonl.gz"}


def sources(data: Path | None) -> list[tuple[str, str]]:
    """Returns (domain, paths) of every source of texts."""
    if data is None:
        return list(SAMPLE_ONLY_FILES.items())
    folder = (data / "domains").resolve()
    found = [(domain, str(folder / f"{name}.jsonl.gz")) for domain, name in COLLECTIONS.items()]
    return [*SAMPLE_FILES.items(), *found]


def pipeline(run: Path, texts: Sequence[tuple[str, str]], crawl: bool, vocab_size: int) -> dict[str, Any]:
    """Returns the pipeline, as its file has it."""
    domains = list(dict.fromkeys(domain for domain, _ in texts))
    steps: list[Mapping[str, Any]] = []
    if crawl:
        domains = ["web", "multilingual", *domains]
        steps = [
            {"extract_text": {}, "where": "domain == 'web'"},
            {"identify_language": {"min_score": 0.65}, "where": "domain == 'web'"},
            {
                "assign_domain": {
                    "rules": [{"domain": "multilingual", "where": "domain == 'web' and language != 'en'"}]
                },
                "name": "languages",
            },
        ]
    split = [
        {"domain": f"{name}{HELD_OUT}", "where": f"domain == '{name}' and id < '{FIRST_KEPT_ID}'"} for name in domains
    ]
    read: list[Mapping[str, Any]] = [
        {"read_files": {"paths": [paths], "domain": domain}, "name": f"{domain}_{number}"}
        for number, (domain, paths) in enumerate(texts)
    ]
    if crawl:
        read.append({"read_warc": {"paths": ["sample:crawl/*.warc.gz"], "domain": "web"}, "name": "crawl"})
    return {
        "name": "reweighting",
        "run": str(run),
        "sources": read,
        "stages": [
            *steps,
            {"deduplicate_exact": {}},
            {"deduplicate_minhash": {}},
            {"assign_domain": {"rules": split}, "name": "held_out"},
            {"train_tokenizer": {"vocab_size": vocab_size}},
            {"write_packs": {"formats": ["megatron"]}},
        ],
    }


def build_packs(folder: Path, texts: Sequence[tuple[str, str]], crawl: bool, vocab_size: int) -> Path:
    """Runs the pipeline in ``folder``, or what is left of it to do, and returns its run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    run = folder.resolve() / "corpus"
    file = folder.resolve() / "corpus.yaml"
    file.write_text(json.dumps(pipeline(run, texts, crawl, vocab_size), indent=1))  # JSON is YAML, too
    command = [sys.executable, "-m", "dataeng", "run", str(file), "--scheduler", "inline"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return run


def pack_folders(run: Path) -> tuple[list[Path], list[Path]]:
    """Returns the packs to train on and the held-out ones."""
    folders = sorted(path.parent for path in (run / "packs").glob("*/pack.json"))
    return (
        [path for path in folders if not path.name.endswith(HELD_OUT)],
        [path for path in folders if path.name.endswith(HELD_OUT)],
    )
