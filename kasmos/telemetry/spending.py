"""What was used, as attributes of spans: OpenTelemetry's conventions for generative AI, and ours where they have none.

Names: github.com/open-telemetry/semantic-conventions-genai (docs/gen-ai/gen-ai-agent-spans.md), as
`opentelemetry.semconv._incubating.attributes.gen_ai_attributes` 0.66b2 has them; none of them is stable yet. By those
conventions input tokens count those from the cache, too. There is no name for money. The provider is left out although
they want one: nobody tells us whose server a program talks to. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from kasmos.model.usage import Figure, Tally, UsageSource
from kasmos.model.view import SessionView

Attributes = dict[str, str | int | float | bool]

OPERATION = "gen_ai.operation.name"
AGENT_NAME = "gen_ai.agent.name"
CONVERSATION = "gen_ai.conversation.id"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHE_READ = "gen_ai.usage.cache_read.input_tokens"
CACHE_CREATION = "gen_ai.usage.cache_creation.input_tokens"
REASONING = "gen_ai.usage.reasoning.output_tokens"
ERROR_TYPE = "error.type"
COST = "kasmos.usage.cost_usd"
COST_SOURCE = "kasmos.usage.cost_source"
SOURCE = "kasmos.usage.source"
AT_LEAST = "kasmos.usage.at_least"
TURNS = "kasmos.usage.turns"


def usage_attributes(sessions: Iterable[SessionView], requested: str = "") -> Attributes:
    """What these sessions have used together; nothing where nothing is counted. What is unknown is left out.

    Args:
        sessions: of one span, oldest first.
        requested: the model that was asked for, where one was.
    """
    counted = [session for session in sessions if session.tally.sessions]
    if not counted:
        return {}
    tally = sum((session.tally for session in counted), Tally())
    read = sum((_read(session) for session in counted), Figure())
    newest = counted[-1]
    said: Attributes = {OPERATION: "invoke_agent", TURNS: tally.turns}
    texts = {
        AGENT_NAME: newest.profile,
        CONVERSATION: newest.conversation,
        REQUEST_MODEL: requested,
        RESPONSE_MODEL: newest.conclusion.model if newest.conclusion is not None else "",
    }
    said.update((name, text) for name, text in texts.items() if text)
    for name, figure in ((INPUT_TOKENS, read), (OUTPUT_TOKENS, tally.output)):
        if _is_known(figure):
            said[name] = round(figure.amount)
    # Nothing of these, and nothing told of them, look alike in a sum.
    parts = ((CACHE_READ, tally.cached), (CACHE_CREATION, tally.cache_write), (REASONING, tally.reasoning))
    said.update((name, round(figure.amount)) for name, figure in parts if figure.amount)
    said[SOURCE] = read.source.value
    if _is_known(tally.cost):
        said[COST] = tally.cost.amount
        said[COST_SOURCE] = tally.cost.source.value
    if read.unknown or tally.output.unknown or tally.cost.unknown:
        said[AT_LEAST] = True
    return said


def _read(session: SessionView) -> Figure:
    """All that a session's model has read, from the cache or not."""
    tally, usage = session.tally, session.usage
    read = tally.input + tally.cached
    # Who counts the cached ones among its input counts those that were written to the cache there, too.
    within = usage is not None and usage.cached_in_input
    return read if within else read + tally.cache_write


def _is_known(figure: Figure) -> bool:
    """Whether there is anything that can be said of it, if only that it is at least so much."""
    known = figure.reported or figure.priced or figure.estimated
    return bool(known) or (not figure.unknown and figure.source is not UsageSource.UNKNOWN)
