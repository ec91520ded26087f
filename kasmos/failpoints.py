"""Named points at which a test can make the process die, one operation fail, or a disk hang.

Armed only by the environment variable `KASMOS_FAILPOINTS`, a comma-separated list of
`NAME=ACTION[@N]`: at the N-th time (default 1) the point is reached, `kill` sends SIGKILL to this process,
`error` raises `OSError(EAGAIN)`, and `hang` never returns. Unarmed, a point costs one dictionary look-up.
The names are listed here so that tests can visit every one of them.
"""

from __future__ import annotations

import errno
import os
import signal
import threading

POINTS = (
    "run.accepted",
    "task.accepted",
    "wave.started",
    "session.intent",
    "session.prepared",
    "session.spawning",
    "session.spawned",
    "session.proven",
    "session.released",
    "session.started",
    "session.program-ended",
    "session.swept",
    "session.ended",
    "session.stop-requested",
    "session.stop-signalled",
    "session.kill-requested",
    "session.killed",
    "check.intent",
    "prompt.delivering",
    "prompt.typed",
    "prompt.delivered",
    "takeover.requested",
    "takeover.handed-back",
    "task.retry-scheduled",
    "task.ended",
    "task.put-back",
    "wave.ended",
    "run.ended",
    "journal.before-commit",
    "journal.after-commit",
    "journal.before-prune",
    "journal.after-prune",
    "fold.half-written",
    "fold.written",
    "fold.kept",
    "recovery.tombstone",
    "recovery.adopted",
    "log.base-written",
    "log.punched",
)


def _parse(text: str) -> dict[str, tuple[str, int]]:
    armed: dict[str, tuple[str, int]] = {}
    for item in filter(None, text.split(",")):
        name, _, rest = item.partition("=")
        action, _, count = rest.partition("@")
        if name not in POINTS or action not in ("kill", "error", "hang"):
            raise ValueError(f"KASMOS_FAILPOINTS: no such failpoint or action: {item!r}")
        armed[name] = (action, int(count or 1))
    return armed


_armed = _parse(os.environ.get("KASMOS_FAILPOINTS", ""))


def reach(name: str) -> None:
    """Die, fail or hang here if this point is armed.

    Raises:
        OSError: EAGAIN, when armed with `error`.
    """
    if name not in _armed:
        return
    action, count = _armed[name]
    if count > 1:
        _armed[name] = (action, count - 1)
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "hang":
        threading.Event().wait()
    del _armed[name]
    raise OSError(errno.EAGAIN, f"failpoint {name}")
