"""Programs that ask over a protocol of their own: how they are started for it, and when they are. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable

import attrs

from kasmos.harnesses.facts import Asking, Conversation, Facts, Launch, Permissions
from kasmos.model.approval import PermissionDefault


def is_to_ask(facts: Facts, permission: PermissionDefault | None, said: Iterable[str]) -> bool:
    """Whether the mediator is to speak to a headless program.

    Args:
        facts: of the program.
        permission: the profile's.
        said: its arguments; one by which the profile has decided already leaves everything as it is.
    """
    asking = facts.asking
    if permission is not PermissionDefault.PROMPT or not asking.is_spoken:
        return False
    return not any(word.partition("=")[0] in asking.decided for word in said)


def asking_facts(facts: Facts) -> Facts:
    """The facts of a program that the mediator speaks to: the words for that, and none for a prompt."""
    asking = facts.asking
    launch = Launch(headless=asking.headless, prompt=(), model=asking.model, effort=asking.effort)
    kept = Asking(flags=asking.flags)
    return attrs.evolve(facts, launch=launch, conversation=Conversation(), permissions=Permissions(), asking=kept)


def asking_environment(facts: Facts, model: str | None) -> dict[str, str]:
    """The variables of a program that the mediator speaks to."""
    found = {name: value for name, value in facts.asking.environment.items() if model or "{model}" not in value}
    return {name: value.replace("{model}", json.dumps(model or "")[1:-1]) for name, value in found.items()}


def respell(asking: Asking, said: Iterable[str]) -> tuple[str, ...]:
    """The profile's arguments as the program takes them here; the place of the prompt is left out."""
    kept: list[str] = []
    words = iter(said)
    for word in words:
        flag, equals, value = word.partition("=")
        if word in asking.drop or word in ("{prompt}", "{prompt_file}"):
            continue
        if flag in asking.spell or flag in asking.drop_pairs:
            value = value if equals else next(words, "")
            kept += (part.replace("{value}", value) for part in asking.spell.get(flag, ()))
        else:
            kept.append(word)
    return tuple(kept)
