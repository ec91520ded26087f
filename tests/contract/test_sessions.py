"""Every promise of `kasmos.sessions.protocol`, on every backend."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from kasmos.exceptions import (
    ErrInteractiveOnly,
    InteractiveOnlyError,
    SessionClosedError,
    SessionError,
    SessionLostError,
    SessionStartError,
)
from kasmos.model.event import Event, KillSent, OutputLost, StopRequested
from kasmos.model.profile import StopPolicy
from kasmos.model.session import ExitStatus, SessionHandle, StopReason
from kasmos.sessions.protocol import ExecutionSession, OutputChunk, SessionNeverStarted
from tests.contract import programs
from tests.contract.conftest import LIMIT, Stage, ended, until, wrote

QUICK = StopPolicy(stop_grace=0.2)


async def everything(session: ExecutionSession) -> bytes:
    """The whole output of a session that has ended, as a patient reader collects it."""
    seen = b""
    while (chunk := await session.read(len(seen), 1000)).data:
        assert (chunk.offset, chunk.lost) == (len(seen), 0)
        seen += chunk.data
    return seen


@asynccontextmanager
async def left_running(stage: Stage, program: programs.Program) -> AsyncIterator[ExecutionSession]:
    """A session that was detached and whose scope was left, with the program running."""
    async with stage.open(program) as session:
        await wrote(session, b"\n")
        session.detach()
    yield session


# --- opening ----------------------------------------------------------------------


async def test_open_gives_handle(stage: Stage) -> None:
    """A session knows what it runs and has a handle that names it and its backend."""
    spec = stage.spec(programs.echo("hello"))
    async with stage.backend.open(spec, notify=stage.notify) as session:
        assert session.spec == spec
        assert (session.handle.session_id, session.handle.backend) == (spec.id, stage.mode)
        assert session.handle.boot_id
        assert session.capabilities == stage.backend.capabilities
        await ended(session)


async def test_open_pid(stage: Stage) -> None:
    """A session of a backend with processes has the pid of its program; any other has none."""
    async with stage.open(programs.WAITER) as session:
        assert (session.pid is not None) is stage.backend.capabilities.processes


async def test_open_what_cannot_be_started(stage: Stage) -> None:
    """A program that does not exist is a failed start, after which nothing runs."""
    spec = stage.spec(programs.MISSING)
    with pytest.raises(SessionStartError):
        async with stage.backend.open(spec, notify=stage.notify):
            pytest.fail("a program that does not exist was started")
    assert not stage.lives(spec.id)


async def test_open_what_cannot_be_started_leaves_nothing(stage: Stage) -> None:
    """After a failed start nothing is stored of the session."""
    spec = stage.spec(programs.MISSING)
    with pytest.raises(SessionStartError):
        async with stage.backend.open(spec, notify=stage.notify):
            pytest.fail("a program that does not exist was started")
    with pytest.raises((SessionError, OSError)):
        stage.backend.read_output(spec.id, 0, 1)


async def test_open_cancelled(stage: Stage) -> None:
    """A start that is cancelled leaves nothing running."""
    spec = stage.spec(programs.WAITER)
    with trio.CancelScope() as scope:
        scope.cancel()
        async with stage.backend.open(spec, notify=stage.notify):
            await trio.sleep_forever()
    assert not stage.lives(spec.id)


async def test_open_twice(stage: Stage) -> None:
    """A session id runs once: to open it again is refused, and does not disturb the session that runs."""
    spec = stage.spec(programs.WAITER)
    async with stage.backend.open(spec, notify=stage.notify) as session:
        await wrote(session, b"ready\n")
        with pytest.raises(SessionStartError):
            async with stage.backend.open(spec, notify=stage.notify):
                pytest.fail("it was started twice")
        assert stage.lives(spec.id)
        assert session.exit is None


async def test_open_after_the_end(stage: Stage) -> None:
    """A session id that has run does not run again."""
    spec = stage.spec(programs.echo("once"))
    async with stage.backend.open(spec, notify=stage.notify) as session:
        await ended(session)
    with pytest.raises(SessionStartError):
        async with stage.backend.open(spec, notify=stage.notify):
            pytest.fail("it was started twice")


# --- the end ----------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 7, 255])
async def test_wait_gives_exit_code(stage: Stage, code: int) -> None:
    """The exit code of a program is exact."""
    async with stage.open(programs.crasher(code)) as session:
        assert await ended(session) == ExitStatus(code=code)


@pytest.mark.parametrize("name", ["KILL", "SEGV", "USR1"])
async def test_wait_gives_signal(stage: Stage, name: str) -> None:
    """A program that was killed by a signal has that signal, and no code."""
    async with stage.open(programs.crasher(name)) as session:
        assert await ended(session) == ExitStatus(signal=signal.Signals[f"SIG{name}"])


async def test_wait_tells_code_from_signal(stage: Stage) -> None:
    """`exit 137` is a code, and no SIGKILL."""
    async with stage.open(programs.crasher(137)) as session:
        assert await ended(session) == ExitStatus(code=137)


async def test_wait_by_many(stage: Stage) -> None:
    """All who wait for a session get the same value, before and after its end."""
    found: list[ExitStatus] = []

    async def look(session: ExecutionSession) -> None:
        found.append(await ended(session))

    async with stage.open(programs.ticker(3)) as session:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(look, session)
        await look(session)
    assert found == [ExitStatus(code=0)] * 6


async def test_wait_cancelled(stage: Stage) -> None:
    """To stop waiting has no effect on the program, and one may wait again."""
    async with stage.open(programs.WAITER) as session:
        await wrote(session, b"ready\n")
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(0.05):
                await session.wait()
        assert session.exit is None
        assert stage.lives(session.spec.id)
        await session.signal(signal.SIGTERM)
        assert await ended(session) == ExitStatus(signal=signal.SIGTERM)


async def test_exit_after_wait(stage: Stage) -> None:
    """The exit status stays known after the wait, and after the scope."""
    async with stage.open(programs.LAST_WORDS) as session:
        await wrote(session, b"ready\n")
        seen = [session.exit]
        await session.signal(signal.SIGTERM)
        await ended(session)
        seen.append(session.exit)
    assert [*seen, session.exit] == [None, ExitStatus(code=3), ExitStatus(code=3)]


# --- signals ----------------------------------------------------------------------


async def test_signal_ends_polite_program(stage: Stage) -> None:
    """A signal reaches the program, which ends by it."""
    async with stage.open(programs.WAITER) as session:
        await wrote(session, b"ready\n")
        if session.pid is not None:
            # A shell that is about to become another program may still take this signal for itself, to no end.
            comm = Path(f"/proc/{session.pid}/comm")
            await until(lambda: comm.read_text() == "sleep\n")
        await session.signal(signal.SIGINT)
        assert await ended(session) == ExitStatus(signal=signal.SIGINT)


async def test_signal_lets_the_program_choose_its_end(stage: Stage) -> None:
    """A program that catches the signal ends as it likes, and its last words are kept."""
    async with stage.open(programs.LAST_WORDS) as session:
        await wrote(session, b"ready\n")
        await session.signal(signal.SIGTERM)
        assert await ended(session) == ExitStatus(code=3)
        assert await everything(session) == b"ready\nlast words\n"


async def test_signal_and_kill_after_the_end(stage: Stage) -> None:
    """Signals for a program that has ended go nowhere."""
    async with stage.open(programs.echo("hello")) as session:
        await ended(session)
        await session.signal(signal.SIGTERM)
        await session.kill()
        assert session.exit == ExitStatus(code=0)


async def test_kill_ends_stubborn_program(stage: Stage) -> None:
    """SIGKILL ends what ignores every polite signal."""
    async with stage.open(programs.STUBBORN) as session:
        await wrote(session, b"ready\n")
        await session.signal(signal.SIGTERM)
        with trio.move_on_after(0.05):
            await session.wait()
        assert session.exit is None
        await session.kill()
        assert await ended(session) == ExitStatus(signal=signal.SIGKILL)


# --- output -----------------------------------------------------------------------


async def test_output_after_the_end(stage: Stage) -> None:
    """All that was written before the end can be read after it, and after the scope."""
    async with stage.open(programs.chatty(2000)) as session:
        await ended(session)
        assert await everything(session) == programs.numbered(2000)
    assert stage.backend.read_output(session.spec.id, 0, 1 << 20) == OutputChunk(0, programs.numbered(2000))


async def test_output_by_offset(stage: Stage) -> None:
    """Output is read by absolute byte offset, up to a limit."""
    async with stage.open(programs.chatty(100)) as session:
        await ended(session)
        assert session.read_nowait(80, 8) == OutputChunk(80, b"0000080\n")
        assert await session.read(792, 100) == OutputChunk(792, b"0000792\n")
        assert stage.backend.read_output(session.spec.id, 81, 3) == OutputChunk(81, b"000")


async def test_output_exact_bytes(stage: Stage) -> None:
    """Output is bytes: NUL and what is not UTF-8 are kept, and replaced only where text is asked for."""
    async with stage.open(programs.BINARY) as session:
        await ended(session)
        assert await everything(session) == b"a\x00b\xff\xfec\xc3"
        if not session.capabilities.interactive:  # a screen is made of what can be shown
            assert session.capture() == "a\x00b\ufffd\ufffdc\ufffd"


async def test_output_without_newline(stage: Stage) -> None:
    """A last line without its newline is output like any other."""
    async with stage.open(programs.NO_NEWLINE) as session:
        await ended(session)
        assert await everything(session) == b"no newline"
        assert session.capture() == "no newline"


async def test_read_waits_for_output(stage: Stage) -> None:
    """A reader at the end of what was written waits for more, and is told of the end by an empty chunk."""
    async with stage.open(programs.ticker(5)) as session:
        seen = b""
        with trio.fail_after(LIMIT):
            while (chunk := await session.read(len(seen))).data:
                seen += chunk.data
        assert seen == programs.numbered(5)
        assert not stage.lives(session.spec.id)


async def test_read_cancelled(stage: Stage) -> None:
    """To stop reading has no effect on the session, and one may read again."""
    async with stage.open(programs.LAST_WORDS) as session:
        await wrote(session, b"ready\n")
        with trio.move_on_after(0.05) as scope:
            await session.read(6)
        assert scope.cancelled_caught
        await session.signal(signal.SIGTERM)
        assert await wrote(session, b"last words\n", offset=6) == b"last words\n"


async def test_read_nowait_at_the_end(stage: Stage) -> None:
    """Where nothing has been written yet there is an empty chunk at the offset asked for, at once."""
    async with stage.open(programs.SILENT) as session:
        assert session.read_nowait(0) == OutputChunk(0, b"")


async def test_read_nowait_from_threads(stage: Stage) -> None:
    """Output can be read from any thread while the program writes."""
    seen = b""

    def look(session: ExecutionSession) -> None:
        nonlocal seen
        while len(seen) < 80:
            seen += session.read_nowait(len(seen)).data

    async with stage.open(programs.ticker(10)) as session:
        with trio.fail_after(LIMIT):
            await trio.to_thread.run_sync(look, session)
    assert seen == programs.numbered(10)


async def test_slow_reader_stalls_nobody(stage: Stage) -> None:
    """A program that nobody reads from, and whose output exceeds the buffer by far, ends all the same."""
    async with stage.open(programs.chatty(100_000), buffer_bytes=1000) as session:
        assert await ended(session) == ExitStatus(code=0)
        assert session.output_bytes == 800_000


async def test_reader_that_falls_behind_is_told(stage: Stage) -> None:
    """A reader whose offset is no longer kept is told how much it lost, and goes on with true bytes."""
    whole = programs.numbered(100_000)
    async with stage.open(programs.chatty(100_000), buffer_bytes=4096, max_log_bytes=50_000) as session:
        await ended(session)
        # A log is cut to its bound now and then, not with every byte.
        await until(lambda: session.read_nowait(0).lost > 0)
        chunk = session.read_nowait(0, 1 << 20)
    assert chunk.offset == chunk.lost
    assert len(whole) - 1_000 > chunk.lost
    assert chunk.data == whole[chunk.offset :]


async def test_older_output_than_the_buffer_holds(stage: Stage) -> None:
    """What the buffer in memory no longer holds is read from the log, without loss."""
    async with stage.open(programs.chatty(10_000), buffer_bytes=100) as session:
        await ended(session)
        assert session.read_nowait(8, 16) == OutputChunk(8, b"0000008\n0000016\n")


async def test_truncated_output_is_told(stage: Stage) -> None:
    """Output that a program destroyed is declared lost, by an event and to readers, and offsets go on."""
    if stage.backend.capabilities.interactive:
        # What a terminal was told cannot be taken back.
        async with stage.open(programs.TRUNCATOR) as session:
            await stage.let_go_on(session)
            await ended(session)
            assert await everything(session) == b"before\nafter\n"
        return
    async with stage.open(programs.TRUNCATOR) as session:
        await wrote(session, b"before\n")
        await stage.let_go_on(session)
        await ended(session)
        assert session.read_nowait(7) == OutputChunk(7, b"after\n")
        assert session.output_bytes == 13
    assert stage.backend.read_output(session.spec.id, 0, 100) == OutputChunk(7, b"after\n", lost=7)
    (lost,) = [event for event in stage.events if isinstance(event, OutputLost)]
    assert (lost.session_id, lost.offset) == (session.spec.id, 7)


async def test_output_bytes(stage: Stage) -> None:
    """The count of output only grows, up to all that was written."""
    counts = [0]
    async with stage.open(programs.ticker(10)) as session:
        with trio.fail_after(LIMIT):
            while (await session.read(counts[-1])).data:
                counts.append(session.output_bytes)
    assert counts == sorted(counts)
    assert counts[-1] == 80


async def test_has_updated(stage: Stage) -> None:
    """A session tells once that output has arrived since it was last asked."""
    async with stage.open(programs.WAITER) as session:
        await wrote(session, b"ready\n")
        assert session.has_updated()
        assert not session.has_updated()


async def test_has_updated_of_one_that_asks_nothing(stage: Stage) -> None:
    """A program that asks nothing has no prompt, or none that can be told of: no rules know its screen."""
    async with stage.open(programs.WAITER) as session:
        await wrote(session, b"ready\n")
        changed, prompt = session.has_updated()
        assert (changed, prompt) == (True, None if session.capabilities.interactive else False)


async def test_has_updated_of_one_that_asks(stage: Stage) -> None:
    """A program that asks at its terminal, or by itself, has a prompt until it ends; one that cannot never has."""
    async with stage.open(programs.PROMPTER) as session:
        await wrote(session, b"ready")
        capabilities = session.capabilities
        if capabilities.interactive or capabilities.asks:
            await until(lambda: session.has_updated().prompt is True)
        else:
            assert session.has_updated().prompt is False
        await session.kill()
        await ended(session)
        assert session.has_updated().prompt is False


async def test_capture_lines(stage: Stage) -> None:
    """What is captured are lines in memory, counted as a Python slice counts; or a screen's, as tmux counts them."""
    async with stage.open(programs.chatty(5)) as session:
        await ended(session)
        if session.capabilities.interactive:
            assert [line.strip() for line in session.capture(1, 2).split("\n")] == ["0000008", "0000016"]
            return
        assert session.capture(1, 3) == "0000008\n0000016"
        assert session.capture(-1) == "0000032"


