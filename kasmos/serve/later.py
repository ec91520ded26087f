"""What a daemon imports when it has come up: all that it had no use for until then, and that the first task needs.

A module of the layers below that imports another one inside a function, because a daemon comes up without it, has that
one here. So nobody's task waits for it; and a daemon is of one piece although its files are replaced while it runs.
"""

from __future__ import annotations

import importlib

from kasmos.model.value import finish_all

MODULES = (
    "kasmos.orchestration.assembly",
    "kasmos.supervision.child",
    "kasmos.supervision.delivery",
    "kasmos.supervision.prompting",
    "kasmos.supervision.terminal",
    "kasmos.supervision.transcript",
    "kasmos.supervision.turn",
    "kasmos.supervision.typist",
    "kasmos.plans",
    "kasmos.screens",
    "kasmos.harnesses.catalog",
    "kasmos.harnesses.equip",
    "kasmos.harnesses.events",
    "kasmos.harnesses.parser",
    "kasmos.harnesses.placed",
    "kasmos.harnesses.zones",
    "kasmos.api.documents",
)
"""Traces are not among them: they are there for those who have asked for them, and installed."""


def import_later() -> None:
    """Import them, and finish every class of values: no turn of the loop has to wait for one.

    Blocks for some tenths of a second: in a thread, it is done beside other things.
    """
    for name in MODULES:
        importlib.import_module(name)
    finish_all()
