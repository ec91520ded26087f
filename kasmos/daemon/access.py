"""Who may do what over TCP: tokens, addresses, hosts. Light, and without the web stack.

Over the Unix socket the kernel says who is there. Over TCP it is said by a token, or by the address alone: on loopback,
whoever is on this machine, unless a token is configured. A web page in a browser on this machine is neither: it is kept
out by what browsers say of themselves (`Host`, `Origin`, `Sec-Fetch-Site`).
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import ipaddress
import math
import os
import re
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

import attrs

from kasmos.config.addresses import split_address
from kasmos.config.schema import AuthMode, Daemon
from kasmos.exceptions import ConfigError, Mistake, RequestError
from kasmos.model.value import define, frozen

ATTEMPTS = 10
"""Failed attempts of one address within `WINDOW` after which it is not listened to until the window is over."""

WINDOW = 60.0
"""Seconds."""

MAX_ADDRESSES = 1024
"""Addresses whose failed attempts are remembered."""

SHORTEST_TOKEN = 16
"""Characters."""


Header = Callable[[str], str | None]
"""Looks a header up, in whatever case."""


class Needs(enum.StrEnum):
    """What a route needs."""

    NOTHING = "nothing"
    """Anybody may ask: probes."""
    READ = "read"
    ADMIN = "admin"


@frozen
class TokenSource:
    """A token, or the file that has it. A file is read again when it has changed."""

    value: str | None = attrs.field(default=None, repr=False)
    path: str | None = None

    def __bool__(self) -> bool:
        return self.value is not None or self.path is not None


@frozen
class AccessPolicy:
    """What holds for clients over TCP."""

    mode: AuthMode = AuthMode.AUTO
    admin: TokenSource = TokenSource()
    readonly: TokenSource = TokenSource()
    hosts: tuple[str, ...] = ()
    """Names by which we may be asked, beside addresses and `localhost`."""
    origins: tuple[str, ...] = ()
    """Origins of web pages that may ask, beside our own."""

    @property
    def needs_token(self) -> bool:
        """Whether a client has to have a token."""
        return self.mode is AuthMode.BEARER or (self.mode is AuthMode.AUTO and bool(self.admin or self.readonly))


DEFAULT_POLICY = AccessPolicy()


def policy_of(said: Daemon, project: str) -> AccessPolicy:
    """What the configuration says about access."""

    def source(value: str | None, path: str | None) -> TokenSource:
        where = None if path is None else os.path.join(project, os.path.expanduser(path))
        return TokenSource(value, where)

    return AccessPolicy(
        mode=said.http_auth_mode,
        admin=source(said.http_admin_token, said.http_admin_token_file),
        readonly=source(said.http_readonly_token, said.http_readonly_token_file),
        hosts=said.http_hosts,
        origins=said.http_origins,
    )


def is_loopback(host: str) -> bool:
    """Whether nobody from elsewhere gets to what listens on this host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_policy(policy: AccessPolicy, listen: Iterable[str]) -> None:
    """Refuse what would let anybody in, before anything is listened on. Reads the files with tokens.

    Raises:
        ConfigError: with every mistake.
    """
    mistakes = []
    tokens = {}
    for name, source in (("admin", policy.admin), ("readonly", policy.readonly)):
        try:
            tokens[name] = read_token(source)
        except ValueError as error:
            key = f"daemon.http_{name}_token{'_file' if source.path is not None else ''}"
            mistakes.append(Mistake(key, str(error)))
    if tokens.get("admin") and tokens.get("admin") == tokens.get("readonly"):
        problem = "it is the same as the admin token, so it would not be for reading only"
        mistakes.append(Mistake("daemon.http_readonly_token", problem, "two different tokens"))
    if policy.mode is AuthMode.BEARER and not (policy.admin or policy.readonly):
        mistakes.append(
            Mistake("daemon.http_auth_mode", "it asks for tokens and there are none", "set http_admin_token_file")
        )
    if policy.mode is AuthMode.AUTO and not policy.needs_token:
        for address in listen:
            if not is_loopback(split_address(address)[0]):
                problem = f"{address} can be reached from elsewhere, and no token is configured"
                cure = "set http_admin_token_file; or listen on 127.0.0.1"
                mistakes.append(Mistake("daemon.listen", problem, cure))
    if mistakes:
        raise ConfigError(mistakes)


def read_token(source: TokenSource) -> str | None:
    """The token as it is now; None if there is to be none. Blocks on the disk.

    Raises:
        ValueError: it cannot be read, or is no token; the message does not have it.
    """
    if not source:
        return None
    token = source.value
    if source.path is not None:
        if token is not None:
            raise ValueError("it is given as a value and as a file: one of them")
        try:
            with open(source.path, encoding="ascii") as file:
                token = file.read(4096).strip()
        except OSError as error:
            raise ValueError(f"{source.path} cannot be read: {error.strerror}") from error
        except ValueError:
            raise ValueError(f"{source.path} has something else than ASCII in it") from None
    if token is None or not re.fullmatch(r"[\x21-\x7e]+", token) or len(token) < SHORTEST_TOKEN:
        raise ValueError(f"a token has at least {SHORTEST_TOKEN} printable characters and no blanks")
    return token


