"""Files, then the environment, then flags: the merged configuration, or every mistake in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kasmos.config.keys import KEYS
from kasmos.config.load import Loaded, load_config, read_state_root
from kasmos.config.lookup import default_of
from kasmos.config.schema import Logs, Orchestration, profile_digest
from kasmos.exceptions import ConfigError, Mistake
from kasmos.model.plan import OnFailure, RunSettings
from kasmos.model.profile import (
    AgentProfile,
    LeftoverPolicy,
    Leftovers,
    Limits,
    OutputMode,
    PromptMode,
    RestartCondition,
    RestartPolicy,
    StopPolicy,
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    (directory / ".kasmos").mkdir(parents=True)
    return directory


class Loader:
    """Loads a project's configuration from text, with nothing of the surrounding world."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self.user_dir = project.parent / "user"
        self.file = project / ".kasmos" / "config.toml"

    def __call__(
        self,
        text: str | bytes = "",
        *,
        user: str = "",
        environ: Mapping[str, str] | None = None,
        flags: Mapping[str, object] | None = None,
    ) -> Loaded:
        self.file.write_bytes(text.encode() if isinstance(text, str) else text)
        self.user_dir.mkdir(exist_ok=True)
        (self.user_dir / "config.toml").write_text(user)
        return load_config(self.project, environ=environ or {}, flags=flags, user_dir=self.user_dir)

    def mistakes(self, text: str | bytes = "", **layers: Any) -> list[Mistake]:
        with pytest.raises(ConfigError) as caught:
            self(text, **layers)
        return list(caught.value.mistakes)


@pytest.fixture
def load(project: Path) -> Loader:
    return Loader(project)


# --- what is right ----------------------------------------------------------------


def test_nothing_said_is_a_whole_configuration(tmp_path: Path) -> None:
    """Without any file there are the defaults and the agent `shell`, which runs scripts with sh."""
    loaded = load_config(tmp_path, environ={})
    assert loaded.config.agents == {"shell": AgentProfile("shell", ("sh",), prompt=PromptMode.SCRIPT)}
    assert loaded.config.run_settings() == RunSettings()
    assert (loaded.config.orchestration, loaded.config.logs) == (Orchestration(), Logs())
    assert (loaded.config.phases, loaded.config.state_root) == ({}, None)
    assert (loaded.files, loaded.warnings) == ((), ())


def test_defaults_of_the_table_are_those_of_the_values(load: Loader) -> None:
    """An agent that says nothing but its program is what `AgentProfile` is by itself."""
    assert load('[agents.a]\nprogram = "a"').config.agents["a"] == AgentProfile("a", ("a",))
    for key in KEYS:
        if key.default is not None:
            assert default_of(key.path) is not None


def test_every_key_reaches_its_value(load: Loader) -> None:
    """What a file says of an agent is what the profile has."""
    profile = load("""
        [agents.coder]
        program = "claude --settings 'a b.json'"
        flags = ["-p", "--model", "{model}"]
        model = "opus"
        execution_mode = "headless"
        output = "pipe"
        leftovers = ["dockerd", "a-name-of-more-than-fifteen"]
        prompt = "stdin"
        env = { TOKEN = "secret", EMPTY = "" }
        env_pass = ["ANTHROPIC_*"]
        timeout = "1h"
        stop_grace = 0
        stop_signal = "INT"
        kill_grace = 2.5
        retry_lost = true
        enabled = false
        [agents.coder.restart]
        condition = "always"
        max_restarts = 1
        within = "1m"
        backoff = "500ms"
        backoff_max = 10
        jitter = 0
        quiet_period = 0
        [agents.coder.limits]
        nice = 10
        ionice = "best-effort:7"
        nofile = 100
        as = "1GiB"
        core = "unlimited"
    """).config.agents["coder"]
    assert profile == AgentProfile(
        name="coder",
        program=("claude", "--settings", "a b.json"),
        flags=("-p", "--model", "{model}"),
        model="opus",
        output=OutputMode.PIPE,
        leftovers=Leftovers(LeftoverPolicy.STOP, ("dockerd", "a-name-of-more-"[:15])),
        prompt=PromptMode.STDIN,
        env={"TOKEN": "secret", "EMPTY": ""},
        env_pass=("ANTHROPIC_*",),
        timeout=3600.0,
        stop=StopPolicy("SIGINT", 0.0, 2.5),
        restart=RestartPolicy(RestartCondition.ALWAYS, 1, 60.0, 0.5, 10.0, 0.0, 0.0),
        retry_lost=True,
        enabled=False,
        limits=Limits(10, "best-effort:7", {"nofile": 100, "as": 1 << 30, "core": -1}),
    )


