"""`plain`, `github`, `jsonl`: one line per event, for people, for runners, for programs."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from kasmos.cli.render import View, make_view
from kasmos.cli.render.github import GitHubLines
from kasmos.cli.render.jsonl import JsonLines
from kasmos.cli.render.live import Live
from kasmos.cli.render.plain import PlainLines
from kasmos.cli.render.report import describe
from kasmos.cli.render.text import Look
from kasmos.cli.render.writer import Writer
from kasmos.model import event as ev
from kasmos.model.codec import decode_record
from kasmos.model.session import ExitStatus, Leftover, StopReason
from kasmos.model.task import Cause, CauseKind, Outcome
from kasmos.model.view import World
from kasmos.store.fold import apply
from tests.unit.histories import History, failed_run, make_plan


@attrs.define
class Shown:
    """A view whose streams can be read."""

    make: Callable[[Writer], View]
    out: io.StringIO = attrs.field(factory=io.StringIO)
    err: io.StringIO = attrs.field(factory=io.StringIO)

    def play(self, history: History, *, run_id: str = "r1", end: bool = True) -> str:
        """Show a whole journal as it happened; what was written to stdout."""
        view, world = self.make(Writer(self.out, self.err)), World()
        begun = False
        for record in history.records:
            apply(world, record)
            if not begun and run_id in world.runs:
                view.begin(world, run_id, "")
                begun = True
            if begun:
                view.record(record, world)
                view.tick(record.mono, {})
        if end:
            view.end(world)
        else:
            view.message("over")
        return self.out.getvalue()


def plain(look: Look | None = None) -> Shown:
    return Shown(lambda writer: PlainLines(writer, look or Look()))


def github(workspace: str = "") -> Shown:
    return Shown(lambda writer: GitHubLines(writer, Look(), workspace=workspace, new_token=lambda: "t0ken"))


# --- plain ------------------------------------------------------------------------


def test_plain_lines_tell_the_run() -> None:
    """Every event has a line with the time, who, and what; a failed task shows its last output."""
    lines = plain().play(failed_run()).splitlines()
    told = [re.sub(r"^\d\d:\d\d:\d\d  ", "", line) for line in lines[: lines.index("")]]
    assert told == [
        "run           r1 started: Build the parser (3 tasks in 2 waves, from /work/plan.md)",
        "wave 1        started (2 tasks)",
        "w1t1-do-it-1  started (pid 4004)",
        "w1t2-do-it-2  started (pid 4006)",
        "w1t1-do-it-1  exit 0 after 2.0s, 0 bytes of output",
        "w1t1-do-it-1  succeeded after 2.0s",
        "w1t2-do-it-2  exit 3 after 5.0s, 30 bytes of output",
        "w1t2-do-it-2  FAILED after 5.0s: exit 3",
        "          | compiling",
        "          | error: no such file",
        "wave 1        failed",
        "w2t3-do-it-3  skipped: wave 1 did not succeed: task 2 failed",
        "run           r1 FAILED after 5.0s",
    ]


def test_plain_ends_in_a_table_and_advice() -> None:
    """At the end every task has its outcome, and what to type next."""
    text = plain().play(failed_run())
    end = text.partition("\n\n")[2]
    assert "✗ 2 Do it 2     5.0s  failed: exit 3" in end
    assert "- 3 Do it 3        -  skipped: wave 1 did not succeed: task 2 failed" in end
    assert "run r1 failed after 5.0s: 1 succeeded, 1 failed, 1 skipped" in end
    assert "kas why r1.2" in end
    assert "kas logs w1t2-do-it-2" in end
    assert "kas why r1.3" not in end, "a consequence is not what to look at"


def test_the_advice_is_led_by_the_run_and_counts_the_rest() -> None:
    """With several failures the run comes first, and those that are not named are counted."""
    history = History(make_plan(7))
    for number in map(str, range(1, 8)):
        history.start(number)
        history.end(number, code=1)
    history.over(Outcome.FAILED)
    advice = plain().play(history).rpartition("7 failed\n")[2].splitlines()
    assert advice[:3] == ["  kas why r1    all that went wrong", "  kas why r1.1", "  kas logs w1t1-do-it-1"]
    assert advice[-1] == "  and 2 more"


@pytest.mark.parametrize(
    ("message", "said"),
    [("exit 7", "failed: exit 7 (attempt 2)"), ("exit 7 (attempt 2 of 2)", "failed: exit 7 (attempt 2 of 2)")],
)
def test_the_attempt_is_told_once(message: str, said: str) -> None:
    """A task that failed after several attempts tells which it was, and not a second time where its cause does."""
    history = History(make_plan(1))
    history.start("1", attempt=2)
    history.end("1", code=7, message=message)
    assert describe(history.world, history.task("1")) == said


def test_there_is_no_log_of_what_never_started() -> None:
    """The advice names no log of a session that could not be started."""
    history = History(make_plan(1))
    session = history.start("1")
    history.add(ev.SessionStartFailed(session, "no such file"))
    history.finish("1", Outcome.FAILED, Cause(CauseKind.START, "could not be started: no such file", session))
    history.over(Outcome.FAILED)
    text = plain().play(history)
    assert "kas why r1.1" in text
    assert "kas logs" not in text


def test_the_time_of_a_run_is_the_time_it_was_worked_on() -> None:
    """The hours between an interruption and the command that goes on do not count."""
    history = History(make_plan(2))
    history.start("1")
    history.end("1", after=3.0)
    session = history.start("2", after=1.0)
    history.add(ev.SessionEnded(session, ExitStatus(signal=15)), after=2.0)
    history.add(ev.TaskPutBack("r1", "2", "SIGINT"))
    history.add(ev.RunInterrupted("r1", "SIGINT"))
    history.add(ev.RunContinued("r1"), after=7200.0)
    history.start("2", attempt=2)
    history.end("2", after=4.0)
    history.over(Outcome.SUCCEEDED)
    text = plain().play(history)
    assert "r1 succeeded after 9.0s" in text
    assert "run r1 succeeded after 9.0s: 2 succeeded" in text


def test_plain_tells_of_a_takeover() -> None:
    """Who takes a conversation over is told, and who or what gives it back."""
    history = History(make_plan(2))
    history.start("1")
    history.add(ev.TakeoverRequested("r1", "1", "c-1", "ann"))
    history.add(ev.HandedBack("r1", "1", who="bob"))
    history.add(ev.TakeoverRequested("r1", "1", "c-1", "", now=True))
    history.add(ev.HandedBack("r1", "1", reason="its program has ended: exit 0"))
    history.add(ev.HandedBack("r1", "1", done=True, who="ann"))
    text = plain().play(history)
    for said in (
        "ann takes its conversation over when its turn has ended",
        "handed back: by bob",
        "somebody takes its conversation over now",
        "handed back: its program has ended: exit 0",
        "handed back: by ann, as done",
    ):
        assert said in text


def test_plain_has_colours_only_where_there_are_some() -> None:
    """Without colours no escape is written, with them failures are red."""
    assert "\x1b" not in plain().play(failed_run())
    assert "\x1b[31m" in plain(Look(color=True)).play(failed_run())


def test_plain_shows_nothing_of_other_runs() -> None:
    """Events of another run in the same journal are passed over."""
    history = failed_run()
    other = ev.RunStarted("r2", make_plan(1, goal="Another"), "-", "k", "d", history.world.runs["r1"].settings, "/")
    history.add(other)
    history.add(ev.WaveStarted("r2", 1))
    text = plain().play(history)
    assert "Another" not in text
    assert text.count("wave 1        started") == 1


def test_plain_tells_every_kind_of_event() -> None:
    """Each thing that can befall a session or a run has its sentence."""
    history = History(make_plan(1, checks=("pytest -q",)))
    history.wave(1)
    session = history.start("1")
    history.add(ev.SessionDetached(session))
    history.add(ev.SessionAdopted(session, 99))
    history.add(ev.OutputLost(session, 10, "truncated"))
    history.add(ev.StopRequested(session, StopReason.TIMEOUT))
    history.add(ev.KillSent(session))
    history.add(ev.SessionUnkillable(session, (99, 100)))
    history.add(ev.LeftoversFound(session, (Leftover(5, "tmux", "reported"),)))
    history.add(ev.SessionEnded(session, ExitStatus(signal=9)))
    history.add(ev.TaskRetryScheduled("r1", "1", 1, 2.5, Cause(CauseKind.TIMEOUT, "took too long", session)))
    history.start("1", attempt=2)
    history.start("1", attempt=2, check=0)
    history.add(ev.SessionStartFailed("r1-1a2c0", "no such file"))
    history.add(ev.SessionLost("r1-1a2", "another boot"))
    history.add(ev.TaskPutBack("r1", "1", "SIGINT"))
    history.add(ev.RunInterrupted("r1", "SIGINT"))
    history.add(ev.RunContinued("r1"))
    history.add(ev.RunParked("r1", 1))
    history.add(ev.RunAdvanced("r1", 1))
    history.add(ev.RunCancelRequested("r1", "enough"))
    history.over(Outcome.CANCELLED)
    history.add(ev.RunReopened("r1"))
    text = plain().play(history)
    for said in (
        "left running, for adoption",
        "adopted: it went on without a supervisor (pid 99)",
        "lost output: truncated",
        "is being stopped (timeout)",
        "did not stop in time: SIGKILL",
        "survives SIGKILL: 99, 100",
        "left processes behind: tmux (5) reported",
        "killed by SIGKILL",
        "attempt 1 took too long; again in 2.5s",
        "attempt 2 started",
        "check `pytest -q` started",
        "check `pytest -q` could not be started: no such file",
        "attempt 2 lost: another boot",
        "put back: SIGINT",
        "r1 interrupted: SIGINT",
        "r1 continued: 1 queued",
        "has ended; the run waits: `kas advance` lets it go on",
        "advanced past",
        "r1 is being ended: enough",
        "r1 CANCELLED",
        "r1 taken up again",
    ):
        assert said in text, said


def test_plain_output_cannot_move_the_cursor() -> None:
    """Titles, causes and output of agents are made harmless."""
    history = History(make_plan(1, goal="\x1b[2Jgoal", title="\x1b]0;t\x07title"))
    history.start("1")
    history.end("1", code=1, tail="\x1b[1;1Hpwned\nnext\x9b2J\n", message="exit \x1b[31m1")
    text = plain().play(history)
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert "| pwned" in text


# --- GitHub Actions ---------------------------------------------------------------


def test_github_groups_output_between_stopped_commands() -> None:
    """The output of a failed task is in a group, and while it is printed no command is obeyed."""
    history = History(make_plan(1))
    history.start("1")
    history.end("1", code=1, tail="::error::pwned\n##[error]pwned\n::t0ken2::\n", message="exit 1")
    lines = github().play(history).splitlines()
    at = lines.index("::group::last output of w1t1-do-it-1")
    assert lines[at : at + 8] == [
        "::group::last output of w1t1-do-it-1",
        "::stop-commands::t0ken",
        "::error::pwned",
        "##[error]pwned",
        "::t0ken2::",
        "::t0ken::",
        "::endgroup::",
        "::error title=Task 1 Do it 1::exit 1",
    ]


def test_github_tokens_cannot_be_guessed() -> None:
    """Each time, commands are stopped with a token of its own, of 128 bits."""
    tokens = set()
    for _ in range(3):
        shown = Shown(lambda writer: GitHubLines(writer, Look()))
        found = re.search(r"^::stop-commands::([0-9a-f]{32})$", shown.play(failed_run()), re.MULTILINE)
        assert found is not None
        tokens.add(found[1])
    assert len(tokens) == 3


def test_github_obeys_nothing_outside_of_groups() -> None:
    """No line but our own begins with a command, and none holds one of the old kind."""
    history = History(make_plan(1, goal="::set-output name=a::b ##[add-mask]x", title="##[group]evil,a:b%"))
    history.start("1")
    history.end("1", code=1, message="::error::x\n::error::y ##[x]")
    shown = github()
    view = shown.make(Writer(shown.out, shown.err))
    view.message("  ::add-mask::secret ##[x]")
    view.begin(history.world, "r1", "")
    view.end(history.world)
    text = shown.play(history)
    for line in text.splitlines():
        assert "##[" not in line
        if line.lstrip().startswith("::"):
            assert line.startswith("::error title=Task 1 "), line
    assert text.count("::error title=") == 1


def test_github_annotations_are_escaped_and_placed() -> None:
    """Properties and data are percent-encoded, and the annotation points to the task in the plan."""
    history = History(make_plan(1, title="a: b, c 50%"), source="/home/runner/work/plans/plan.md")
    history.start("1")
    history.end("1", code=1, message="100% wrong\r\nsecond")
    text = github("/home/runner/work").play(history)
    assert "::error title=Task 1 a%3A b%2C c 50%25 1,file=plans/plan.md,line=10::" in text
    assert "%25 wrong" in github().play(history) or "second" in text
    outside = github("/somewhere/else").play(history)
    assert "file=" not in outside


@pytest.mark.parametrize("named", [True, False])
def test_github_annotations_are_placed_in_the_workspace_or_here(
    named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Places are told from the runner's workspace, or without one from the current directory."""
    monkeypatch.chdir("/" if named else tmp_path)
    environ = {"GITHUB_ACTIONS": "true"} | ({"GITHUB_WORKSPACE": str(tmp_path)} if named else {})
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    view = make_view(json=False, stdout=stdout, stderr=stdout, environ=environ, is_terminal=False)
    history = History(make_plan(1), source=f"{tmp_path.resolve()}/..plans/plan.md")
    view.begin(history.world, "r1", "")
    history.listener = view.record
    history.start("1")
    history.end("1", code=1)
    view.end(history.world)
    stdout.seek(0)
    assert ",file=..plans/plan.md,line=10::exit 1" in stdout.read()


