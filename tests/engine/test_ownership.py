"""A run never touches what is not its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dataeng.engine.ownership import check_ownership
from dataeng.errors import ConfigError

from .conftest import Toy


def test_a_folder_with_other_things_in_it_is_refused_and_left_alone(toy: Toy) -> None:
    thesis = toy.run_dir / "documents/letters/thesis.txt"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("years of work")
    with pytest.raises(ConfigError, match=r"is not a run folder, and not empty \(documents"):
        toy.run()
    assert thesis.read_text() == "years of work"
    assert not (toy.run_dir / "lease.json").exists()


def test_an_empty_folder_and_one_that_was_only_leased_are_free(tmp_path: Path) -> None:
    check_ownership(tmp_path / "missing", tmp_path / "p.yaml")
    check_ownership(tmp_path, tmp_path / "p.yaml")
    (tmp_path / "lease.json").write_text("{}")
    (tmp_path / ".lease.lock").write_text("")
    check_ownership(tmp_path, tmp_path / "p.yaml")


def test_the_run_of_another_pipeline_is_replaced_only_on_demand(toy: Toy) -> None:
    toy.run()
    before = toy.results()
    other = toy.folder / "other.yaml"
    other.write_text(toy.file.read_text())
    toy.file, mine = other, toy.file
    with pytest.raises(ConfigError, match=r"holds the run of .*toy\.yaml, which this one would replace"):
        toy.run("drop.word='7'")
    assert toy.results() == before
    check_ownership(toy.run_dir, other, replace=True)
    mine.unlink()  # a pipeline that was renamed is the same pipeline
    check_ownership(toy.run_dir, other)


def test_a_file_in_place_of_the_folder_and_a_damaged_run_file_are_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(ConfigError, match="is a file"):
        check_ownership(file, tmp_path / "p.yaml")
    (tmp_path / "run.json").write_text(json.dumps({"pipeline": 3}))
    with pytest.raises(ConfigError, match=r"run\.json is damaged; --replace starts over"):
        check_ownership(tmp_path, tmp_path / "p.yaml")
    check_ownership(tmp_path, tmp_path / "p.yaml", replace=True)
