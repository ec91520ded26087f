"""What stands between a protocol and the process that speaks it, and what both protocols have in common. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

Message = dict[str, Any]
"""One message of JSON-RPC."""

METHOD_NOT_FOUND = -32601
MOST_KEPT = 1000
"""Tool calls whose details are kept until they are asked about."""


class Link(Protocol):
    """**Protocol**: what a speaker can do."""

    def send(self, message: Message, shown: Message | None = None) -> None:
        """Send a message to the program; the log gets it too, or what is *shown* in its place."""

    def ask(self, key: Any, question: Mapping[str, Any]) -> None:
        """Ask the supervisor; the answer comes to `Speaker.answer` with the same *key*."""

    def withdraw(self, key: Any) -> None:
        """What was asked with this key is asked no more."""

    def when_silent(self, seconds: float, then: Callable[[], None]) -> None:
        """Call *then* once, when the program has said nothing for so long."""

    def wait(self, seconds: float, why: str, then: Callable[[], None]) -> None:
        """Call *then* once, after so long, whatever the program says; the log says *why*."""

    def opened(self) -> None:
        """The program speaks the protocol, and is about to get its prompt: it may be silent from now on."""

    def remark(self, said: Message) -> None:
        """Log what we have to say ourselves; who reads the log knows it by that."""

    @property
    def pid(self) -> int:
        """The program's process."""

    def end(self, code: int, words: str = "") -> None:
        """The turn is over: the exit code that says how, and words for the log where nobody else has any."""


class Speaker(Protocol):
    """**Protocol**: one end of a conversation with a program. Never raises, whatever the program says."""

    def begin(self) -> None:
        """The program has been started."""

    def take(self, message: Message) -> None:
        """The program said something."""

    def answer(self, key: Any, allowed: bool, words: str = "") -> None:
        """The supervisor has answered; *words* are a person's, for a no."""

    def interrupt(self) -> bool:
        """Ask the program to end its turn; False if there is none that could be asked for."""


def told_of_no(question: Mapping[str, Any], words: str) -> str:
    """What a program is told of a person's reason for a no, where its protocol has no place for one in the answer."""
    given = dict_of(question.get("input"))
    what = text_of(given.get("command")) or ", ".join(list_of(question.get("paths")))
    return f"The person who was asked about {text_of(question.get('tool_name'))} ({what}) said no: {words}"


class Requests:
    """Numbers what we ask of the program, and finds who waits for a response."""

    def __init__(self) -> None:
        self._next = 1
        self._waiting: dict[int, Callable[[Message], None]] = {}

    def new(self, then: Callable[[Message], None]) -> int:
        """The number of a new request; *then* gets its response."""
        number, self._next = self._next, self._next + 1
        self._waiting[number] = then
        return number

    def respond(self, message: Message) -> None:
        """Take a response; one that nobody waits for is ignored."""
        number = message.get("id")
        then = self._waiting.pop(number, None) if type(number) is int else None
        if then is not None:
            then(message)


def dict_of(value: Any) -> dict[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if type(value) is dict else {}


def text_of(value: Any) -> str:
    """The value if it is a text, else an empty one."""
    return value if type(value) is str else ""


def list_of(value: Any) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return value if type(value) is list else []
