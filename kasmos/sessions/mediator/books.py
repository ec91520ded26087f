"""The books that programs keep of a conversation themselves, where their protocol tells less than they know.

    opencode  its own server, on loopback: every message of a session with its tokens; over the protocol it tells those
              of a turn's last request only
    gemini    the file of the session: every answer with its tokens; over the protocol it leaves out what was thought

Found with opencode 1.18.33 and gemini 0.61.0. What is in the books counts only where it agrees with what the protocol
tells: a version that keeps them otherwise makes its usage unknown, or an estimate, and never wrong. Nothing raises.
"""

from __future__ import annotations

import base64
import glob
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from kasmos.sessions.mediator.link import Message, dict_of, list_of, text_of

PATIENCE = 15.0
"""Seconds that opencode's server has for an answer."""
_MOST = 64 << 20
"""Bytes that are read of an answer, and of a file."""
_MOST_SESSIONS = 100
"""Sessions, helpers' among them, that are asked for."""
_LISTENING, _LOOPBACK = "0A", "0100007F"
_MARGIN = 0.5
"""Seconds that are waited on when a minute should be over."""
_FEW = 20
"""Lines by which a file is told that says nothing: it has two to four."""
_CONTEXT = "<session_context>"
"""What gemini tells its model of the place begins so."""


class Tally(NamedTuple):
    """What was used."""

    input: int = 0
    """With what came from the cache."""
    output: int = 0
    """With what was thought."""
    cached: int = 0
    thought: int = 0
    cost: float = 0.0
    """In USD, by the program's own table; 0 where it has no price."""

    def plus(self, other: Tally) -> Tally:
        """Both together."""
        return Tally(
            self.input + other.input,
            self.output + other.output,
            self.cached + other.cached,
            self.thought + other.thought,
            self.cost + other.cost,
        )


class Entry(NamedTuple):
    """What one answer of a model used."""

    tally: Tally
    told: tuple[int, int]
    """Input and output, as the protocol tells them."""
    is_own: bool = True
    """False for an answer to a helper, of which the protocol tells nothing."""


class Books:
    """The books of one program; these are empty."""

    def __init__(self) -> None:
        self._before: set[str] = set()

    def pause(self, session: str) -> float:
        """Seconds that have to pass before the program may load this session."""
        return 0.0

    def open(self, session: str) -> None:
        """What is there by now was used before the turn."""
        self._before |= set(self._read(session))

    def close(self, session: str, told: Message) -> Tally | None:
        """What was used since they were opened; None where they do not agree with what the protocol *told*."""
        entries = self._read(session)
        new = [entry for id_, entry in entries.items() if id_ not in self._before]
        self._before |= set(entries)
        if not self._agrees([entry.told for entry in new if entry.is_own], told):
            return None
        total = Tally()
        for entry in new:
            total = total.plus(entry.tally)
        return total

    def _read(self, session: str) -> dict[str, Entry]:
        """What every answer used, by its id, oldest first."""
        return {}

    def _agrees(self, told: list[tuple[int, int]], response: Message) -> bool:
        return False


class OpencodeBooks(Books):
    """Asks the server that `opencode acp` is.

    Args:
        pid: of the program.
    """

    def __init__(self, pid: int) -> None:
        super().__init__()
        self._pid = pid

    def _read(self, session: str) -> dict[str, Entry]:
        for port in _ports_of(self._pid):
            with suppress(_NoBooksError):  # what else the program listens on answers something else
                return _read_server(port, session)
        return {}

    def _agrees(self, told: list[tuple[int, int]], response: Message) -> bool:
        usage = dict_of(response.get("usage"))
        return told[-1:] == [(usage.get("inputTokens"), usage.get("outputTokens"))]


def _read_server(port: int, session: str) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    sessions = [session]
    for at, one in enumerate(sessions):  # grows as helpers are found
        for message in _ask(port, f"/session/{one}/message"):
            _note(dict_of(dict_of(message).get("info")), found, is_own=at == 0)
        helpers = map(dict_of, _ask(port, f"/session/{one}/children"))
        sessions += list(filter(None, (text_of(helper.get("id")) for helper in helpers)))
        del sessions[_MOST_SESSIONS:]
    return found


def _note(info: Message, found: dict[str, Entry], *, is_own: bool) -> None:
    tokens, id_ = dict_of(info.get("tokens")), text_of(info.get("id"))
    if info.get("role") != "assistant" or not tokens or not id_:
        return
    fresh, out, thought = (_count(tokens.get(name)) for name in ("input", "output", "reasoning"))
    cached, written = (_count(dict_of(tokens.get("cache")).get(name)) for name in ("read", "write"))
    cost: Any = info.get("cost")
    money = float(cost) if type(cost) in (int, float) and 0 <= cost < _MOST else 0.0
    found[id_] = Entry(Tally(fresh + cached + written, out + thought, cached, thought, money), (fresh, out), is_own)


class _NoBooksError(Exception):
    """The server cannot be asked, or is another one."""


def _ask(port: int, target: str) -> list[Any]:
    import http.client  # only of opencode, and only when its turn is over

    user, password = os.environ.get("OPENCODE_SERVER_USERNAME", "opencode"), os.environ.get("OPENCODE_SERVER_PASSWORD")
    headers = {}
    if password:
        headers["Authorization"] = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
    server = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        server.request("GET", target, headers=headers)
        answer = server.getresponse()
        said = json.loads(answer.read(_MOST)) if answer.status == 200 else None
    except (OSError, ValueError, RecursionError, http.client.HTTPException) as error:
        raise _NoBooksError from error
    finally:
        server.close()
    if not isinstance(said, list):
        raise _NoBooksError
    return said


