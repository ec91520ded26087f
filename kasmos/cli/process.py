"""What a process is put in order by before it becomes a supervisor: it may have been started in any state."""

from __future__ import annotations

import os
import signal
import sys


def complete_streams() -> None:
    """Put nothing in the place of standard streams that are closed.

    The next file that is opened would take their number, and get what is meant for the person.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free: those before it have been seen to.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115  # as long as the process


def reset_dispositions() -> None:
    """Undo what a parent made us ignore: programs would inherit it, and exit statuses would be lost.

    With SIGCHLD ignored the kernel reaps our children itself and every exit reads as 0.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        # nohup: we go on ignoring it; a handler, unlike SIG_IGN, is not inherited.
        signal.signal(signal.SIGHUP, lambda *_: None)
