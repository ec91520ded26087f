"""Who is let in over TCP: tokens, failed attempts, hosts and origins."""

from __future__ import annotations

from pathlib import Path

import pytest

from kasmos.config.schema import AuthMode, Daemon
from kasmos.daemon.access import (
    ATTEMPTS,
    WINDOW,
    AccessPolicy,
    Guard,
    Needs,
    TokenSource,
    check_policy,
    is_loopback,
    policy_of,
)
from kasmos.exceptions import ConfigError, RequestError

ADMIN, READONLY = "a" * 32, "r" * 32
BOTH = AccessPolicy(admin=TokenSource(ADMIN), readonly=TokenSource(READONLY))
LOCAL = ["127.0.0.1:0"]


def ask(guard: Guard, needs: Needs = Needs.ADMIN, token: str = "", now: float = 0.0, **headers: str) -> str:
    """What becomes of a request: `ok`, or the code of the refusal."""
    said = {"Host": "127.0.0.1:7878", **{name.replace("_", "-"): value for name, value in headers.items()}}
    if token:
        said["Authorization"] = f"Bearer {token}"
    try:
        guard.judge(needs, said.get, "10.0.0.1", now)
    except RequestError as error:
        return error.code
    return "ok"


@pytest.mark.parametrize(
    ("token", "read", "admin"),
    [
        (ADMIN, "ok", "ok"),
        (READONLY, "ok", "read_only"),
        ("x" * 32, "unauthorized", "unauthorized"),
        ("", "unauthorized", "unauthorized"),
    ],
)
def test_each_token_opens_what_it_is_for(token: str, read: str, admin: str) -> None:
    """The admin token opens everything, the other one what only looks, any other nothing but the probes."""
    guard = Guard(BOTH)
    assert ask(guard, Needs.READ, token) == read
    assert ask(guard, Needs.ADMIN, token) == admin
    assert ask(guard, Needs.NOTHING, token) == "ok"


def test_auto_asks_for_a_token_only_if_there_is_one() -> None:
    """Without a configured token, `auto` and `none` let everybody in who gets there; `bearer` nobody."""
    assert ask(Guard(AccessPolicy())) == "ok"
    assert ask(Guard(AccessPolicy(mode=AuthMode.NONE, admin=TokenSource(ADMIN)))) == "ok"
    assert ask(Guard(AccessPolicy(mode=AuthMode.BEARER))) == "unauthorized"


def test_who_fails_too_often_is_not_listened_to() -> None:
    """After too many failed attempts even the right token is refused, until the window is over; two are recorded."""
    guard = Guard(BOTH)
    for _ in range(ATTEMPTS):
        assert ask(guard, token="wrong" * 8) == "unauthorized"
    assert ask(guard, token=ADMIN) == "too_many_attempts"
    with pytest.raises(RequestError, match="try again in 45 s") as refused:
        guard.judge(Needs.ADMIN, {"Host": "localhost"}.get, "10.0.0.1", WINDOW - 45)
    assert refused.value.retry_after == 45
    assert ask(guard, token=ADMIN, now=WINDOW + 1) == "ok"
    assert guard.failures == ATTEMPTS
    assert [(news.address, news.attempts) for news in guard.news] == [("10.0.0.1", 1), ("10.0.0.1", ATTEMPTS)]
    assert "wrong" * 8 not in repr(guard.news)


def test_who_brings_no_token_shuts_nobody_out() -> None:
    """Whoever asks without a token guesses none: it is recorded once, and the token's owner is let in from there."""
    guard = Guard(BOTH)
    for _ in range(3 * ATTEMPTS):
        assert ask(guard) == "unauthorized"
    assert ask(guard, token=ADMIN) == "ok"
    assert guard.failures == 3 * ATTEMPTS
    assert [(news.reason, news.attempts) for news in guard.news] == [("no token", 1)]


def test_tokens_that_come_to_be_equal(tmp_path: Path) -> None:
    """A token file that is given the other's token makes nobody who may only read an administrator."""
    file = tmp_path / "admin"
    file.write_text(ADMIN)
    guard = Guard(AccessPolicy(admin=TokenSource(path=str(file)), readonly=TokenSource(READONLY)))
    assert ask(guard, token=ADMIN) == "ok"
    file.write_text(f"{READONLY}\n")
    assert ask(guard, token=READONLY) == "read_only"
    assert ask(guard, Needs.READ, READONLY) == "ok"
    file.write_text(f"{ADMIN}\n\n")
    assert ask(guard, token=ADMIN) == "ok"


