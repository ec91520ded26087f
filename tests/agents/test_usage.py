"""What the programs say they have used is what the model handed out, once their ways of counting are known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from .conftest import LIMIT, Workshop

Lines = list[dict[str, Any]]


def of_claude(lines: Lines) -> Mapping[str, int]:
    usage = lines[-1]["usage"]
    cached = usage["cache_read_input_tokens"]
    return {"input": usage["input_tokens"] + cached, "cached": cached, "output": usage["output_tokens"]}


def of_codex(lines: Lines) -> Mapping[str, int]:
    usage = lines[-1]["usage"]
    return {
        "input": usage["input_tokens"],
        "cached": usage["cached_input_tokens"],
        "output": usage["output_tokens"],
        "reasoning": usage["reasoning_output_tokens"],
    }


def of_opencode(lines: Lines) -> Mapping[str, int]:
    sums: Counter[str] = Counter()
    for line in lines:
        if line["type"] == "step_finish":
            tokens = line["part"]["tokens"]
            cached, reasoning = tokens["cache"]["read"], tokens["reasoning"]
            # Its input leaves out what was cached, its output what was thought.
            sums.update(input=tokens["input"] + cached, cached=cached)
            sums.update(output=tokens["output"] + reasoning, reasoning=reasoning)
    return sums


def of_gemini(lines: Lines) -> Mapping[str, int]:
    stats = lines[-1]["stats"]
    # Thoughts are only in the total.
    output = stats["total_tokens"] - stats["input_tokens"]
    return {"input": stats["input_tokens"], "cached": stats["cached"], "output": output}


def of_qwen(lines: Lines) -> Mapping[str, int]:
    usage = lines[-1]["usage"]
    cached = usage["cache_read_input_tokens"]
    return {"input": usage["input_tokens"], "cached": cached, "output": usage["output_tokens"]}


READERS: Mapping[str, Callable[[Lines], Mapping[str, int]]] = {
    "claude": of_claude,
    "codex": of_codex,
    "opencode": of_opencode,
    "gemini": of_gemini,
    "qwen": of_qwen,
}


@pytest.mark.parametrize("name", READERS)
def test_usage(shop: Workshop, name: str) -> None:
    """The totals in a program's own stream are those of the model server; qwen's count its hidden helper, too."""
    shop.equip(name)
    shop.write_tasks({name: f"read {shop.kas.cwd / 'f.txt'} ;; say done"})
    result = shop.kas("run", "plan.md", timeout=LIMIT)
    assert result.code == 0, shop.output()
    handed = shop.model.handed_out(shop.conversation(name))
    assert handed["main"]["answers"] == 2
    expected = Counter(handed["main"])
    if name == "qwen":
        expected.update(handed["side"])
    reported = READERS[name](shop.events())
    assert reported == {kind: expected[kind] for kind in reported}