def test_layers_lie_above_each_other(load: Loader) -> None:
    """A flag wins over a variable, a variable over the project's file, that over the user's."""
    user = "[orchestration]\nmax_concurrent = 1\nretries = 1\non_failure = 'continue'\ntask_timeout = 1"
    text = "[orchestration]\nmax_concurrent = 2\nretries = 2\non_failure = 'fail_fast'"
    environ = {"KASMOS_MAX_CONCURRENT": "3", "KASMOS_RETRIES": "3"}
    loaded = load(text, user=user, environ=environ, flags={"orchestration.max_concurrent": 4})
    said = loaded.config.orchestration
    assert (said.max_concurrent, said.retries, said.on_failure, said.task_timeout) == (4, 3, OnFailure.FAIL_FAST, 1.0)
    assert {name.split(".")[1]: str(origin) for name, origin in loaded.origins.items() if "orch" in name} == {
        "max_concurrent": "--max-concurrent",
        "retries": "KASMOS_RETRIES",
        "on_failure": f"{load.file}:4",
        "task_timeout": f"{load.user_dir / 'config.toml'}:5",
        "auto_advance_waves": "default",
        "max_queued": "default",
        "cgroups": "default",
    }
    assert loaded.files == (load.user_dir / "config.toml", load.file)


def test_tables_are_merged_and_lists_are_replaced(load: Loader) -> None:
    """A project's file changes single keys and variables of the user's agent, and whole lists."""
    user = '[agents.a]\nprogram = "a"\nflags = ["-x", "-y"]\nenv = { ONE = "1", TWO = "2" }\nrestart.max_restarts = 3'
    text = '[agents.a]\nflags = ["-z"]\nenv = { TWO = "zwei" }\nrestart = "never"\n[agents.shell]\nprogram = "bash"'
    agents = load(text, user=user).config.agents
    assert agents["a"].program == ("a",)
    assert agents["a"].flags == ("-z",)
    assert agents["a"].env == {"ONE": "1", "TWO": "zwei"}
    assert agents["a"].restart == RestartPolicy(RestartCondition.NEVER, max_restarts=3)
    assert agents["shell"] == AgentProfile("shell", ("bash",), prompt=PromptMode.SCRIPT)


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("KASMOS_MAX_CONCURRENT", "7", ("orchestration", "max_concurrent", 7)),
        ("KASMOS_ON_FAILURE", "continue", ("orchestration", "on_failure", OnFailure.CONTINUE)),
        ("KASMOS_AUTO_ADVANCE_WAVES", "false", ("orchestration", "auto_advance_waves", False)),
        ("KASMOS_AUTO_ADVANCE_WAVES", "1", ("orchestration", "auto_advance_waves", True)),
        ("KASMOS_DEFAULT_AGENT", "shell", ("orchestration", "default_agent", "shell")),
        ("KASMOS_TASK_TIMEOUT", "90", ("orchestration", "task_timeout", 90.0)),
        ("KASMOS_TASK_TIMEOUT", "1h30m", ("orchestration", "task_timeout", 5400.0)),
        ("KASMOS_RETRIES", "2", ("orchestration", "retries", 2)),
        ("KASMOS_LOGS_MAX_BYTES", "1GiB", ("logs", "max_bytes", 1 << 30)),
        ("KASMOS_LOGS_BUFFER_BYTES", "8192", ("logs", "buffer_bytes", 8192)),
    ],
)
def test_variable_sets_its_key(load: Loader, variable: str, text: str, value: tuple[str, str, object]) -> None:
    """The text of a variable is read as its key's kind."""
    config = load(environ={variable: text}).config
    assert getattr(getattr(config, value[0]), value[1]) == value[2]


