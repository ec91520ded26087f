"""What Claude Code and Qwen Code tell of tokens: read, kept apart by message, and summed. Pure."""

from __future__ import annotations

from typing import Any

from kasmos.harnesses.conclusion import Usage, UsageSource
from kasmos.harnesses.fields import added, count_of

_TOKENS = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")
MAX_OPEN = 4096
"""Tool calls and messages that are remembered."""


class Messages:
    """What each message said that it used, by its id, and the sum of it, which is asked for after every piece."""

    def __init__(self) -> None:
        self._usages: dict[str, Usage] = {}
        self._sums = dict.fromkeys(_TOKENS, 0)
        self._known = dict.fromkeys(_TOKENS, 0)
        """How many messages tell each of them."""

    def __len__(self) -> int:
        return len(self._usages)

    def put(self, id_: str, usage: dict[str, Any]) -> None:
        """A message tells what it used; what it told before counts no more. Those beyond `MAX_OPEN` do not count."""
        told, before = usage_of(usage), self._usages.get(id_)
        if told == before or len(self._usages) >= MAX_OPEN:
            return
        self._usages[id_] = told
        if before is not None:
            self._add(before, -1)
        self._add(told, 1)

    def _add(self, usage: Usage, sign: int) -> None:
        for name in _TOKENS:
            value = getattr(usage, name)
            if value is not None:
                self._sums[name] += sign * value
                self._known[name] += sign

    @property
    def total(self) -> Usage:
        """All of them together; unknown if none tells anything."""
        read, out, cached, written, reasoning = (self._sums[one] if self._known[one] else None for one in _TOKENS)
        if read is None and out is None:
            return Usage()
        return Usage(read, out, cached, written, reasoning, source=UsageSource.REPORTED, cached_in_input=False)


def usage_of(usage: dict[str, Any]) -> Usage:
    """What a message or a turn has used; unknown where it does not tell."""
    input_, output = count_of(usage.get("input_tokens")), count_of(usage.get("output_tokens"))
    if input_ is None and output is None:
        return Usage()
    reasoning = count_of(usage.get("reasoning_tokens")) or count_of(usage.get("thoughts_tokens"))
    return Usage(
        input_,
        output,
        count_of(usage.get("cache_read_input_tokens")),
        count_of(usage.get("cache_creation_input_tokens")),
        reasoning,
        source=UsageSource.REPORTED,
        cached_in_input=False,
    )


def usage_of_model(usage: dict[str, Any]) -> Usage:
    """What a process has used of one model."""
    input_, output = count_of(usage.get("inputTokens")), count_of(usage.get("outputTokens"))
    if input_ is None and output is None:
        return Usage()
    read, written = count_of(usage.get("cacheReadInputTokens")), count_of(usage.get("cacheCreationInputTokens"))
    return Usage(input_, output, read, written, source=UsageSource.REPORTED, cached_in_input=False)


def total_of(parts: list[Usage]) -> Usage:
    """The sum of those that are known."""
    known = [part for part in parts if part.source is not UsageSource.UNKNOWN]
    total = known[0] if known else Usage()
    for part in known[1:]:
        total = Usage(
            added(total.input_tokens, part.input_tokens),
            added(total.output_tokens, part.output_tokens),
            added(total.cached_tokens, part.cached_tokens),
            added(total.cache_write_tokens, part.cache_write_tokens),
            added(total.reasoning_tokens, part.reasoning_tokens),
            source=total.source,
            cached_in_input=total.cached_in_input,
        )
    return total


def with_cost(usage: Usage, cost: float | None) -> Usage:
    """The same with the cost that the program tells."""
    if cost is None:
        return usage
    return Usage(
        usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.cache_write_tokens, usage.reasoning_tokens,
        cost, usage.source, UsageSource.REPORTED, usage.scope, usage.cached_in_input,
    )  # fmt: skip
