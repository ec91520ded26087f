"""The permission tool of a headless agent: an MCP server on stdio that puts each question into a mailbox of files.

The agent starts it as `PYTHON permission_server.py DIRECTORY`, so it stands alone: nothing but the standard library.
It lives in the session and knows no supervisor; a question stays in the mailbox, whoever supervises, until it has an
answer there. `kasmos.sessions.mailbox` is the other side.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import sys
import time
from typing import Any

PROTOCOL = "2025-06-18"
TOOL = {
    "name": "approve",
    "description": "Asks whether a tool may be used.",
    "inputSchema": {
        "type": "object",
        "properties": {
            "tool_name": {"type": "string"},
            "input": {"type": "object"},
            "tool_use_id": {"type": "string"},
        },
        "required": ["tool_name", "input"],
    },
}
_MOVED_TO = 0x80


class Server:
    """Answers one client until it closes the stream."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._waiting: dict[str, Any] = {}
        """Requests that wait for an answer: their ids, by the name of their question."""
        self._notifier = ctypes.CDLL(None, use_errno=True)
        self._watch = self._notifier.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._notifier.inotify_add_watch(self._watch, os.fsencode(directory), _MOVED_TO) < 0:
            raise SystemExit(f"{directory}: {os.strerror(ctypes.get_errno())}")

    def serve(self) -> None:
        """Serve until standard input ends."""
        poll = select.poll()
        poll.register(0, select.POLLIN)
        poll.register(self._watch, select.POLLIN)
        rest = b""
        while True:
            for fd, _ in poll.poll():
                if fd == self._watch:
                    os.read(self._watch, 65_536)
                    continue
                data = os.read(0, 65_536)
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if line.strip():
                        self._take(json.loads(line))
            self._look_for_answers()

    def _take(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params") or {}
        if "id" not in message:
            if method == "notifications/cancelled":
                self._withdraw(params.get("requestId"))
            return
        match method:
            case "initialize":
                answer: Any = {
                    "protocolVersion": params.get("protocolVersion", PROTOCOL),
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "kasmos", "version": "1"},
                }
            case "tools/list":
                answer = {"tools": [TOOL]}
            case "tools/call":
                name = f"{time.time_ns():020d}-{os.getpid()}"
                self._waiting[name] = message["id"]
                self._write(f"{name}.ask", json.dumps(params.get("arguments") or {}))
                return
            case "ping":
                answer = {}
            case _:
                self._send({"id": message["id"], "error": {"code": -32601, "message": f"there is no {method}"}})
                return
        self._send({"id": message["id"], "result": answer})

    def _look_for_answers(self) -> None:
        for name in list(self._waiting):
            try:
                with open(f"{self._directory}/{name}.answer", encoding="utf-8") as file:
                    text = file.read()
            except FileNotFoundError:
                continue
            self._send({"id": self._waiting.pop(name), "result": {"content": [{"type": "text", "text": text}]}})

    def _withdraw(self, request_id: Any) -> None:
        for name in [name for name, waits in self._waiting.items() if waits == request_id]:
            del self._waiting[name]
            self._write(f"{name}.gone", "")

    def _write(self, name: str, text: str) -> None:
        # Whole or not at all, and there before anybody is told of it.
        with open(f"{self._directory}/.{name}", "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.rename(f"{self._directory}/.{name}", f"{self._directory}/{name}")

    def _send(self, message: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    Server(sys.argv[1]).serve()
