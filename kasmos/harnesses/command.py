"""How a program is started for one turn: its arguments, its environment, and what stands in the way. Pure."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence

from kasmos.exceptions import Mistake
from kasmos.harnesses.facts import Facts
from kasmos.model.approval import PermissionDefault
from kasmos.model.value import frozen


class Continuation(enum.StrEnum):
    """What a turn has to do with an earlier conversation."""

    NEW = "new"
    RESUME = "resume"
    FORK = "fork"


@frozen
class Wish:
    """What a turn should be; None and empty where the program's own default is wanted."""

    prompt: str | None = "{prompt}"
    """The prompt, or the placeholder that a session fills in; None where it is no argument."""
    headless: bool = True
    structured: bool = True
    """Whether it should write its stream of events."""
    model: str | None = None
    effort: str | None = None
    system: str | None = None
    tools: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    cwd: str | None = None
    permission: PermissionDefault | None = None
    permission_server: tuple[str, str] = ("python3", "permission_server.py")
    """The Python that runs the server of the permission tool, and that server's file."""
    conversation: str | None = None
    """An id to choose for a new conversation, or of the one to go on with."""
    continuation: Continuation = Continuation.NEW


def build_arguments(facts: Facts, spelled: Sequence[str], wish: Wish) -> tuple[str, ...]:
    """The arguments for a program, behind its name.

    Args:
        facts: of the program.
        spelled: arguments the user's profile has already. They come first after the program's verb, stay as they
            are, and whatever they say is not said again.
        wish: what the turn should be.
    """
    launch, conversation, spelled = facts.launch, facts.conversation, tuple(spelled)
    flag = launch.prompt[:-1]
    if wish.headless and wish.prompt is not None and flag and spelled[-len(flag) :] == flag:
        # The profile ends with the prompt's own flag: it comes last again, with the prompt behind it.
        spelled = spelled[: -len(flag)]
    start = launch.headless if wish.headless else launch.interactive
    if start and not start[0].startswith("-") and spelled[:1] == start[:1]:
        spelled = spelled[1:]  # the verb stays first, and what belongs behind it follows
        words = list(start)
    else:
        words = list(_unsaid(start, spelled))
    verbs, flags = _conversation_words(facts, wish)
    last: tuple[str, ...] = ()
    if conversation.verbs and wish.headless:
        # A verb below the verb takes fewer flags than that: it comes behind them, and before what is no flag.
        flags = (*flags, *verbs)
        if verbs and spelled[-1:] == ("-",):
            spelled, last = spelled[:-1], ("-",)
    elif not _says(spelled, verbs):
        flags = (*verbs, *flags)
    words += spelled
    wanted: list[Sequence[str]] = [launch.quiet]
    if wish.headless and wish.structured and not _says(spelled, launch.structured[:1]):
        wanted.append(launch.structured)  # whole or not at all: the format is the user's
    if wish.permission is not None and not _says(spelled, facts.permissions.spelled):
        chosen = facts.permissions.bypass if wish.permission is PermissionDefault.BYPASS else facts.permissions.prompt
        wanted.append(tuple(word for word in chosen if word not in words))
        if wish.headless and wish.permission is PermissionDefault.PROMPT:
            wanted.append(tuple(_with_server(word, wish.permission_server) for word in facts.asking.flags))
    wanted += [
        _fill(launch.model, "model", wish.model),
        _fill(launch.effort, "effort", wish.effort),
        _fill(launch.system, "system", wish.system),
        _fill(launch.tools, "tools", ",".join(wish.tools) or None),
        _fill(launch.cwd, "cwd", wish.cwd),
    ]
    for group in wanted:
        words += _unsaid(group, spelled)
    for directory in wish.directories:
        words += _fill(launch.directory, "directory", directory)
    words += (*flags, *last)
    if wish.headless and not any("{prompt" in word for word in spelled):
        words += _fill(launch.prompt, "prompt", wish.prompt)
    return tuple(words)


def limit_arguments(
    facts: Facts, spelled: Sequence[str], *, money: float | None = None, turns: int | None = None
) -> tuple[str, ...]:
    """The arguments by which a program with limits of its own is told what it may spend.

    Args:
        facts: of the program.
        spelled: its command, whose own limits stay as they are.
        money: USD; None is without a limit.
        turns: how many; None is without a limit.
    """
    launch = facts.launch
    limits = (
        (launch.budget, _fill(launch.budget, "budget", None if money is None else f"{money:.2f}")),
        (launch.turns, _fill(launch.turns, "turns", None if turns is None else str(turns))),
    )
    return tuple(word for flag, words in limits if not _says(spelled, flag[:1]) for word in words)


