"""What is said about a screen, for programs: values for JSON. Light, for `kas explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kasmos.screens import Tried, Verdict


def verdict_value(verdict: Verdict) -> dict[str, Any]:
    """The verdict for programs: `state`, `rule` and `evidence` first, and always."""
    request, composer = verdict.request, verdict.composer
    return {
        "state": verdict.state.value,
        "rule": verdict.rule,
        "evidence": [
            {"region": one.region, "line": None if one.row is None else one.row + 1, "text": one.text}
            for one in verdict.evidence
        ],
        "request": None
        if request is None
        else {
            "question": request.question,
            "tool": request.tool,
            "command": request.command,
            "path": request.path,
            "exact": request.exact,
        },
        "choices": [
            {
                "text": choice.text,
                "meaning": choice.meaning.value,
                "keys": list(choice.keys),
                "selected": choice.selected,
                "takes_text": choice.takes_text,
            }
            for choice in verdict.choices
        ],
        "dangerous_default": verdict.dangerous_default,
        "draft": None if composer is None else composer.draft,
        "composer": composer is not None,
        "reset": verdict.reset,
        "program_version": verdict.program_version,
    }


def tried_value(tried: Tried) -> dict[str, Any]:
    """A rule, and what it saw."""
    rule, seen = tried.rule, tried.seen
    return {"rule": rule.name, "state": rule.state.value, "held": seen.held, "missed": seen.missed}
