"""`PYTHON -I .../mediator/__main__.py PROTOCOL MAILBOX CONVERSATION LIMIT -- PROGRAM...`; the prompt is standard input.

LIMIT are the seconds a program may keep silent until it has opened its session.

Exits 0 when the program says that its turn is done, else 1, or as the program did. A signal is passed on as the wish
that the turn may end; then it ends us as well.
"""

from __future__ import annotations

import os
import signal
import sys

# Started by its file, it may be in an interpreter that has no kasmos installed.
sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))))

from kasmos.sessions.letterbox import Letterbox
from kasmos.sessions.mediator.acp import AgentClient
from kasmos.sessions.mediator.app_server import AppServer
from kasmos.sessions.mediator.books import make_ready
from kasmos.sessions.mediator.link import Link, Speaker
from kasmos.sessions.mediator.mediation import Mediation

NOT_FOUND, NOT_EXECUTABLE = 127, 126
_NAMES = {"acp": "the Agent Client Protocol", "app_server": "the protocol of codex's app server"}


def main(words: list[str]) -> int:
    """Mediate; see `Mediation.run`."""
    protocol, mailbox, conversation, limit, _, *command = words
    prompt = sys.stdin.buffer.read().decode("utf-8", "replace")
    cwd = os.getcwd()

    def speaker(link: Link) -> Speaker:
        if protocol == "acp":
            return AgentClient(link, prompt, conversation, cwd)
        return AppServer(link, prompt, conversation, cwd, command)

    if protocol == "acp" and conversation:
        make_ready(conversation)
    try:
        return Mediation(
            command, Letterbox(mailbox), speaker, protocol=_NAMES[protocol], opening_limit=float(limit)
        ).run()
    except OSError as error:
        sys.stdout.write(f"kasmos: {error.filename or command[0]}: {error.strerror}\n")
        sys.stdout.flush()
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE


if __name__ == "__main__":
    status = main(sys.argv[1:])
    if status < 0:
        signal.set_wakeup_fd(-1)
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    # Descriptors and threads are nobody's any more: nothing is to be waited for.
    os._exit(abs(status))
