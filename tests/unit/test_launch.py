"""How a program is started, as far as it can be told without starting one: commands, limits and records."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import pytest

from kasmos.exceptions import SessionStartError
from kasmos.model.codec import CodecError
from kasmos.model.profile import Limits, OutputMode
from kasmos.model.session import ExitStatus, SessionSpec, StopReason
from kasmos.sessions import layout
from kasmos.sessions.launch import SHIM, Records, doorman_command, limit_prefix, prepare, resolve

STAT = b"4711 (sh) S 1 4711 4711 0 -1 4194304 " + b" ".join(b"%d" % n for n in range(10, 54)) + b"\n"


@pytest.fixture
def bin_dir(tmp_path: Path) -> Path:
    """A directory with a program in it, as the only one on PATH."""
    path = tmp_path / "bin"
    path.mkdir()
    for name in ("agent", "nice", "ionice", "prlimit"):
        (path / name).write_text("#!/bin/sh\n")
        (path / name).chmod(0o755)
    (path / "data").write_text("not a program")
    return path


def spec(bin_dir: Path, *argv: str, **changes: object) -> SessionSpec:
    made = SessionSpec(
        id="s", name="s", argv=argv or ("agent",), cwd=str(bin_dir.parent), env={"PATH": str(bin_dir), "KEY": "secret"}
    )
    return attrs.evolve(made, **changes)  # type: ignore[arg-type]  # checked by attrs' __init__


# --- the command ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "prefix"),
    [
        (Limits(), []),
        (Limits(nice=10), ["nice", "-n", "10"]),
        (Limits(nice=-5), ["nice", "-n", "-5"]),
        (Limits(nice=0), ["nice", "-n", "0"]),
        (Limits(ionice="idle"), ["ionice", "-c", "3"]),
        (Limits(ionice="best-effort"), ["ionice", "-c", "2"]),
        (Limits(ionice="best-effort:7"), ["ionice", "-c", "2", "-n", "7"]),
        (Limits(ionice="realtime:0"), ["ionice", "-c", "1", "-n", "0"]),
        (Limits(rlimits={"nofile": 64, "as": 5}), ["prlimit", "--nofile=64:64", "--as=5:5", "--"]),
        (
            Limits(nice=1, ionice="idle", rlimits={"core": 0}),
            ["nice", "-n", "1", "ionice", "-c", "3", "prlimit", "--core=0:0", "--"],
        ),
    ],
)
def test_limits_are_commands_in_front(limits: Limits, prefix: list[str]) -> None:
    """Each limit is set by a command that then becomes the next one, so that the program keeps its pid."""
    assert limit_prefix(limits) == prefix


def test_the_doorman_runs_the_program_behind_its_limits(bin_dir: Path) -> None:
    """What the doorman is given is where, from what, to what and with how many descriptors, and the whole command."""
    command = doorman_command("/state/s", spec(bin_dir, "agent", "-x", limits=Limits(nice=3)), 1024)
    assert command[:3] == ["/bin/sh", "-c", SHIM]
    assert command[4:] == [str(bin_dir.parent), "/dev/null", "", "1024", "", "nice", "-n", "3", "agent", "-x"]


def test_the_prompt_as_standard_input(bin_dir: Path) -> None:
    """A program whose prompt is its standard input reads the prompt's file, any other nothing."""
    command = doorman_command("/state/s", spec(bin_dir, stdin_prompt=True, output=OutputMode.PIPE), 1024)
    assert command[5] == layout.PROMPT


def test_files_of_the_session_are_filled_in(bin_dir: Path) -> None:
    """`{prompt_file}` and `{script_file}` become paths in the session's directory, wherever they stand in a word."""
    command = doorman_command("/st/s", spec(bin_dir, "agent", "--in={prompt_file}", "{script_file}", "{model} {}"), 1)
    assert command[-3:] == ["--in=/st/s/prompt.md", "/st/s/script.sh", "{model} {}"]


def test_what_a_shell_would_read_is_passed_as_it_is(bin_dir: Path) -> None:
    """Arguments are never read by a shell, whatever they look like."""
    nasty = "$(rm -rf /); 'x' \"y\" `z` *\n\\"
    assert doorman_command("/st/s", spec(bin_dir, "agent", nasty), 1)[-1] == nasty


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("nothing-like-it",), "'nothing-like-it' was not found on PATH; install it"),
        (("data",), "'data' was not found on PATH"),
        (("./bin/data",), "./bin/data is not executable"),
        (("./bin",), "./bin is not executable"),
        (("/no/such/program",), "/no/such/program does not exist"),
    ],
)
def test_a_program_that_is_not_there(argv: tuple[str, ...], words: str, bin_dir: Path) -> None:
    """A program that cannot be run is refused before anything is spawned, with what is wrong about it."""
    with pytest.raises(SessionStartError) as refused:
        doorman_command("/st/s", spec(bin_dir, *argv), 1)
    assert words in str(refused.value)


