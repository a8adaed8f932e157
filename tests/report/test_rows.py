"""What `dataeng packing` says of packs, runs and mixtures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dataeng.cli import app
from dataeng.errors import ConfigError, FormatError
from dataeng.formats.mixture import Domain, MixtureManifest, Policy, save_mixture
from dataeng.report.rows import packing_waste
from tests.small_packs import write_pack


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """Two packs; in rows of 8 + 1 tokens one document of `web` is too long."""
    write_pack(tmp_path, "web", [5, 4, 20])
    write_pack(tmp_path, "code", [9, 9])
    return tmp_path


def shares(path: Path, domain: str, length: int = 8) -> dict[str, tuple[float, ...]]:
    waste = packing_waste(path, length)
    return {row[1]: row[2:] for row in waste.iter_rows() if row[0] == domain}


def test_waste_of_a_run_by_hand(run_folder: Path) -> None:
    # Concatenated: 29 tokens are 28 labels, 3.5 rows. 5 and 4 fill row 0, whose last token begins row 1 again; 20 is in
    # rows 1, 2 and 3.
    web = shares(run_folder, "web")
    assert web["concatenate"] == pytest.approx((4, 6 / 4, 1 / 3, 4 / 36, 0, 28 / 32))
    # Best fit: 20 is two whole rows (9 + 9, one token twice) and 4; 5 and 4 fill a row, the other 4 stands alone.
    assert web["best-fit"] == pytest.approx((4, 5 / 4, 1 / 3, 5 / 36, 0, (8 + 8 + 3 + 4 + 3) / 32))
    # Aligned: 5 + 4, and 9 of the 20.
    assert web["aligned"] == pytest.approx((2, 3 / 2, 1 / 3, 0, 11 / 29, (4 + 3 + 8) / 16))
    assert shares(run_folder, "code")["best-fit"] == pytest.approx((2, 1, 0, 0, 0, 1))


def test_a_pack_and_a_mixture_say_the_same(run_folder: Path) -> None:
    pack = run_folder / "packs" / "web"
    domain = Domain(packs=["packs/web"], num_documents=3, num_tokens=29, weight=1)
    manifest = MixtureManifest(
        tokenizer_sha256="t" * 64, vocab_size=100, domains={"web": domain}, policy=Policy(name="given")
    )
    save_mixture(run_folder / "mix.json", manifest)
    assert shares(pack, "web") == shares(run_folder, "web") == shares(run_folder / "mix.json", "web")


def test_the_command_prints_a_table_or_lines(run_folder: Path) -> None:
    printed = CliRunner().invoke(app, ["packing", str(run_folder), "--sequence-length", "8"]).output
    assert "rows of 8 inputs" in printed and "37.93%" in printed and printed.count("best-fit") == 2
    lines = CliRunner().invoke(app, ["packing", str(run_folder), "--sequence-length", "8", "--format", "json"]).output
    assert [json.loads(line)["packing"] for line in lines.splitlines()] == ["concatenate", "best-fit", "aligned"] * 2
    table = CliRunner().invoke(app, ["packing", str(run_folder), "--sequence-length", "8", "--format", "csv"]).output
    assert len(table.splitlines()) == 7
    failed = CliRunner().invoke(app, ["packing", str(run_folder), "--format", "jsn"])
    assert isinstance(failed.exception, ConfigError) and "unknown format 'jsn'" in str(failed.exception)


def test_what_holds_no_packs_is_said(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"there is nothing at .*gone; expected a pack, a run folder or a mixture"):
        packing_waste(tmp_path / "gone", 8)
    with pytest.raises(ConfigError, match="has no packs"):
        packing_waste(tmp_path, 8)