@pytest.mark.parametrize(
    "host", ["127.0.0.1:7878", "[::1]:7878", "localhost", "LOCALHOST:1", "10.1.2.3", "board.example"]
)
def test_hosts_that_mean_us(host: str) -> None:
    """An address, localhost and the configured names mean us."""
    assert ask(Guard(AccessPolicy(hosts=("board.example",))), Host=host) == "ok"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7878", "localhost.evil.example", ""])
def test_other_hosts_do_not(host: str) -> None:
    """A name that somebody else may have pointed at us is refused, token or not, probes included."""
    assert ask(Guard(BOTH), Needs.NOTHING, ADMIN, Host=host) == "forbidden_host"


def test_web_pages_of_others_may_not_ask() -> None:
    """A request that a page of another origin makes is refused; one of our own, or of a configured one, is not."""
    guard = Guard(AccessPolicy(origins=("https://board.example",)))
    assert ask(guard, Origin="https://evil.example") == "forbidden_origin"
    assert ask(guard, Origin="null") == "forbidden_origin"
    assert ask(guard, Sec_Fetch_Site="cross-site") == "forbidden_origin"
    assert ask(guard, Sec_Fetch_Site="same-site") == "forbidden_origin"
    assert ask(guard, Origin="http://127.0.0.1:7878", Sec_Fetch_Site="same-origin") == "ok"
    assert ask(guard, Origin="https://board.example", Sec_Fetch_Site="cross-site") == "ok"


def test_a_token_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """A new token holds from the next request on, the old one no more; a file that is gone lets nobody in."""
    file = tmp_path / "token"
    file.write_text(f"{ADMIN}\n")
    guard = Guard(AccessPolicy(admin=TokenSource(path=str(file))))
    assert ask(guard, token=ADMIN) == "ok"
    other = tmp_path / "new"
    other.write_text("n" * 40)
    other.rename(file)
    assert (ask(guard, token="n" * 40), ask(guard, token=ADMIN)) == ("ok", "unauthorized")
    file.unlink()
    assert ask(guard, token="n" * 40) == "unauthorized"


def mistakes(policy: AccessPolicy, *listen: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check_policy(policy, listen)
    return [mistake.place for mistake in caught.value.mistakes]


def test_what_would_let_anybody_in_is_refused(tmp_path: Path) -> None:
    """Other addresses than loopback without a token, equal tokens, and what is no token, are refused at the start."""
    check_policy(AccessPolicy(), ("127.0.0.1:1", "[::1]:1", "localhost:1"))
    check_policy(BOTH, ("0.0.0.0:1",))
    check_policy(AccessPolicy(mode=AuthMode.NONE), ("0.0.0.0:1",))
    assert mistakes(AccessPolicy(), "127.0.0.1:1", "0.0.0.0:1", "[::]:1") == ["daemon.listen", "daemon.listen"]
    assert mistakes(AccessPolicy(mode=AuthMode.BEARER)) == ["daemon.http_auth_mode"]
    assert mistakes(AccessPolicy(admin=TokenSource(ADMIN), readonly=TokenSource(ADMIN))) == [
        "daemon.http_readonly_token"
    ]
    assert mistakes(AccessPolicy(admin=TokenSource("short"))) == ["daemon.http_admin_token"]
    assert mistakes(AccessPolicy(admin=TokenSource(path=str(tmp_path / "none")))) == ["daemon.http_admin_token_file"]
    assert mistakes(AccessPolicy(admin=TokenSource(ADMIN, str(tmp_path)))) == ["daemon.http_admin_token_file"]


def test_what_the_configuration_says(tmp_path: Path) -> None:
    """Token files are looked for in the project; values never show."""
    said = Daemon(http_admin_token_file="t", http_readonly_token=READONLY, http_hosts=("h",))
    policy = policy_of(said, str(tmp_path))
    assert policy.admin == TokenSource(path=str(tmp_path / "t"))
    assert (policy.readonly.value, policy.hosts) == (READONLY, ("h",))
    assert READONLY not in repr(policy)
    assert is_loopback("127.8.8.8")
    assert not is_loopback("example.org")
