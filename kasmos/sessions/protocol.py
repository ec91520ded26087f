"""The contract of a session, in prose and types. Every backend keeps it; one suite tests it.

A **backend** is a kind of place programs run in. `Backend.open` gives a session that has a handle, or
raises `SessionStartError` and leaves nothing behind. `Backend.adopt` takes hold of a session that an
earlier supervisor started.

Guaranteed on every backend:

* `wait` may be awaited by many; all get the same value; it never returns before the program has ended.
* Everything written before the end can be read after it, by absolute byte offset, except what was
  declared lost.
* A reader that falls behind is told how much it lost. A slow reader stalls nobody, least of all the program.
* The program never notices that its supervisor is slow, or dead.
* Leaving the scope of `open` or `adopt` ends the program and its descendants, unless `detach` was called.
  The ending is bounded in time: what survives SIGKILL is reported as unkillable, not waited for for ever.
* A second program is never started for the same session id.

Not guaranteed: that the exit status is known (`ExitStatus.known`), or exact (`ExitStatus.certain`);
that output written by processes which outlive the program is complete.

What a backend cannot do it declares in its `Capabilities`, and raises for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from kasmos.exceptions import SessionError
from kasmos.model.approval import Answer, Ask
from kasmos.model.event import Event
from kasmos.model.screen import AttachedClient, Picture
from kasmos.model.session import (
    Capabilities,
    ExitStatus,
    InputWait,
    SessionHandle,
    SessionSpec,
)
from kasmos.model.value import frozen

Notify = Callable[[Event], Awaitable[None]]
"""Makes a fact durable: returns once it is committed, or queued on a disk that takes nothing. Given to backends so that
intent precedes signals."""

Terminate = Callable[["ExecutionSession"], Awaitable[None]]
"""The one stop ladder (`kasmos.supervision.termination`), given to every backend"""


@frozen
class OutputChunk:
    """A piece of a session's output."""

    offset: int
    """Absolute byte offset of the first byte of `data`."""
    data: bytes
    lost: int = 0
    """Bytes between the offset that was asked for and `offset`, no longer available."""

    @property
    def end(self) -> int:
        """Absolute offset just after `data`: the cursor for the next read."""
        return self.offset + len(self.data)


class Update(NamedTuple):
    """What is new of a session: `changed, prompt = session.has_updated()`. True if anything has changed."""

    changed: bool
    """Output has arrived since the last call."""
    prompt: bool | None
    """Whether it waits for a person: it asks something, or a dialog stands before its input. None: not told."""

    def __bool__(self) -> bool:
        return self.changed


Recognise = Callable[[Picture], bool | None]
"""Whether a screen waits for a person; None where it does not tell."""

FindRecogniser = Callable[[tuple[str, ...]], Recognise]
"""Finds how the screens of the program are read that a command line runs. Blocks on the disk. Raises `ConfigError`."""


