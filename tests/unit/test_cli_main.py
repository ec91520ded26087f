"""`kasmos.cli.main`: every error becomes one message and one exit code, and help costs next to nothing."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import click
import pytest

from kasmos.cli import main as entry
from kasmos.cli import terminal
from kasmos.exceptions import (
    BackendUnavailableError,
    ClientError,
    ConfigError,
    JournalCorruptError,
    KasmosError,
    KasmosInternalError,
    Mistake,
    PlanError,
    RequestError,
    SessionLostError,
    StateLockedError,
    SupervisionError,
)

RAISED: list[BaseException] = []
"""What the next `kas boom` raises."""


@click.command("boom")
def boom() -> None:
    raise RAISED.pop()


def run(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a verb that raises *error*; the exit code."""
    monkeypatch.setitem(entry._VERBS, "boom", (f"{__name__}:boom", ""))
    RAISED.append(error)
    with pytest.raises(SystemExit) as exited:
        entry.main(["boom"])
    assert isinstance(exited.value.code, int)
    return exited.value.code


_MISTAKES = [Mistake("config.toml: agents.x", "unknown key", "did you mean y?"), Mistake("config.toml: z", "wrong")]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError(_MISTAKES), 2),
        (PlanError(_MISTAKES), 2),
        (click.UsageError("no"), 2),
        (click.ClickException("no"), 2),
        (RequestError(400, "invalid_plan", "wrong", _MISTAKES), 2),
        (RequestError(400, "invalid_config", "wrong", _MISTAKES), 2),
        (ClientError("nobody there"), 3),
        (RequestError(409, "conflict", "refused"), 4),
        (SupervisionError("refused"), 4),
        (StateLockedError("locked"), 4),
        (JournalCorruptError("damaged"), 4),
        (SessionLostError("lost"), 4),
        (BackendUnavailableError("no tmux"), 4),
        (KasmosInternalError("oh"), 70),
        (ZeroDivisionError("oh"), 70),
        (OSError(5, "oh"), 70),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_every_error_has_its_exit_code(error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code says whose fault it was."""
    assert run(error, monkeypatch) == code


def test_groups_of_errors_are_told_as_their_leaves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A group of our own errors is told line by line; one with a foreign error in it is a bug."""
    ours: list[KasmosError] = [ClientError("nobody there"), SupervisionError("refused")]
    assert run(ExceptionGroup("both", ours), monkeypatch) == 4
    assert capsys.readouterr().err == "kas: nobody there\nkas: refused\n"
    assert run(ExceptionGroup("both", [ours[0], ValueError("x")]), monkeypatch) == 70
    assert run(BaseExceptionGroup("both", [ours[0], KeyboardInterrupt()]), monkeypatch) == 130


def test_every_mistake_has_its_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All mistakes are told at once, each with its place and its cure."""
    run(ConfigError(_MISTAKES), monkeypatch)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "kas: config.toml: agents.x: unknown key (did you mean y?)\nkas: config.toml: z: wrong\n"
    run(RequestError(400, "invalid_plan", "the plan is wrong", _MISTAKES), monkeypatch)
    assert capsys.readouterr().err.startswith("kas: the plan is wrong\nkas: config.toml: agents.x: ")


def test_doubts_are_told_with_the_mistakes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What is doubtful in a plan is told beside what is wrong: it is often the reason."""
    run(PlanError(_MISTAKES[:1], _MISTAKES[1:]), monkeypatch)
    assert capsys.readouterr().err.endswith("(did you mean y?)\nkas: warning: config.toml: z: wrong\n")


def test_messages_are_harmless(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What an error quotes cannot move a cursor."""
    run(SupervisionError("no task '\x1b[2Jx'"), monkeypatch)
    assert capsys.readouterr().err == "kas: no task 'x'\n"


def test_a_bug_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A bug is called one; where it happened is shown on request only."""
    monkeypatch.delenv("KASMOS_DEBUG", raising=False)
    run(ZeroDivisionError("oh"), monkeypatch)
    err = capsys.readouterr().err
    assert "this is a bug: ZeroDivisionError: oh" in err
    assert "KASMOS_DEBUG=1" in err
    assert "Traceback" not in err
    monkeypatch.setenv("KASMOS_DEBUG", "1")
    run(ZeroDivisionError("oh"), monkeypatch)
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("name", list(entry._VERBS))
def test_every_verb_is_where_the_table_says(name: str) -> None:
    """Each line of the help has its command, which goes by that name."""
    module, _, attribute = entry._VERBS[name][0].partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert command.get_short_help_str()


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said to a command line that is wrong."""
    with pytest.raises(SystemExit) as exited:
        entry.main(arguments)
    assert exited.value.code == 2
    return capsys.readouterr().err


def test_an_unknown_verb_is_answered_with_what_is_near(capsys: pytest.CaptureFixture[str]) -> None:
    """A slip of the finger is answered with the verb that was meant."""
    err = refused(["stauts"], capsys)
    assert "Did you mean 'status'?" in err


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["run", "--agnt", "x", "plan.md"], "--agent"),
        (["--projct", ".", "status"], "--project"),
        (["plan", "chek"], "check"),
        (["config", "shwo"], "show"),
    ],
)
def test_a_slip_is_answered_with_what_is_near(
    arguments: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options and the verbs of groups are guessed as verbs are."""
    err = refused(arguments, capsys)
    assert "Did you mean" in err
    assert f"'{meant}'" in err


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["run", "--state-root", "/tmp", "plan.md"], "kas --state-root DIR run"),
        (["daemon", "stop", "-C", "/tmp"], "kas -C DIR daemon stop"),
    ],
)
def test_an_option_behind_its_verb_is_told_its_place(
    arguments: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who writes an option of kas behind the verb is told that it stands before it."""
    err = refused(arguments, capsys)
    assert f"It stands before the verb: {meant}\n" in err


def test_a_wrong_key_is_told_in_words_of_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A key that is none is named as the argument it is, not as a field of a request."""

    def refuse(*anything: object) -> None:
        raise RequestError(
            400, "invalid_body", "the body is wrong", [Mistake("$.keys[0]", "'Entr' is no key", "Enter")]
        )

    monkeypatch.setattr(terminal, "_session", lambda place, name: None)
    monkeypatch.setattr(terminal, "_post", refuse)
    err = refused(["keys", "w1t1", "Entr"], capsys)
    assert err == "kas: nothing was pressed\nkas: KEY: 'Entr' is no key (Enter)\n"


def test_a_wrong_configuration_does_not_keep_anybody_from_looking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Verbs that look or stop need only the place of the state: the rest of the configuration gets one line."""
    for name in [name for name in os.environ if name.startswith(("KASMOS_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / ".kasmos").mkdir()
    (tmp_path / ".kasmos" / "config.toml").write_text("x = 1\n[agents.a]\n")
    for verb in (["status"], ["runs"], ["ps"], ["stop", "--all"], ["gc", "--dry-run"]):
        with pytest.raises(SystemExit) as exited:
            entry.main(["-C", str(tmp_path), *verb])
        err = capsys.readouterr().err
        assert exited.value.code == 0, err
        assert "warning: the configuration has 2 mistakes: kas config check\n" in err
    (tmp_path / ".kasmos" / "config.toml").write_text("state_root = 1\n")
    err = refused(["-C", str(tmp_path), "status"], capsys)
    assert "state_root" in err
