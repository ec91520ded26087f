"""Markers in prompts, the steps in them, and which step is due."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping

import attrs

MARKER = re.compile(r"\[\[mock ([\w.-]+): (.*?)\]\]", re.DOTALL)
"""What is looked for in prompts: the conversation's name and its steps, which are separated by `;;`."""

ARGUMENTS = {
    "say": ("text",),
    "think": ("thought", "text"),
    "empty": (),
    "write": ("path", "content"),
    "read": ("path",),
    "edit": ("path", "old", "new"),
    "run": ("command",),
    "call": ("tool", "arguments"),
    "fail": ("status", "times", "reset"),
    "quota": ("reset", "times"),
    "cut": ("times",),
    "hang": (),
    "hold": ("gate", "text"),
    "slow": ("seconds", "text"),
}
"""Every step, and the names of its arguments, the last of which may be left out or take the rest of the line.

| step | the server |
|---|---|
| `say`, `think`, `empty` | answers with a text, with a thought and a text, with nothing |
| `write`, `read`, `edit`, `run` | calls the tool which the program offers for it |
| `call` | calls a tool by its name with these arguments (JSON), whether it is offered or not |
| `fail` | answers with an HTTP status; after `times` such answers (0: never) the next step is due; `reset` in seconds |
| `quota` | says that the account has used up what it may use, until `reset` seconds from now; `times` as for `fail` |
| `cut` | sends half of an answer and closes the connection; `times` as for `fail` |
| `hang` | takes the request and never answers |
| `hold` | sends half of an answer, and the rest when its gate is opened |
| `slow` | sends an answer piece by piece, over so many seconds |
"""
NEEDED = {"write": 2, "read": 1, "edit": 3, "run": 1, "call": 2, "fail": 1, "hold": 1, "slow": 1, "think": 1}
"""How many arguments must be given, where it is not none."""
ANSWERS = ("say", "think", "empty", "cut", "hang", "hold", "slow")


class ScriptError(ValueError):
    """A marker that cannot be understood; the server says so instead of guessing."""


@attrs.frozen
class Step:
    """One thing the server does."""

    verb: str
    arguments: Mapping[str, str] = attrs.field(factory=dict)

    def __getitem__(self, name: str) -> str:
        return self.arguments.get(name, "")

    @property
    def times(self) -> int:
        """For `fail` and `cut`: how often; 0 means always."""
        return int(self["times"] or 0)

    @property
    def text(self) -> str:
        """What an answer says."""
        return "" if self.verb == "empty" else self["text"] or "All done here, as asked for."


@attrs.frozen
class Script:
    """What a marker says."""

    conversation: str
    steps: tuple[Step, ...]


@attrs.frozen
class Said:
    """One message of a conversation, whatever the wire format."""

    role: str
    """`user`, `assistant` or `tool`."""
    text: str = ""


def find_script(said: Iterable[Said]) -> tuple[Script, int] | None:
    """The script of the newest marker a user has sent, and how many tool results came after it.

    Raises:
        ScriptError: the marker is none.
    """
    found: tuple[str, str] | None = None
    rounds = 0
    for message in said:
        markers = MARKER.findall(message.text) if message.role == "user" else []
        if markers:
            found, rounds = markers[-1], 0
        elif message.role == "tool":
            rounds += 1
    return None if found is None else (parse_script(*found), rounds)


def parse_script(conversation: str, text: str) -> Script:
    """A marker's steps.

    Raises:
        ScriptError: an unknown step, or too few arguments.
    """
    return Script(conversation, tuple(_parse_step(part.strip()) for part in text.split(";;")))


def decide_step(script: Script, rounds: int, failed: Mapping[int, int]) -> tuple[int, Step]:
    """Which step is due, by its index.

    Args:
        rounds: tool results since the marker.
        failed: how often each step has failed the request already.
    """
    due = [
        (index, step)
        for index, step in enumerate(script.steps)
        if not (step.times and failed.get(index, 0) >= step.times)
    ]
    return due[rounds] if rounds < len(due) else (len(script.steps), Step("say"))


def _parse_step(text: str) -> Step:
    verb, _, rest = text.partition(" ")
    names = ARGUMENTS.get(verb)
    if names is None:
        raise ScriptError(f"no step is called {verb!r}; there are {', '.join(ARGUMENTS)}")
    if names and names[-1] in ("text", "command", "arguments"):
        # Free text and shell commands are taken as they are.
        values = rest.split(" ", len(names) - 1) if rest else []
    else:
        values = shlex.split(rest)
    needed = NEEDED.get(verb, 0)
    if not needed <= len(values) <= len(names):
        raise ScriptError(f"step {text!r} needs {needed} to {len(names)} arguments: {' '.join(names)}")
    return Step(verb, dict(zip(names, values, strict=False)))
