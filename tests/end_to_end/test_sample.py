"""The main job on the bundled sample, as the README has it: run, look, change, mix."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from dataeng.formats.mixture import load_mixture
from dataeng.formats.pack import Pack
from dataeng.formats.pack_verification import verify_pack

from .runs import ROOT, assert_same, dataeng, kill_when, results

PIPELINE = "pipelines/cc_clean.yaml"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of the main job with two workers."""
    folder = tmp_path_factory.mktemp("runs") / "cc_clean"
    printed = dataeng("run", PIPELINE, "--set", f"run={folder}", "--workers", "2")
    assert "read_warc" in printed and "write_packs" in printed and "tasks run" in printed
    return folder


def rows(run_dir: Path, statement: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in dataeng("sql", str(run_dir), statement, "--format", "json").splitlines()]


def test_at_least_three_domains_come_out_with_tokens_enough_to_train_on(run_dir: Path) -> None:
    packs = {
        row["domain"]: row["tokens"]
        for row in rows(run_dir, "SELECT domain, sum(num_tokens) AS tokens FROM packs GROUP BY 1")
    }
    assert set(packs) == {"web", "multilingual", "code"}
    assert all(int(str(tokens)) > 50_000 for tokens in packs.values())


def test_every_record_is_accounted_for(run_dir: Path) -> None:
    read = rows(run_dir, "SELECT sum(documents_in) AS n FROM stages WHERE stage IN ('read_warc', 'read_files')")[0]["n"]
    rejects = rows(run_dir, "SELECT count(*) AS n FROM rejects")[0]["n"]
    drops = rows(run_dir, "SELECT sum(documents) AS n FROM drops")[0]["n"]
    documents = rows(run_dir, "SELECT count(*) AS n FROM documents")[0]["n"]
    packed = rows(run_dir, "SELECT count(*) AS n FROM packs")[0]["n"]
    assert read == int(str(rejects)) + int(str(documents)) and rejects == drops and packed == documents
    twice = rows(
        run_dir,
        "SELECT count(*) AS n FROM (SELECT id FROM (SELECT id FROM rejects UNION ALL SELECT id FROM documents) "
        "GROUP BY id HAVING count(*) > 1)",
    )
    assert twice[0]["n"] == 0


@pytest.mark.parametrize(("phase", "workers"), [("read", "1"), ("deduplicate_minhash.apply", "2")])
def test_killed_and_run_again_by_one_worker_or_two_gives_the_same_bytes(
    run_dir: Path, tmp_path: Path, phase: str, workers: str
) -> None:
    folder = tmp_path / "killed"
    arguments = ["run", PIPELINE, "--set", f"run={folder}", "--workers"]
    assert kill_when([*arguments, "2"], lambda: any((folder / "phases" / phase).glob("task-*.json")))
    printed = dataeng(*arguments, workers)
    reused = re.search(r"(\d+) tasks run, (\d+) reused", printed)
    assert reused is not None and int(reused[2]) >= 1
    assert_same(results(run_dir), results(folder))
    assert not list(folder.rglob("*.tmp"))


