"""What is known of each program, read from the TOML that ships beside this module.

The one place of this room that reads files: those of the package itself.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Callable, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

import attrs

from kasmos.harnesses.conclusion import FailureKind
from kasmos.model.value import frozen

if TYPE_CHECKING:
    from kasmos.harnesses.dialect import Dialect
    from kasmos.harnesses.evidence import Evidence

BUILT_IN = ("claude", "codex", "opencode", "gemini", "qwen", "aider", "mini", "generic")
"""The harnesses that ship with kasmos; each has a dialect of the same name."""
OWN = "own"
"""The name of every dialect that does not ship with kasmos."""
QUIT_KEYS = ("C-c", "C-c", "C-c", "C-d")
"""What makes most programs leave a terminal, whether they are at work or not."""
GO_ON_ALONE = (
    "The person who has worked with you here has left, and nobody can be asked any more. "
    "Look at how things stand now, and go on with the task until it is done."
)
"""What is said where a program wants nothing else to be said."""


@frozen
class Rule:
    """Words of an error, and what kind of failure they mean."""

    kind: FailureKind
    pattern: str
    """A regular expression; case does not matter. Those for all programs are compiled when a failure is looked at."""

    def is_about(self, words: str) -> bool:
        """Whether the words of an error are of this kind."""
        return re.search(self.pattern, words, re.IGNORECASE) is not None


@frozen
class ExitMeaning:
    """What a program means by an exit code of its own."""

    kind: FailureKind
    message: str


@frozen
class Launch:
    """How a program is started. Each is a list of words with one placeholder; empty where there is no such thing."""

    headless: tuple[str, ...] = ()
    interactive: tuple[str, ...] = ()
    structured: tuple[str, ...] = ()
    """For its stream of events."""
    prompt: tuple[str, ...] = ("{prompt}",)
    prompt_file: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    effort: tuple[str, ...] = ()
    system: tuple[str, ...] = ()
    """Text added to its own system prompt."""
    tools: tuple[str, ...] = ()
    """Tools it may use without asking, comma-separated."""
    directory: tuple[str, ...] = ()
    """One more directory it may work in."""
    cwd: tuple[str, ...] = ()
    budget: tuple[str, ...] = ()
    """Of money, in USD."""
    turns: tuple[str, ...] = ()
    quiet: tuple[str, ...] = ()
    """No questions about updates and the like."""
    headless_only: tuple[str, ...] = ()
    """Words of a headless turn that mean nothing in a terminal: a flag, or `FLAG {}` where a value follows it."""


@frozen
class Conversation:
    """How a conversation's id is chosen, gone on with and forked."""

    choose: tuple[str, ...] = ()
    resume: tuple[str, ...] = ()
    latest: tuple[str, ...] = ()
    fork: tuple[str, ...] = ()
    choose_always: bool = False
    """Whether every version believed in takes an id, so that it is known before the program has said a word."""
    in_terminal: bool = False
    """Whether a headless conversation can be resumed in a terminal as well, and the other way round."""
    go_on: str = GO_ON_ALONE
    """What the program is told when a person gives the conversation back."""
    verbs: bool = False
    """Whether these are words below the headless verb, behind its flags."""


@frozen
class Permissions:
    """How a program is told what it may do."""

    prompt: tuple[str, ...] = ()
    bypass: tuple[str, ...] = ()
    spelled: tuple[str, ...] = ()
    """Flags that speak of permissions: a profile that has one of them has decided already."""
    root_needs: str = ""
    """An environment variable without which the program refuses the bypass to root."""


@frozen
class Asking:
    """How a program asks its supervisor without a terminal, and how it is started for that."""

    protocol: str = ""
    """`mcp`: it calls the permission tool of kasmos; `app_server`, `acp`: it is spoken to by the mediator, in its own
    protocol, instead of being given a prompt. Empty where it cannot ask."""
    headless: tuple[str, ...] = ()
    """What takes the place of `Launch.headless` where the mediator speaks to it."""
    flags: tuple[str, ...] = ()
    """What else is said unless the profile says it; of `mcp`, the last two are what lets it ask."""
    model: tuple[str, ...] = ()
    effort: tuple[str, ...] = ()
    decided: tuple[str, ...] = ()
    """Flags by which a profile has decided that nothing is asked."""
    drop: tuple[str, ...] = ()
    """Words for a turn of the other kind, which are left out here."""
    drop_pairs: tuple[str, ...] = ()
    """The same, each with the word behind it."""
    spell: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    """Flags that are spelled otherwise here, each with the word behind it, which is `{value}`."""
    environment: Mapping[str, str] = attrs.field(factory=dict)
    """Variables for this; one with `{model}` in it is set where there is a model."""

    @property
    def is_spoken(self) -> bool:
        """Whether the mediator speaks to it."""
        return self.protocol not in ("", "mcp")


PROTOCOLS = ("mcp", "app_server", "acp")
"""How programs ask."""


