"""Tables of packs and verification as a person sees them: every problem, an error at the end, mixtures beside packs."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from dataeng.errors import ConfigError, DataengError
from dataeng.formats.mixture import MixtureManifest, Policy, load_mixture, save_mixture
from dataeng.formats.pack import Pack, load_manifest, write_manifest
from dataeng.mixture.build import build_mixture
from dataeng.report.packs import languages, mixture_problems, packs_of, print_packs, print_verification, trained_share
from tests.formats.pack_files import ALL, EOS, write_pack
from tests.small_run import SmallRun

SHARDS = [[[5, EOS], [6, 7, EOS], [8, EOS]], [[9, EOS]]]
MASKS = [[[0, 1], [0, 0, 1], [1, 1]], [[0, 0]]]


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def printed(out: Console) -> list[str]:
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue().splitlines()


def mix(packs: list[Path], path: Path) -> MixtureManifest:
    manifest = build_mixture(packs, path, policy=Policy(name="natural"))
    save_mixture(path, manifest)
    return manifest


def test_a_run_and_its_packs_are_found(finished: SmallRun, tmp_path: Path) -> None:
    folders = [finished.run_dir / "packs" / domain for domain in ("code", "web")]
    assert packs_of([finished.run_dir]) == folders == packs_of([*folders, finished.run_dir])
    path = finished.run_dir / "mix.json"
    mix(folders, path)
    assert [folder.resolve() for folder in packs_of([path])] == folders
    out = console()
    print_verification(out, [finished.run_dir, path])
    lines = printed(out)
    assert len(lines) == 3 and all(line.endswith(": ok") for line in lines[:2]), lines
    assert lines[2] == f"{path}: fits its packs" and "4 files" in lines[0] and "documents" in lines[0]
    path.unlink()
    with pytest.raises(ConfigError, match=r"is no pack \(pack\.json\), no run with packs"):
        packs_of([tmp_path])


def test_all_problems_of_all_packs_are_listed_before_the_error(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_pack(tmp_path / "packs" / name, SHARDS, kinds=ALL, domain=name)
    (tmp_path / "packs/one/00000.bin").write_bytes(b"")
    (tmp_path / "packs/two/00001.idx").unlink()
    (tmp_path / "packs/three").mkdir()
    out = console()
    with pytest.raises(DataengError, match=r"3 problems in 3 packs\. Restore these files, or write the packs again"):
        print_verification(out, [tmp_path])
    text = "\n".join(printed(out))
    for problem in ("one/00000.bin has 0 bytes", "two/00001.idx is missing", "no pack at"):
        assert problem in text
    assert text.count("not checked: the tokenizer is not at") == 2 and "three: 0 files, 0 B: 1 problem" in text


def test_a_tokenizer_elsewhere(tmp_path: Path) -> None:
    write_pack(tmp_path / "pack", SHARDS)
    (tmp_path / "wrong.json").write_text("{}")
    out = console()
    with pytest.raises(DataengError, match="1 problem in 1 pack"):
        print_verification(out, [tmp_path / "pack"], tmp_path / "wrong.json")
    assert "wrong.json is not the tokenizer of" in "\n".join(printed(out))


def test_what_a_mixture_says_and_its_packs_do_not(tmp_path: Path) -> None:
    packs = [tmp_path / "one", tmp_path / "two"]
    for folder in packs:
        write_pack(folder, SHARDS, kinds=ALL, domain=folder.name)
    path = tmp_path / "mix.json"
    mix(packs, path)
    assert mixture_problems(path) == []
    one = load_manifest(packs[0])
    changes = {"domain": "other", "eos_id": 1, "tokenizer_sha256": "1" * 64, "vocab_size": 7, "num_tokens": 10}
    write_manifest(packs[0], one.model_copy(update=changes))
    problems = mixture_problems(path)
    for expected in (
        f"domain 'one': {tmp_path}/one has tokenizer_sha256 {'1' * 64}, the mixture {'0' * 64}",
        f"domain 'one': {tmp_path}/one has vocab_size 7, the mixture 100",
        f"domain 'one': {tmp_path}/one is of domain 'other'",
        "domain 'one': num_tokens is 9, its packs have 10; mix again",
        f"domain 'one': {tmp_path}/one is not the pack that was mixed (SHA-256)",
        f"domain 'two': {tmp_path}/two has eos_id 0, {tmp_path}/one has 1; one mixture needs one",
    ):
        assert any(problem.startswith(expected) for problem in problems), (expected, problems)
    assert len(problems) == 6
    (packs[1] / "pack.json").unlink()
    assert any(problem.startswith("domain 'two': no pack at") for problem in mixture_problems(path))
    out = console()
    with pytest.raises(DataengError):
        print_verification(out, [path])
    assert any(line.startswith(f"{path}: ") and line.endswith("problems") for line in printed(out))
    assert load_mixture(path).domains["one"].num_tokens == 9


def test_the_table_tells_sizes_files_masks_and_languages(tmp_path: Path) -> None:
    write_pack(tmp_path / "masked", SHARDS, kinds=(*ALL, "mask"), masks=MASKS)
    write_pack(tmp_path / "parquet", SHARDS, kinds=("parquet",), masks=MASKS)
    write_pack(tmp_path / "bare", SHARDS, "int32")
    write_pack(tmp_path / "empty", [])
    out = console()
    print_packs(out, [tmp_path / name for name in ("masked", "parquet", "bare", "empty")])
    rows = [" ".join(line.split()) for line in printed(out)]
    assert rows[0] == "pack documents tokens bytes/token type files trained on languages revision"
    assert rows[1] == f"{tmp_path}/masked 4 9 10.00 uint16 bin docs idx mask parquet 44.4% de 67%, en 33% 0"
    assert rows[2] == f"{tmp_path}/parquet 4 9 10.00 uint16 parquet 44.4% de 67%, en 33% 0"
    assert rows[3] == f"{tmp_path}/bare 4 9 10.00 int32 bin idx all – 0"
    assert rows[4] == f"{tmp_path}/empty 0 0 0.00 uint16 all – 0"


def test_shares_of_packs_with_masks_in_some_shards_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataeng.report.packs.CHUNK_TOKENS", 2)
    manifest = write_pack(tmp_path, SHARDS, kinds=("bin", "idx", "mask"), masks=MASKS)
    last = manifest.shards[1]
    bare = last.model_copy(update={"files": {kind: file for kind, file in last.files.items() if kind != "mask"}})
    write_manifest(tmp_path, manifest.model_copy(update={"shards": [manifest.shards[0], bare]}))
    assert trained_share(Pack(tmp_path)) == "66.7%"  # 4 of 7, and all 2
    assert languages(Pack(tmp_path)) == []
