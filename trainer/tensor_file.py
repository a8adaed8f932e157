"""Safetensors files written as a stream: the header first, then one tensor after the other, made when its turn comes.

    u64 length of the header │ header (JSON: dtype, shape and place of every tensor; padded to 8 bytes) │ data

What `safetensors.torch.save` builds in memory, several times the tensors' size, needs the memory of one tensor here.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dataeng.errors import FormatError
from dataeng.formats.atomic import AtomicFile

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class StreamedTensor:
    """A tensor to be written as ``dtype``, made by ``read`` only when its turn comes."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]

    @property
    def size_bytes(self) -> int:
        """What it takes in the file."""
        return self.dtype.itemsize * math.prod(self.shape)


def write_tensors(
    file: AtomicFile, tensors: Mapping[str, StreamedTensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes one safetensors file, the tensors in their order; the caller commits it.

    Raises `FormatError` for a tensor that turns out to be of another shape than was said.
    """
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    offset = 0
    for name, tensor in tensors.items():
        stop = offset + tensor.size_bytes
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, stop]}
        offset = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    for name, tensor in tensors.items():
        found = tensor.read()
        if tuple(found.shape) != tensor.shape:
            raise FormatError(f"{name} is {tuple(found.shape)}; expected {tensor.shape}.")
        file.write(found.detach().cpu().to(tensor.dtype).contiguous().reshape(-1).view(torch.uint8).numpy())
        del found  # before the next one is made
