"""One document's story, for every way that a document can end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dataeng.errors import DataengError
from dataeng.report.explain import Story, explain
from dataeng.report.sql import query
from tests.rules_run import RulesRun
from tests.small_run import HOSTILE, HOSTILE_URL, WORDS, SmallRun


def identifier(small: SmallRun, url: str) -> str:
    found = query(
        small.run_dir, f"SELECT id FROM documents WHERE url = '{url}' UNION SELECT id FROM rejects WHERE url = '{url}'"
    )
    return str(found[1][0][0])


def test_kept(finished: SmallRun) -> None:
    story = explain(finished.run_dir, "https://a.example/garden")
    assert story.outcome == "kept"
    assert story.identity["url"] == "https://a.example/garden" and story.identity["source_offset"] == 1
    assert story.identity["domain"] == "web" and story.text == WORDS
    assert story.signals == {"toy_length": len(WORDS)}
    assert story.pack["domain"] == "web" and story.pack["text_bytes"] == len(WORDS)
    assert story.evidence == {}
    copies = [
        identifier(finished, f"https://{host}") for host in ("a.example/copy", "b.example/copy", "b.example/near")
    ]
    assert sorted(story.removed_for_it) == sorted(copies)


def test_dropped_by_a_rule(finished: SmallRun) -> None:
    wanted = str(query(finished.run_dir, "SELECT id FROM rejects WHERE text = 'casino again'")[1][0][0])
    story = explain(finished.run_dir, wanted)
    assert story == Story(
        identity={
            "id": wanted,
            "url": "https://a.example/casino",
            "host": "a.example",
            "domain": "web",
            "source": "1.jsonl",
            "source_offset": 3,
        },
        outcome="dropped by rule: spam",
        signals={"toy_length": 12},
        text="casino again",
    )


@pytest.mark.parametrize(
    ("url", "outcome", "evidence"),
    [
        (
            "https://b.example/copy",
            "dropped by same: exact_duplicate (same text as {kept})",
            {"stage": "same", "method": "text", "similarity": 1.0, "cluster_size": 3},
        ),
        (
            "https://b.example/near",
            "dropped by near: near_duplicate (near-duplicate of {kept} (similarity 0.951))",
            {"stage": "near", "method": "minhash", "similarity": 39 / 41, "cluster_size": 2},
        ),
    ],
)
def test_duplicates_name_the_one_that_was_kept(
    finished: SmallRun, url: str, outcome: str, evidence: dict[str, object]
) -> None:
    kept = identifier(finished, "https://a.example/garden")
    story = explain(finished.run_dir, url)
    assert story.outcome == outcome.format(kept=kept)
    assert story.evidence == {**evidence, "kept_id": kept, "matched_id": kept}
    assert story.pack == {}


def test_a_record_that_could_not_be_read(finished: SmallRun) -> None:
    wanted = str(query(finished.run_dir, "SELECT id FROM rejects WHERE reason = 'error:no_text'")[1][0][0])
    story = explain(finished.run_dir, wanted)
    assert story.outcome == "dropped by code: error:no_text ('text': NoneType)"
    assert story.text is None and story.signals == {}


def test_the_beginning_of_an_id_is_enough(finished: SmallRun) -> None:
    whole = identifier(finished, "https://a.example/other")
    assert explain(finished.run_dir, whole[:10]).identity["id"] == whole


def test_hostile_urls_can_be_asked_for(finished: SmallRun) -> None:
    assert explain(finished.run_dir, HOSTILE_URL).text == HOSTILE


def test_an_ambiguous_url_lists_the_candidates(finished: SmallRun) -> None:
    with pytest.raises(DataengError, match="matches 2 documents; give one of these ids:") as caught:
        explain(finished.run_dir, "https://a.example/casino")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3 and all(line.endswith("spam  https://a.example/casino") for line in lines[1:])


def test_an_ambiguous_beginning(finished: SmallRun) -> None:
    with pytest.raises(DataengError, match="matches 11 documents"):
        explain(finished.run_dir, "")


@pytest.mark.parametrize("wanted", ["zzz", "f" * 24, "https://nowhere.example/", "' OR 1=1 --", "%"])
def test_unknown_documents(finished: SmallRun, wanted: str) -> None:
    with pytest.raises(DataengError) as caught:
        explain(finished.run_dir, wanted)
    assert str(caught.value).startswith(f"no document '{wanted}' in ")
    assert "Ids are 24 hex digits" in str(caught.value)


def test_in_a_run_that_is_not_complete_nobody_is_kept_for_good(own: SmallRun) -> None:
    (own.run_dir / "phases/near.apply/phase.json").unlink()
    (own.run_dir / "phases/train_tokenizer.apply/phase.json").unlink()
    run = json.loads((own.run_dir / "run.json").read_text())
    (own.run_dir / "run.json").write_text(json.dumps({**run, "status": "failed"}))
    story = explain(own.run_dir, "https://b.example/near")
    assert story.outcome == "kept so far (the run is not complete)" and story.pack == {}


def test_rejects_without_text(own: SmallRun) -> None:
    own.run("keep_rejected_text=false")
    story = explain(own.run_dir, "https://b.example/copy")
    assert story.outcome.startswith("dropped by same") and story.text is None


def test_the_rules_that_judged_a_document(ruled: RulesRun) -> None:
    story = explain(ruled.run_dir, "https://a.example/hashes")
    (judgement,) = story.judgements
    assert (judgement.step, judgement.first_broken) == ("web_rules", 1)
    assert [(o.rule, o.value, o.operator, o.threshold, o.broken) for o in judgement.outcomes] == [
        ("mine_short", 8, "<", 5, False),
        ("mine_hashes", 0.25, ">", 0.2, True),
        ("mine_dup_lines", 0, ">", 0.3, False),
    ]
    assert judgement.marks is not None and judgement.marks.spans == ((0, 1), (2, 3))


def test_a_kept_document_passed_the_rules_of_its_own_domain_only(ruled: RulesRun) -> None:
    story = explain(ruled.run_dir, "https://a.example/eight")
    assert [(j.step, j.first_broken, j.marks) for j in story.judgements] == [("web_rules", None, None)]
    wanted = str(query(ruled.run_dir, "SELECT id FROM rejects WHERE stage = 'code_rules'")[1][0][0])
    assert [(j.step, j.first_broken) for j in explain(ruled.run_dir, wanted).judgements] == [("code_rules", 0)]


def test_documents_that_never_came_to_a_rule(ruled: RulesRun, finished: SmallRun) -> None:
    wanted = str(query(ruled.run_dir, "SELECT id FROM rejects WHERE reason = 'error:no_text'")[1][0][0])
    assert explain(ruled.run_dir, wanted).judgements == []
    assert explain(finished.run_dir, "https://a.example/garden").judgements == []


def test_a_preset_that_is_gone_leaves_the_rest_of_the_story(tmp_path: Path) -> None:
    made = RulesRun(tmp_path / "own")
    made.run()
    made.mine.unlink()
    story = explain(made.run_dir, "https://a.example/hashes")
    assert story.judgements == [] and story.unjudged.endswith("mine.yaml does not exist")
    assert story.outcome.startswith("dropped by web_rules: mine_hashes")