def test_every_scalar_outside_of_agents_has_a_variable(load: Loader) -> None:
    """What CI wants to set has a variable, state root included; an empty one is as good as none."""
    scalars = [key for key in KEYS if "*" not in key.path and not key.former]
    assert all(key.variable for key in scalars)
    assert load(environ={"KASMOS_STATE_ROOT": "/var/lib/x"}).config.state_root == "/var/lib/x"
    assert load(environ={key.variable: "" for key in scalars}).config == load().config


def test_variables_of_sessions_are_no_configuration(load: Loader) -> None:
    """Variables that belong to running sessions and tests are left alone; a misspelt one gets a warning."""
    environ = {"KASMOS_SESSION_ID": "x", "KASMOS_TASK": "1", "KASMOS_ANCESTORS": "y", "KASMOS_ANYTHING": "z"}
    assert load(environ=environ).warnings == ()
    assert load(environ={"KASMOS_MAX_CONCURENT": "3"}).warnings == (
        'the variable KASMOS_MAX_CONCURENT sets nothing: did you mean "KASMOS_MAX_CONCURRENT"?',
    )


def test_flag_of_text_is_read_like_a_variable(load: Loader) -> None:
    """A flag's text may be a bare number of seconds; None says nothing."""
    flags = {"orchestration.task_timeout": "90", "orchestration.retries": None, "agents.shell.model": "m"}
    config = load(flags=flags).config
    assert (config.orchestration.task_timeout, config.orchestration.retries) == (90.0, 0)
    assert config.agents["shell"].model == "m"


def test_phase_implementing_names_the_default_agent(load: Loader) -> None:
    """Plans are implemented by the agent of the phase `implementing`, unless a default agent is named."""
    text = '[phases]\nimplementing = "coder"\nplanning = "shell"\n[agents.coder]\nprogram = "c"'
    loaded = load(text)
    assert loaded.config.phases == {"implementing": "coder", "planning": "shell"}
    assert loaded.config.run_settings().default_agent == "coder"
    assert load(text, environ={"KASMOS_DEFAULT_AGENT": "shell"}).config.run_settings().default_agent == "shell"
    disabled = load(text + "\nenabled = false")
    assert disabled.config.run_settings().default_agent is None
    assert "is disabled" in disabled.warnings[0]


def test_effort_and_temperature_are_filled_in(load: Loader) -> None:
    """`{effort}` and `{temperature}` become their values in program and flags, once."""
    text = '[agents.a]\nprogram = "a"\nflags = ["-e={effort}", "{temperature}"]\neffort = "{effort}"\ntemperature = 0.7'
    assert load(text).config.agents["a"].flags == ("-e={effort}", "0.7")


def test_setting_that_nothing_uses_gets_a_warning(load: Loader) -> None:
    """A temperature without its placeholder has no effect, and that is said; harnesses know of model and effort."""
    text = '[agents.a]\nprogram = "a"\nmodel = "m"\neffort = "high"\ntemperature = 1'
    warnings = load(text).warnings
    assert [warning.split(" has no effect")[0].rsplit(".", 1)[1] for warning in warnings] == [
        "temperature",
    ]