def judge_wish(
    facts: Facts, spelled: Sequence[str], wish: Wish, *, agent: str, environment: Mapping[str, str], is_root: bool
) -> list[Mistake]:
    """What the program would refuse, told before it is started.

    Args:
        facts: of the program.
        spelled: arguments the user's profile has already.
        wish: what the turn should be.
        agent: the profile's name, for the message.
        environment: the program's.
        is_root: whether it would run as root.
    """
    mistakes = []
    permissions, place = facts.permissions, f"agent {agent}"
    bypass = wish.permission is PermissionDefault.BYPASS and not _says(spelled, permissions.spelled)
    if bypass and is_root and permissions.root_needs and not environment.get(permissions.root_needs):
        cure = f'run it as another user, or say that it is in a sandbox: env.{permissions.root_needs} = "1"'
        mistakes.append(Mistake(place, f"{facts.title} refuses to bypass permissions for root", cure))
    asks = wish.permission is PermissionDefault.PROMPT and wish.headless
    if asks and facts.name != "generic" and not facts.asking.protocol:
        problem = f"{facts.title} cannot ask for permission without a terminal"
        mistakes.append(Mistake(place, problem, 'set permission_default = "bypass", or execution_mode = "tmux"'))
    for value, words, what in (
        (wish.model, facts.launch.model, "model"),
        (wish.effort, facts.launch.effort, "effort"),
        (wish.system, facts.launch.system, "system text"),
        (wish.tools, facts.launch.tools, "list of allowed tools"),
        (wish.directories, facts.launch.directory, "further directory"),
    ):
        if value and not words:
            mistakes.append(Mistake(place, f"{facts.title} has no argument for a {what}"))
    if wish.continuation is not Continuation.NEW and not facts.conversation.resume:
        mistakes.append(Mistake(place, f"{facts.title} cannot resume a conversation"))
    if wish.continuation is Continuation.FORK and not facts.conversation.fork:
        mistakes.append(Mistake(place, f"{facts.title} cannot fork a conversation"))
    return mistakes


def _with_server(word: str, server: tuple[str, str]) -> str:
    python, file = map(json.dumps, server)
    return word.replace("{python}", python).replace("{server}", file)


def _conversation_words(facts: Facts, wish: Wish) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words that choose, resume or fork a conversation, and flags beside them."""
    conversation, id_ = facts.conversation, wish.conversation
    if id_ is None:
        return (), ()
    if wish.continuation is Continuation.NEW:
        return _fill(conversation.choose, "id", id_), ()
    if wish.continuation is Continuation.FORK:
        if conversation.verbs:
            return _fill(conversation.fork, "id", id_), ()
        return _fill(conversation.resume, "id", id_), conversation.fork
    return _fill(conversation.resume, "id", id_), ()


def _fill(words: Sequence[str], name: str, value: str | None) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(word.replace("{" + name + "}", value) for word in words)


def _unsaid(group: Sequence[str], spelled: Sequence[str]) -> tuple[str, ...]:
    """The flags of a group, each with its value, that the user has not spelled out."""
    kept: list[str] = []
    skipping = False
    for word in group:
        if word == "-c":  # given again and again, with a key each
            key = group[-1].split("=")[0]
            skipping = any(one.startswith(f"{key}=") for one in spelled)
        elif word.startswith("-"):
            skipping = _says(spelled, (word,))
        elif not kept and not skipping:
            skipping = word in spelled  # a verb
        if not skipping:
            kept.append(word)
    return tuple(kept)


def _says(spelled: Sequence[str], flags: Sequence[str]) -> bool:
    """Whether one of these flags is among the user's words, alone or as `--flag=value`."""
    synonyms = {synonym for flag in flags if flag.startswith("-") for synonym in _SYNONYMS.get(flag, (flag,))}
    return any(word == flag or word.startswith(f"{flag}=") for word in spelled for flag in synonyms)


_GROUPS = (
    ("-p", "--print"),
    ("-m", "--model"),
    ("-o", "--output-format"),
    ("-r", "--resume"),
    ("-c", "--continue", "--config"),
    ("-s", "--session", "--sandbox"),
    ("-C", "--cd"),
    ("-y", "--yolo", "--yes"),
)
_SYNONYMS = {flag: (*group,) for group in _GROUPS for flag in group}
