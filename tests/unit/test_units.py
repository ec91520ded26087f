"""Durations and sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasmos.model.units import (
    duration_with_unit,
    parse_duration,
    parse_size,
    render_duration,
    render_size,
    size_with_unit,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90.0), ("1.5", 1.5), ("90s", 90.0), ("1h30m", 5400.0), ("500ms", 0.5), ("7d", 604_800.0), (" 10m ", 600.0)],
)
def test_parse_duration_reads_numbers_and_units(text: str, seconds: float) -> None:
    """A duration in an option is a number of seconds, or numbers with units."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "1y", "10 m", "m", "1e3", "١s", "nan", "inf", "1h30", "9" * 400])
def test_parse_duration_refuses_everything_else(text: str) -> None:
    """What is no duration is refused, with examples of what is one."""
    with pytest.raises(ValueError, match="10m"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("65536", 65_536), ("64KiB", 65_536), ("1.5 GiB", 1_610_612_736), ("10MB", 10_000_000), ("1kB", 1000), ("7B", 7)],
)
def test_parse_size_reads_numbers_and_units(text: str, size: int) -> None:
    """A size in an option is a number of bytes, or a number with a unit."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "64K", "64kib", "0.3B", "1GiB2", "9" * 400])
def test_parse_size_refuses_everything_else(text: str) -> None:
    """An ambiguous unit such as `K` is refused, not guessed, and so is a part of a byte."""
    with pytest.raises(ValueError, match="64KiB"):
        parse_size(text)


@given(st.integers(min_value=0, max_value=10**12))
def test_render_duration_is_read_back(milliseconds: int) -> None:
    """What `render_duration` writes means the same number of milliseconds again."""
    seconds = duration_with_unit(render_duration(milliseconds / 1000))
    assert seconds == pytest.approx(milliseconds / 1000)


@given(st.integers(min_value=0, max_value=10**12 - 1))
def test_render_size_is_read_back(size: int) -> None:
    """What `render_size` writes means the same number of bytes again."""
    assert size_with_unit(render_size(size)) == size
