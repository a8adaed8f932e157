"""Signatures that are kept: what datasketch makes of them, and published parameters by name."""

from __future__ import annotations

import polars as pl
import pytest
from pydantic import ValidationError

from dataeng.stages.dedup.deduplicate_minhash import DeduplicateMinhash
from dataeng.stages.dedup.minhash_signatures import SIGNATURE, MinhashSignatures
from tests.stages.dedup.test_deduplicate_minhash import edited, page
from tests.stages.exchange import dropped, frames_of, run_exchange


def test_a_stored_signature_is_datasketchs() -> None:
    from datasketch import MinHash, MinHashLSH

    texts = [page(1), edited(page(1), 3), page(2), "too short"]
    found = MinhashSignatures().apply(frames_of(texts, 0, 4)[0]).get_column(SIGNATURE)
    assert found.dtype == pl.List(pl.UInt32) and found.null_count() == 1
    words = texts[0].split()
    theirs = MinHash(num_perm=128, seed=1)
    theirs.update_batch([" ".join(words[i : i + 5]).encode() for i in range(len(words) - 4)])
    assert found[0].to_list() == theirs.hashvalues.tolist()
    loaded = [MinHash(num_perm=128, seed=1, hashvalues=values.to_numpy(), scheme="affine32") for values in found[:3]]
    index = MinHashLSH(threshold=0.7, num_perm=128)
    for name, signature in enumerate(loaded):
        index.insert(name, signature)
    assert sorted(index.query(loaded[0])) == [0, 1]


@pytest.mark.parametrize(("bits", "dtype"), [(32, pl.UInt32), (64, pl.UInt64)])
@pytest.mark.parametrize("kind", ["native", "datasketch"])
def test_signatures_have_the_width_that_was_asked_for(bits: int, dtype: type[pl.DataType], kind: str) -> None:
    stage = MinhashSignatures.model_validate({"num_perm": 16, "hash_bits": bits, "signatures": kind})
    found = stage.apply(frames_of([page(1)], 0, 1)[0]).get_column(SIGNATURE)
    assert found.dtype == pl.List(dtype) and found.list.len().to_list() == [16]


@pytest.mark.parametrize(
    ("preset", "bands", "rows", "normalization", "signatures"),
    [
        ("fineweb", 14, 8, "simplified", "native"),
        ("refinedweb", 450, 20, "simplified", "native"),
        ("bigcode", 25, 10, "code", "native"),
        ("datasketch(0.7)", 14, 9, "simplified", "datasketch"),
    ],
)
def test_presets_are_the_published_parameters(
    preset: str, bands: int, rows: int, normalization: str, signatures: str
) -> None:
    stage = DeduplicateMinhash.model_validate({"preset": preset})
    assert (stage.bands, stage.rows, stage.normalization, stage.signatures) == (bands, rows, normalization, signatures)
    other = DeduplicateMinhash.model_validate({"preset": preset, "ngram": 7, "bands": 3, "rows": 2})
    assert (other.ngram, other.bands, other.rows) == (7, 3, 2)


def test_a_preset_that_is_not_there_and_half_an_override_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"unknown preset 'finweb'.*fineweb"):
        DeduplicateMinhash.model_validate({"preset": "finweb"})
    with pytest.raises(ValidationError, match="give bands and rows together"):
        DeduplicateMinhash.model_validate({"preset": "fineweb", "bands": 20})


@pytest.mark.parametrize(
    "options", [{"signatures": "datasketch"}, {"hash_bits": 64}, {"preset": "datasketch(0.8)"}, {"preset": "bigcode"}]
)
def test_any_signature_finds_the_same_duplicates(
    tmp_path_factory: pytest.TempPathFactory, options: dict[str, object]
) -> None:
    texts = [page(1), page(2), edited(page(1), 2), page(3), page(2)]
    verdicts = run_exchange(DeduplicateMinhash.model_validate(options), [texts], tmp_path_factory.mktemp("run"))
    assert dropped(verdicts) == {"p0r2": "p0r0", "p0r4": "p0r1"}
