"""Sitting down at a headless agent and handing it back: its conversation is opened in a terminal in between."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from kasmos.cli.context import Place, complete, note, place_of, say, task_ids

if TYPE_CHECKING:
    from kasmos.client.sync import Supervisor
    from kasmos.model.view import SessionView, TaskView, World

_CURE = "`kas resume` takes up what runs"
DECLINED = 1
INTERRUPTED = 130


@click.command("detach")
@click.argument("name", metavar="TASK", shell_complete=complete(task_ids))
@click.option("--prompt", metavar="TEXT", default="", help="What the agent is told (-: standard input); else to go on.")
@click.option("--done", is_flag=True, help="Nothing is left to be done: only its checks are run.")
@click.option("--now", is_flag=True, help="Do not wait for the end of a turn in the terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@click.pass_context
def detach(ctx: click.Context, name: str, prompt: str, done: bool, now: bool, as_json: bool) -> None:
    """Hand TASK back, which `kas attach` has taken over: it goes on headless in the same conversation.

    The terminal's program is asked to leave when its turn is over. A takeover that waits for the end of the headless
    turn is given up.
    """
    from kasmos.model import codec

    if done and prompt:
        raise click.UsageError("--done and --prompt exclude each other: what is done is told nothing", ctx)
    if prompt == "-":
        prompt = sys.stdin.buffer.read().decode("utf-8", "surrogateescape").strip()
    place = place_of(ctx)
    task = find_held(place.read_world(), name)
    answer = hand_back(place.reach(_CURE), task, prompt=prompt, done=done, now=now)
    if as_json:
        say(codec.encode_pretty(answer))
    elif answer["takeover"] is None:
        say(f"{task.spec.name} is not taken over: it goes on as it was")
    elif done:
        say(f"{task.spec.name} is handed back as done: its checks decide when its terminal has ended")
    else:
        say(f"{task.spec.name} is handed back: it goes on headless when its terminal has ended")


def find_held(world: World, name: str) -> TaskView:
    """The task that a name means, also by the name of one of its sessions.

    Raises:
        SupervisionError: there is none, or several.
    """
    from kasmos.store.lookup import find_task, match_sessions

    sessions = match_sessions(world, name)
    if len(sessions) == 1 and (task := task_of(world, sessions[0])) is not None:
        return task
    return find_task(world, name)


def task_of(world: World, session: SessionView) -> TaskView | None:
    """The task that a session belongs to, as far as it is known."""
    run = world.runs.get(session.run_id or "")
    return run.tasks.get(session.task_id or "") if run is not None else None


def hand_back(supervisor: Supervisor, task: TaskView, **said: Any) -> Any:
    """Hand a task back; the task as it is then.

    Raises:
        RequestError: nobody has it.
    """
    body = {key: value for key, value in said.items() if value}
    return supervisor.post(f"/v1/tasks/{quote(task.id, safe='')}/detach", body)


def take_over(place: Place, world: World, task: TaskView, *, now: bool, yes: bool) -> SessionView:
    """Have a headless task's conversation opened in a terminal, after a question; the session of that terminal.

    Raises:
        RequestError: it cannot be, or may not be at present.
        SupervisionError: there is no terminal here, or it was not opened after all.
        BackendUnavailableError: there is no tmux.
        ClientError: no supervisor is there any more; the wish stands.
    """
    supervisor = place.reach(_CURE)
    path = f"/v1/tasks/{quote(task.id, safe='')}/attach"
    name = task.spec.name
    waits = task.takeover is not None and task.takeover.back is None
    if not waits:
        supervisor.post(path, {"check": True, "now": now})
    _require_terminal(place, name)
    if not waits:
        _ask(name, now=now, yes=yes)
    try:
        if not waits:
            supervisor.post(path, {"now": now})
            note(_waiting_text(name, now=now))
        else:
            note(f"{name} is taken over already; waiting until it is open")
        return _wait_open(supervisor, world, task)
    except KeyboardInterrupt:
        from kasmos.exceptions import KasmosError

        try:
            hand_back(supervisor, task)
            note(f"{name} goes on headless, as if it had not been asked for")
        except KasmosError as error:
            note(f"{name}: {error}")
        raise click.exceptions.Exit(INTERRUPTED) from None


def _require_terminal(place: Place, name: str) -> None:
    from kasmos.exceptions import SupervisionError
    from kasmos.sessions import tmux

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        how = f"`kas logs -f {name}` shows what it does"
        raise SupervisionError(f"kas attach needs a terminal on its standard input and output; {how}")
    tmux.find_binary(place.environ.get("PATH"))


def _ask(name: str, *, now: bool, yes: bool) -> None:
    if yes:
        return
    when = "Its turn is interrupted now" if now else "When its turn has ended"
    click.echo(
        f"{name} runs headless. {when}{', and' if now else ','} its conversation is opened in a terminal, for you.\n"
        f"The task does not go on by itself, and its time stands still, until `kas detach {name}` hands it back.",
        err=True,
    )
    if not click.confirm("Take it over?", err=True):
        note(f"{name} goes on as it was")
        raise click.exceptions.Exit(DECLINED)


def _waiting_text(name: str, *, now: bool) -> str:
    if now:
        return f"{name}: its turn is being interrupted"
    return f"waiting for {name} to end its turn (Ctrl-C: it goes on headless; `--now` interrupts it)"


def _wait_open(supervisor: Supervisor, world: World, task: TaskView) -> SessionView:
    """Wait until the conversation is open in a terminal.

    Raises:
        SupervisionError: it was not opened after all.
        ClientError: the supervisor is gone.
    """
    from contextlib import closing

    from kasmos.exceptions import ClientError, SupervisionError
    from kasmos.model import event as ev
    from kasmos.model.view import SessionState
    from kasmos.store.fold import apply

    why = ""
    with closing(supervisor.events(world.seq)) as records:  # type: ignore[type-var]  # a generator
        for record in records:
            apply(world, record)
            task, event = world.runs[task.run_id].tasks[task.spec.id], record.event
            newest = world.sessions.get(task.sessions[-1]) if task.sessions else None
            if newest is not None and newest.attended and newest.state is SessionState.RUNNING:
                return newest
            mine = getattr(event, "task_id", None) == task.spec.id and getattr(event, "run_id", None) == task.run_id
            match event:
                case ev.TaskEnded(outcome=outcome, cause=cause) if mine:
                    why = f"it ended: {outcome.replace('_', ' ')}: {cause.message}"
                case ev.TaskRetryScheduled(cause=cause) if mine:
                    why = f"its attempt ended: {cause.message}"
                case ev.HandedBack(reason=reason, who=who) if mine:
                    why = reason or f"{who or 'somebody'} gave it up"
                case ev.ApprovalRequested(session_id=session_id, approval_id=asked, waits=True):
                    if session_id in task.sessions:
                        note(
                            f"{task.spec.name} asks before its turn can end: `kas approve {asked}`, `kas deny {asked}`"
                        )
                case _:
                    continue
            if why and task.takeover is None:
                raise SupervisionError(f"{task.spec.name} is not taken over: {why}")
    raise ClientError(f"the supervisor has left; {task.spec.name} is still to be taken over: `kas attach` waits for it")


def tell_after(place: Place, session: SessionView, *, still_open: bool) -> None:
    """What a person is told who comes back from the terminal of a conversation they took over."""
    name = session.name
    if still_open:
        note(
            f"{name} is still yours: `kas attach {name}` enters it again, `kas detach {name}` hands it back to headless"
        )
        note(f"(`kas detach {name} --prompt TEXT` says what it does next, `--done` that nothing is left to be done)")
        return
    note(f"{name}: its terminal has ended; `kas status` and `kas logs -f {name}` show how it goes on")