async def test_screen_is_what_is_captured(stage: Stage) -> None:
    """A screen that is waited for is as new as the output, and what is left of it can be looked at after the end."""
    async with stage.open(programs.WAITER) as session:
        await wrote(session, b"ready\n")
        with trio.fail_after(LIMIT):
            while "ready" not in await session.screen():  # noqa: ASYNC110  # nobody tells when it is drawn
                await trio.sleep(0.01)
    assert "ready" in await session.screen()
    assert "ready" in session.capture()


async def test_sessions_side_by_side(stage: Stage) -> None:
    """Sessions that run at the same time do not mix."""
    found: dict[str, bytes] = {}

    async def run(text: str) -> None:
        async with stage.open(programs.echo(text)) as session:
            await ended(session)
            found[text] = await everything(session)

    async with trio.open_nursery() as nursery:
        for i in range(8):
            nursery.start_soon(run, f"number {i}")
    assert found == {f"number {i}": f"number {i}\n".encode() for i in range(8)}


# --- leaving the scope ------------------------------------------------------------


async def test_leaving_ends_the_program(stage: Stage) -> None:
    """When the scope is left, the program ends, and its end is known."""
    async with stage.open(programs.WAITER) as session:
        await wrote(session, b"ready\n")
        assert stage.lives(session.spec.id)
    assert not stage.lives(session.spec.id)
    assert await ended(session) == ExitStatus(signal=signal.SIGTERM)


