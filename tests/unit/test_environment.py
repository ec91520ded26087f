"""What of the supervisor's environment a program gets to see."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasmos.model.profile import AgentProfile
from kasmos.model.session import SessionSpec
from kasmos.orchestration.kitchen import Kitchen
from kasmos.sessions.environment import API_KEYS, child_environment, keys_not_passed

SECRET = "hunter2-do-not-print"


def child(base: dict[str, str], *env_pass: str, env: dict[str, str] | None = None, **own: str) -> dict[str, str]:
    return child_environment(base, env_pass=env_pass, env=env or {}, own=own)


@pytest.mark.parametrize(
    "name",
    [
        "PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TERM", "SHELL", "TMPDIR", "TZ", "CI",
        "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "NO_PROXY", "https_proxy", "XDG_RUNTIME_DIR",
    ],
)  # fmt: skip
def test_what_every_program_needs_is_passed_on(name: str) -> None:
    """Search path, home, language, proxies and the like are passed on without being asked for."""
    assert child({name: "value"}) == {name: "value"}


@pytest.mark.parametrize(
    "name",
    [*API_KEYS, "EDITOR", "PYTHONPATH", "LD_PRELOAD", "AWS_SECRET_ACCESS_KEY", "PATHS", "MY_PATH", "path", "XDG", "LC"],
)
def test_what_is_not_on_the_list_stays_behind(name: str) -> None:
    """A variable that is neither on the list nor in `env_pass` is not passed on, least of all a key."""
    assert child({name: SECRET}) == {}


@pytest.mark.parametrize(
    "name",
    ["CLAUDECODE", "CLAUDE_CODE_ENTRYPOINT", "TMUX", "TMUX_PANE", "KASMOS_TASK", "NOTIFY_SOCKET", "LISTEN_FDS"],
)
def test_a_surrounding_agent_is_not_passed_on_by_a_pattern(name: str) -> None:
    """What belongs to a surrounding agent, terminal or service manager passes no pattern; it can only be named."""
    assert name not in child({name: "1"}, "*", f"{name[:2]}*")
    assert child({name: "1"}, name)[name] == "1"


def test_env_pass_by_name_and_by_pattern() -> None:
    """`env_pass` passes on names, and patterns with a star, and no more than those."""
    base = {"OPENAI_API_KEY": "k", "AWS_REGION": "eu", "AWS_PROFILE": "p", "AZURE": "z", "NOT_SET_BY": "x"}
    assert child(base, "OPENAI_API_KEY", "AWS_*", "MISSING") == {
        "OPENAI_API_KEY": "k",
        "AWS_REGION": "eu",
        "AWS_PROFILE": "p",
    }


def test_profile_wins_over_what_is_passed_on_and_kasmos_over_both() -> None:
    """The profile's variables win over those passed on; kasmos' own win over everything."""
    found = child({"PATH": "/bin", "TERM": "xterm"}, env={"PATH": "/opt", "KASMOS_TASK": "9"}, KASMOS_TASK="1")
    assert found == {"PATH": "/opt", "TERM": "xterm", "KASMOS_TASK": "1"}


@pytest.mark.parametrize(
    ("base", "ancestors"),
    [
        ({}, None),
        ({"KASMOS_SESSION_ID": "outer"}, "outer"),
        ({"KASMOS_SESSION_ID": "inner", "KASMOS_ANCESTORS": "outer:middle"}, "outer:middle:inner"),
        ({"KASMOS_ANCESTORS": "outer"}, "outer"),
    ],
)
def test_ancestors_of_a_nested_supervisor(base: dict[str, str], ancestors: str | None) -> None:
    """A supervisor that runs in a session names that session, and those around it, as ancestors of its own."""
    found = child(base, KASMOS_SESSION_ID="mine")
    assert found.get("KASMOS_ANCESTORS") == ancestors
    assert found["KASMOS_SESSION_ID"] == "mine"


def test_keys_not_passed() -> None:
    """A known API key that is set for the supervisor and not for the program is named, an empty one is not."""
    base = {"ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": "k", "GEMINI_API_KEY": "", "PATH": "/bin"}
    assert keys_not_passed(base, child(base)) == ("ANTHROPIC_API_KEY", "OPENAI_API_KEY")
    assert keys_not_passed(base, child(base, "OPENAI_*")) == ("ANTHROPIC_API_KEY",)
    assert keys_not_passed(base, child(base, env={"ANTHROPIC_API_KEY": "other"})) == ("OPENAI_API_KEY",)


names = st.text(st.sampled_from("ABKLMOPSTX_*"), min_size=1, max_size=8)


@given(
    base=st.dictionaries(
        st.sampled_from(["PATH", "LC_X", "TMUX", "KASMOS_TASK", "SECRET", "LISTEN_FDS"]), st.just("v")
    ),
    env_pass=st.lists(names, max_size=3),
    env=st.dictionaries(names, st.just("e"), max_size=3),
)
def test_nothing_comes_from_nowhere(base: dict[str, str], env_pass: list[str], env: dict[str, str]) -> None:
    """A program's environment holds what was passed on, the profile's and kasmos' own, each unchanged."""
    found = child_environment(base, env_pass=env_pass, env=env, own={"OWN": "o"})
    assert found.items() <= {**base, **env, "OWN": "o"}.items() | {("KASMOS_ANCESTORS", "v")}
    assert {**env, "OWN": "o"}.items() <= found.items()


def test_values_are_never_in_a_repr() -> None:
    """Names of variables may be printed; their values are in no repr of a session, a profile or a supervisor."""
    spec = SessionSpec(id="s", name="s", argv=("a",), cwd="/", env={"TOKEN": SECRET})
    profile = AgentProfile(name="a", program=("a",), env={"TOKEN": SECRET})
    kitchen = Kitchen(profiles=lambda: {"a": profile}, environ={"TOKEN": SECRET}, backends={}, new_suffix=lambda: "x")
    assert "TOKEN" in repr(spec)
    assert "TOKEN" in repr(profile)
    assert SECRET not in repr((spec, profile, kitchen))
