"""A profile made ready for its program: the flags, variables and stop signal that its harness knows. Pure.

What comes out is a plain profile again, so that whoever works out commands needs to know nothing of harnesses.
What the user has spelled out stays as it is, and is not said again.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from kasmos.exceptions import Mistake
from kasmos.harnesses.asking import asking_environment, asking_facts, is_to_ask, respell
from kasmos.harnesses.catalog import find_harness, harness_names, recognise, words_before_arguments
from kasmos.harnesses.command import Continuation, Wish, build_arguments, judge_wish
from kasmos.harnesses.facts import Facts
from kasmos.model.profile import AgentProfile, ExecutionMode, PromptMode
from kasmos.model.value import frozen

SERVER = ("python3", "permission_server.py")
_PROMPTS = ("{prompt}", "{prompt_file}")


@frozen
class Equipped:
    """A profile and what is known of its program."""

    profile: AgentProfile
    facts: Facts
    conversation: str = ""
    """The id of its conversation, where that was chosen, or is gone on with."""
    asks: bool = False
    """Whether it asks its supervisor, without a terminal."""
    protocol: str = ""
    """The protocol by which the mediator speaks to it; empty where it is given its prompt as ever."""
    decides: bool = False
    """Whether the program's own word says how a session of it ended, and not its exit status alone."""
    structured: bool = False
    """Whether it writes its stream of events."""


def harness_of(profile: AgentProfile) -> Facts:
    """What is known of a profile's program: the harness it names, else the one its program's name tells."""
    named = None if profile.harness is None else find_harness(profile.harness)
    return named or recognise(profile.program)


def equip(
    profile: AgentProfile,
    mode: ExecutionMode | None = None,
    *,
    conversation: str | None = None,
    continuation: Continuation = Continuation.NEW,
    server: tuple[str, str] = SERVER,
) -> Equipped:
    """Make a profile ready.

    Args:
        profile: as the user wrote it.
        mode: where it runs; None means where the profile says.
        conversation: an id to choose for the new conversation, or of the one that is gone on with.
        continuation: what the turn has to do with an earlier conversation.
        server: the Python that runs the server of the permission tool, and that server's file.
    """
    facts = harness_of(profile)
    if facts.dialect == "generic" or profile.prompt is PromptMode.SCRIPT:
        return Equipped(profile, facts)
    mode = mode or profile.execution_mode
    # What is scripted plays a program only where the profile says so.
    headless = mode is ExecutionMode.HEADLESS or (mode is ExecutionMode.SCRIPTED and profile.harness is not None)
    before, said = _split(profile, facts)
    stop = profile.stop
    ready = attrs.evolve(
        profile,
        env={**facts.environment, **(facts.headless_environment if headless else {}), **profile.env},
        stop=stop if stop.stop_signal else attrs.evolve(stop, stop_signal=facts.stop_signals[0]),
    )
    if not headless or _has_verb_of_its_own(facts, said):
        # In a terminal the program is a person's tool, started as the profile says.
        return Equipped(ready, facts)
    if is_to_ask(facts, profile.permission_default, said):
        return _equip_to_ask(ready, facts, before, said, None if continuation is Continuation.NEW else conversation)
    if continuation is Continuation.NEW and not _may_choose(facts, said):
        conversation = None
    wish = attrs.evolve(_wish(profile, said, conversation, continuation), permission_server=server)
    flags = build_arguments(facts, said, wish)
    structured = _writes_events(facts, flags)
    asks = facts.asking.protocol == "mcp" and all(word in flags for word in facts.asking.flags[-2:])
    decides = structured or not facts.launch.structured
    return Equipped(
        attrs.evolve(ready, program=before, flags=flags), facts, conversation or "", asks, "", decides, structured
    )


def equip_attended(profile: AgentProfile, conversation: str) -> Equipped | None:
    """A headless profile made ready to open one of its conversations in a terminal; None where that is not possible.

    Account, model, permissions and whatever else the profile says stay as they are; what is only for a headless turn
    is left out.
    """
    facts = harness_of(profile)
    before, said = _split(profile, facts)
    impossible = facts.dialect == "generic" or profile.prompt is PromptMode.SCRIPT
    if impossible or not facts.conversation.in_terminal or _has_verb_of_its_own(facts, said):
        return None
    kept = _without_headless(facts, said)
    wish = attrs.evolve(_wish(profile, kept, conversation, Continuation.RESUME), prompt=None, headless=False)
    stop = profile.stop
    ready = attrs.evolve(
        profile,
        program=before,
        flags=build_arguments(facts, kept, wish),
        # The person types.
        prompt=PromptMode.TYPE,
        env={**facts.environment, **profile.env},
        stop=stop if stop.stop_signal else attrs.evolve(stop, stop_signal=facts.stop_signals[0]),
    )
    return Equipped(ready, facts, conversation)


def _equip_to_ask(
    profile: AgentProfile, facts: Facts, before: tuple[str, ...], said: tuple[str, ...], conversation: str | None
) -> Equipped:
    """A profile made ready for the mediator: it is not given its prompt, but spoken to."""
    # Of a conversation the mediator speaks, not the arguments.
    wish = attrs.evolve(_wish(profile, said, None, Continuation.NEW), prompt=None, structured=False)
    flags = build_arguments(asking_facts(facts), respell(facts.asking, said), wish)
    ready = attrs.evolve(
        profile,
        program=before,
        flags=flags,
        prompt=PromptMode.STDIN,
        env={**asking_environment(facts, profile.model), **profile.env},
    )
    protocol = facts.asking.protocol
    return Equipped(ready, facts, conversation or "", asks=True, protocol=protocol, decides=True, structured=True)