def _ports_of(pid: int) -> Iterator[int]:
    """The ports on which a program, or a part of it, listens on loopback."""
    sockets = set()
    for one in _members(pid):
        with suppress(OSError):  # it may be gone
            for fd in os.listdir(f"/proc/{one}/fd"):
                with suppress(OSError):
                    sockets.add(os.readlink(f"/proc/{one}/fd/{fd}"))
    with suppress(OSError), open("/proc/net/tcp", encoding="ascii") as file:
        for line in file:
            words = line.split()
            place, _, port = words[1].partition(":")
            if words[3] == _LISTENING and place == _LOOPBACK and f"socket:[{words[9]}]" in sockets:
                yield int(port, 16)


def _members(pid: int) -> Iterator[int]:
    """The processes of the kernel session that a program leads; its tools have sessions of their own."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if os.getsid(int(name)) == pid:
                yield int(name)


class GeminiBooks(Books):
    """Reads the files in which gemini records its sessions.

    Args:
        home: in which its directory `.gemini` is.
        now: the time, in seconds since 1970.
    """

    def __init__(self, home: str, now: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._chats = f"{glob.escape(home)}/.gemini/tmp/*/chats"
        self._now = now

    def pause(self, session: str) -> float:
        """A session's file is named by its minute and begun anew before it is loaded: in that minute, written over."""
        now = self._now()
        minute = time.strftime("%Y-%m-%dT%H-%M", time.gmtime(now))
        begun = glob.glob(f"{self._chats}/session-{minute}-{glob.escape(session[:8])}.jsonl")
        return 60 - now % 60 + _MARGIN if begun else 0.0

    def open(self, session: str) -> None:
        """As all books; it has loaded the session, and left the file that it began for that."""
        super().open(session)
        self.clear(session)

    def clear(self, session: str) -> None:
        """Remove the files that gemini has begun for a session in which nothing is said, beside the one that it uses.

        It leaves one whenever it loads a session. Its next start takes that for damaged, and removes *all* files of the
        session: the conversation would be gone.
        """
        paths = glob.glob(f"{self._chats}/session-*-{glob.escape(session[:8])}.jsonl")
        empty = [path for path in paths if _says_nothing(path, session)]
        if len(empty) < len(paths):
            for path in empty:
                with suppress(OSError):
                    os.unlink(path)

    def _read(self, session: str) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        name = glob.escape(session)
        for path in sorted(glob.glob(f"{self._chats}/session-*-{glob.escape(session[:8])}.jsonl")):
            _read_file(path, found, is_own=True)
        for path in sorted(glob.glob(f"{self._chats}/{name}/*.jsonl")):
            _read_file(path, found, is_own=False)
        return found

    def _agrees(self, told: list[tuple[int, int]], response: Message) -> bool:
        quota = dict_of(dict_of(dict_of(response.get("_meta")).get("quota")).get("token_count"))
        sums = (sum(read for read, _ in told), sum(out for _, out in told))
        return bool(told) and sums == (quota.get("input_tokens"), quota.get("output_tokens"))


def _says_nothing(path: str, session: str) -> bool:
    """Whether a file of this session has nothing but what gemini tells its model of the place by itself."""
    try:
        with open(path, encoding="utf-8") as file:
            records = [json.loads(line) for _, line in zip(range(_FEW), file, strict=False)]
    except (OSError, ValueError, RecursionError):
        return False
    if len(records) == _FEW or not all(dict_of(one).get("sessionId", session) == session for one in records):
        return False
    changes = [dict_of(dict_of(one).get("$set")) for one in records]
    messages = [*records, *(message for one in changes for message in list_of(one.get("messages")))]
    return not any("type" in dict_of(one) and not _is_context(dict_of(one)) for one in messages)


def _is_context(message: Message) -> bool:
    texts = [text_of(dict_of(part).get("text")) for part in list_of(message.get("content"))]
    return message["type"] == "user" and "".join(texts).startswith(_CONTEXT)


def _read_file(path: str, found: dict[str, Entry], *, is_own: bool) -> None:
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        if os.fstat(file.fileno()).st_size > _MOST:
            return  # then they will not agree
        for line in file:
            with suppress(ValueError, RecursionError):
                record = dict_of(json.loads(line))
                tokens, id_ = dict_of(record.get("tokens")), text_of(record.get("id"))
                if tokens and id_ and record.get("type") == "gemini":
                    names = ("input", "output", "cached", "thoughts")
                    read, out, cached, thought = (_count(tokens.get(name)) for name in names)
                    found[id_] = Entry(Tally(read, out + thought, cached, thought), (read, out), is_own)


def _count(value: Any) -> int:
    return value if type(value) is int and value >= 0 else 0


def make_ready(session: str) -> None:
    """See to it that a program which is about to be started finds this session. Only gemini needs that."""
    _gemini().clear(session)


def _gemini() -> GeminiBooks:
    return GeminiBooks(os.environ.get("GEMINI_CLI_HOME") or os.path.expanduser("~"))


def find_books(name: str, pid: int) -> Books:
    """The books of a program.

    Args:
        name: with which it introduces itself.
        pid: its process.
    """
    if name == "OpenCode":
        return OpencodeBooks(pid)
    if name == "gemini-cli":
        return _gemini()
    return Books()
