"""`kas gc`: make room by removing what ended sessions left on the disk.

Works beside a running supervisor and beside another `kas gc`. Three things make that safe: directories are
listed before the journal is read (so everything that was listed is known to what was read), a directory is
moved out of the way in one step before it is emptied, and what is live or may be asked about is never touched
(`kasmos.store.retention`). Beside that, and only while nobody supervises, the journal forgets what `[retention]` says;
a daemon does that by itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from kasmos.model.value import frozen

if TYPE_CHECKING:
    from kasmos.model.view import World
    from kasmos.store.retention import Removal, StoredSession
    from kasmos.store.stateroot import StateRoot

TRASH = "trash"
"""Where directories go before they are emptied; what an interrupted `kas gc` left there, the next one removes."""


@frozen
class Collected:
    """What one `kas gc` did."""

    removed: tuple[Removal, ...]
    kept: int
    """Sessions that stay."""
    kept_bytes: int
    links: tuple[str, ...]
    """Names of the logs whose session is gone."""
    failures: tuple[str, ...] = ()
    forgotten_runs: int = 0
    """Runs that the journal knows nothing of any more."""
    forgotten_events: int = 0


@click.command("gc")
@click.option("--older-than", metavar="TIME", default="7d", show_default=True, help="Remove what ended longer ago.")
@click.option("--max-size", metavar="SIZE", help="Remove the oldest until all sessions fit, such as 1GiB.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def gc(ctx: click.Context, older_than: str, max_size: str | None, dry_run: bool, as_json: bool) -> None:
    """Remove ended sessions by age and size, never a live one.

    Logs, prompts and records of ended sessions are removed; what happened stays in the journal until the
    configuration's [retention] lets it go. Sessions of unfinished runs stay.
    """
    from kasmos.cli.context import note, place_of, say
    from kasmos.cli.forget import forget_old
    from kasmos.model.units import parse_duration, parse_size

    age = _parsed("--older-than", parse_duration, older_than)
    limit = None if max_size is None else int(_parsed("--max-size", parse_size, max_size))
    place = place_of(ctx)
    result = collect(place.root, now=time.time(), older_than=age, max_bytes=limit, dry_run=dry_run)
    forgotten = forget_old(place, time.time(), note, dry_run=dry_run)
    result = attrs.evolve(result, forgotten_runs=forgotten.runs, forgotten_events=forgotten.events)
    say(_as_json(result, dry_run) if as_json else _as_text(result, dry_run))
    for failure in result.failures:
        note(failure)
    ctx.exit(1 if result.failures else 0)


def _parsed(option: str, parse: Callable[[str], float], text: str) -> float:
    try:
        return parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from error


def collect(
    root: StateRoot, *, now: float, older_than: float, max_bytes: int | None, dry_run: bool = False
) -> Collected:
    """Remove ended sessions of a state root.

    Raises:
        StoreError: the journal cannot be read; nothing was removed.
    """
    from kasmos.store.journal import read_world
    from kasmos.store.retention import decide_removals

    links = _links(root.logs)
    stored = [found for found in map(_look, _directories(root.sessions)) if found is not None]
    # Read last: what was listed above is known here, with all that happened to it until then.
    world = read_world(root.db)
    removals = decide_removals(stored, world, now=now, older_than=older_than, max_bytes=max_bytes)
    failures: list[str] = []
    if not dry_run:
        removals = tuple(removal for removal in removals if discard(root, removal.id, failures))
        empty_trash(root.path / TRASH, failures)
        _tidy_cgroups(root)
        clear_terminals(root, os.environ)
    gone = {removal.id for removal in removals}
    return Collected(
        removed=removals,
        kept=len(stored) - len(gone),
        kept_bytes=sum(session.bytes for session in stored if session.id not in gone),
        links=tuple(_prune(root, links, world, gone, dry_run=dry_run)),
        failures=tuple(failures),
    )


def _tidy_cgroups(root: StateRoot) -> None:
    """Remove the empty control groups of sessions that nobody holds on to any more."""
    from kasmos.sessions.cgroups import Cgroups, find_cgroups

    found = find_cgroups(root.path)
    if isinstance(found, Cgroups):
        found.tidy(root.sessions)
        found.close()


def _directories(sessions: Path) -> list[Path]:
    try:
        with os.scandir(sessions) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _look(directory: Path) -> StoredSession | None:
    from kasmos.sessions.launch import Records
    from kasmos.store.retention import StoredSession

    # Blocks and not sizes: the head of a bounded log is a hole.
    size, changed = 0, 0.0
    pending = [directory]
    try:
        while pending:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    size += status.st_blocks * 512
                    changed = max(changed, status.st_mtime)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(Path(entry.path))
        size += directory.stat().st_blocks * 512
    except FileNotFoundError:
        return None  # another one removes it at this moment
    recorded = Records(os.fspath(directory)).exit() is not None
    return StoredSession(directory.name, size, changed or directory.stat().st_mtime, recorded)


def discard(root: StateRoot, session_id: str, failures: list[str]) -> bool:
    """Move a session's directory to the trash, unless somebody still holds on to it."""
    from kasmos.sessions.headless import lease_is_held

    directory = root.sessions / session_id
    # Held by a process that outlived its session and was spared: its log may still be written.
    if lease_is_held(os.fspath(directory / "lease")):
        return False
    trash = root.path / TRASH
    try:
        trash.mkdir(mode=0o700, exist_ok=True)
        directory.rename(trash / f"{session_id}.{os.getpid()}")
    except FileNotFoundError:
        return False
    except OSError as error:
        failures.append(f"{directory} cannot be removed: {error.strerror}")
        return False
    return True


