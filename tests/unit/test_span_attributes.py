"""What was used, as attributes of spans."""

from __future__ import annotations

import attrs

from kasmos.model.profile import ExecutionMode
from kasmos.model.session import SessionKind
from kasmos.model.usage import Usage, UsageSource, tally_of
from kasmos.model.view import SessionState, SessionView
from kasmos.telemetry.spending import usage_attributes


def session(usage: Usage | None) -> SessionView:
    view = SessionView(
        id="s", name="s", kind=SessionKind.AGENT, backend=ExecutionMode.HEADLESS, boot_id="b", run_id="r", task_id="1",
        attempt=1, check=None, profile="coder", state=SessionState.ENDED, starting_at=0.0, starting_mono=0.0,
    )  # fmt: skip
    return view if usage is None else attrs.evolve(view, usage=usage, shares=(("2026-01-01", tally_of(usage)),))


def test_cached_tokens_are_input() -> None:
    """Input tokens count those of the cache once, whichever way the program counts them."""
    apart = Usage(1000, 100, 500, 20, None, None, UsageSource.REPORTED, cached_in_input=False)
    within = Usage(1500, 100, 500, None, 30, None, UsageSource.REPORTED, cached_in_input=True)
    assert usage_attributes([session(apart)])["gen_ai.usage.input_tokens"] == 1520
    both = usage_attributes([session(apart), session(within)])
    assert both["gen_ai.usage.input_tokens"] == 3020
    assert both["gen_ai.usage.output_tokens"] == 200


def test_unknown_is_left_out() -> None:
    """What is unknown has no attribute, never a zero; what is known in part is said to be at least so much."""
    unknown = usage_attributes([session(Usage())])
    assert not any(name.startswith("gen_ai.usage.") for name in unknown)
    assert "kasmos.usage.cost_usd" not in unknown
    assert (unknown["kasmos.usage.source"], unknown["kasmos.usage.at_least"]) == ("unknown", True)
    known = Usage(10, 5, cost_usd=0.5, source=UsageSource.ESTIMATED, cost_source=UsageSource.PRICED)
    mixed = usage_attributes([session(Usage()), session(known)], "opus")
    assert (mixed["gen_ai.usage.input_tokens"], mixed["kasmos.usage.at_least"]) == (10, True)
    assert (mixed["kasmos.usage.cost_usd"], mixed["kasmos.usage.cost_source"]) == (0.5, "priced")
    assert mixed["gen_ai.request.model"] == "opus"
    assert usage_attributes([session(None)]) == {}
