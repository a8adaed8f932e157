"""What `dataeng remove` reads from people, and what it tells them."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from dataeng.engine.takedown import Takedown, take_down
from dataeng.errors import ConfigError, InputError
from dataeng.formats.removal_list import removal_list
from dataeng.report.removal import print_removal, read_values
from tests.formats.pack_files import ALL, EOS, write_pack


def test_values_and_files_of_values(tmp_path: Path) -> None:
    ids = pl.DataFrame({"url": ["x", "y", "z"], "id": ["1", None, "3"]})
    ids.write_parquet(tmp_path / "ids.parquet")
    ids.write_csv(tmp_path / "ids.csv")
    pl.DataFrame({"doc": [123, 456]}).write_csv(tmp_path / "only.csv")
    (tmp_path / "list").write_text("# from the letter\n\n 1 \r\n2\n")
    assert read_values([str(tmp_path / "ids.parquet")], "id") == ["1", "3"] == read_values(
        [str(tmp_path / "ids.csv")], "id"
    )  # fmt: skip
    assert read_values(["a1", str(tmp_path / "list"), " b2 "], "id") == ["a1", "1", "2", "b2"]
    assert read_values([str(tmp_path / "only.csv")], "id") == ["123", "456"]  # as written, not as numbers
    assert read_values(["::1", "2001:DB8::7"], "host") == ["::1", "2001:DB8::7"]
    assert read_values(["www.a.example", "*.b.example", ".c.example", "bücher.example"], "host") == [
        "www.a.example", "*.b.example", ".c.example", "bücher.example"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "wrong", ["https://a.example", "a.example/x", "a.example:80", "a b", "*", "*.", ".", "..", "a.*.example"]
)
def test_hosts_that_are_none(wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"is no host; expected|there is no such file"):
        read_values([wrong], "host")


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    for option in ("ids.txt", "some/where", "ids.parquet"):
        with pytest.raises(ConfigError, match=f"--ids {option}: there is no such file"):
            read_values([option], "id")
    pl.DataFrame({"a": ["1"], "b": ["2"]}).write_parquet(tmp_path / "two.parquet")
    with pytest.raises(ConfigError, match=r"two\.parquet has no column 'id' \(it has a, b\)"):
        read_values([str(tmp_path / "two.parquet")], "id")
    for name, content in (("bad.parquet", b"PAR1"), ("bad.txt", b"\xff\xfe\xfa")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"cannot read .*{name}"):
            read_values([str(tmp_path / name)], "id")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(InputError, match=r"empty\.txt holds no ids"):
        read_values([str(tmp_path / "empty.txt")], "id")
    with pytest.raises(ConfigError, match="an empty id would match nothing"):
        read_values(["  "], "id")


def told(done: Takedown, dry_run: bool = False) -> list[str]:
    out = Console(file=io.StringIO(), width=200)
    print_removal(out, done, dry_run)
    assert isinstance(out.file, io.StringIO)
    return [" ".join(line.split()) for line in out.file.getvalue().splitlines()]


def test_what_is_told(tmp_path: Path) -> None:
    write_pack(tmp_path / "one", [[[5, EOS], [6, 7, EOS]], [[8, EOS]]], kinds=ALL)
    wanted = removal_list(["nobody"], ["b.example"], "", "now")
    dry = told(take_down([tmp_path / "one"], wanted, [], "now", dry_run=True), dry_run=True)
    assert dry[:2] == [
        "pack documents of tokens of shards of revision",
        f"{tmp_path}/one 2 3 5 7 2 2 1",
    ]
    assert dry[2:] == [
        "2 documents would be removed from 1 of 1 packs.",
        "1 of 1 ids are in none of these packs: nobody",
    ]
    lines = told(take_down([tmp_path / "one"], wanted, [], "now"))
    assert lines[2] == "2 documents removed from 1 of 1 packs." and "still hold what they held" in lines[-1]
    assert told(take_down([tmp_path / "one"], wanted, [], "now"))[0] == "0 documents removed from 0 of 1 packs."


def test_long_lists_of_unknown_ids_are_cut() -> None:
    done = Takedown([], 12, 3, [str(i) for i in range(9)], [Path("mix.json")], [Path("old.json")])
    assert told(done, dry_run=True)[1:] == [
        "3 of 12 ids were removed before.",
        "9 of 12 ids are in none of these packs: 0, 1, 2, 3, 4 …",
        "mixture to be updated: mix.json",
        "out of date: the mixture old.json names these packs; add --mixture old.json",
    ]
