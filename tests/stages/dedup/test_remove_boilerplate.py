from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.engine.outputs import TaskOutputs
from dataeng.stages.dedup.remove_boilerplate import RemoveBoilerplate
from tests.end_to_end.runs import WITH_WORKERS, assert_same, dataeng, results

Page = tuple[str | None, str | None]


def run(stage: RemoveBoilerplate, parts: list[list[Page]], size: int = 3, shuffle: int = 0) -> list[pl.DataFrame]:
    """Takes documents through all steps, as the engine does, and returns the parts as `apply` leaves them."""
    frames = [
        pl.DataFrame(
            {"id": [f"p{part}r{row}" for row in range(len(pages))], "host": [p[0] for p in pages],
             "text": [p[1] for p in pages], "part": [part] * len(pages), "row": list(range(len(pages)))},
            schema={"id": pl.String, "host": pl.String, "text": pl.String, "part": pl.UInt32, "row": pl.UInt32},
        )
        for part, pages in enumerate(parts)
    ]  # fmt: skip
    batches = [[frame[i : i + size] for i in range(0, frame.height, size)] for frame in frames]
    tables = [stage.combine(pl.concat([stage.emit(b) for b in some])) for some in batches if some]
    for step in range(2):
        groups = pl.concat(tables).partition_by("partition", maintain_order=True) if tables else []
        if shuffle:
            random.Random(shuffle).shuffle(groups)
            groups = [group.sample(fraction=1.0, shuffle=True, seed=shuffle) for group in groups]
        tables = [stage.reduce(step, group, TaskOutputs(Path())) for group in groups]
    verdicts = pl.concat(tables) if tables else pl.DataFrame(schema=dict(stage.verdict_columns()))
    left = []
    for part, some in enumerate(batches):
        judged = [stage.apply(batch.drop("part"), verdicts.filter(pl.col("part") == part)) for batch in some]
        left.append(pl.concat(judged, how="diagonal") if judged else pl.DataFrame())
    return left


def expected(stage: RemoveBoilerplate, parts: list[list[Page]]) -> list[list[str | None]]:
    """The same in plain Python: the text that each page is left with, None where it is dropped."""

    def looked_at(text: str) -> list[int]:
        places = [i for i, line in enumerate(text.split("\n")) if line.strip()]
        edge = stage.edge_lines
        return places if edge is None or len(places) <= 2 * edge else places[:edge] + places[-edge:]

    pages: Counter[str] = Counter()
    lines: Counter[tuple[str, str]] = Counter()
    for host, text in (page for part in parts for page in part):
        if host and text is not None:
            pages[host] += 1
            lines.update({(host, text.split("\n")[i].strip()) for i in looked_at(text)})
    left: list[list[str | None]] = []
    for part in parts:
        left.append([])
        for host, text in part:
            result = text
            if host and text is not None:
                split, removed = text.split("\n"), set()
                for i in looked_at(text):
                    count = lines[host, split[i].strip()]
                    if count >= stage.min_pages and count >= stage.min_share * pages[host]:
                        removed.add(i)
                if removed:
                    result = "\n".join(line for i, line in enumerate(split) if i not in removed).strip("\n")
                    result = result if result.strip() else None
            left[-1].append(result)
    return left


def texts(frames: list[pl.DataFrame]) -> list[list[str | None]]:
    return [
        [text if reason is None else None for text, reason in frame.select("text", "reason").iter_rows()]
        if "reason" in frame.columns
        else (frame.get_column("text").to_list() if frame.height else [])
        for frame in frames
    ]


LINES = ["Home", " Home ", "Über", "one", "two", "", "  "]
PAGES = st.tuples(
    st.sampled_from(["a.example", "b.example", "", None]),
    st.one_of(st.none(), st.lists(st.sampled_from(LINES), max_size=6).map("\n".join)),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    parts=st.lists(st.lists(PAGES, max_size=6), max_size=3),
    edge=st.sampled_from([None, 1, 2]),
    share=st.sampled_from([0.3, 0.5, 1.0]),
    shuffle=st.integers(0, 3),
)
def test_equals_the_plain_reference(parts: list[list[Page]], edge: int | None, share: float, shuffle: int) -> None:
    stage = RemoveBoilerplate(edge_lines=edge, min_pages=2, min_share=share, partitions=3)
    left = run(stage, parts, size=2, shuffle=shuffle)
    assert texts(left) == expected(stage, parts)
    for one, other in zip(left, run(stage, parts, size=50), strict=True):
        assert one.select(sorted(one.columns)).equals(other.select(sorted(other.columns)))


