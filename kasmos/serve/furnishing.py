"""What the levels of the tree are given: how sessions are made, and what the service looks things up by."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from kasmos.config.schema import Config
from kasmos.daemon.life import Health
from kasmos.daemon.terms import Surroundings
from kasmos.model import event as ev
from kasmos.model.profile import ExecutionMode
from kasmos.model.view import SessionView, World
from kasmos.orchestration.budgets import Place, Shortage
from kasmos.orchestration.kitchen import Kitchen
from kasmos.orchestration.treasury import Treasury
from kasmos.serve.options import Options
from kasmos.sessions import layout
from kasmos.sessions.protocol import Backend, OutputChunk, Recognise
from kasmos.sessions.registry import require_backend
from kasmos.sessions.tmux_backend import TmuxBackend
from kasmos.store.stateroot import StateRoot
from kasmos.telemetry.spans import wanted

if TYPE_CHECKING:
    from kasmos.screens import Ruleset


def make_kitchen(options: Options, present: Callable[[], Config], backends: Mapping[ExecutionMode, Backend]) -> Kitchen:
    config = present()
    return Kitchen(
        profiles=lambda: present().agents,
        environ=options.environ,
        traced=wanted(options.environ),
        backends=backends,
        new_suffix=lambda: random_letters(5),
        buffer_bytes=config.logs.buffer_bytes,
        max_log_bytes=config.logs.max_bytes,
        screen_rules=partial(_screen_rules, options),
        context_path=lambda session_id: str(options.root.session_dir(session_id) / layout.CONTEXT),
        treasury=Treasury(
            budgets=lambda: present().budgets,
            prices=lambda: present().prices,
            wall=options.clock.wall,
            may_ask=options.may_ask,
        ),
    )


def find_recogniser(options: Options, argv: tuple[str, ...]) -> Recognise:
    """How the screens of the program are read that a command line runs: by its rules, as its asks are found."""
    from kasmos.supervision.terminal import waits_for_person

    return partial(waits_for_person, _screen_rules(options, argv))


def _screen_rules(options: Options, program: tuple[str, ...]) -> Ruleset:
    from kasmos.screens import PROJECT_RULES, rules_for

    return rules_for(program, directories=(options.project / PROJECT_RULES,))


def service_surroundings(
    options: Options,
    configure: Callable[[Mapping[str, object]], Config],
    present: Callable[[], Config],
    backends: Mapping[ExecutionMode, Backend],
    tmux: TmuxBackend,
    health: Health,
    record: Callable[[ev.Event], object],
    treasury: Treasury,
) -> Surroundings:
    def read_ended(view: SessionView, offset: int, limit: int) -> OutputChunk:
        return require_backend(backends, view.backend).read_output(view.id, offset, limit)

    def last_screen(view: SessionView) -> str | None:
        return tmux.last_screen(view.id) if view.backend is ExecutionMode.TMUX else None

    return Surroundings(
        project=str(options.project),
        workspace=str(options.workspace_root or options.project),
        configure=configure,
        present=present,
        read_ended=read_ended,
        last_screen=last_screen,
        last_output_at=partial(_last_output_at, options.root),
        life=options.life,
        health=health,
        shortage=partial(_shortage, present, treasury),
        retry_after=treasury.retry_after,
        record=record,
        environ=options.environ,
    )


def _shortage(present: Callable[[], Config], treasury: Treasury, world: World, agent: str | None) -> Shortage | None:
    """Why an agent, or anybody, may spend nothing more; scripts spend nothing."""
    profile = present().agents.get(agent or "")
    if profile is not None and not profile.metered:
        return None
    account = profile.account_name if profile is not None else ""
    return treasury.shortage(world, Place(agent=agent or "", account=account))


def _last_output_at(root: StateRoot, session_id: str) -> float | None:
    try:
        found = os.stat(root.session_dir(session_id) / layout.OUTPUT)
    except OSError:
        return None
    return found.st_mtime if found.st_size else None


_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


def random_letters(count: int) -> str:
    """Random letters without look-alikes, the first one never a digit."""
    number = secrets.randbits(5 * count + 16)
    number, index = divmod(number, 23)
    letters = [_ALPHABET[index]]
    for _ in range(count - 1):
        number, index = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[index])
    return "".join(letters)
