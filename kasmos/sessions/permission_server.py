"""The permission tool of a headless agent: an MCP server on stdio that puts each question into a mailbox of files.

The agent starts it as `PYTHON permission_server.py DIRECTORY`. It lives in the session and knows no supervisor; a
question stays in the mailbox, whoever supervises, until it has an answer there.
"""

from __future__ import annotations

import json
import os
import select
import sys
from typing import Any

# Started by its file, it may be in an interpreter that has no kasmos installed.
sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from kasmos.sessions.letterbox import Letterbox

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


class Server:
    """Answers one client until it closes the stream."""

    def __init__(self, directory: str) -> None:
        self._letterbox = Letterbox(directory)
        self._waiting: dict[str, Any] = {}
        """Requests that wait for an answer: their ids, by the name of their question."""

    def serve(self) -> None:
        """Serve until standard input ends."""
        poll = select.poll()
        poll.register(0, select.POLLIN)
        poll.register(self._letterbox, select.POLLIN)
        rest = b""
        while True:
            for fd, _ in poll.poll():
                if fd != 0:
                    continue
                data = os.read(0, 65_536)
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if line.strip():
                        self._take(json.loads(line))
            for name, text in self._letterbox.take_answers():
                self._send({"id": self._waiting.pop(name), "result": {"content": [{"type": "text", "text": text}]}})

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
                self._waiting[self._letterbox.ask(params.get("arguments") or {})] = message["id"]
                return
            case "ping":
                answer = {}
            case _:
                self._send({"id": message["id"], "error": {"code": -32601, "message": f"there is no {method}"}})
                return
        self._send({"id": message["id"], "result": answer})

    def _withdraw(self, request_id: Any) -> None:
        for name in [name for name, waits in self._waiting.items() if waits == request_id]:
            del self._waiting[name]
            self._letterbox.withdraw(name)

    def _send(self, message: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    Server(sys.argv[1]).serve()
