"""Recorded and drawn screens for tests, and what can be made of them: quoted, scrolled, stripped."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kasmos.screens import Screen

DATA = Path(__file__).parent.parent / "data" / "screens"
PROGRAMS = ("claude", "codex", "gemini", "opencode", "qwen")
VERDICTS: dict[str, dict[str, list[str]]] = tomllib.loads((DATA / "verdicts.toml").read_text())
"""By program and recording: the state and the rule that must decide."""
DRAWN: list[dict[str, Any]] = tomllib.loads((DATA / "drawn.toml").read_text())["screen"]

NEAR: dict[str, dict[str, dict[str, Any]]] = tomllib.loads((DATA / "near.toml").read_text())
"""By program and rule: what a screen of the rule shows, and recordings that show it and are something else."""

HOSTS = {
    "claude": "finished-1",
    "codex": "finished-1",
    "gemini": "finished-1",
    "opencode": "finished_tool-1",
    "qwen": "finished-1",
}
"""A screen of each program on which a turn is over: the transcript that others are quoted in."""
_REPLIES = {"claude": "^●", "codex": "^• tick", "gemini": "^✦", "opencode": "^     DONE", "qwen": "^  ✦"}
_INDENTS = {"claude": "  ", "codex": "  ", "gemini": "  ", "opencode": " " * 5, "qwen": " " * 4}


def text_of(program: str, name: str) -> str:
    """A recording without escapes."""
    return (DATA / program / f"{name}.txt").read_text()


def meta_of(program: str, name: str) -> dict[str, Any]:
    """What was recorded beside it."""
    meta: dict[str, Any] = json.loads((DATA / program / f"{name}.meta.json").read_text())
    return meta


def recorded(program: str, name: str) -> Screen:
    """A recording with its title, cursor and end."""
    return Screen.from_meta(text_of(program, name), meta_of(program, name))


def drawn(entry: dict[str, Any]) -> Screen:
    """A drawn screen."""
    return Screen.from_meta(entry["text"].strip("\n"), entry)


def all_recordings() -> Iterator[tuple[str, str]]:
    """Every recording, as program and name."""
    for program, verdicts in VERDICTS.items():
        yield from ((program, name) for name in verdicts)


def quoted_in_reply(program: str, host: str, quote: str, prefix: str = "") -> str:
    """The screen *host* with a text in the agent's last reply, indented as the program indents it."""
    lines = text_of(program, host).rstrip().split("\n")
    at = max(row for row, line in enumerate(lines) if re.match(_REPLIES[program], line)) + 1
    inner = [f"{_INDENTS[program]}{prefix}{line}" for line in quote.rstrip().split("\n")]
    return "\n".join([*lines[:at], *inner, *lines[at:]])


def quoted_in_draft(program: str, quote: str) -> str:
    """A ready screen with a text typed into the input."""
    name, sign, indent = {
        "claude": ("typed-1", "❯ ", "  "),
        "codex": ("typed-1", "› ", "  "),
        "gemini": ("ready-1", " > ", "   "),
        "opencode": ("typed-1", None, ""),
        "qwen": ("ready-1", ">   ", "    "),
    }[program]
    lines = text_of(program, name).replace("\xa0", " ").rstrip().split("\n")
    if sign is None:
        at = max(row for row, line in enumerate(lines) if "[[mock" in line)
        left = lines[at].index("┃")
        inner = [f"{' ' * left}┃  {line}" for line in quote.rstrip().split("\n")]
    else:
        at = max(row for row, line in enumerate(lines) if line.startswith(sign))
        first, *rest = quote.rstrip().split("\n")
        inner = [sign + first, *(indent + line for line in rest)]
    return "\n".join([*lines[:at], *inner, *lines[at + 1 :]])
