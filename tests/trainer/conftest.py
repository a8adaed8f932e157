"""Tiny packs of real text, one token a byte, and runs on them that take seconds."""

from __future__ import annotations

import encodings
import json
import os
import pydoc_data.topics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataeng.formats.atomic import sha256_file
from dataeng.formats.mixture import Domain, MixtureManifest, Policy, load_mixture, save_mixture
from dataeng.formats.pack import PackManifest, Shard, ShardFile, idx_bytes, write_manifest
from dataeng.formats.reweighting import Reweighting
from dataeng.packing import prepare
from trainer.config import TrainConfig, derive_config
from trainer.options import Options

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before PyTorch is loaded

EOS = 256
VOCAB_SIZE = 257
TOKENIZER = "b" * 64

WritePack = Callable[..., Path]
MakeConfig = Callable[..., TrainConfig]


@pytest.fixture(scope="session", autouse=True)
def compiled() -> None:
    """Kernels are compiled before the tests, not in the midst of one that hypothesis times."""
    prepare()


@pytest.fixture(scope="session")
def texts() -> dict[str, list[str]]:
    """Three domains out of the Python standard library: about 100 kB of code, 60 kB each of prose and of tables."""
    code = [path.read_text() for path in sorted(Path(json.__file__).parent.glob("*.py"))]
    prose = [str(text) for _, text in sorted(pydoc_data.topics.topics.items())]
    tables = [path.read_text() for path in sorted(Path(encodings.__file__).parent.glob("cp12*.py"))]
    return {name: cut(found, 60_000) for name, found in {"code": code, "prose": prose, "tables": tables}.items()}


def cut(texts: Sequence[str], num_characters: int) -> list[str]:
    """The first texts, up to about so many characters."""
    taken: list[str] = []
    for text in texts:
        if sum(map(len, taken)) >= num_characters:
            break
        taken.append(text)
    return taken


@pytest.fixture(scope="session")
def write_pack() -> WritePack:
    """Returns ``write_pack(folder, domain, [[documents of shard 0], …])``; a document is a list of token ids."""

    def write(folder: Path, domain: str, shards: Sequence[Sequence[Sequence[int]]], tokenizer: str = TOKENIZER) -> Path:
        folder.mkdir(parents=True)
        listed = []
        for number, documents in enumerate(shards):
            lengths = np.array([len(document) for document in documents], np.int32)
            tokens = np.array([token for document in documents for token in document], "<u2")
            name = f"{number:05d}"
            (folder / f"{name}.bin").write_bytes(tokens.tobytes())
            (folder / f"{name}.idx").write_bytes(idx_bytes(lengths, "uint16"))
            files = {
                kind: ShardFile(name=path.name, size_bytes=path.stat().st_size, sha256=sha256_file(path))
                for kind in ("bin", "idx")
                for path in [folder / f"{name}.{kind}"]
            }
            listed.append(Shard(name=name, num_documents=len(documents), num_tokens=len(tokens), files=files))
        manifest = PackManifest(
            domain=domain,
            dtype="uint16",
            tokenizer_sha256=tokenizer,
            tokenizer="../tokenizer.json",
            vocab_size=VOCAB_SIZE,
            eos_id=EOS,
            num_documents=sum(shard.num_documents for shard in listed),
            num_tokens=sum(shard.num_tokens for shard in listed),
            text_bytes=sum(shard.num_tokens for shard in listed),
            shards=listed,
        )
        write_manifest(folder, manifest)
        return folder

    return write


@pytest.fixture
def mixture(tmp_path: Path, texts: dict[str, list[str]], write_pack: WritePack) -> Path:
    """A manifest over three packs of two shards each; its run folder is ``tmp_path / "run"``."""
    return write_mixture(tmp_path, texts, write_pack)


@pytest.fixture(scope="module")
def module_mixture(
    tmp_path_factory: pytest.TempPathFactory, texts: dict[str, list[str]], write_pack: WritePack
) -> Path:
    """The same for all tests of a module, which leave it as it is."""
    return write_mixture(tmp_path_factory.mktemp("mixture"), texts, write_pack)


def write_mixture(folder: Path, texts: dict[str, list[str]], write_pack: WritePack) -> Path:
    """Writes the packs into ``folder / "run"`` and the manifest beside it."""
    run = folder / "run"
    domains = {}
    weights = {"code": 0.4, "prose": 0.35, "tables": 0.25}
    for name, documents in texts.items():
        tokens = [[*text.encode(), EOS] for text in documents]
        half = len(tokens) // 2
        write_pack(run / "packs" / name, name, [tokens[:half], tokens[half:]])
        domains[name] = Domain(
            packs=[f"../run/packs/{name}"],
            num_documents=len(tokens),
            num_tokens=sum(map(len, tokens)),
            weight=weights[name],
        )
    manifest = MixtureManifest(
        run="../run",
        tokenizer_sha256=TOKENIZER,
        vocab_size=VOCAB_SIZE,
        domains=domains,
        policy=Policy(name="given"),
        reweighting=Reweighting(ema=0.5, warmup_steps=2),
    )
    path = folder / "manifests" / "mix.json"
    save_mixture(path, manifest)
    return path


@pytest.fixture
def make_config(mixture: Path) -> MakeConfig:
    """Returns ``make_config(**options)``: the configuration of a run of seconds, one thread."""
    defaults = Options(
        mixture=mixture, steps=60, batch_size=4, sequence_length=64, threads=1, checkpoint_every=30, device="cpu"
    )

    def make(**options: object) -> TrainConfig:
        chosen = replace(defaults, **options)  # type: ignore[arg-type]
        return derive_config(chosen, load_mixture(chosen.mixture))

    return make