def test_file_of_other_programs_is_read(load: Loader) -> None:
    """A file whose tables other programs read as well is accepted; what means nothing here gets a warning."""
    loaded = load("""
        plan_store = "http://localhost:1"
        [phases]
        implementing = "coder"
        [agents.coder]
        enabled = true
        program = "opencode"
        model = "m"
        temperature = 0.7
        effort = "high"
        flags = []
        [ui]
        animate_banner = true
        auto_advance_waves = false
        [telemetry]
        enabled = false
    """)
    assert loaded.config.orchestration.auto_advance_waves is False
    assert len(loaded.warnings) == 5
    assert load("[ui]\nauto_advance_waves = false\n[orchestration]\nauto_advance_waves = true").config == load().config


def test_tilde_is_the_home_directory(load: Loader) -> None:
    """A program may be named from the home directory, as in a shell."""
    config = load('[agents.a]\nprogram = "~/bin/a -x"', environ={"HOME": "/home/me"}).config
    assert config.agents["a"].program == ("/home/me/bin/a", "-x")


@pytest.mark.parametrize("encode", [lambda text: b"\xef\xbb\xbf" + text, lambda text: text.replace(b"\n", b"\r\n")])
def test_byte_order_mark_and_windows_line_ends_are_fine(load: Loader, encode: Any) -> None:
    """A file from a Windows editor means the same, and its lines are counted the same."""
    loaded = load(encode(b'# "#\n[orchestration]\nretries = 3\n'))
    assert loaded.config.orchestration.retries == 3
    assert loaded.origins["orchestration.retries"].line == 3


def test_lines_are_those_of_the_keys(load: Loader) -> None:
    """Strings, comments and brackets that look like keys do not mislead the line of a mistake."""
    loaded = load('''
[agents."a"]  # [agents.b]
program = """
retries = 1
[x]"""
flags = [ # ]
  "]", '[',
  "\\"",
]
env.ONE = "1"
env . 'TWO' = "2"
limits = { nice = 1 }
''')
    lines = {name: origin.line for name, origin in loaded.origins.items() if name.startswith("agents.a.")}
    assert lines == {
        "agents.a.program": 3,
        "agents.a.flags": 6,
        "agents.a.env.ONE": 10,
        "agents.a.env.TWO": 11,
        "agents.a.limits.nice": 12,
    }


# --- what is wrong ----------------------------------------------------------------

PROGRAM = '[agents.a]\nprogram = "a"\n'