def test_a_directory_that_is_not_there(bin_dir: Path) -> None:
    """A working directory that does not exist is named."""
    with pytest.raises(SessionStartError, match="working directory /no/such"):
        doorman_command("/st/s", spec(bin_dir, cwd="/no/such"), 1)


@pytest.mark.parametrize("limits", [Limits(nice=1), Limits(ionice="idle"), Limits(rlimits={"core": 0})])
def test_a_limit_needs_its_tool(limits: Limits, bin_dir: Path) -> None:
    """A limit whose tool is missing is refused, not left out."""
    tool = limit_prefix(limits)[0]
    (bin_dir / tool).unlink()
    with pytest.raises(SessionStartError, match=f"'{tool}' was not found"):
        doorman_command("/st/s", spec(bin_dir, limits=limits), 1)


def test_programs_are_found_as_the_program_itself_would(bin_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare name is looked for on the child's PATH, not on ours; a path is relative to its working directory."""
    monkeypatch.setenv("PATH", "/nonexistent")
    cwd = str(bin_dir.parent)
    assert resolve("agent", {"PATH": str(bin_dir)}, cwd) == f"{bin_dir}/agent"
    assert os.path.samefile(resolve("bin/agent", {}, cwd), bin_dir / "agent")
    with pytest.raises(SessionStartError):
        resolve("agent", {"PATH": ""}, cwd)


# --- the directory ----------------------------------------------------------------


def test_a_prepared_directory(bin_dir: Path, tmp_path: Path) -> None:
    """Everything the shim needs is there before it starts, private, the exit record reserved and not yet a record."""
    directory = tmp_path / "sessions" / "s"
    prepare(str(directory), spec(bin_dir, prompt="p\udcff", script="echo\n"), "boot")
    assert (directory / layout.PROMPT).read_bytes() == b"p\xff"
    assert (directory / layout.SCRIPT).read_bytes() == b"echo\n"
    assert (directory / layout.EXIT).read_bytes() == b" " * layout.EXIT_RECORD_BYTES
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}
    records = Records(str(directory))
    assert (records.exit(), records.program(), records.shim(), records.claimed) == (None, None, None, False)


def test_what_is_stored_of_a_session(bin_dir: Path, tmp_path: Path) -> None:
    """Of a session all is stored but values of variables, arguments and the prompt: those may be secrets."""
    directory = tmp_path / "s"
    made = spec(bin_dir, "agent", "--key=hidden", "the prompt", prompt="the prompt", run_id="r", task_id="1", attempt=3)
    prepare(str(directory), made, "boot")
    env = {"PATH": "", "KEY": ""}
    assert Records(str(directory)).spec() == attrs.evolve(made, argv=("agent",), prompt="", env=env, boot_id="boot")
    stored = (directory / layout.SPEC).read_bytes()
    assert [word for word in (b"secret", b"hidden", b"the prompt") if word in stored] == []


def test_a_directory_is_prepared_once(bin_dir: Path, tmp_path: Path) -> None:
    """A directory that exists is left as it is: its session may be running."""
    (tmp_path / "s").mkdir()
    with pytest.raises(SessionStartError, match="cannot make"):
        prepare(str(tmp_path / "s"), spec(bin_dir), "boot")
    assert list((tmp_path / "s").iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b'{"id": 3}'])
def test_words_that_are_damaged(content: bytes, tmp_path: Path) -> None:
    """A session whose words are cut off or something else is not one of which nothing is stored."""
    assert Records(str(tmp_path)).spec() is None
    (tmp_path / layout.SPEC).write_bytes(content)
    with pytest.raises(CodecError):
        Records(str(tmp_path)).spec()


def test_words_that_cannot_be_read(tmp_path: Path) -> None:
    """A session whose words the system does not give us is not one of which nothing is stored."""
    (tmp_path / layout.SPEC).mkdir()
    with pytest.raises(IsADirectoryError):
        Records(str(tmp_path)).spec()


