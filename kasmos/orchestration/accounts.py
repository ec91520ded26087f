"""When a session may be started on an account. Pure.

A parked account starts nothing: until an instant that the program or its server told, or until a person has said so.
Starts on one account keep their distance, also over the death of a supervisor.
"""

from __future__ import annotations

from collections.abc import Iterable

from kasmos.model.view import AccountView, Parked


def parked_now(view: AccountView | None, now: float) -> Parked | None:
    """Why nothing may be started on an account at this instant of the wall clock; None if it may be."""
    parked = None if view is None else view.parked
    if parked is None or (parked.until_at is not None and parked.until_at <= now):
        return None
    return parked


def next_opening(views: Iterable[AccountView], now: float) -> float | None:
    """When the next of these accounts opens by itself: an instant of the wall clock; None if none does."""
    parked = (parked_now(view, now) for view in views)
    return min((one.until_at for one in parked if one is not None and one.until_at is not None), default=None)


def decide_start(view: AccountView | None, reserved: float | None, interval: float, *, now: float, boot: str) -> float:
    """The first monotonic instant at which the next session may be started on an account.

    Args:
        view: the account as folded.
        reserved: the newest instant that was given out by this supervisor.
        interval: least seconds between two starts.
        now: the present instant.
        boot: the present boot; instants of another say nothing.
    """
    newest = [] if reserved is None else [reserved]
    if view is not None and view.started_mono is not None and view.boot_id == boot:
        newest.append(view.started_mono)
    return max([now, *(instant + interval for instant in newest)])


def told(name: str, parked: Parked) -> str:
    """Why an account is parked, for people."""
    said = f": {parked.message}" if parked.message else ""
    what = parked.kind.value.replace("_", " ")
    return f"account {name} is parked ({what}{said})"