WRONG = [
    ("[orchestration]\nmax_concurrent = '4'", "orchestration.max_concurrent", 'not "4"', "without the quotes: 4"),
    ("[orchestration]\nmax_concurrent = true", "orchestration.max_concurrent", "not true", ""),
    ("[orchestration]\nmax_concurrent = 0", "orchestration.max_concurrent", "from 1", ""),
    ("[orchestration]\nretries = 1.0", "orchestration.retries", "not 1.0", ""),
    ("[orchestration]\nauto_advance_waves = 1", "orchestration.auto_advance_waves", "true or false, not 1", ""),
    ("[orchestration]\nauto_advance_waves = 'true'", "orchestration.auto_advance_waves", "not", "without the quotes"),
    ("[orchestration]\ntask_timeout = -1", "orchestration.task_timeout", "more than 0, not -1", "10m"),
    ("[orchestration]\ntask_timeout = '90'", "orchestration.task_timeout", 'not "90"', "90s"),
    ("[orchestration]\ntask_timeout = inf", "orchestration.task_timeout", "not inf", "10m"),
    ("[orchestration]\ntask_timeout = '400d'", "orchestration.task_timeout", "at most 366 days", ""),
    ("[orchestration]\non_failure = 'fail-fast'", "orchestration.on_failure", '"stop"', 'did you mean "fail_fast"?'),
    ("[orchestration]\ndefault_agent = 'shel'", "orchestration.default_agent", "no agent", 'did you mean "shell"?'),
    ("[orchestration]\nmax_concurent = 1", "orchestration.max_concurent", "unknown", 'mean "max_concurrent"?'),
    ("max_concurrent = 1", "max_concurrent", "unknown", "it belongs in [orchestration]"),
    ("[agents.a]\nprogram = 'a'\nnice = 1", "agents.a.nice", "unknown", "it belongs in [agents.NAME.limits]"),
    ("[deamon]\nlisten = 'x'", "deamon", "unknown table", 'did you mean "daemon"?'),
    ("[daemon]\nlisten = 'x'", "daemon.listen", "must be HOST:PORT", "127.0.0.1:7878"),
    ("orchestration = 1", "orchestration", "must be a table, not a number", "write [orchestration]"),
    ("[[agents]]\nprogram = 'a'", "agents", "must be a table, not a list", ""),
    ("[logs]\nmax_bytes = 'huge'", "logs.max_bytes", "must be a size", "1GiB"),
    ("[logs]\nmax_bytes = 1", "logs.max_bytes", "at least 64KiB", ""),
    ("[logs]\nbuffer_bytes = '2GiB'", "logs.buffer_bytes", "at most 1GiB", ""),
    ("state_root = ' '", "state_root", "must not be empty", ""),
    ("[phases]\nplanning = 'nobody'", "phases.planning", 'there is no agent "nobody"', "add [agents.nobody]"),
    ("[agents.a]", "agents.a", "has no program", 'program = "a"'),
    ("[agents.a]\nprogram = ''", "agents.a.program", "must not be empty", ""),
    ("[agents.a]\nprogram = []", "agents.a.program", "must not be empty", ""),
    ("[agents.a]\nprogram = '\"x'", "agents.a.program", "a quote is not closed", ""),
    ("[agents.a]\nprogram = 1979-05-27", "agents.a.program", "not a date or time", ""),
    ("[agents.'a b']\nprogram = 'a'", 'agents."a b"', "the name must be", ""),
    (PROGRAM + "flags = '-x \"a b\"'", "agents.a.flags", "must be a list", 'write ["-x", "a b"]'),
    (PROGRAM + "flags = ['-x', 1]", "agents.a.flags[1]", "must be text, not a number", "put it in quotes"),
    (PROGRAM + "flags = ['{effort}']", "agents.a.flags", "effort is not set", "set effort"),
    (PROGRAM + "prompt = 'std-in'", "agents.a.prompt", '"stdin"', 'did you mean "stdin"?'),
    (PROGRAM + "env = 'A=1'", "agents.a.env", "must be a table, not text", ""),
    (PROGRAM + "env.A = 1", "agents.a.env.A", "must be text, not a number", "put it in quotes"),
    (PROGRAM + "env.KASMOS_TASK = 'x'", "agents.a.env.KASMOS_TASK", "kasmos sets itself", ""),
    (PROGRAM + "env_pass = ['A-B']", "agents.a.env_pass[0]", "a variable's name", ""),
    (PROGRAM + "stop_signal = 'SIGKILL'", "agents.a.stop_signal", "must be one of", "stop_grace = 0"),
    (PROGRAM + "stop_signal = 'sigtrm'", "agents.a.stop_signal", "must be one of", 'did you mean "SIGTERM"?'),
    (PROGRAM + "leftovers = 'kill'", "agents.a.leftovers", '"stop" or "report" or a list', ""),
    (PROGRAM + "restart = 'nevr'", "agents.a.restart", "must be one of", 'did you mean "never"?'),
    (PROGRAM + "restart.backoff = '2m'", "agents.a.restart.backoff", "longer than backoff_max (60 s)", ""),
    (PROGRAM + "restart.jitter = 1.5", "agents.a.restart.jitter", "from 0 to 1, not 1.5", ""),
    (PROGRAM + "limits.nice = 20", "agents.a.limits.nice", "from -20 to 19", ""),
    (PROGRAM + "limits.ionice = 'idle:1'", "agents.a.limits.ionice", "best-effort", ""),
    (PROGRAM + "limits.nofile = -1", "agents.a.limits.nofile", "0 or more", "unlimited"),
    (
        PROGRAM + "enabled = false\n[orchestration]\ndefault_agent = 'a'",
        "orchestration.default_agent",
        "is disabled",
        "",
    ),
]


