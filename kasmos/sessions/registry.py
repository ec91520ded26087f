"""Which backend a mode means, and sessions for who has a mode, a name and a program.

Knows the backends there are as values it is given; imports none.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

from kasmos.exceptions import BackendUnavailableError, SessionStartError
from kasmos.model.event import Event
from kasmos.model.profile import ExecutionMode
from kasmos.model.session import SessionSpec
from kasmos.sessions.environment import child_environment
from kasmos.sessions.protocol import Backend, ExecutionSession, Notify

SKIP_PERMISSIONS: Mapping[str, tuple[str, ...]] = {
    "aider": ("--yes-always",),
    "claude": ("--permission-mode", "bypassPermissions"),
    "codex": ("--dangerously-bypass-approvals-and-sandbox",),
    "gemini": ("-y",),
    "opencode": ("--auto",),
    "qwen": ("-y",),
}
"""What makes a known program stop asking for permissions, by the name of its executable."""


def normalize_execution_mode(mode: str | ExecutionMode | None) -> ExecutionMode:
    """The mode that a text means; nothing means `headless`.

    Raises:
        BackendUnavailableError: there is no such mode. It is never taken for another one.
    """
    text = (mode or ExecutionMode.HEADLESS).strip().lower()
    try:
        return ExecutionMode(text)
    except ValueError:
        known = ", ".join(ExecutionMode)
        raise BackendUnavailableError(f"there is no execution mode {text!r}; there are {known}") from None


def require_backend(backends: Mapping[ExecutionMode, Backend], mode: ExecutionMode) -> Backend:
    """The backend for this mode.

    Raises:
        BackendUnavailableError: there is none here.
    """
    backend = backends.get(mode)
    if backend is None:
        raise BackendUnavailableError(
            f'execution_mode = "{mode}" is not available in this version of kasmos; use "headless"'
        )
    return backend


@asynccontextmanager
async def new_execution_session(
    backends: Mapping[ExecutionMode, Backend],
    mode: str | ExecutionMode | None,
    name: str,
    program: str,
    *,
    skip_permissions: bool = False,
    cwd: str | None = None,
    environ: Mapping[str, str] | None = None,
    notify: Notify | None = None,
) -> AsyncGenerator[ExecutionSession, None]:
    """Run a program in a session, without plan, task or journal.

    Args:
        backends: those there are, such as `{ExecutionMode.HEADLESS: backend}`.
        mode: as `normalize_execution_mode` takes it.
        name: for people.
        program: a shell-style command line.
        skip_permissions: add what makes a known program stop asking (`SKIP_PERMISSIONS`).
        cwd: where it runs; the present directory when None.
        environ: where its environment is taken from, by the allowlist; `os.environ` when None.
        notify: is told every fact about the session; nobody is when None.

    Raises:
        SessionStartError: it could not be started, or *program* is no command line.
        BackendUnavailableError: there is no such mode, or not here.

    Cancellation: as when the scope is left: the program is ended unless it was detached.
    """
    backend = require_backend(backends, normalize_execution_mode(mode))
    argv = _split(program)
    if skip_permissions:
        argv += SKIP_PERMISSIONS.get(os.path.basename(argv[0]), ())
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:40] or "session"
    session_id = f"{slug}-{secrets.token_hex(6)}"
    own = {"KASMOS_MANAGED": "1", "KASMOS_SESSION_ID": session_id}
    base = os.environ if environ is None else environ
    spec = SessionSpec(
        id=session_id,
        name=name,
        argv=argv,
        cwd=os.path.abspath(cwd or os.curdir),  # noqa: ASYNC240  # looks at no file
        backend=normalize_execution_mode(mode),
        env=child_environment(base, env_pass=(), env={}, own=own),
    )
    async with backend.open(spec, notify=notify or _nobody) as session:
        yield session


def _split(program: str) -> tuple[str, ...]:
    try:
        argv = tuple(shlex.split(program))
    except ValueError as error:
        raise SessionStartError(f"the command line {program!r} cannot be read: {error}") from error
    if not argv:
        raise SessionStartError("there is no program to start: the command line is empty")
    return argv


async def _nobody(event: Event) -> None:
    """Tell nobody."""
