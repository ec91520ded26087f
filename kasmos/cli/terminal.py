"""`kas send`, `keys`, `capture`, `resize`: an agent's terminal from outside, through its supervisor."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import click

from kasmos.cli.context import Place, complete, live_session_names, note, place_of, say, session_names

if TYPE_CHECKING:
    from kasmos.model.view import SessionView

_NAME = click.argument("name", shell_complete=complete(live_session_names))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
_CURE = "`kas attach` needs none; `kas resume` takes up what runs"
PATIENCE = 120.0
"""Seconds an answer may take: a text is waited for until it is taken."""
FOR_EVER = 366 * 86400.0


@click.command("send")
@_NAME
@click.argument("text")
@click.option("--no-enter", is_flag=True, help="Type it and leave it in the input.")
@click.option("--wait", is_flag=True, help="Wait until the agent takes a text, for as long as that may be.")
@click.option("--force", is_flag=True, help="Also while it works, and in the place of what somebody has typed.")
@_JSON
@click.pass_context
def send(ctx: click.Context, name: str, text: str, no_enter: bool, wait: bool, force: bool, as_json: bool) -> None:
    """Type TEXT (-: standard input) into the terminal of session NAME, press Enter, and see that it is taken.

    It is never typed twice. What is not seen to be taken is an error, with the screen as it is then.
    """
    if text == "-":
        text = sys.stdin.buffer.read().decode("utf-8", "surrogateescape").rstrip("\n")
    if not text:
        raise click.UsageError("the text is empty: `kas keys NAME Enter` presses Enter alone", ctx)
    place = place_of(ctx)
    session = _session(place, name)
    body = {"text": text, "enter": not no_enter, "wait": wait, "force": force}
    answer = _post(place, session, "input", body, timeout=FOR_EVER if wait else PATIENCE)
    if answer["replaced"]:
        note(f"what stood in its input was removed: {answer['replaced']}")
    if answer["file"]:
        note(f"the text is in {answer['file']}: a line that says so was typed")
    if as_json:
        _say_json(answer)
    elif no_enter:
        say(f"{session.name}: typed, not sent")
    elif answer["verified"]:
        say(f"{session.name} has taken it")
    else:
        say(f"{session.name}: typed; whether it was taken cannot be told, as there are no screen rules for its program")


@click.command("keys")
@_NAME
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.pass_context
def keys(ctx: click.Context, name: str, keys: tuple[str, ...]) -> None:
    """Press keys in the terminal of session NAME, by tmux's names for them: C-c, Up, Enter, Escape, F5, y."""
    from kasmos.exceptions import Mistake, RequestError

    place = place_of(ctx)
    try:
        _post(place, _session(place, name), "keys", {"keys": list(keys)})
    except RequestError as error:
        if error.code != "invalid_body":
            raise
        # By what they are called here, and not in the body of a request.
        mistakes = [Mistake("KEY", mistake.problem, mistake.cure) for mistake in error.mistakes]
        raise RequestError(error.status, error.code, "nothing was pressed", mistakes) from error


@click.command("capture")
@click.argument("name", shell_complete=complete(session_names))
@click.option("--ansi", is_flag=True, help="With the escapes for colours.")
@click.option("--start", type=int, metavar="N", help="First line: 0 is the first of the screen, -1 the one above it.")
@click.option("--end", type=int, metavar="N", help="Last line, included.")
@_JSON
@click.pass_context
def capture(ctx: click.Context, name: str, ansi: bool, start: int | None, end: int | None, as_json: bool) -> None:
    """Print what the terminal of session NAME shows; of one that has ended, what it showed last."""
    from kasmos.cli.render.text import clean

    place = place_of(ctx)
    session = _session(place, name)
    if session.state.live:
        said = {"ansi": "true" if ansi else None, "start": start, "end": end}
        query = urlencode({key: value for key, value in said.items() if value is not None})
        path = f"/v1/sessions/{quote(session.id, safe='')}/screen?{query}"
        answer = place.reach(f"its output can be read: `kas logs {session.name}`").get(path)
    else:
        answer = {"session_id": session.id, "lines": _last_screen(place, session, start, end)}
    if as_json:
        _say_json(answer)
        return
    lines: list[str] = answer["lines"]
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    say("\n".join(lines if ansi else map(clean, lines)))


@click.command("resize")
@_NAME
@click.argument("size", metavar="COLUMNSxROWS")
@click.pass_context
def resize(ctx: click.Context, name: str, size: str) -> None:
    """Set the size of the terminal of session NAME, such as 160x48. Who attaches does not change it."""
    found = re.fullmatch(r"(\d{1,4})[xX](\d{1,4})", size)
    if found is None:
        raise click.UsageError(f"{size!r} is no size: COLUMNSxROWS, such as 160x48", ctx)
    place = place_of(ctx)
    _post(place, _session(place, name), "resize", {"width": int(found[1]), "height": int(found[2])})


def _session(place: Place, name: str) -> SessionView:
    """The session with a terminal that *name* means.

    Raises:
        SupervisionError: there is none, or several.
        InteractiveOnlyError: it has no terminal.
    """
    from kasmos.exceptions import InteractiveOnlyError
    from kasmos.model.profile import ExecutionMode
    from kasmos.store.lookup import find_session

    session = find_session(place.read_world(), name)
    if session.backend is not ExecutionMode.TMUX:
        how = f"`kas logs {session.name}` shows what it has written"
        raise InteractiveOnlyError(f"{session.name} runs {session.backend}: it has no terminal; {how}")
    return session


def _post(place: Place, session: SessionView, verb: str, body: dict[str, Any], timeout: float = PATIENCE) -> Any:
    from kasmos.exceptions import SupervisionError

    if not session.state.live:
        raise SupervisionError(f"{session.name} has ended: `kas capture {session.name}` shows its last screen")
    path = f"/v1/sessions/{quote(session.id, safe='')}/{verb}"
    return place.reach(_CURE).post(path, body, timeout=timeout)


def _last_screen(place: Place, session: SessionView, start: int | None, end: int | None) -> list[str]:
    from kasmos.exceptions import SupervisionError
    from kasmos.sessions.last_screen import load_screen, render_range

    lines = load_screen(str(place.root.session_dir(session.id)))
    if lines is None:
        raise SupervisionError(f"no screen was kept of {session.name}; `kas logs {session.name}` has its output")
    return render_range(0, lines, start, end).split("\n")


def _say_json(value: Any) -> None:
    from kasmos.model import codec

    say(codec.encode_pretty(value))