def planted(pages: int, host: str) -> list[Page]:
    return [
        (host, f"{host} Home\nNews | About\n\nArticle {i}\nThe text of article number {i}.\n\n© {host}\nPrivacy")
        for i in range(pages)
    ]


def test_planted_headers_and_footers() -> None:
    small = planted(4, "small.example")
    other = [("other.example", "News | About\nAnother host may say so.")]
    alone = [("big.example", "big.example Home\n News | About \n\nPrivacy")]
    big = planted(9, "big.example")
    left = run(RemoveBoilerplate(), [big[:5] + small + other, alone + big[5:]])
    rows = pl.concat(left, how="diagonal").to_dicts()
    assert rows[0]["text"] == "Article 0\nThe text of article number 0."
    assert rows[0]["boilerplate_lines_removed"] == 4
    assert rows[0]["boilerplate_sample"] == "big.example Home\nNews | About\n© big.example\nPrivacy"
    assert rows[0]["boilerplate_chars_removed"] == len(str(big[0][1])) - len(rows[0]["text"])
    # Four pages are fewer than min_pages, and what another host says does not matter.
    assert [row["text"] for row in rows[5:10]] == [text for _, text in [*small, *other]]
    assert all(row["boilerplate_lines_removed"] == 0 and row["boilerplate_sample"] is None for row in rows[5:10])
    # A page of nothing else is dropped and keeps its text.
    assert rows[10]["reason"] == "only_boilerplate" and rows[10]["detail"] == "3 lines"
    assert rows[10]["text"] == alone[0][1]


def test_only_edges_are_looked_at() -> None:
    pages = [("a.example", "\n".join(f"{i} {j}" for j in range(5)) + "\nmiddle\n" + f"x{i}\n" * 5) for i in range(6)]
    assert texts(run(RemoveBoilerplate(edge_lines=5), [pages]))[0] == [text for _, text in pages]
    assert all("middle" not in str(text) for text in texts(run(RemoveBoilerplate(edge_lines=None), [pages]))[0])


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "lines"
    dataeng("run", "pipelines/lines.yaml", "--set", f"run={folder}", "--workers", "2")
    return folder


def test_the_sample_loses_its_navigation(run_dir: Path) -> None:
    statement = (
        "SELECT host, boilerplate_sample AS gone, text FROM documents WHERE boilerplate_lines_removed > 0 ORDER BY id"
    )
    rows = [json.loads(line) for line in dataeng("sql", str(run_dir), statement, "--format", "json").splitlines()]
    removed = Counter((row["host"], line) for row in rows for line in set(row["gone"].split("\n")))
    assert removed["docs.snake.test", "Navigation"] > 20
    assert removed["httpd.feather.test", "Apache HTTP Server Version 2.4"] > 10
    assert removed["www.litedb.test", "Small. Fast. Reliable."] > 20
    assert not any("Small. Fast. Reliable." in row["text"].split("\n")[:3] for row in rows)
    # Sections are what the pages are about, and stay.
    kept = Counter(line for row in rows for line in row["text"].split("\n"))
    assert sum(count for line, count in kept.items() if len(line) > 200) > 500
    listed = dataeng("sql", str(run_dir), "SELECT host, on_pages, of_pages FROM dedup WHERE on_pages IS NOT NULL")
    assert "docs.snake.test" in listed
    story = dataeng("explain", str(run_dir), _any_id(run_dir))
    assert "boilerplate_lines_removed" in story


def _any_id(run_dir: Path) -> str:
    statement = "SELECT id FROM documents WHERE boilerplate_lines_removed > 0 LIMIT 1"
    return str(json.loads(dataeng("sql", str(run_dir), statement, "--format", "json"))["id"])


def test_one_worker_gives_the_same_bytes_as_two(run_dir: Path, tmp_path: Path) -> None:
    dataeng("run", "pipelines/lines.yaml", "--set", f"run={tmp_path / 'one'}", *WITH_WORKERS[1])
    assert_same(results(run_dir), results(tmp_path / "one"))
