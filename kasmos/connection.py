"""`kasmos.connect`: a client of the supervisor of a project, for other programs."""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from kasmos.client.aio import Client
from kasmos.client.aio import connect as connect_to
from kasmos.config.files import locate_project
from kasmos.config.load import read_state_root
from kasmos.store.stateroot import find_state_root

TIMEOUT = 30.0


def connect(
    project: str | os.PathLike[str] | None = None,
    *,
    socket: str | os.PathLike[str] | None = None,
    url: str | None = None,
    token: str | None = None,
    timeout: float = TIMEOUT,
) -> AbstractAsyncContextManager[Client]:
    """A client of the supervisor of a project: over its Unix socket, or where it listens.

    Usage, under Trio::

        async with kasmos.connect() as kas:
            task = await kas.submit("Triage this issue.")
            async for event in kas.follow(task.id):
                ...

    Nothing is sent yet; that nobody listens shows with the first question.

    Args:
        project: a directory in the project; default: the working directory.
        socket: the supervisor's Unix socket, if it is known.
        url: where it listens over TCP, such as `http://127.0.0.1:7878`.
        token: what lets us in over TCP, where one is needed.
        timeout: seconds for an answer.

    Raises:
        ConfigError: what the configuration says of the state root is wrong.
        StoreError: there is no place for a state root.
    """
    if url is not None:
        return connect_to(url=url, token=token, timeout=timeout)
    if socket is None:
        environ = dict(os.environ)
        found = locate_project(None if project is None else os.fspath(project))
        configured = read_state_root(found, environ=environ).value
        socket = find_state_root(Path(found), environ=environ, configured=configured).socket
    return connect_to(socket, timeout=timeout)