@frozen
class Facts:
    """Everything known of one program."""

    name: str
    title: str = ""
    programs: tuple[str, ...] = ()
    """Names of its executable."""
    packages: tuple[str, ...] = ()
    """Names by which `npx` and the like run it."""
    dialect: str = "generic"
    speaks: Callable[[Evidence], Dialect] | None = None
    """Makes the reader of its stream, where that is not among ours; `dialect` is `own` then."""
    terminal_result: bool = False
    """Whether its stream ends with an event that says so."""
    reference: str = ""
    """The version these facts were found with."""
    versions: str = ""
    """The versions they are believed for, such as `>=2.0,<3`."""
    login: tuple[str, ...] = ()
    """Arguments with which it says whether it is logged in."""
    launch: Launch = Launch()
    conversation: Conversation = Conversation()
    permissions: Permissions = Permissions()
    asking: Asking = Asking()
    environment: Mapping[str, str] = attrs.field(factory=dict)
    """Variables that keep it quiet."""
    headless_environment: Mapping[str, str] = attrs.field(factory=dict)
    """Further ones, where no person sits at it."""
    unset: tuple[str, ...] = ()
    """Variables of a surrounding agent that must not reach it."""
    stop_signals: tuple[str, ...] = ("SIGTERM",)
    """The best first signal, then what follows it."""
    leaves_tools: tuple[str, ...] = ()
    """Signals after which its tools go on."""
    quit_keys: tuple[str, ...] = QUIT_KEYS
    """Keys that end it in a terminal, pressed one after the other until it has ended."""
    exits: Mapping[int, ExitMeaning] = attrs.field(factory=dict)
    rules: tuple[Rule, ...] = ()
    """Its own first, then those of all programs."""
    error_line: re.Pattern[str] | None = None
    denied: re.Pattern[str] | None = None


def knows_version(facts: Facts, version: str) -> bool | None:
    """Whether these facts are believed for a version; None if there is nothing to compare."""
    found = _numbers(version)
    if not found or not facts.versions:
        return None
    for clause in facts.versions.split(","):
        bound = _numbers(clause)
        width = max(len(bound), len(found))
        left, right = (part + (0,) * (width - len(part)) for part in (found, bound))
        if clause.startswith(">=") and left < right:
            return False
        if clause.startswith("<") and left >= right:
            return False
    return True


def _numbers(text: str) -> tuple[int, ...]:
    match = re.search(r"\d+(?:\.\d+)*", text)
    return () if match is None else tuple(int(part) for part in match[0].split("."))


@functools.cache
def load_facts(name: str) -> Facts:
    """The facts of a built-in harness."""
    return parse_facts(name, _read(name), _common())


@functools.cache
def names_of(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The `programs` and `packages` of a built-in harness, without the rest, which takes ten times as long to make."""
    return _names(name, _read(name))


def _names(name: str, document: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(document.get("programs", (name,))), tuple(document.get("packages", ()))


def parse_facts(
    name: str,
    document: Mapping[str, Any],
    common: tuple[Rule, ...] = (),
    *,
    speaks: Callable[[Evidence], Dialect] | None = None,
) -> Facts:
    """Make facts of a document with the keys of `facts/*.toml`; third parties use it too.

    Args:
        name: of the harness.
        document: what is known.
        common: rules for all programs, after its own.
        speaks: makes the reader of its stream, as a rule a subclass of `Dialect`; instead of a `dialect`.

    Raises:
        KeyError, TypeError, ValueError: the document has keys or values that are none of these.
    """
    dialect = document.get("dialect", OWN if speaks is not None else "generic")
    if (dialect == OWN) != (speaks is not None) or dialect not in (*BUILT_IN, OWN):
        raise ValueError(f"dialect {dialect!r} is none of {', '.join(BUILT_IN)}, and is not told by `speaks`")
    programs, packages = _names(name, document)
    rules = _rules(document)
    for rule in rules:
        # A wrong one is refused here, not at the first failure.
        try:
            re.compile(rule.pattern, re.IGNORECASE)
        except re.error as error:
            raise ValueError(f"the pattern {rule.pattern!r} is no regular expression: {error}") from error
    lines = document.get("lines", {})
    environment = document.get("environment", {})
    stop = document.get("stop", {})
    exits = {
        int(one["code"]): ExitMeaning(FailureKind(one["kind"]), one["message"]) for one in document.get("exits", ())
    }
    return Facts(
        name=name,
        title=document.get("title", name),
        programs=programs,
        packages=packages,
        dialect=dialect,
        speaks=speaks,
        terminal_result=document.get("terminal_result", False),
        reference=document.get("reference", ""),
        versions=document.get("versions", ""),
        login=tuple(document.get("login", ())),
        launch=Launch(**_tuples(document.get("launch", {}))),
        conversation=Conversation(**_tuples(document.get("conversation", {}))),
        permissions=Permissions(**_tuples(document.get("permissions", {}))),
        asking=_asking(document.get("asking", {})),
        environment=dict(environment.get("set", {})),
        headless_environment=dict(environment.get("set_headless", {})),
        unset=tuple(environment.get("unset", ())),
        stop_signals=tuple(stop.get("signals", ("SIGTERM",))),
        leaves_tools=tuple(stop.get("leaves_tools", ())),
        quit_keys=tuple(stop.get("keys", QUIT_KEYS)),
        exits=exits,
        rules=rules + common,
        error_line=re.compile(lines["error"]) if lines.get("error") else None,
        denied=re.compile(lines["denied"]) if lines.get("denied") else None,
    )


@functools.cache
def _common() -> tuple[Rule, ...]:
    return _rules(_read("common"))


def common_rules() -> tuple[Rule, ...]:
    """What servers of models say whatever program passes it on."""
    return _common()


@functools.cache
def _read(name: str) -> dict[str, Any]:
    text = resources.files("kasmos.harnesses").joinpath("facts").joinpath(f"{name}.toml").read_text("utf-8")
    return tomllib.loads(text)


def _asking(table: Mapping[str, Any]) -> Asking:
    spell = _tuples(table.get("spell", {}))
    found = Asking(**{**_tuples(table), "spell": spell, "environment": dict(table.get("environment", {}))})
    if found.protocol not in ("", *PROTOCOLS):
        raise ValueError(f"asking.protocol is {found.protocol!r}, not one of {', '.join(PROTOCOLS)}")
    return found


def _rules(document: Mapping[str, Any]) -> tuple[Rule, ...]:
    found = document.get("failures", ())
    return tuple(Rule(FailureKind(one["kind"]), one["pattern"]) for one in found)


def _tuples(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