def test_the_copier_needs_no_path_of_the_program(bin_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The `cat` that copies output is found on our PATH, and a start without one is refused."""
    piped = spec(bin_dir, output=OutputMode.PIPE)
    command = doorman_command("/st/s", piped, 1)
    assert os.path.isabs(command[6])
    assert os.path.basename(command[6]) == "cat"
    monkeypatch.setenv("PATH", str(bin_dir))
    with pytest.raises(SessionStartError, match="'cat'"):
        doorman_command("/st/s", piped, 1)
    assert doorman_command("/st/s", spec(bin_dir), 1)[6] == ""


# --- records ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"0\n", ExitStatus(code=0)),
        (b"3\n" + b" " * 30, ExitStatus(code=3)),
        (b"128\n", ExitStatus(code=128)),
        (b"137\n", ExitStatus(signal=9, certain=False)),
        (b"143\n" + b" " * 28, ExitStatus(signal=15, certain=False)),
        (b"255\n", ExitStatus(code=255, certain=False)),
        (b"0", None),
        (b"13", None),
        (b"", None),
        (b" " * 32, None),
        (b"\n", None),
        (b"-1\n", None),
        (b"1 2\n", None),
        (b"x\n", None),
        (None, None),
    ],
)
def test_exit_records(content: bytes | None, status: ExitStatus | None, tmp_path: Path) -> None:
    """An exit record is a number and its newline; without it there is none; above 128 a shell is unsure."""
    if content is not None:
        (tmp_path / layout.EXIT).write_bytes(content)
    assert Records(str(tmp_path)).exit() == status


@pytest.mark.parametrize("reason", list(StopReason))
def test_why_it_was_stopped_is_noted_in_place(reason: StopReason, tmp_path: Path) -> None:
    """An exit record takes the reason of a stop without growing, says the same exit as before, and keeps the first."""
    path = tmp_path / layout.EXIT
    path.write_bytes(b"143\n".ljust(layout.EXIT_RECORD_BYTES))
    Records(str(tmp_path)).note_stop(reason)
    Records(str(tmp_path)).note_stop(StopReason.REQUESTED)
    assert path.stat().st_size == layout.EXIT_RECORD_BYTES
    records = Records(str(tmp_path))
    assert (records.exit(), records.stop_reason()) == (ExitStatus(signal=15, certain=False), reason)


def test_what_has_not_ended_was_not_stopped(tmp_path: Path) -> None:
    """Nothing is noted of a program that has left no exit status."""
    path = tmp_path / layout.EXIT
    path.write_bytes(b" " * layout.EXIT_RECORD_BYTES)
    Records(str(tmp_path)).note_stop(StopReason.INTERRUPTED)
    assert path.read_bytes() == b" " * layout.EXIT_RECORD_BYTES
    assert Records(str(tmp_path)).stop_reason() is None


def test_an_exit_record_that_is_being_written(tmp_path: Path) -> None:
    """Who looks at an exit record byte by byte as it is written in place sees nothing until it is complete."""
    path = tmp_path / layout.EXIT
    path.write_bytes(b" " * layout.EXIT_RECORD_BYTES)
    records = Records(str(tmp_path))
    seen = []
    for length in range(4):
        with path.open("r+b") as file:
            file.write(b"42\n"[:length])
        seen.append(records.exit())
    assert seen == [None, None, None, ExitStatus(code=42)]


@pytest.mark.parametrize("name", [layout.SHIM, layout.PID, layout.COPIER])
@pytest.mark.parametrize("content", [STAT[:-1], STAT[:40] + b"\n", b"\n", b"nonsense\n", b"", None])
def test_a_process_record_that_is_not_one(name: str, content: bytes | None, tmp_path: Path) -> None:
    """A line about a process that is cut off, or is none, tells of no process."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    records = Records(str(tmp_path))
    assert (records.shim(), records.program(), records.copier()) == (None, None, None)


def test_a_process_record(tmp_path: Path) -> None:
    """A complete line tells pid and start time; once read it is known, whatever happens to the file."""
    records = Records(str(tmp_path))
    assert records.program() is None
    (tmp_path / layout.PID).write_bytes(STAT)
    entry = records.program()
    assert entry is not None
    assert (entry.id.pid, entry.comm, entry.sid) == (4711, "sh", 4711)
    (tmp_path / layout.PID).unlink()
    assert records.program() == entry
    assert records.shim() is None


def test_a_directory_is_claimed_once(tmp_path: Path) -> None:
    """A tombstone is a claim like a shim's: whoever comes first has it, and it tells of no process."""
    first, second = Records(str(tmp_path)), Records(str(tmp_path))
    assert first.entomb()
    assert first.claimed
    assert second.claimed
    assert not second.entomb()
    assert first.shim() is None


def test_something_else_in_place_of_a_record(tmp_path: Path) -> None:
    """A directory or a pipe in the place of a record is no record, and nobody waits for it."""
    (tmp_path / layout.EXIT).mkdir()
    os.mkfifo(tmp_path / layout.PID)
    records = Records(str(tmp_path))
    assert (records.exit(), records.program()) == (None, None)