async def test_leaving_tells_before_it_acts(stage: Stage) -> None:
    """That a session is to stop is durable before the first signal, and that it is to be killed before SIGKILL."""
    spec = stage.spec(programs.STUBBORN, stop=QUICK)
    lived: dict[type[Event], bool] = {}

    async def notify(event: Event) -> None:
        await stage.notify(event)
        lived[type(event)] = stage.lives(spec.id)

    async with stage.backend.open(spec, notify=notify) as session:
        await wrote(session, b"ready\n")
    assert not stage.lives(spec.id)
    assert lived == {StopRequested: True, KillSent: True}


async def test_leaving_by_an_error(stage: Stage) -> None:
    """When the scope is left by an error, the program ends, and the error is what it was."""
    spec = stage.spec(programs.WAITER)

    async def fail() -> None:
        async with stage.backend.open(spec, notify=stage.notify) as session:
            await wrote(session, b"ready\n")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert not stage.lives(spec.id)


async def test_leaving_by_cancellation(stage: Stage) -> None:
    """When the scope is left by cancellation, the program is still asked politely, and its last words are kept."""
    with trio.CancelScope() as scope:
        async with stage.open(programs.LAST_WORDS) as session:
            await wrote(session, b"ready\n")
            scope.cancel()
            await trio.sleep_forever()
    assert session.exit == ExitStatus(code=3)
    assert stage.backend.read_output(session.spec.id, 6, 100).data == b"last words\n"


