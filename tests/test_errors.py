"""Values quoted in error messages, and errors that mean out of memory."""

from __future__ import annotations

import pytest
import torch

from skelnas.errors import first_line, is_out_of_memory, shown


@pytest.mark.parametrize(("value", "text"), [(3, "3"), ("yoga", "'yoga'"), (None, "None")])
def test_short_values_are_quoted_whole(value: object, text: str) -> None:
    assert shown(value) == text


def test_long_values_are_cut() -> None:
    text = shown("9" * 1000)
    assert len(text) == 60
    assert text.endswith("999...")


def test_an_impossible_allocation_counts_as_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError(), "MemoryError"),
        (ValueError("\nfirst\nsecond"), "first"),
        (KeyError("name"), "'name'"),
    ],
)
def test_the_first_line_of_an_error(error: Exception, text: str) -> None:
    assert first_line(error) == text


@pytest.mark.parametrize(
    ("error", "spent"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (OSError("No space left on device"), False),
    ],
)
def test_which_errors_mean_out_of_memory(error: Exception, spent: bool) -> None:
    assert is_out_of_memory(error) is spent
