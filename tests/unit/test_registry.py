"""Modes, backends, and sessions without a plan."""

from __future__ import annotations

import pytest

from kasmos.exceptions import BackendUnavailableError, SessionStartError
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import ExitStatus
from kasmos.sessions.registry import new_execution_session, normalize_execution_mode
from kasmos.sessions.script import Script
from kasmos.sessions.scripted import ScriptedBackend
from kasmos.supervision.termination import terminate


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        (None, ExecutionMode.HEADLESS),
        ("", ExecutionMode.HEADLESS),
        (" Headless ", ExecutionMode.HEADLESS),
        ("TMUX", ExecutionMode.TMUX),
        (ExecutionMode.SCRIPTED, ExecutionMode.SCRIPTED),
    ],
)
def test_mode_is_recognised(text: str | None, mode: ExecutionMode) -> None:
    """A mode is recognised in any case, and nothing means headless."""
    assert normalize_execution_mode(text) is mode


def test_unknown_mode_is_refused() -> None:
    """An unknown mode is refused by name and never taken for another one."""
    with pytest.raises(BackendUnavailableError, match=r"'screen'.*headless, tmux, scripted"):
        normalize_execution_mode("screen")


async def test_mode_without_a_backend_is_refused() -> None:
    """A mode whose backend is not here is refused with what to use instead."""
    with pytest.raises(BackendUnavailableError, match='use "headless"'):
        async with new_execution_session({}, "tmux", "one", "true"):
            pass


async def test_session_without_a_plan() -> None:
    """A mode, a name and a command line are enough for a session, which marks its environment."""
    backend = ScriptedBackend(lambda spec: Script(exit=ExitStatus(code=4)), terminate=terminate)
    backends = {ExecutionMode.SCRIPTED: backend}
    async with new_execution_session(
        backends,
        "scripted",
        "my agent",
        "claude 'two words'",
        skip_permissions=True,
        environ={"PATH": "/bin"},
    ) as session:
        assert await session.wait() == ExitStatus(code=4)
        spec = session.spec
    assert spec.argv == ("claude", "two words", "--permission-mode", "bypassPermissions")
    assert spec.env == {"PATH": "/bin", "KASMOS_MANAGED": "1", "KASMOS_SESSION_ID": spec.id}
    assert spec.id.startswith("my-agent-")


@pytest.mark.parametrize("program", ["", "  ", "claude 'half a quote"])
async def test_what_is_no_command_line_is_refused(program: str) -> None:
    """A command line that is empty, or whose quotes do not match, is a start that failed."""
    backend = ScriptedBackend(lambda spec: Script(), terminate=terminate)
    with pytest.raises(SessionStartError, match="command line"):
        async with new_execution_session({ExecutionMode.SCRIPTED: backend}, "scripted", "one", program):
            pytest.fail("started")