async def test_leaving_is_bounded(stage: Stage) -> None:
    """A program that ignores every polite signal cannot keep the scope from being left."""
    with trio.fail_after(LIMIT):
        async with stage.open(programs.STUBBORN, stop=QUICK) as session:
            await wrote(session, b"ready\n")
    assert session.exit == ExitStatus(signal=signal.SIGKILL)
    assert not stage.lives(session.spec.id)


async def test_leaving_after_the_end(stage: Stage) -> None:
    """To leave the scope of a session that has ended asks nobody to stop."""
    async with stage.open(programs.echo("hello")) as session:
        await ended(session)
    assert stage.events == []


# --- detaching and adopting -------------------------------------------------------


async def test_detached_program_runs_on(stage: Stage) -> None:
    """A detached program outlives its scope, and can be adopted and stopped by another supervisor."""
    async with left_running(stage, programs.WAITER) as left, stage.another() as backend:
        assert stage.lives(left.spec.id)
        async with backend.adopt(left.spec, left.handle, notify=stage.notify) as session:
            assert session.spec.id == left.spec.id
            assert session.pid == left.pid
            await session.signal(signal.SIGTERM)
            assert await ended(session) == ExitStatus(signal=signal.SIGTERM)


async def test_detached_while_cancelled(stage: Stage) -> None:
    """A detached program is left running however the scope is left."""
    with trio.CancelScope() as scope:
        async with stage.open(programs.WAITER) as session:
            await wrote(session, b"ready\n")
            session.detach()
            scope.cancel()
            await trio.sleep_forever()
    assert stage.lives(session.spec.id)
    assert stage.events == []
    async with stage.another() as backend, backend.adopt(session.spec, session.handle, notify=stage.notify):
        pass
    assert not stage.lives(session.spec.id)


