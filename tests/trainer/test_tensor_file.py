"""Files that safetensors' own reader reads, streamed."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import safetensors.torch
import torch

from dataeng.errors import FormatError
from dataeng.formats.atomic import AtomicFile, sha256_file
from trainer.tensor_file import DTYPES, StreamedTensor, write_tensors


def of(tensor: torch.Tensor) -> StreamedTensor:
    return StreamedTensor(tuple(tensor.shape), tensor.dtype, lambda: tensor)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_every_type_and_shape_is_read_as_it_was_written(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    random = torch.Generator().manual_seed(0)
    tensors = {str(dtype): torch.randint(0, 2, (3, 5), generator=random).to(dtype) for dtype in DTYPES} | {
        "transposed": torch.rand(4, 3, generator=random).T,
        "scalar": torch.tensor(7.0),
        "empty": torch.ones(0, 2),
    }
    file = AtomicFile(tmp_path / "x.safetensors")
    write_tensors(file, {name: of(tensor) for name, tensor in tensors.items()}, metadata)
    file.commit()
    found = safetensors.torch.load_file(file.target)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name
    assert (file.sha256, file.size_bytes) == (sha256_file(file.target), file.target.stat().st_size)
    with safetensors.safe_open(file.target, framework="pt") as opened:
        assert opened.metadata() == metadata


def test_a_tensor_is_gone_before_the_next_is_made(tmp_path: Path) -> None:
    made: list[weakref.ref[torch.Tensor]] = []

    def make() -> torch.Tensor:
        assert all(reference() is None for reference in made)
        tensor = torch.ones(4)
        made.append(weakref.ref(tensor))
        return tensor

    file = AtomicFile(tmp_path / "x.safetensors")
    write_tensors(file, {name: StreamedTensor((4,), torch.float32, make) for name in "abc"})
    file.commit()
    assert len(made) == 3 and safetensors.torch.load_file(file.target)["c"].tolist() == [1, 1, 1, 1]


def test_another_shape_than_was_said_is_refused(tmp_path: Path) -> None:
    file = AtomicFile(tmp_path / "x.safetensors")
    with pytest.raises(FormatError, match=r"w is \(3,\); expected \(2,\)"):
        write_tensors(file, {"w": StreamedTensor((2,), torch.float32, lambda: torch.ones(3))})
    file.discard()
    assert not list(tmp_path.iterdir())