class ExecutionSession(Protocol):
    """**Protocol.** One run of one program, from open to exit."""

    @property
    def spec(self) -> SessionSpec:
        """What was asked for."""

    @property
    def handle(self) -> SessionHandle:
        """The key by which the session is found again."""

    @property
    def capabilities(self) -> Capabilities:
        """What this session's backend can do."""

    @property
    def notify(self) -> Notify:
        """Makes facts about this session durable; as given to `open` or `adopt`."""

    @property
    def pid(self) -> int | None:
        """The program's process id, where there is a process and it was seen."""

    @property
    def exit(self) -> ExitStatus | None:
        """The exit status once `wait` has returned, else None."""

    async def wait(self) -> ExitStatus:
        """Wait until the program has ended and its last output is readable.

        Raises:
            SessionLostError: its fate can no longer be learnt.

        Cancellation: no effect on the program; may be called again.
        """

    async def signal(self, signum: int) -> None:
        """Send a signal to every process in the program's kernel session, kasmos' own helpers excepted.

        Goes to nothing whose identity is not proven. Does nothing when the program has ended.

        Cancellation: the signal has been sent or not, never in part.
        """

    async def kill(self) -> None:
        """Send SIGKILL to every process of the session, repeatedly, until none is left.

        Bounded by `spec.stop.kill_grace`; what is left then is reported as `SessionUnkillable`.

        Cancellation: may have been partial; may be called again.
        """

    def detach(self) -> None:
        """From now on, leaving the scope leaves the program running, for adoption. Never blocks.

        Raises:
            SessionClosedError: the scope has been left.
        """

    def read_nowait(self, offset: int, limit: int = 65_536) -> OutputChunk:
        """Read output from an absolute offset, from memory or from the log. Safe from any thread.

        An empty chunk means that nothing has been written past *offset* yet.
        """

    async def read(self, offset: int, limit: int = 65_536) -> OutputChunk:
        """Read output from *offset*, waiting until there is some or the session has ended.

        Returns: an empty chunk only at the end.

        Cancellation: no effect.
        """

    @property
    def output_bytes(self) -> int:
        """Absolute offset of the end of the output seen so far. Only grows."""

    def has_updated(self) -> Update:
        """Whether output has arrived since the last call of this method, and whether the session waits for a person.

        Never waits. With a terminal the second is what the screen says by the rules of its program, as it was seen
        last: a newer picture is fetched meanwhile if there is one, so that the next call knows. A session that asks
        without a terminal waits for a person while an ask stands. One that can do neither asks nobody: it never does.
        """

    def capture(self, start: int | None = None, end: int | None = None) -> str:
        """The output as text, decoded with replacement: lines *start* to *end* of what is in memory.

        Headless: the buffered lines, counted as a Python slice counts. With a terminal: the rendered screen as it was
        seen last, with tmux's line ranges (0 is the first visible line, negative ones are above it, both ends are
        included); never waits, and so may be a little old.
        """

    async def screen(self, start: int | None = None, end: int | None = None, *, ansi: bool = False) -> str:
        """What `capture` gives, as it is now; after the end, as it was left.

        Args:
            start: as for `capture`.
            end: as for `capture`.
            ansi: with the escapes for colours, where there is a terminal.

        Raises:
            SessionError: the terminal cannot be asked.

        Cancellation: no effect.
        """

    async def attach(self) -> None:
        """Sit down at the session's terminal.

        Raises:
            InteractiveOnlyError: the backend has none.
        """

    async def send_keys(self, keys: str) -> None:
        """Type into the session.

        Raises:
            InteractiveOnlyError: the backend has no terminal.
        """

    async def tap_enter(self) -> None:
        """Press Enter.

        Raises:
            InteractiveOnlyError: the backend has no terminal.
        """

    async def send_permission_response(self, choice: str) -> None:
        """Answer a permission prompt.

        Raises:
            InteractiveOnlyError: the backend has no terminal.
        """

    async def set_detached_size(self, width: int, height: int) -> None:
        """Set the terminal's size while nobody is attached.

        Raises:
            InteractiveOnlyError: the backend has no terminal.
        """


class TerminalSession(ExecutionSession, Protocol):
    """**Protocol.** What a session is besides if its capabilities say `interactive`: seen, and typed into.

    Every method raises `SessionClosedError` when the program has ended, and `SessionError` when the terminal cannot be
    asked.
    """

    async def look(self, *, ansi: bool = False) -> Picture:
        """What is on the screen now. Cancellation: no effect."""

    async def wait_changed(self, offset: int) -> int:
        """Wait until something was written past *offset*, or the end. Costs nothing meanwhile.

        Returns: how much output there is now.

        Cancellation: no effect.
        """

    def output_now(self) -> int:
        """How much has been written by now; `output_bytes` tells what has been seen of it. Never blocks."""

    async def press(self, *keys: str) -> None:
        """Press keys, by tmux's names for them."""

    async def paste(self, text: str) -> None:
        """Give a text as a paste, byte for byte. Does not submit it."""

    @property
    def typed_at(self) -> float:
        """When this supervisor typed into it last, wall clock; 0 if never. Never blocks."""

    async def clients(self) -> tuple[AttachedClient, ...]:
        """Who is attached."""

    async def keep_text(self, name: str, text: str) -> str:
        """Keep a text in the session's directory; its path."""