async def test_detach_after_the_scope(stage: Stage) -> None:
    """A session whose scope has been left can no longer be detached."""
    async with stage.open(programs.echo("hello")) as session:
        await ended(session)
    with pytest.raises(SessionClosedError):
        session.detach()


async def test_adopted_output_is_continuous(stage: Stage) -> None:
    """An adopted session has all its output, from the first byte on, at the same offsets."""
    async with stage.open(programs.ticker(50)) as session:
        await wrote(session, b"0000016\n")
        session.detach()
    async with (
        stage.another() as backend,
        backend.adopt(session.spec, session.handle, notify=stage.notify) as adopted,
    ):
        assert await ended(adopted) == ExitStatus(code=0)
        assert await everything(adopted) == programs.numbered(50)


async def test_adopted_ends_with_its_scope(stage: Stage) -> None:
    """Leaving the scope of an adopted session ends the program as well."""
    async with left_running(stage, programs.LAST_WORDS) as left, stage.another() as backend:
        async with backend.adopt(left.spec, left.handle, notify=stage.notify) as session:
            pass
        assert session.exit == ExitStatus(code=3)
        assert not stage.lives(left.spec.id)


async def test_adopted_and_detached_again(stage: Stage) -> None:
    """An adopted session can be detached again: one supervisor after the other may come and go."""
    async with left_running(stage, programs.WAITER) as left:
        for _ in range(3):
            async with (
                stage.another() as backend,
                backend.adopt(left.spec, left.handle, notify=stage.notify) as session,
            ):
                session.detach()
            assert stage.lives(left.spec.id)
        async with stage.another() as backend, backend.adopt(left.spec, left.handle, notify=stage.notify):
            pass
    assert not stage.lives(left.spec.id)


