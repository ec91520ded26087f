"""Properties of the table of a run's tasks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasmos.model.table import CHUNK, Table, table_of


def made(items: dict[str, int]) -> Table[int]:
    return table_of(items, kind_of=lambda value: value % 3, group_of=lambda value: value // 100)


CONTENT = st.lists(st.integers(0, 299), max_size=3 * CHUNK).map(
    lambda values: {f"k{n}": v for n, v in enumerate(values)}
)


@given(CONTENT, st.data())
def test_it_is_a_mapping_that_never_changes(items: dict[str, int], data: st.DataObject) -> None:
    """A table equals the mapping it was made of, whatever copies with other values were made of it."""
    table, expected = made(items), dict(items)
    for _ in range(data.draw(st.integers(0, 10)) if items else 0):
        key = data.draw(st.sampled_from(sorted(items)))
        value = expected[key] // 100 * 100 + data.draw(st.integers(0, 99))
        before, snapshot = table, dict(expected)
        table = table.put(key, value)
        expected[key] = value
        assert before == snapshot
    assert table == expected
    assert list(table) == list(expected)
    assert list(table.values()) == list(expected.values())


@given(CONTENT, st.data())
def test_it_finds_by_kind_and_group(items: dict[str, int], data: st.DataObject) -> None:
    """What a table says of a kind, in a group or in all, is what a look at every value would say."""
    table, expected = made(items), dict(items)
    for _ in range(data.draw(st.integers(0, 5)) if items else 0):
        key = data.draw(st.sampled_from(sorted(items)))
        value = expected[key] // 100 * 100 + data.draw(st.integers(0, 99))
        table, expected[key] = table.put(key, value), value
    for kind in range(3):
        everywhere = [value for value in expected.values() if value % 3 == kind]
        assert list(table.of_kind(kind)) == everywhere
        assert table.has(kind) is bool(everywhere)
        for group in range(3):
            inside = [value for value in everywhere if value // 100 == group]
            assert list(table.of_kind(kind, group)) == inside
            assert table.has(kind, group) is bool(inside)


def test_a_copy_shares_all_but_one_chunk() -> None:
    """A copy of a long table with another value costs one short chunk, however long the table is."""
    table = made({f"k{n}": n % 3 for n in range(100 * CHUNK)})
    copy = table.put("k0", 1)
    assert sum(mine is not other for mine, other in zip(table._chunks, copy._chunks, strict=True)) == 1


def test_keys_are_fixed() -> None:
    """A table takes no key that it was not made with."""
    with pytest.raises(KeyError):
        made({"a": 1}).put("b", 2)