@pytest.mark.parametrize(("text", "path", "problem", "cure"), WRONG)
def test_mistake_has_its_place_and_its_cure(load: Loader, text: str, path: str, problem: str, cure: str) -> None:
    """A mistake is told once, with file, line, key path, what is wrong and what would be right."""
    (mistake,) = load.mistakes(text)
    file, line, where = mistake.place.split(":", 2)
    assert (file, where.strip()) == (str(load.file), path)
    assert path.split("[")[0].split(".")[-1].strip('"') in text.splitlines()[int(line) - 1]
    assert problem in mistake.problem
    assert cure in mistake.cure


def test_every_mistake_of_every_layer_is_told(load: Loader) -> None:
    """Mistakes come all at once, in the order of the layers and of the lines."""
    mistakes = load.mistakes(
        "[agents.a]\nprogram = 1\ntimout = 3\n[orchestration]\nretries = -1",
        user="[logs]\nmax_bytes = 0",
        environ={"KASMOS_MAX_CONCURRENT": "many"},
        flags={"orchestration.on_failure": "explode", "orchestration.retrys": 1},
    )
    assert [mistake.place for mistake in mistakes] == [
        f"{load.user_dir / 'config.toml'}:2: logs.max_bytes",
        f"{load.file}:2: agents.a.program",
        f"{load.file}:3: agents.a.timout",
        f"{load.file}:5: orchestration.retries",
        "KASMOS_MAX_CONCURRENT",
        "--on-failure",
        'flag "orchestration.retrys"',
    ]


def test_broken_toml_is_told_with_line_and_column(load: Loader) -> None:
    """A file that is not TOML is told with its place, beside the mistakes of the other layers and no guesses."""
    mistakes = load.mistakes(
        "[agents.coder]\nprogram = claude\n", user="[phases]\nimplementing = 'coder'", environ={"KASMOS_RETRIES": "x"}
    )
    assert [mistake.place for mistake in mistakes] == [f"{load.file}:2:11", "KASMOS_RETRIES"]
    assert "not valid TOML" in mistakes[0].problem


@pytest.mark.parametrize("text", ["a = " + "[" * 5000 + "]" * 5000, "a = " + "9" * 5000, "a = '''"])
def test_monstrous_toml_is_a_mistake(load: Loader, text: str) -> None:
    """Nesting and numbers beyond all reason, and an end in mid-string, are mistakes like others."""
    assert len(load.mistakes(text)) == 1


def test_number_of_thousands_of_digits_from_a_flag_is_a_mistake(load: Loader) -> None:
    """A number that cannot even be printed is refused without printing it."""
    (mistake,) = load.mistakes(flags={"orchestration.max_concurrent": 10**5000})
    assert "not a number" in mistake.problem


def test_state_root_of_a_variable_is_absolute(load: Loader) -> None:
    """A relative `KASMOS_STATE_ROOT` would be another directory for each working directory, so it is refused."""
    (mistake,) = load.mistakes(environ={"KASMOS_STATE_ROOT": "state"})
    assert (mistake.place, mistake.problem) == ("KASMOS_STATE_ROOT", "must be an absolute path")
    assert load("state_root = 'state'").config.state_root == "state"


def test_values_of_variables_are_never_told(load: Loader) -> None:
    """No message, warning or repr holds the value of a variable of `env`."""
    loaded = load(PROGRAM + "env.TOKEN = 'sesame'")
    assert "sesame" not in repr(loaded)
    with pytest.raises(ConfigError) as caught:
        load(PROGRAM + 'env.TOKEN = "sesame\\u0000"' + "\nenv.PIN = 4711\n[agents.b]\nprogram = 'b'\nenv = 'sesame'")
    assert len(caught.value.mistakes) == 3
    assert "sesame" not in str(caught.value)
    assert "4711" not in str(caught.value)