async def test_adopted_and_detached_at_once(stage: Stage) -> None:
    """A session that was let go of is left alone, although the supervisor that let go of it lives on."""
    async with left_running(stage, programs.WAITER) as left, stage.another() as backend:
        async with backend.adopt(left.spec, left.handle, notify=stage.notify) as session:
            session.detach()
        with trio.move_on_after(0.3):
            await until(lambda: not stage.lives(left.spec.id))
        assert stage.lives(left.spec.id)
        async with backend.adopt(left.spec, left.handle, notify=stage.notify):
            pass
    assert stage.events == [StopRequested(left.spec.id, StopReason.INTERRUPTED)]


async def test_adopt_what_has_ended(stage: Stage) -> None:
    """A session that ended while nobody watched is adopted with its end and all its output."""
    async with stage.open(programs.ticker(3)) as left:
        left.detach()
    await until(lambda: not stage.lives(left.spec.id))
    async with (
        stage.another() as backend,
        backend.adopt(left.spec, left.handle, notify=stage.notify) as session,
    ):
        assert (await ended(session)).code == 0
        assert await everything(session) == programs.numbered(3)


async def test_adopt_what_never_started(stage: Stage) -> None:
    """Adopting what never ran says so, and makes certain that it never will."""
    async with stage.open(programs.echo("to learn of this boot")) as session:
        await ended(session)
    spec = stage.spec(programs.WAITER)
    handle = SessionHandle(spec.id, stage.mode, session.handle.boot_id)
    with pytest.raises(SessionNeverStarted):
        async with stage.backend.adopt(spec, handle, notify=stage.notify):
            pytest.fail("there was nothing to adopt")
    with pytest.raises(SessionStartError):
        async with stage.backend.open(spec, notify=stage.notify):
            pytest.fail("it was to run never")
    assert not stage.lives(spec.id)


