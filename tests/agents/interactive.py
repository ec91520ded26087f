"""The real programs in a terminal: the profile under which kasmos types into each, and what its first screens are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

from .programs import RECIPES, Place, render_table


@attrs.frozen
class Seat:
    """How a program is run in a terminal. Without more it asks before it does anything."""

    flags: tuple[str, ...] = ()
    settings: Callable[[Place, Path], Mapping[str, str]] = lambda place, cwd: {}
    """Further files in its home, so that no dialog stands before its first prompt; by their paths."""
    new: Callable[[Place], Mapping[str, str]] = lambda place: {}
    """The same for somebody who is new to this directory; by their paths."""
    edits: tuple[str, ...] = ()
    """Further flags so that it may edit files unasked."""
    asks: tuple[str, ...] = ()
    """Further flags so that it asks before it does anything."""
    stop_signal: str = "SIGTERM"


def _claude(place: Place, cwd: Path) -> Mapping[str, str]:
    known = {
        "hasCompletedOnboarding": True,
        "theme": "dark",
        "customApiKeyResponses": {"approved": ["sk-ant-mock"], "rejected": []},
        "projects": {str(cwd): {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}},
    }
    return {"claude/.claude.json": json.dumps(known)}


def _new_to_claude(place: Place) -> Mapping[str, str]:
    # Its very first start wants to reach its maker's servers.
    return {"claude/.claude.json": json.dumps({"hasCompletedOnboarding": True, "theme": "dark"})}


def _codex(place: Place, cwd: Path) -> Mapping[str, str]:
    text = RECIPES["codex"].settings(place)["codex/config.toml"]
    return {"codex/config.toml": f'{text}\n[projects."{cwd}"]\ntrust_level = "trusted"\n'}


def _gemini(place: Place, cwd: Path) -> Mapping[str, str]:
    known = {"security": {"auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": False}}}
    return {".gemini/settings.json": json.dumps(known)}


def _opencode(place: Place, cwd: Path) -> Mapping[str, str]:
    known = json.loads(RECIPES["opencode"].settings(place)["opencode.json"])
    return {"opencode.json": json.dumps({**known, "permission": {"edit": "allow", "bash": "ask"}})}


SEATS = {
    "claude": Seat(settings=_claude, new=_new_to_claude, edits=("--permission-mode", "acceptEdits")),
    "codex": Seat(
        flags=("-m", "gpt-5.5"),
        settings=_codex,
        edits=("--sandbox", "workspace-write"),
        asks=("--sandbox", "read-only"),
    ),
    "opencode": Seat(settings=_opencode),
    "gemini": Seat(flags=("-m", "gemini-2.5-flash"), settings=_gemini, edits=("--approval-mode", "auto_edit")),
    "qwen": Seat(edits=("--approval-mode", "auto-edit")),
    "aider": Seat(
        flags=(
            "--model",
            "openai/gpt-4o",
            "--no-auto-commits",
            "--no-gitignore",
            "--no-check-update",
            "--no-analytics",
            "--no-show-model-warnings",
            "--no-show-release-notes",
        ),
        edits=("--yes-always",),
    ),
}


def render_seat(
    name: str, place: Place, cwd: Path, *, may: str = "edits", known: bool = True, settings: str = ""
) -> str:
    """The `[agents.NAME]` table of a program in tmux whose prompt is typed, and that leaves when its turn is over.

    Args:
        name: the program.
        place: the model server and the program's home.
        cwd: the project.
        may: what it may do unasked: `nothing` or `edits`.
        known: whether the dialogs of a first start were answered before.
        settings: further lines of the profile.

    Raises:
        LookupError: the program is not installed.
    """
    seat = SEATS[name]
    files = {**RECIPES[name].settings(place), **(seat.settings(place, cwd) if known else seat.new(place))}
    keys = 'execution_mode = "tmux"\nwhen_done = "leave"\nexit_grace = "3s"\nstop_grace = "5s"\n' + settings
    flags = (*seat.flags, *(seat.edits if may == "edits" else seat.asks))
    return render_table(name, place, files, flags=flags, prompt="type", stop_signal=seat.stop_signal, keys=keys)