def clear_terminals(root: StateRoot, environ: Mapping[str, str]) -> None:
    """End dead tmux sessions that nobody needs any more."""
    from kasmos.exceptions import BackendUnavailableError
    from kasmos.sessions import tmux

    runtime = environ.get("XDG_RUNTIME_DIR")
    if not tmux.socket_path(root.path, runtime).exists():
        return
    with suppress(BackendUnavailableError, OSError):
        place = tmux.prepare(root.path, tmux.find_binary(environ.get("PATH")), runtime)
        if tmux.is_serving(place):
            tmux.clear_dead(place, root.sessions)


def empty_trash(trash: Path, failures: list[str]) -> None:
    """Remove what was moved to the trash, by whomever."""
    import shutil

    shutil.rmtree(trash, ignore_errors=True)  # what cannot be removed is named below
    ours = f".{os.getpid()}"
    failures += [f"{left} cannot be removed" for left in _directories(trash) if left.name.endswith(ours)]


def _links(logs: Path) -> list[tuple[Path, str]]:
    """Every link to a log, with the id of the session it points to."""
    if not logs.is_dir():
        return []
    return [(link, link.readlink().parent.name) for link in sorted(logs.iterdir()) if link.is_symlink()]


def _prune(root: StateRoot, links: list[tuple[Path, str]], world: World, gone: set[str], *, dry_run: bool) -> list[str]:
    """Remove the links to logs whose session has been removed, now or earlier."""
    pruned = []
    for link, session_id in links:
        session = world.sessions.get(session_id)
        if session is not None and session.state.live:
            continue  # about to be made
        if session_id not in gone and (root.sessions / session_id).exists():
            continue
        if dry_run:
            pruned.append(link.name)
        elif link.is_symlink() and link.readlink().parent.name == session_id:
            link.unlink(missing_ok=True)
            pruned.append(link.name)
    return pruned


def _as_json(result: Collected, dry_run: bool) -> str:
    from kasmos.model import codec

    return codec.encode_pretty(
        {
            "dry_run": dry_run,
            "removed": [
                {
                    "id": removal.id,
                    "bytes": removal.bytes,
                    "ended_at": codec.format_instant(removal.ended_at),
                    "reason": removal.reason,
                }
                for removal in result.removed
            ],
            "freed_bytes": sum(removal.bytes for removal in result.removed),
            "kept": result.kept,
            "kept_bytes": result.kept_bytes,
            "pruned_links": list(result.links),
            "failures": list(result.failures),
            "forgotten_runs": result.forgotten_runs,
            "forgotten_events": result.forgotten_events,
        }
    )


def _as_text(result: Collected, dry_run: bool) -> str:
    freed = sum(removal.bytes for removal in result.removed)
    count = len(result.removed)
    what = f"{count} session{'' if count == 1 else 's'}, {render_size(freed)}"
    lines = [f"{'would remove' if dry_run else 'removed'} {what}; {result.kept} stay, {render_size(result.kept_bytes)}"]
    if result.forgotten_runs:
        runs = f"{result.forgotten_runs} run{'' if result.forgotten_runs == 1 else 's'}"
        lines.append(f"{'would forget' if dry_run else 'forgot'} {runs} that ended long ago")
    if dry_run:
        lines += [f"  {removal.id}  {render_size(removal.bytes)}  {removal.reason}" for removal in result.removed]
    return "\n".join(lines)


def render_size(size: int) -> str:
    """A number of bytes for people: `512 B`, `1.5 MiB`."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