def equip_all(
    profiles: Mapping[str, AgentProfile], mode: ExecutionMode | None = None, *, server: tuple[str, str] = SERVER
) -> dict[str, AgentProfile]:
    """Every profile made ready, by its name."""
    return {name: equip(profile, mode, server=server).profile for name, profile in profiles.items()}


def judge_profile(
    profile: AgentProfile, mode: ExecutionMode | None = None, *, environment: Mapping[str, str], is_root: bool
) -> list[Mistake]:
    """What stands between a profile and its program, told before anything is started.

    Args:
        profile: as the user wrote it.
        mode: where it runs; None means where the profile says.
        environment: the program's, apart from what the harness and the profile add.
        is_root: whether it would run as root.
    """
    if profile.harness is not None and find_harness(profile.harness) is None:
        cure = f"one of {', '.join(harness_names())}"
        return [Mistake(f"agents.{profile.name}.harness", f"{profile.harness!r} is no harness that is installed", cure)]
    facts = harness_of(profile)
    _, said = _split(profile, facts)
    if facts.dialect == "generic" or profile.prompt is PromptMode.SCRIPT or _has_verb_of_its_own(facts, said):
        return []
    headless = (mode or profile.execution_mode) is ExecutionMode.HEADLESS
    wish = Wish(headless=headless, permission=profile.permission_default)
    whole = {**environment, **facts.environment, **profile.env}
    return judge_wish(facts, said, wish, agent=profile.name, environment=whole, is_root=is_root)


def doubts(profile: AgentProfile) -> list[Mistake]:
    """What a profile says and its program is never told."""
    ready = equip(profile, ExecutionMode.HEADLESS).profile
    words = (*ready.program, *ready.flags)
    cure = 'flags has no {%s}; add it as the program wants it, such as "--%s", "{%s}"'
    found = []
    told = [value for name, value in ready.env.items() if value != profile.env.get(name)]
    in_environment = any((profile.model or "") in value for value in told)
    if profile.model is not None and not in_environment and not any("{model}" in word for word in words):
        found.append(Mistake(f"agents.{profile.name}.model", "has no effect", cure % (("model",) * 3)))
    if profile.effort is not None and not any(profile.effort in word for word in ready.flags):
        found.append(Mistake(f"agents.{profile.name}.effort", "has no effect", cure % (("effort",) * 3)))
    return found


def _without_headless(facts: Facts, said: tuple[str, ...]) -> tuple[str, ...]:
    """A profile's arguments without those that are only for a headless turn, and without places for the prompt."""
    launch, known, kept, takes_value = facts.launch, facts.conversation, list[str](), False
    alone = {word for word in launch.headless_only if not word.endswith(" {}")}
    valued = {word.removesuffix(" {}") for word in launch.headless_only if word.endswith(" {}")}
    # Which conversation it is, is not the profile's to say.
    for group in (known.choose, known.resume, known.latest):
        if group and group[0].startswith("--"):
            (alone if len(group) == 1 else valued).add(group[0])
    verb = launch.headless[:1]
    if verb and not verb[0].startswith("-") and said[:1] == verb:
        said = said[1:]
    for word in said:
        if takes_value:
            takes_value = False
        elif word in valued:
            takes_value = True
        elif word not in alone and word.partition("=")[0] not in valued and not any(at in word for at in _PROMPTS):
            kept.append(word)
    return tuple(kept)


def _split(profile: AgentProfile, facts: Facts) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words up to the program's name, and the arguments behind it."""
    count = words_before_arguments(profile.program, facts)
    return profile.program[:count], (*profile.program[count:], *profile.flags)


def _wish(profile: AgentProfile, said: tuple[str, ...], conversation: str | None, continuation: Continuation) -> Wish:
    prompt: str | None = "{prompt}"
    if profile.prompt is not PromptMode.ARGUMENT or any(place in word for word in said for place in _PROMPTS):
        prompt = None
    return Wish(
        prompt=prompt,
        # The task's own model takes the profile's place, where it names one.
        model=None if profile.model is None or any("{model}" in word for word in said) else "{model}",
        effort=profile.effort,
        permission=profile.permission_default,
        conversation=conversation,
        continuation=continuation,
    )


def _may_choose(facts: Facts, said: tuple[str, ...]) -> bool:
    """Whether the id of a new conversation can be chosen: the program takes one, and the profile speaks of none."""
    known = facts.conversation
    flags = {word for word in (*known.choose, *known.resume, *known.latest, *known.fork, "-r", "-c") if word[:1] == "-"}
    return known.choose_always and not any(word.partition("=")[0] in flags for word in said)


def _has_verb_of_its_own(facts: Facts, said: tuple[str, ...]) -> bool:
    """Whether the profile runs another command of the program than the one for a turn: `codex review`."""
    verb = facts.launch.headless[:1]
    if not verb or verb[0].startswith("-") or not said:
        return False
    first = said[0]
    return not first.startswith(("-", "{")) and first != verb[0]


def _writes_events(facts: Facts, flags: tuple[str, ...]) -> bool:
    """Whether these flags ask for a stream, or at least a document, that can be read."""
    wanted = facts.launch.structured
    if not wanted:
        return False
    if len(wanted) == 1 or wanted[1].startswith("-"):
        return wanted[0] in flags
    names = {wanted[0], "-o", "--output-format"} if wanted[0] in ("-o", "--output-format") else {wanted[0]}
    given = [flags[at + 1] for at, word in enumerate(flags[:-1]) if word in names]
    given += [word.partition("=")[2] for word in flags if word.partition("=")[0] in names and "=" in word]
    return any("json" in value for value in given)
