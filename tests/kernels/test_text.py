from __future__ import annotations

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.kernels.text import PART_BYTES, TextBuffers, hash_word, text_buffers, text_parts


def contents(buffers: TextBuffers) -> list[str]:
    return [
        bytes(buffers.data[start:stop]).decode()
        for start, stop in zip(buffers.offsets, buffers.offsets[1:], strict=False)
    ]


TEXTS = st.lists(st.one_of(st.none(), st.text(max_size=20)), max_size=12)


@settings(deadline=None)
@given(texts=TEXTS, start=st.integers(0, 5), length=st.integers(0, 12))
def test_columns_of_every_make(texts: list[str | None], start: int, length: int) -> None:
    sliced = ["" if text is None else text for text in texts[start : start + length]]
    for column in (
        pl.Series(texts, dtype=pl.String),
        pa.array(texts, pa.large_string()),
        pa.array(texts, pa.string()),
        pa.array(texts, pa.string_view()),
        pa.chunked_array([pa.array(texts[:2], pa.string()), pa.array(texts[2:], pa.string())]),
    ):
        assert contents(text_buffers(column.slice(start, length))) == sliced


def test_several_polars_chunks() -> None:
    column = pl.concat([pl.Series(["a", None]), pl.Series(["ü"])], rechunk=False)
    assert column.n_chunks() == 2
    assert contents(text_buffers(column)) == ["a", "", "ü"]


def test_empty_columns() -> None:
    for column in (pl.Series([], dtype=pl.String), pa.array([], pa.string()), pa.chunked_array([], pa.large_string())):
        assert text_buffers(column).num_texts == 0


def test_one_arrow_array_is_not_copied() -> None:
    array = pa.array(["x" * 100, "y" * 100], pa.large_string())
    assert text_buffers(array).data.ctypes.data == array.buffers()[2].address


def test_broken_utf8_is_refused() -> None:
    for broken in (b"\xff", b"\xed\xa0\x80", b"\xc3", b"\xf8\x88\x80\x80\x80"):  # the second is a lone surrogate
        array = pa.Array.from_buffers(
            pa.large_string(), 1, [None, pa.array([0, len(broken)], pa.int64()).buffers()[1], pa.py_buffer(broken)]
        )
        with pytest.raises(ValueError, match="UTF8"):
            text_buffers(array)


def test_lone_surrogates_are_refused() -> None:
    for text in ("\ud800", "a\udfffb"):
        with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
            text_buffers(pl.Series([text], dtype=pl.String))
        with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
            text_buffers(pa.array([text], pa.large_string()))


@settings(deadline=None)
@given(sizes=st.lists(st.sampled_from([0, 1, 13, PART_BYTES // 3, PART_BYTES, PART_BYTES + 1]), max_size=7))
def test_parts_are_the_whole_column(sizes: list[int]) -> None:
    texts = [None if size == 1 else chr(97 + i) * size for i, size in enumerate(sizes)]
    column = pl.Series(["x" * 20, *texts], dtype=pl.String).slice(1)
    found: list[str] = []
    for first, last, buffers in text_parts(column):
        assert first == len(found) < last
        assert buffers.num_texts == last - first
        assert buffers.offsets[-1] - buffers.offsets[0] <= PART_BYTES or last - first == 1
        found += contents(buffers)
    assert found == [text or "" for text in texts]


def test_a_large_text_is_not_copied() -> None:
    column = pl.Series(["a" * (PART_BYTES + 5), "b" * (PART_BYTES + 7)])
    views = column.to_arrow(compat_level=pl.CompatLevel.newest())
    addresses = {buffer.address for buffer in views.buffers()[2:]}
    starts = [buffers.data.ctypes.data for _, _, buffers in text_parts(column)]
    assert starts[0] in addresses
    assert min(abs(starts[1] - address) for address in addresses) <= 2 * PART_BYTES


def test_wrong_offsets_are_refused() -> None:
    array = pa.Array.from_buffers(
        pa.large_string(), 2, [None, pa.array([0, 5, 2], pa.int64()).buffers()[1], pa.py_buffer(b"hello")]
    )
    with pytest.raises(ValueError, match="offset"):
        text_buffers(array)


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="expected a column of strings"):
        text_buffers(pl.Series([1, 2]))
    with pytest.raises(TypeError, match="expected a column of strings"):
        text_buffers(pa.array([b"a"]))


def test_python_and_kernel_hash_words_alike() -> None:
    """The stop words are hashed in Python, the text's words in the kernel: a stop word of any length is found."""
    from dataeng.kernels.counters import STOP_WORDS
    from dataeng.kernels.signals import count_signals
    from dataeng.kernels.stop_words import stop_word_table

    words = ["x" * n for n in range(1, 40)] + ["ü" * n for n in range(1, 20)]
    assert all(hash_word(word.encode()) & 1 for word in words)
    table = stop_word_table({"xx": words})
    # As the last text of the buffer, too, where eight bytes cannot be loaded at once.
    counts = count_signals(text_buffers(pl.Series(words)), stop_words=table, languages=["xx"] * len(words))
    assert (counts[:, STOP_WORDS] == 1).all()
