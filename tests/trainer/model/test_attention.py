"""The block-diagonal mask against loops, and the varlen call against a plain implementation of what it is told."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.model import attention
from trainer.model.attention import Documents, attend, documents_of

CPU = torch.device("cpu")


@given(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=4), min_size=1, max_size=3), st.booleans())
def test_positions_and_mask_by_loops(rows: list[list[int]], padded: bool) -> None:
    length = max(map(sum, rows)) + padded
    index = torch.full((len(rows), length), -1)
    for b, lengths in enumerate(rows):
        index[b, : sum(lengths)] = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    documents = documents_of(index, CPU)
    positions, mask = documents.positions().tolist(), documents.mask()
    for b in range(len(rows)):
        begin = 0
        for t in range(length):
            if t and index[b, t] != index[b, t - 1]:
                begin = t
            assert positions[b][t] == t - begin
            assert mask[b, 0, t].tolist() == [begin <= s <= t for s in range(length)]


def plain_varlen(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, begins: torch.Tensor, same: torch.Tensor, longest: int,
    also_longest: int, *, window_size: Any = None, is_causal: bool = False, enable_gqa: bool = False,
) -> torch.Tensor:  # fmt: skip
    """What PyTorch's kernel is documented to do, one sequence and one head at a time; as picky as the kernel."""
    assert begins is same and begins.dtype == torch.int32 and int(begins[-1]) == len(q) and int(begins[0]) == 0
    assert window_size == (-1, 0) or is_causal, "a list is not causal"
    assert longest == also_longest >= int(begins.diff().max())
    group = q.shape[1] // k.shape[1]
    assert group == 1 or enable_gqa
    out = torch.empty_like(q)
    for start, stop in zip(begins[:-1].tolist(), begins[1:].tolist(), strict=True):
        for head in range(q.shape[1]):
            scores = q[start:stop, head] @ k[start:stop, head // group].T / math.sqrt(q.shape[2])
            hidden = torch.ones_like(scores, dtype=torch.bool).triu(1)
            out[start:stop, head] = scores.masked_fill(hidden, -math.inf).softmax(-1) @ v[start:stop, head // group]
    return out


PYTORCH_2_10 = """query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None"""
PYTORCH_2_11 = (
    """query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1)"""
)
PYTORCH_2_13 = f"{PYTORCH_2_11}, enable_gqa=False, seqused_k=None, block_table=None, num_splits=None"


def signature(text: str) -> Any:
    """An attention function with these parameters, which hands them on to the plain one."""
    namespace: dict[str, Any] = {"plain": plain_varlen}
    names = ("window_size", "is_causal", "enable_gqa")
    given = ", ".join(f"{name}={name}" for name in names if name in text)
    positional = text.partition("max_k")[0] + "max_k"
    exec(f"def varlen_attn({text}): return plain({positional}, {given})", namespace)
    return namespace["varlen_attn"]


@pytest.mark.parametrize("parameters", [PYTORCH_2_10, PYTORCH_2_11, PYTORCH_2_13])
@pytest.mark.parametrize("num_kv_heads", [4, 2])
def test_varlen_attention_gets_what_equals_the_mask(
    monkeypatch: pytest.MonkeyPatch, parameters: str, num_kv_heads: int
) -> None:
    """The kernel runs on GPUs only; what it is called with is checked here, on boundaries as they are made for it."""
    function = signature(parameters)
    causal, takes_groups = attention.varlen_options(function)
    monkeypatch.setattr(attention, "varlen_attn", function)
    monkeypatch.setattr(attention, "CAUSAL", causal)
    monkeypatch.setattr(attention, "TAKES_GROUPS", takes_groups)
    monkeypatch.setattr(attention, "BOUNDARY_MULTIPLE", 4)
    index = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 1, 1, 1, 1, -1, -1]])
    documents = attention.with_boundaries(Documents(index))
    assert documents.boundaries.tolist() == [0, 3, 5, 8, 9, 14, 16, 16, 16]
    assert documents.max_length == 8
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 4, 8, 6, generator=generator)
    k, v = torch.randn(2, 2, num_kv_heads, 8, 6, generator=generator)
    torch.testing.assert_close(attend(q, k, v, documents, None), attend(q, k, v, documents, documents.mask()))


@given(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=4), min_size=1, max_size=5), st.data())
def test_a_part_of_the_documents_is_what_would_be_found_in_its_rows(rows: list[list[int]], data: st.DataObject) -> None:
    length = max(map(sum, rows))
    index = torch.full((len(rows), length), -1)
    for b, lengths in enumerate(rows):
        index[b, : sum(lengths)] = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    start = data.draw(st.integers(0, len(rows) - 1))
    stop = data.draw(st.integers(start + 1, len(rows)))
    found, expected = (
        attention.with_boundaries(Documents(index)).part(start, stop),
        attention.with_boundaries(Documents(index[start:stop])),
    )
    assert torch.equal(found.index_bt, expected.index_bt)
    assert found.boundaries.tolist() == expected.boundaries.tolist()
    assert found.max_length == expected.max_length
    assert Documents(index).part(start, stop).boundaries is None


def test_the_flash_kernel_is_taken_with_boundaries_in_half_precision_for_heads_that_it_knows() -> None:
    documents = Documents(torch.zeros(1, 4, dtype=torch.int64))
    assert not attention.uses_varlen(documents, torch.bfloat16, 64)
    documents = attention.with_boundaries(documents)
    assert attention.uses_varlen(documents, torch.bfloat16, 64)
    assert not attention.uses_varlen(documents, torch.float32, 64)
    assert not attention.uses_varlen(documents, torch.bfloat16, 20)
    assert not attention.uses_varlen(documents, torch.bfloat16, 264)


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True), ((12, 0), True)])
def test_boundaries_are_found_for_gpus_with_flash_attention(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    documents = attention.found_documents(torch.zeros(1, 4, dtype=torch.int64), torch.device("cuda:0"))
    assert (documents.boundaries is not None) == expected


def test_pytorch_has_varlen_attention_with_the_parameters_that_we_pass() -> None:
    parameters = inspect.signature(attention.varlen_attn).parameters
    assert list(parameters)[:7] == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]
    assert set(attention.CAUSAL) < set(parameters)
