"""Where `kas logs` puts what a session wrote: byte for byte, or as its agent means it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from kasmos.cli.context import Place, put

if TYPE_CHECKING:
    from kasmos.harnesses.facts import Facts
    from kasmos.model.view import SessionView


class Outlet(Protocol):
    """**Protocol.** Takes a session's output, in order."""

    def take(self, data: bytes) -> None:
        """Print more of it."""

    def end(self, session: SessionView) -> None:
        """Nothing more comes; *session* is as it is known by now."""


class Bytes:
    """Prints what was written as it was written."""

    def take(self, data: bytes) -> None:
        """Print more of it."""
        put(data)

    def end(self, session: SessionView) -> None:
        """Nothing is left to be said."""


class Told:
    """Prints what an agent said and did, and once it has ended what that comes to."""

    def __init__(self, place: Place, session: SessionView, *, as_json: bool) -> None:
        from kasmos.harnesses.parser import TranscriptParser
        from kasmos.harnesses.zones import zone_of_name

        self._as_json = as_json
        self._parser = TranscriptParser(
            _facts_of(place, session), now=session.ended_at or time.time(), zone_of=zone_of_name
        )

    def take(self, data: bytes) -> None:
        """Print the events that are complete."""
        from kasmos.cli.agents import show_events

        show_events(self._parser.feed(data), as_json=self._as_json)

    def end(self, session: SessionView) -> None:
        """Print the last events, and the conclusion if the session has ended."""
        from kasmos.cli.agents import show_conclusion, show_events

        show_events(self._parser.close(), as_json=self._as_json)
        if not session.state.live:
            show_conclusion(self._parser.finish(session.exit), as_json=self._as_json)


def _facts_of(place: Place, session: SessionView) -> Facts:
    """The harness of the session's program: as it was started with, else as its profile says, else by its name."""
    from kasmos.config.load import load_config
    from kasmos.exceptions import ConfigError
    from kasmos.harnesses.catalog import find_harness, recognise
    from kasmos.harnesses.equip import harness_of
    from kasmos.model.codec import CodecError
    from kasmos.sessions.launch import Records

    recorded = find_harness(session.harness) if session.harness else None
    if recorded is not None:
        return recorded
    try:
        profile = load_config(place.project, environ=place.environ).config.agents.get(session.profile)
    except ConfigError:
        profile = None  # what has been written is shown all the same
    if profile is not None:
        return harness_of(profile)
    try:
        spec = Records(str(place.root.session_dir(session.id))).spec()
    except (CodecError, OSError):
        spec = None  # as above
    return recognise(spec.argv if spec is not None else ())
