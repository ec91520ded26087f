"""The environment of a program: computed, explicit, starting from an allowlist. Pure."""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Callable, Mapping, Sequence

ALLOWED = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_*", "TERM", "SHELL", "TMPDIR", "TZ", "CI",
    "SSH_AUTH_SOCK", "SSL_CERT_*", "*_PROXY", "*_proxy", "XDG_*",
)  # fmt: skip
"""What is passed on from the supervisor's own environment without being asked for."""

NEVER = ("CLAUDECODE", "CLAUDE_CODE_*", "TMUX", "TMUX_PANE", "KASMOS_*", "NOTIFY_SOCKET", "LISTEN_*")
"""Variables of a surrounding agent, terminal multiplexer or service manager: never passed on, unless named."""

API_KEYS = (
    "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "OPENAI_API_KEY", "CODEX_API_KEY",
    "GEMINI_API_KEY", "GOOGLE_API_KEY", "OPENROUTER_API_KEY", "MISTRAL_API_KEY", "GROQ_API_KEY",
    "DEEPSEEK_API_KEY", "XAI_API_KEY", "AZURE_OPENAI_API_KEY", "GITHUB_TOKEN", "GH_TOKEN",
)  # fmt: skip
"""Keys a user is likely to expect in an agent's environment."""


def child_environment(
    base: Mapping[str, str],
    *,
    env_pass: Sequence[str],
    env: Mapping[str, str],
    own: Mapping[str, str],
) -> dict[str, str]:
    """Compute a program's whole environment.

    Args:
        base: the supervisor's own environment.
        env_pass: further names, or `PREFIX_*` patterns, to pass on from it.
        env: variables of the profile and the task; they win over what is passed on.
        own: kasmos' variables (`KASMOS_SESSION_ID`, ...); they win over everything.
    """
    passes = _passes(tuple(env_pass))
    result = {name: value for name, value in base.items() if passes(name)}
    result.update(env)
    result.update(own)
    # A supervisor that itself runs in a session is part of the outer one: so are its sessions.
    outer = [base.get("KASMOS_ANCESTORS", ""), base.get("KASMOS_SESSION_ID", "")]
    if any(outer):
        result["KASMOS_ANCESTORS"] = ":".join(filter(None, outer))
    return result


def keys_not_passed(base: Mapping[str, str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """Known API keys that are set for the supervisor and that the program will not see."""
    return tuple(name for name in API_KEYS if base.get(name) and name not in environment)


@functools.cache
def _passes(env_pass: tuple[str, ...]) -> Callable[[str], bool]:
    """Whether a variable is passed on; decided once for each name, since there are many sessions."""
    named = {name for name in env_pass if "*" not in name}
    allowed = _any_of((*ALLOWED, *(name for name in env_pass if "*" in name)))
    never = _any_of(NEVER)

    @functools.lru_cache(maxsize=4096)
    def passes(name: str) -> bool:
        return name in named or bool(allowed.fullmatch(name) and not never.fullmatch(name))

    return passes


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns))