async def test_adopt_from_another_boot(stage: Stage) -> None:
    """What was started before the machine booted anew, and has left no word of its end, is lost."""
    spec = stage.spec(programs.WAITER)
    handle = SessionHandle(spec.id, stage.mode, "00000000-0000-0000-0000-000000000000")
    with pytest.raises(SessionLostError):
        async with stage.backend.adopt(spec, handle, notify=stage.notify):
            pytest.fail("there was nothing to adopt")


async def test_forget(stage: Stage) -> None:
    """What is stored of a session that has ended can be removed."""
    async with stage.open(programs.echo("hello")) as session:
        await ended(session)
    stage.backend.forget([session.spec.id])
    with pytest.raises((SessionError, OSError)):
        stage.backend.read_output(session.spec.id, 0, 1)


# --- what a backend cannot do -----------------------------------------------------

Verb = Callable[[ExecutionSession], Awaitable[None]]


@pytest.mark.parametrize(
    "verb",
    [
        pytest.param(lambda session: session.attach(), id="attach"),
        pytest.param(lambda session: session.send_keys("y"), id="send_keys"),
        pytest.param(lambda session: session.tap_enter(), id="tap_enter"),
        pytest.param(lambda session: session.send_permission_response("allow"), id="send_permission_response"),
        pytest.param(lambda session: session.set_detached_size(80, 24), id="set_detached_size"),
    ],
)
async def test_interactive_verbs(stage: Stage, verb: Verb) -> None:
    """A backend without a terminal refuses the interactive verbs, and the program does not notice."""
    async with stage.open(programs.WAITER) as session:
        await wrote(session, b"ready\n")
        if session.capabilities.interactive:
            return  # what they do there is tested where there is a terminal
        with pytest.raises(InteractiveOnlyError):
            await verb(session)
        assert stage.lives(session.spec.id)


def test_interactive_error_has_two_names() -> None:
    """The error of the interactive verbs goes by its historical name too."""
    assert ErrInteractiveOnly is InteractiveOnlyError


# --- real processes ---------------------------------------------------------------


FORKERS = ["forker", "setsid_forker", "python_forker"]


def forker(name: str) -> programs.Program:
    return programs.Program((str(programs.FOLDER / name),), programs.echo("0").script)


@pytest.mark.parametrize("name", FORKERS)
async def test_descendants_do_not_delay_the_end(stage: Stage, name: str) -> None:
    """What a program leaves behind does not delay its end for ever, and is gone after it."""
    async with stage.open(forker(name)) as session:
        assert await ended(session) == ExitStatus(code=0)
        pid = int(session.read_nowait(0).data)
    assert (pid > 0) is stage.backend.capabilities.processes
    assert not stage.lives(session.spec.id)


async def test_program_reads_its_prompt(stage: Stage) -> None:
    """A program's standard input is its prompt where that is wanted, byte for byte; a script reads nothing."""
    prompt = "line\n" * 50_000 + "é"
    program = programs.Program((str(programs.FOLDER / "stdin_reader"),), programs.echo("nothing").script)
    if stage.backend.capabilities.interactive:
        with pytest.raises(SessionStartError, match="standard input"):
            async with stage.open(program, prompt=prompt, stdin_prompt=True):
                pytest.fail("its standard input is the terminal")
        return
    read = prompt.encode() + b"end of input\n" if stage.backend.capabilities.processes else b"nothing\n"
    async with stage.open(program, prompt=prompt, stdin_prompt=True) as session:
        await ended(session)
        assert await everything(session) == read


async def test_program_without_a_prompt_reads_nothing(stage: Stage) -> None:
    """A program's standard input is empty where no prompt is given there, and is not a terminal."""
    if stage.backend.capabilities.interactive:
        return  # it is one
    program = programs.Program((str(programs.FOLDER / "stdin_reader"),), programs.echo("end of input").script)
    async with stage.open(program) as session:
        await ended(session)
        assert await everything(session) == b"end of input\n"