# --- one request ----------------------------------------------------------------------


class _Secret:
    """The digest of a token that may change."""

    def __init__(self, source: TokenSource) -> None:
        self._source = source
        self._seen: tuple[int, int, int] | None = None
        self._digest: bytes | None = None if source.path else _digest(source.value)

    def matches(self, digest: bytes) -> bool:
        """Whether this is its digest; takes the same time whatever it is."""
        self._refresh()
        return self._digest is not None and hmac.compare_digest(self._digest, digest)

    def _refresh(self) -> None:
        if self._source.path is None:
            return
        try:
            found = os.stat(self._source.path)
            seen = (found.st_mtime_ns, found.st_size, found.st_ino)
            if seen != self._seen:
                self._digest = _digest(read_token(self._source))
                self._seen = seen
        except (OSError, ValueError):
            # A file that is gone or damaged lets nobody in.
            self._seen, self._digest = None, None


def _digest(token: str | None) -> bytes | None:
    return None if token is None else hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


@define
class _Attempts:
    since: float
    count: int = 0


@frozen
class Refusal:
    """A failed attempt that is worth a record: the first of an address, and the last that is listened to."""

    address: str
    reason: str
    attempts: int


class Guard:
    """Judges requests over TCP. Blocks for a `stat` of the token's file, no longer."""

    def __init__(self, policy: AccessPolicy) -> None:
        self._policy = policy
        self._admin, self._readonly = _Secret(policy.admin), _Secret(policy.readonly)
        self._attempts: dict[str, _Attempts] = {}
        self.failures = 0
        """Failed attempts so far."""
        self.news: list[Refusal] = []
        """Those that are worth a record and have not been fetched."""

    def judge(self, needs: Needs, header: Header, address: str, now: float) -> None:
        """Let a request through, or not.

        Args:
            needs: what its route needs.
            header: looks a header of the request up.
            address: where it comes from.
            now: by a monotonic clock.

        Raises:
            RequestError: 403 `forbidden_host` or `forbidden_origin`, 401 `unauthorized`, 403 `read_only`, 429
                `too_many_attempts`.
        """
        self._judge_host(header)
        if needs is Needs.NOTHING or not self._policy.needs_token:
            return
        if (seconds := self._shut_out_for(address, now)) > 0:
            detail = f"too many wrong tokens from this address: try again in {seconds:.0f} s"
            raise RequestError(429, "too_many_attempts", detail, retry_after=math.ceil(seconds))
        scheme, _, token = (header("Authorization") or "").partition(" ")
        digest = _digest(token.strip() if scheme.lower() == "bearer" else "")
        assert digest is not None
        admin, readonly = self._admin.matches(digest), self._readonly.matches(digest)
        if (admin and not readonly) or (readonly and needs is Needs.READ):
            return
        if admin and readonly:
            # One of their files has been given the other's token: whoever has that may not do more for it.
            raise RequestError(403, "read_only", "both tokens are the same at present: they are for reading only")
        if readonly:
            raise RequestError(403, "read_only", "this token is for reading only")
        self._failed(address, now, guessed=bool(token))
        raise RequestError(401, "unauthorized", "a token is needed: Authorization: Bearer TOKEN")

    def _judge_host(self, header: Header) -> None:
        host = header("Host") or ""
        if not _is_our_name(_host_of(host), self._policy.hosts):
            detail = f"we are not called {host!r} (http_hosts): an address or localhost is"
            raise RequestError(403, "forbidden_host", detail)
        origin = header("Origin")
        if origin is not None and origin not in self._policy.origins and urlsplit(origin).netloc != host:
            raise RequestError(403, "forbidden_origin", f"web pages of {origin!r} may not ask")
        if origin is None and (header("Sec-Fetch-Site") or "none") not in ("none", "same-origin"):
            raise RequestError(403, "forbidden_origin", "web pages of other sites may not ask")

    def _shut_out_for(self, address: str, now: float) -> float:
        """Seconds for which an address is not listened to; none, if it is."""
        found = self._attempts.get(address)
        if found is not None and now - found.since > WINDOW:
            del self._attempts[address]
            return 0.0
        if found is None or found.count < ATTEMPTS:
            return 0.0
        return max(1.0, found.since + WINDOW - now)

    def _failed(self, address: str, now: float, *, guessed: bool) -> None:
        """Count an attempt. Who brings no token guesses none, and shuts nobody at the same address out."""
        self.failures += 1
        first = address not in self._attempts
        if first and len(self._attempts) >= MAX_ADDRESSES:
            del self._attempts[next(iter(self._attempts))]
        attempts = self._attempts.setdefault(address, _Attempts(now))
        attempts.count += guessed
        if guessed and attempts.count in (1, ATTEMPTS):
            self.news.append(Refusal(address, "wrong token", attempts.count))
        elif first:
            self.news.append(Refusal(address, "no token", 1))


def _host_of(host: str) -> str:
    """A `Host` without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host


def _is_our_name(name: str, hosts: tuple[str, ...]) -> bool:
    if name.lower() == "localhost" or name.lower() in (host.lower() for host in hosts):
        return True
    # An address cannot be made to mean us by whoever owns a name.
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