# --- digests ----------------------------------------------------------------------


def test_digest_is_of_the_content_without_secrets(load: Loader) -> None:
    """A profile's digest changes with what is run, not with values of variables or the order of tables."""
    one = load(PROGRAM + "env = { A = '1', B = '2' }\nlimits = { cpu = 1, core = 0 }").config.agents["a"]
    same = load(PROGRAM + "env = { B = 'x', A = 'y' }\nlimits = { core = 0, cpu = 1 }").config.agents["a"]
    other = load(PROGRAM + "env = { A = '1' }\nlimits = { cpu = 1, core = 0 }").config.agents["a"]
    assert profile_digest(one) == profile_digest(same)
    assert profile_digest(one) != profile_digest(other)
    assert len(profile_digest(one)) == 16


def test_mistakes_are_in_the_order_of_lines(project: Path) -> None:
    """Mistakes come file by file and line by line, whatever finds them; variables come after files."""
    load = Loader(project)
    text = (
        '[phases]\nimplementing = "x"\n[agents.a]\nmodel = "m"\n[agents.a.env]\nA = 1\n[orchestration]\nretries = -1\n'
    )
    places = [
        mistake.place.removeprefix(f"{load.file}:").split(":")[0]
        for mistake in load.mistakes("[agents.b]\nprogram = 'b'\ntimeout = 0\n" + text, environ={"KASMOS_RETRIES": "x"})
    ]
    assert places == ["3", "5", "6", "9", "11", "KASMOS_RETRIES"]
    (user, first, second) = load.mistakes("retries = 1\n\nlogs = 1\n", user="\n\n\n\nx = 1\n")
    assert user.place.startswith(f"{load.user_dir}/config.toml:5")
    assert [first.place, second.place] == [f"{load.file}:1: retries", f"{load.file}:3: logs"]


def test_a_file_that_is_cut_short(project: Path) -> None:
    """A file that ends too early says that, and not that a value is invalid."""
    (mistake,) = Loader(project).mistakes("x = [\n")
    assert mistake.problem == "not valid TOML: the document ends inside a value"


@pytest.mark.parametrize(
    ("text", "value", "mistakes"),
    [
        ("", None, 0),
        ('state_root = "/s"\n[agents.a]\nprogram = "a"\n', "/s", 0),
        ('state_root = "/s"\nx = 1\n[agents.a]\n', "/s", 2),
        ('state_root = "/s"\n[agents.a]\nprogram = [\n', "/s", 1),
        ('[agents.a]\nprogram = [\nstate_root = "/s"\n', None, 1),
        (b"\xff", None, 1),
    ],
)
def test_state_root_of_a_wrong_configuration(
    project: Path, text: str | bytes, value: str | None, mistakes: int
) -> None:
    """Where state is kept can be read from a configuration that is wrong in every other respect."""
    (project / ".kasmos" / "config.toml").write_bytes(text.encode() if isinstance(text, str) else text)
    said = read_state_root(project, environ={}, user_dir=project.parent / "user")
    assert (said.value, said.mistakes) == (value, mistakes)


@pytest.mark.parametrize(
    ("text", "environ"),
    [("state_root = 1\n", {}), ("state_root = ''\nx = [\n", {}), ("", {"KASMOS_STATE_ROOT": "here"})],
)
def test_state_root_that_is_wrong(project: Path, text: str, environ: dict[str, str]) -> None:
    """Nobody guesses where state is kept: if that is what is wrong, it is refused."""
    (project / ".kasmos" / "config.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_state_root(project, environ=environ, user_dir=project.parent / "user")
    assert all("state_root" in str(one).lower() for one in caught.value.mistakes)
