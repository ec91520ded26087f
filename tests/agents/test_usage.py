"""What the programs say they have used is what the model handed out, once their ways of counting are known."""

from __future__ import annotations

from collections import Counter

import pytest

from .conftest import LIMIT, Workshop
from .test_understood import let_ask


@pytest.mark.parametrize("name", ["claude", "codex", "opencode", "gemini", "qwen"])
def test_usage(shop: Workshop, name: str) -> None:
    """The totals kasmos reads from a program's own stream are those that the model's server handed out."""
    shop.equip(name)
    compare(shop, name)


@pytest.mark.parametrize("name", ["codex", "opencode", "gemini", "qwen"])
def test_usage_of_the_spoken_to(shop: Workshop, name: str) -> None:
    """So are the totals of a program that is spoken to; what its protocol leaves out is in its own books."""
    let_ask(shop, name, '{ allow = "*", command = "*" }, { allow = "*" }')
    compare(shop, name)


def compare(shop: Workshop, name: str) -> None:
    """Let a program read a file and say that it is done; compare its numbers with the server's."""
    shop.write_tasks({name: f"read {shop.kas.cwd / 'f.txt'} ;; say done"})
    result = shop.kas("run", "plan.md", timeout=LIMIT)
    assert result.code == 0, shop.output()
    handed = shop.model.handed_out(shop.conversation(name))
    assert handed["main"]["answers"] == 2
    # The numbers of qwen count its hidden helper as well, which asks after the turn.
    expected = Counter(handed["main"]) + Counter(handed["side"] if name == "qwen" else {})
    usage = shop.conclusion(name)["usage"]
    assert usage["source"] == "reported"
    cached = 0 if usage["cached_in_input"] is not False else usage["cached_tokens"]
    assert usage["input_tokens"] + cached == expected["input"]
    assert usage["cached_tokens"] in (None, expected["cached"])
    assert usage["output_tokens"] == expected["output"]
    assert usage["reasoning_tokens"] in (None, expected["reasoning"])
