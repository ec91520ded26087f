"""The outline of a Markdown text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasmos.plans.outline import read_outline


def headings(text: str) -> list[tuple[int, int, str]]:
    return [(head.index, head.level, head.text) for head in read_outline(text.split("\n")).headings]


@pytest.mark.parametrize(
    ("line", "level", "title"),
    [
        ("# One", 1, "One"),
        ("   ### Three spaces", 3, "Three spaces"),
        ("## Closed ##", 2, "Closed"),
        ("## C#", 2, "C#"),
        ("##\tTab", 2, "Tab"),
        ("######", 6, ""),
    ],
)
def test_heading_forms(line: str, level: int, title: str) -> None:
    """A heading is one to six number signs and a blank, indented by at most three spaces."""
    assert headings(line) == [(0, level, title)]


@pytest.mark.parametrize("line", ["    # code", "#hashtag", "####### seven", "> # quoted", "- # item"])
def test_heading_lookalikes(line: str) -> None:
    """Indented code, tags, quotes and list items are no headings."""
    assert headings(line) == []


@pytest.mark.parametrize(
    "text",
    [
        "```\n# a\n```",
        "~~~~\n# a\n~~~\n# b\n~~~~",
        "````\n```\n# a\n```\n````",
        "```md\n```sh\nls\n```\n# a\n```",
        "```md\n```sh\n```\n```py\n```\n# a\n```",
        "   ```\n# a\n   ```",
        "- ```\n  # a\n# b\n  ```",
        "1. item\n\n    ```\n# a\n    ```",
        "- one\n  - two\n\n      ```\n# a\n      ```",
        "<!--\n# a\n-->",
        "```\n# a",
        "<!--\n# a",
    ],
)
def test_heading_hidden(text: str) -> None:
    """What stands in a fence or a comment is no heading, however fences are nested, indented or left open."""
    assert headings(text) == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("```\n```\n# a", 1),
        ("``` a ` b\n# a", 1),
        ("text ```\n# a", 1),
        ("    ```\n# a", 1),
        ("```\n~~~\n```\n# a", 1),
        ("```py\n````\n# a", 1),
        ("<!-- x -->\n# a", 1),
        ("item\n\n1. x\n\nback\n\n    ```\n# a", 1),
    ],
)
def test_heading_not_hidden(text: str, count: int) -> None:
    """A fence that has ended, or was none, hides nothing."""
    assert len(headings(text)) == count


def test_nested_fence_that_never_ends() -> None:
    """Where the nested reading leaves a fence open, the reading of CommonMark holds, and the doubt is told."""
    outline = read_outline(["```md", "```sh", "```", "# shown"])
    assert [head.text for head in outline.headings] == ["shown"]
    assert [head.text for head in outline.disputed] == ["shown"]
    assert outline.unclosed is None


def test_block_content_is_outdented() -> None:
    """The content of a fence loses the indentation of the fence and no more."""
    lines = ["- ```sh", "  if x", "    y", " z", "  ```"]
    (block,) = read_outline(lines).blocks
    assert block.language == "sh"
    assert block.content(lines) == ["if x", "  y", "z"]


def test_block_left_open_has_content() -> None:
    """A fence that is never closed holds the rest of the text, and is told apart."""
    lines = ["```sh", "a", "b"]
    outline = read_outline(lines)
    assert outline.unclosed == outline.blocks[0]
    assert outline.blocks[0].content(lines) == ["a", "b"]


@given(st.lists(st.sampled_from(["```", "```sh", "~~~", "# h", "- x", "    ```", "<!--", "-->", "", "t"])))
def test_blocks_are_ordered_and_apart(lines: list[str]) -> None:
    """Blocks follow one another without overlap, and no heading stands in one."""
    outline = read_outline(lines)
    end = 0
    for block in outline.blocks:
        assert end <= block.start < block.end <= len(lines)
        end = block.end
        assert not any(block.start <= head.index < block.end for head in outline.headings)