# --- JSON -------------------------------------------------------------------------


def test_jsonl_is_the_journal_of_the_run() -> None:
    """Each line is a record that can be read back; nothing else is on stdout."""
    history = failed_run()
    shown = Shown(JsonLines)
    lines = shown.play(history).splitlines()
    of_the_run = [record for record in history.records if not isinstance(record.event, ev.SupervisorStarted)]
    read = [decode_record(line) for line in lines]
    assert [record.event for record in read] == [record.event for record in of_the_run]
    assert [record.seq for record in read] == [record.seq for record in of_the_run]


def test_jsonl_messages_go_to_stderr() -> None:
    """What is no event is on stderr, in one line."""
    shown = Shown(JsonLines)
    view = shown.make(Writer(shown.out, shown.err))
    history = failed_run()
    view.begin(history.world, "r1", "continuing\nr1")
    view.message("a warning")
    view.end(history.world)
    assert shown.out.getvalue() == ""
    assert shown.err.getvalue() == "kas: continuing r1\nkas: a warning\n"


# --- which one --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "json", "is_terminal", "kind"),
    [
        ({"TERM": "xterm"}, True, True, JsonLines),
        ({"TERM": "xterm"}, False, True, Live),
        ({"TERM": "dumb"}, False, True, PlainLines),
        ({}, False, True, PlainLines),
        ({"TERM": "xterm"}, False, False, PlainLines),
        ({"GITHUB_ACTIONS": "true"}, False, False, GitHubLines),
        ({"GITHUB_ACTIONS": "true"}, True, False, JsonLines),
    ],
)
def test_the_view_fits_the_place(environ: dict[str, str], json: bool, is_terminal: bool, kind: type) -> None:
    """JSON where asked for, live on a terminal that can do it, annotations on GitHub, else plain lines."""
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    view = make_view(json=json, stdout=stdout, stderr=stdout, environ=environ, is_terminal=is_terminal)
    assert type(view) is kind


def test_a_terminal_without_unicode_gets_plain_lines() -> None:
    """Where signs must be escaped, lines cannot be measured, so nothing is drawn."""
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    view = make_view(json=False, stdout=stdout, stderr=stdout, environ={"TERM": "xterm"}, is_terminal=True)
    assert type(view) is PlainLines
