"""Where a supervisor is in its life, what it was asked to do about that, and whether it is well.

A supervisor comes up (`starting`), is `ready` once it has hold of everything that an earlier one left, and leaves
either `draining` or `stopping`. It never goes back. `kas run` lives such a life as well as the daemon.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable

import trio

from kasmos.exceptions import JournalCorruptError, RequestError, StoreError
from kasmos.model.value import frozen

PROBE_TIMEOUT = 5.0
"""Seconds within which a journal that is well has written."""
VERDICT_FOR = 1.0
"""Seconds for which a verdict on the health is given out again: who asks often does not wear out the disk."""


class Phase(enum.StrEnum):
    """Where it is. Stable words, for programs."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    """It takes nothing new and waits for what runs."""
    STOPPING = "stopping"


@frozen
class StopOrder:
    """How to leave."""

    drain: bool = False
    """Wait for what runs first."""
    timeout: float | None = None
    """Seconds to wait for it; None is as configured."""
    stop: bool | None = None
    """Whether what runs then is stopped, or left running; None is as configured."""
    reason: str = "requested"


@frozen
class Reloaded:
    """What a reload of the configuration came to."""

    applied: tuple[str, ...] = ()
    """Keys whose new value holds from now on."""
    restart: tuple[str, ...] = ()
    """Keys that have changed and keep their old value until the daemon is started again."""
    warnings: tuple[str, ...] = ()


@frozen
class Exposition:
    """What is counted, for whoever collects it."""

    render: Callable[[], bytes]
    content_type: str


class Life:
    """The life of one supervisor. Belongs to the Trio thread."""

    def __init__(self, *, daemon: bool = False, reload: Callable[[], Awaitable[Reloaded]] | None = None) -> None:
        self.daemon = daemon
        """Whether it stays when there is nothing to do."""
        self.phase = Phase.STARTING
        self.order: StopOrder | None = None
        self.farewell = "left in order"
        """What it has done about its sessions when it left, for whoever asks later."""
        self.ordered = trio.Event()
        """Set when it was asked to leave."""
        self.addresses: tuple[str, ...] = ()
        """Where it listens."""
        self.exposition: Exposition | None = None
        """What a daemon counts."""
        self._reload = reload
        self._changed = trio.Event()

    @property
    def ready(self) -> bool:
        """Whether it has hold of everything and takes new work."""
        return self.phase is Phase.READY

    def enter(self, phase: Phase) -> None:
        """Go on to *phase*; one that lies behind is passed over."""
        order = list(Phase)
        if order.index(phase) > order.index(self.phase):
            self.phase = phase
            changed, self._changed = self._changed, trio.Event()
            changed.set()

    async def wait_change(self) -> None:
        """Wait until it enters another phase."""
        await self._changed.wait()

    def request_stop(self, order: StopOrder) -> None:
        """Ask it to leave. A plain stop cuts a drain short. Never blocks.

        Raises:
            RequestError: 409 `not_a_daemon`: it leaves by itself when its work is done.
        """
        if not self.daemon:
            detail = "this supervisor belongs to a `kas run` and leaves with it; `kas stop --all` ends what it does"
            raise RequestError(409, "not_a_daemon", detail)
        if self.order is not None and order.drain and not self.order.drain:
            return
        self.order = order
        self.enter(Phase.DRAINING if order.drain else Phase.STOPPING)
        self.ordered.set()
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def reload(self) -> Reloaded:
        """Read the configuration again.

        Raises:
            ConfigError: it is wrong; what was in force stays in force.
            RequestError: 409 `not_a_daemon`: a `kas run` keeps what it began with.
        """
        if self._reload is None:
            raise RequestError(409, "not_a_daemon", "this supervisor belongs to a `kas run`, which is not reloaded")
        return await self._reload()


@frozen
class Verdict:
    """Whether a supervisor is well."""

    problems: tuple[str, ...] = ()
    stuck: bool = False
    """Whether something hangs, or is damaged, that only a new process can mend. A full disk is nothing of that kind."""

    @property
    def well(self) -> bool:
        """Whether there is nothing to complain of."""
        return not self.problems


class Health:
    """Looks whether a supervisor can do its work: that it answers at all shows that its loop turns."""

    def __init__(
        self,
        probe: Callable[[], Awaitable[None]],
        is_writable: Callable[[], bool],
        shortage: Callable[[], str] = lambda: "",
    ) -> None:
        self._probe = probe
        self._is_writable = is_writable
        self._shortage = shortage
        self._verdict = Verdict()
        self._looked_at = -VERDICT_FOR
        self._looking = trio.Lock()

    @property
    def hindrance(self) -> str:
        """Why nothing new can be begun on the disk as it is; empty if it can."""
        if not self._is_writable():
            return "the journal cannot be written at present (is the disk full?)"
        why = self._shortage()
        return f"the disk has no room for new sessions: {why}" if why else ""

    def require_writable(self) -> None:
        """Refuse what could not be recorded, or not be begun.

        Raises:
            RequestError: 503 `store_unavailable`.
        """
        if why := self.hindrance:
            raise RequestError(503, "store_unavailable", f"{why}: nothing new is taken on")

    async def check(self) -> Verdict:
        """The verdict, at most `VERDICT_FOR` seconds old: an event-free write to the journal has to succeed.

        Cancellation: no effect while the disk is at work.
        """
        async with self._looking:
            if trio.current_time() - self._looked_at >= VERDICT_FOR:
                self._verdict = await self._look()
                self._looked_at = trio.current_time()
            return self._verdict

    async def _look(self) -> Verdict:
        if why := self.hindrance:
            return Verdict((why,))
        try:
            with trio.fail_after(PROBE_TIMEOUT):
                await self._probe()
        except JournalCorruptError as error:
            return Verdict((str(error),), stuck=True)
        except StoreError as error:
            return Verdict((str(error),))
        except trio.TooSlowError:
            return Verdict((f"the journal took longer than {PROBE_TIMEOUT:g} s to write",), stuck=True)
        return Verdict()


async def always_well() -> None:
    """A probe that finds nothing wrong."""
