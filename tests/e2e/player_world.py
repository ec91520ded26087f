"""A project whose agent is `tests/programs/player`, in each of its scenes, with the screen rules for it."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import Any

import attrs
import trio

from kasmos.model import event as ev
from tests.e2e.supervisor_world import Live, Site, make_site

PROGRAMS = Path(__file__).parent.parent / "programs"
RULES = Path(__file__).parent.parent / "data" / "player" / "player.toml"
SCENES = {
    "player": (),
    "swallower": ("swallow=2",),
    "deaf": ("deaf",),
    "slow": ("slow", "slow-paste"),
    "folder": ("folded",),
    "loser": ("lost-paste",),
    "wary": ("trust",),
    "insister": ("again=1",),
    "mute": ("mute",),
    "ticking": ("ticking",),
}
LIMIT = 120.0


def player_config(log: Path, extra: str = "") -> str:
    """A configuration with an agent for each scene."""
    agents = "".join(
        f'[agents.{name}]\nprogram = "{PROGRAMS / "player"}"\nflags = {list(flags)}\nexecution_mode = "tmux"\n'
        f'prompt = "type"\nstop_grace = "2s"\nenv = {{ PLAYER_LOG = "{log}" }}\n'
        for name, flags in SCENES.items()
    )
    return f'[orchestration]\ndefault_agent = "player"\n{agents}{extra}'


@attrs.define
class Stand:
    """A project with players."""

    site: Site
    log_file: Path

    def log(self) -> list[str]:
        """What the players have been given."""
        return self.log_file.read_text().splitlines() if self.log_file.exists() else []

    async def seen(self, live: Live, *kinds: type) -> Any:
        """Wait for the first event of one of these kinds."""
        return await live.event(lambda event: isinstance(event, kinds))

    async def screen(self, live: Live, state: str) -> None:
        """Wait until the journal says that a screen shows this."""
        await live.event(lambda event: isinstance(event, ev.ScreenSeen) and event.screen == state)

    async def logged(self, text: str) -> None:
        """Wait until a player has written this line."""
        with trio.fail_after(LIMIT):
            while not any(text in line for line in self.log()):  # noqa: ASYNC110  # a file tells nobody
                await trio.sleep(0.02)


def make_stand(root: Path, extra: str = "") -> Stand:
    """A project with players; *extra* goes to the end of its configuration."""
    log = root / "player.log"
    site = make_site(root, player_config(log, extra))
    rules = site.project / ".kasmos" / "screens"
    rules.mkdir()
    shutil.copy(RULES, rules)
    assert tomllib.loads(RULES.read_text())["program"] == "player"
    return Stand(site, log)