def test_running_again_does_nothing(run_dir: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*.parquet")}
    assert "nothing to do" in dataeng("run", PIPELINE, "--set", f"run={run_dir}")
    assert {path: path.stat().st_mtime_ns for path in run_dir.rglob("*.parquet")} == before


def test_a_changed_parameter_is_named_and_only_its_dependents_would_run(run_dir: Path) -> None:
    printed = dataeng("plan", PIPELINE, "--set", f"run={run_dir}", "--set", "train_tokenizer.vocab_size=4096")
    states = dict(re.findall(r"^(\S+) +\d+ tasks +\S+ +(.+)$", printed, re.MULTILINE))
    assert states["read"] == states["deduplicate_exact.apply"] == states["deduplicate_minhash.choose"] == "reuse"
    assert states["deduplicate_minhash.apply"] == "reuse"  # it draws the sample, whatever is trained on it
    assert "config: train_tokenizer.vocab_size 8192 → 4096" in states["train_tokenizer.train"]
    assert states["train_tokenizer.apply"].startswith("run 4")


def test_packs_are_whole_and_decode_to_the_documents(run_dir: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(run_dir / "tokenizer/tokenizer.json"))
    texts = {row["id"]: row["text"] for row in rows(run_dir, "SELECT id, text FROM documents WHERE domain = 'code'")}
    assert verify_pack(run_dir / "packs/code") == []
    pack = Pack(run_dir / "packs/code")
    listed = rows(run_dir, "SELECT id FROM packs WHERE domain = 'code'")
    ids = [row["id"] for row in listed]
    decoded = [
        tokenizer.decode(shard.document(i)[:-1].tolist()) for shard in pack.shards for i in range(len(shard.lengths))
    ]
    assert decoded == [texts[identifier] for identifier in ids]


def test_explain_tells_the_story_of_a_kept_and_of_a_dropped_document(run_dir: Path) -> None:
    kept = rows(run_dir, "SELECT id, url FROM documents WHERE domain = 'web' LIMIT 1")[0]
    printed = dataeng("explain", str(run_dir), str(kept["id"]))
    assert printed.startswith("kept") and str(kept["url"]) in printed and "num_tokens" in printed
    dropped = rows(run_dir, "SELECT id, reason FROM rejects WHERE stage = 'english_rules' LIMIT 1")[0]
    printed = dataeng("explain", str(run_dir), str(dropped["id"]))
    assert printed.startswith(f"dropped by english_rules: {dropped['reason']}") and "quality_words" in printed
    copy = rows(run_dir, "SELECT id, kept_id FROM dedup WHERE stage = 'deduplicate_exact' LIMIT 1")[0]
    printed = dataeng("explain", str(run_dir), str(copy["id"]))
    assert f"same text as {copy['kept_id']}" in printed


#: How the manifests in the repository were made; docs/mixtures.md has the same commands.
MANIFESTS = {
    "mix": ["--temperature", "2"],
    "temperature": ["--alpha", "0.3", "--no-pin"],
    "unimax": ["--unimax", "1", "--tokens", "307200", "--no-pin"],
    "annealing": [
        "--schedule", "manifests/annealing.yaml", "--max-epochs", "4", "--order", "web=num_tokens",
        "--tokens", "307200", "--no-pin",
    ],
}  # fmt: skip


def test_every_manifest_in_the_repository_is_tested() -> None:
    assert {path.stem for path in (ROOT / "manifests").glob("*.json")} == set(MANIFESTS)


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_manifests_in_the_repository_fit_the_sample(run_dir: Path, tmp_path: Path, name: str) -> None:
    kept = load_mixture(ROOT / f"manifests/{name}.json")
    printed = dataeng("mix", str(run_dir), *MANIFESTS[name], "--output", str(tmp_path / "mix.json"))
    made = load_mixture(tmp_path / "mix.json")
    assert kept.run == "../runs/cc_clean" and kept.policy == made.policy and kept.reweighting == made.reweighting
    assert kept.domains.keys() == made.domains.keys() and kept.vocab_size == made.vocab_size
    assert [(stage.name, stage.until) for stage in kept.schedule] == [(s.name, s.until) for s in made.schedule]
    for domain_name, domain in kept.domains.items():
        again = made.domains[domain_name]
        assert domain.packs == [f"../runs/cc_clean/packs/{domain_name}"]
        # Other versions of the libraries may extract or split a little differently.
        assert domain.num_tokens == pytest.approx(again.num_tokens, rel=0.05)
        assert domain.weight == pytest.approx(again.weight, abs=0.02)
        assert (domain.max_epochs, domain.order) == (again.max_epochs, again.order)
        assert domain_name in printed


@pytest.mark.parametrize("name", ["unimax", "annealing"])  # to the trainer, temperature is a policy like unimax
def test_the_manifests_are_planned_and_train(run_dir: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.json"
    dataeng("mix", str(run_dir), *MANIFESTS[name], "--output", str(path))
    planned = dataeng("mix", "show", str(path), "--tokens", "6144", "--format", "json")
    drawn = {}
    for row in map(json.loads, planned.splitlines()):
        if row["stage"] == "all":
            drawn[row["domain"]] = drawn.get(row["domain"], 0) + row["tokens_drawn"]
    out = tmp_path / "out"
    arguments = ["--mixture", str(path), "--out", str(out), "--steps", "6", "--batch-size", "16"]
    done = subprocess.run(
        [sys.executable, "-m", "trainer", *arguments, "--sequence-length", "64"],
        capture_output=True, text=True, cwd=ROOT, timeout=550,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    learned = load_mixture(out / "mix.json")
    assert learned.policy.name == "learned" and learned.domains.keys() == drawn.keys()
    # The rows that were read are the plan: 6 steps of 16 rows of 64 tokens, to within a few rows.
    metrics = pl.read_parquet(out / "metrics" / "*.parquet")
    read = dict(metrics.group_by("domain").agg(pl.col("tokens").sum()).iter_rows())
    assert read == pytest.approx(drawn, abs=4 * 64)
