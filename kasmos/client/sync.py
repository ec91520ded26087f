"""A blocking client for one-shot commands: `http.client` over a Unix socket, and nothing heavier.

One connection per request: a command makes one or two.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import quote

from kasmos.client.shapes import (
    NDJSON,
    SILENCE,
    TIMEOUT,
    OutputPiece,
    events_path,
    output_path,
    output_piece,
    read_json,
    refusal,
    submission,
)
from kasmos.exceptions import ClientError, RequestError
from kasmos.model.codec import CodecError, decode_record
from kasmos.model.event import Record


class Supervisor:
    """The supervisor that listens on a socket.

    Raises:
        ClientError: in every method: it could not be reached, or broke off its answer.
        RequestError: in every method: it refused.
    """

    def __init__(self, socket_path: str | os.PathLike[str], *, timeout: float = TIMEOUT) -> None:
        self.version: str | None = None
        """Of the supervisor, once it was found to be alive."""
        self._path = os.fspath(socket_path)
        self._timeout = timeout

    def get(self, path: str) -> Any:
        """Ask, and give back the answer's JSON."""
        with self._exchange("GET", path) as response:
            return read_json(_read_all(response))

    def post(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Command, and give back the answer's JSON.

        Args:
            timeout: seconds to wait for it; the client's own by default.
        """
        with self._exchange("POST", path, body or {}, headers=headers, timeout=timeout) as response:
            return read_json(_read_all(response))

    def alive(self) -> bool:
        """Whether a supervisor listens and answers, be it that it is not well. Raises nothing."""
        try:
            with self._exchange("GET", "/healthz", may_be=(503,)) as response:
                self.version = read_json(_read_all(response)).get("version")
        except ClientError:
            return False
        except RequestError:
            return True
        return True

    def submit_run(self, document: bytes, source: str, **options: Any) -> Any:
        """Submit a plan document, and give back what became of it.

        Args:
            source: the document's absolute path, or `-`.
            options: `fresh`, `agent`, `mode`, `max_concurrent`, `task_timeout`, `on_failure`.
        """
        return self.post("/v1/runs", submission(document, source, options))

    def get_task(self, name: str) -> Any:
        """The task that is called so."""
        return self.get(f"/v1/tasks/{quote(name, safe='')}")

    def read_output(self, session: str, offset: int = 0, *, limit: int = 65_536, wait: float = 0.0) -> OutputPiece:
        """Read a session's output from an absolute offset; a negative one counts from the end.

        Args:
            wait: seconds to wait for something to read.
        """
        path = output_path(session, offset, limit, wait)
        with self._exchange("GET", path, timeout=self._timeout + wait) as response:
            return output_piece(response.headers.get, _read_all(response))

    def stream_lines(self, path: str) -> Iterator[bytes]:
        """The lines of a streamed answer, without their ends, until the supervisor ends it.

        Close the generator to leave early.
        """
        headers = {"Accept": NDJSON}
        with self._exchange("GET", path, timeout=max(self._timeout, SILENCE), headers=headers) as response:
            rest = b""
            while piece := _read_piece(response):
                *lines, rest = (rest + piece).split(b"\n")
                yield from lines

    def events(self, after: int = 0, *, run: str | None = None) -> Iterator[Record]:
        """Every event with a number above *after*, history first, until the supervisor leaves.

        Kinds of events that only a newer kasmos knows are passed over.
        Close the generator to leave early.
        """
        with closing(self.stream_lines(events_path(after, run))) as lines:  # type: ignore[type-var]  # a generator
            for line in lines:
                try:
                    yield decode_record(line)
                except CodecError:
                    continue  # A heartbeat, or an event from the future.

    @contextmanager
    def _exchange(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        may_be: Collection[int] = (),
    ) -> Iterator[http.client.HTTPResponse]:
        """One request on a connection of its own; the answer is not a refusal, or has one of these statuses."""
        connection = _Connection(self._path, self._timeout if timeout is None else timeout)
        sent = {"Host": "kasmos", "Connection": "close", **(headers or {})}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        with closing(connection):
            try:
                response = _ask(connection, method, path, data, sent)
            except (OSError, http.client.HTTPException) as error:
                raise _unreached(self._path, error) from error
            if response.status >= 400 and response.status not in may_be:
                raise refusal(response.status, response.headers.get("Content-Type", ""), _read_all(response))
            yield response


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("kasmos", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _ask(
    connection: _Connection, method: str, path: str, data: bytes | None, headers: Mapping[str, str]
) -> http.client.HTTPResponse:
    try:
        connection.request(method, path, data, headers)
    except BrokenPipeError:
        # A body that is refused before it was sent: the reason can be read all the same.
        if connection.sock is None:
            raise
        response = http.client.HTTPResponse(connection.sock, method=method)
        response.begin()
        return response
    return connection.getresponse()


def _read_all(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read()
    except (OSError, http.client.HTTPException) as error:
        raise _broken_off(error) from error


def _read_piece(response: http.client.HTTPResponse) -> bytes:
    try:
        # Unlike `readline`, this tells an answer that was cut from one that has ended.
        return response.read1(65_536)
    except (OSError, http.client.HTTPException) as error:
        raise _broken_off(error) from error


def _unreached(path: str, error: Exception) -> ClientError:
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return ClientError(f"no supervisor is running (nobody listens on {path})")
    if isinstance(error, TimeoutError):
        return ClientError("the supervisor does not answer")
    return ClientError(f"the supervisor could not be reached at {path}: {error or type(error).__name__}")


def _broken_off(error: Exception) -> ClientError:
    if isinstance(error, TimeoutError):
        return ClientError("the supervisor has gone silent")
    return ClientError(f"the supervisor broke off its answer: {error or type(error).__name__}")