PASTE_END = "\x1b[201~"
"""Ends a bracketed paste: what comes after it in a text would be taken for typed keys."""


def require_pasteable(text: str) -> None:
    """See to it that a text can be given as one paste.

    Raises:
        SessionError: it holds what ends a paste.
    """
    if PASTE_END in text:
        raise SessionError("the text holds ESC[201~, which ends a paste: the rest would be taken for typed keys")


class ProcessSession(ExecutionSession, Protocol):
    """**Protocol.** What a session is besides if its capabilities say `processes`."""

    async def look_for_waits(self) -> tuple[InputWait, ...]:
        """Who of its processes waits for input, or is stopped, at this moment; nobody where that cannot be seen.

        Costs some reads of /proc for each process of it.

        Cancellation: no effect.
        """

    def last_output_at(self) -> float | None:
        """When it wrote something last, wall clock; None if never. Looks at one file."""


class AskSource(Protocol):
    """**Protocol.** What a session is besides if its capabilities say `asks`: it is seen asking, and answered.

    Guaranteed: an ask has one identity for as long as it stands, also for the next supervisor. One that stands is
    not lost: whoever looks sees it. Not guaranteed: that every ask is seen that somebody else answers quickly.
    """

    async def wait_ask(self, seen: str | None) -> Ask | None:
        """Wait until what the session asks is something else than *seen*; what it asks then, or None for nothing.

        Args:
            seen: identity of the ask that is known, None for nothing. One that nothing has, such as `""`, gives
                what is asked at present, as soon as the source can tell.

        Raises:
            SessionError: nothing can be learnt any more; `wait` says how the session ended.

        Cancellation: no effect.
        """

    async def answer(self, ask: Ask, answer: Answer) -> None:
        """Give the answer to this ask. Once it returns, the ask counts as gone; what is asked then is new.

        Raises:
            StaleApprovalError: this is not asked any more; nothing was given.
            SessionBusyError: somebody is typing; nothing was given.
            SessionError: it is not known whether the session has taken it.

        Cancellation: the answer has been given or not; who cannot tell must not give it again.
        """


class Backend(Protocol):
    """**Protocol.** A kind of place sessions run in."""

    @property
    def capabilities(self) -> Capabilities:
        """What sessions of this backend can do."""

    def open(self, spec: SessionSpec, *, notify: Notify) -> AbstractAsyncContextManager[ExecutionSession]:
        """Start a program. The intent (`SessionStarting`) is already durable when this is called.

        Raises:
            SessionStartError: it could not be started; nothing is left behind and nothing will run.
            BackendUnavailableError: this machine lacks what the backend needs.

        Cancellation: before the program runs, nothing is left behind; later, as when the scope is left.
        """

    def adopt(
        self, spec: SessionSpec, handle: SessionHandle, *, notify: Notify
    ) -> AbstractAsyncContextManager[ExecutionSession]:
        """Take hold of a session that an earlier supervisor started. It may have ended meanwhile.

        Only identity and policies of *spec* are used; nothing is started.

        Raises:
            SessionNeverStarted: nothing ran, and it was made certain that nothing will.
            SessionLostError: its fate cannot be learnt; what was left of it has been swept.

        Cancellation: no effect on the session.
        """

    def read_output(self, session_id: str, offset: int, limit: int) -> OutputChunk:
        """Read the output of a session that has ended. Blocks on the disk; safe from any thread."""

    def forget(self, session_ids: Iterable[str]) -> None:
        """Remove what is stored of sessions that have ended. Blocks on the disk."""


class SessionNeverStarted(Exception):  # noqa: N818  # a finding, not an error
    """Adoption found that nothing ran for this session, and made certain that nothing will."""
