"""The real programs: where they are, and the profile under which kasmos runs each against the model server."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs

VERSIONS = Path(__file__).with_name("versions.txt")
CACHE = Path(
    os.environ.get("KASMOS_AGENTS_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kasmos-agents"
)
"""Read when this is imported: tests have a home of their own."""


@attrs.frozen
class Package:
    """A pinned program of versions.txt."""

    name: str
    kind: str
    package: str
    version: str

    @property
    def directory(self) -> Path:
        """Where scripts/test-agents puts it."""
        return CACHE / f"{self.name}-{self.version}"

    @property
    def program(self) -> Path:
        """Its executable.

        Raises:
            LookupError: it is not installed; says why.
        """
        if not self.directory.with_name(f"{self.directory.name}.done").exists():
            log = self.directory.with_name(f"{self.directory.name}.log")
            why = log.read_text(errors="replace")[-2000:] if log.exists() else "scripts/test-agents installs it"
            raise LookupError(f"{self.name} {self.version} is not installed:\n{why}")
        return self.directory / ("node_modules/.bin" if self.kind == "npm" else "bin") / self.name


def load_packages() -> dict[str, Package]:
    """The pinned programs by name."""
    lines = [line.split() for line in VERSIONS.read_text().splitlines() if line and not line.startswith("#")]
    return {name: Package(name, kind, package, version) for name, kind, package, version, *_ in lines}


PACKAGES = load_packages()


@attrs.frozen
class Place:
    """What a profile is made for."""

    url: str
    """The model server."""
    home: Path
    """The program's own home."""


@attrs.frozen
class Recipe:
    """How a program is run without a person, with the model server as its model."""

    flags: tuple[str, ...]
    prompt: str
    env: Callable[[Place], Mapping[str, str]]
    stop_signal: str = "SIGTERM"
    settings: Callable[[Place], Mapping[str, str]] = lambda place: {}
    """Files in its home, by their paths."""
    edits: tuple[str, ...] = ()
    """Further flags so that it may edit files."""
    anything: tuple[str, ...] = ()
    """Further flags so that it may do anything."""


def _claude_env(place: Place) -> Mapping[str, str]:
    return {
        "ANTHROPIC_BASE_URL": place.url,
        "ANTHROPIC_API_KEY": "sk-ant-mock",
        "CLAUDE_CONFIG_DIR": str(place.home / "claude"),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": "1",
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "IS_SANDBOX": "1",  # as root it refuses to skip its questions otherwise
    }


def _codex_settings(place: Place) -> Mapping[str, str]:
    return {
        "codex/config.toml": f"""
model = "gpt-5.5"
model_provider = "mock"
check_for_update_on_startup = false
[analytics]
enabled = false
[model_providers.mock]
name = "mock"
base_url = "{place.url}/v1"
env_key = "MOCK_API_KEY"
wire_api = "responses"
request_max_retries = 1
stream_max_retries = 1
# A sandbox that is killed leaves the places it protects behind: `.git` in the directory that all tests share.
[sandbox_workspace_write]
exclude_slash_tmp = true
exclude_tmpdir_env_var = true
"""
    }


def _opencode_settings(place: Place) -> Mapping[str, str]:
    return {
        "opencode.json": f"""
{{
  "provider": {{
    "mock": {{
      "npm": "@ai-sdk/openai-compatible",
      "options": {{"baseURL": "{place.url}/v1", "apiKey": "sk-mock"}},
      "models": {{"mock": {{"limit": {{"context": 200000, "output": 8000}}}}}}
    }}
  }},
  "model": "mock/mock",
  "small_model": "mock/mock",
  "permission": {{"edit": "allow", "bash": "ask"}}
}}
"""
    }


def _openai_env(place: Place) -> Mapping[str, str]:
    return {"OPENAI_API_KEY": "sk-mock", "OPENAI_BASE_URL": f"{place.url}/v1", "OPENAI_API_BASE": f"{place.url}/v1"}


RECIPES = {
    "claude": Recipe(
        flags=("-p", "--output-format", "stream-json", "--verbose"),
        prompt="stdin",
        env=_claude_env,
        stop_signal="SIGINT",
        edits=("--permission-mode", "acceptEdits"),
        anything=("--permission-mode", "bypassPermissions"),
    ),
    "codex": Recipe(
        flags=("exec", "--json", "--skip-git-repo-check", "-"),
        prompt="stdin",
        env=lambda place: {"CODEX_HOME": str(place.home / "codex"), "MOCK_API_KEY": "sk-mock"},
        settings=_codex_settings,
        stop_signal="SIGINT",
        edits=("--sandbox", "workspace-write"),
        anything=("--dangerously-bypass-approvals-and-sandbox",),
    ),
    "opencode": Recipe(
        flags=("run", "--format", "json"),
        prompt="stdin",
        env=lambda place: {
            "OPENCODE_CONFIG": str(place.home / "opencode.json"),
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
        },
        settings=_opencode_settings,
        anything=("--auto",),
    ),
    "gemini": Recipe(
        flags=("--skip-trust", "-m", "gemini-2.5-flash", "-o", "stream-json"),
        prompt="stdin",
        env=lambda place: {
            "GEMINI_API_KEY": "mock",
            "GOOGLE_GEMINI_BASE_URL": place.url,
            "GEMINI_CLI_NO_RELAUNCH": "true",
        },
        settings=lambda place: {
            ".gemini/settings.json": '{"security": {"auth": {"selectedType": "gemini-api-key"}}}',
        },
        edits=("--approval-mode", "auto_edit"),
        anything=("-y",),
    ),
    "qwen": Recipe(
        flags=("-o", "stream-json"),
        prompt="stdin",
        env=lambda place: {**_openai_env(place), "OPENAI_MODEL": "mock", "QWEN_CODE_NO_RELAUNCH": "true"},
        edits=("--approval-mode", "auto-edit"),
        anything=("-y",),
    ),
    "aider": Recipe(
        flags=(
            "--model",
            "openai/gpt-4o",
            "--message-file",
            "{prompt_file}",
            "--yes-always",
            "--no-auto-commits",
            "--no-gitignore",
            "--no-pretty",
            "--no-check-update",
            "--no-analytics",
            "--no-show-model-warnings",
        ),
        prompt="file",
        env=_openai_env,
    ),
    "mini": Recipe(
        flags=("-m", "openai/gpt-4o", "-y", "--exit-immediately", "-t"),
        prompt="argument",
        env=lambda place: {
            **_openai_env(place),
            "MSWEA_CONFIGURED": "true",
            "MSWEA_GLOBAL_CONFIG_DIR": str(place.home / "mini"),
            "MSWEA_COST_TRACKING": "ignore_errors",
        },
    ),
}


def render_profile(
    name: str,
    place: Place,
    *,
    may: str = "edits",
    flags: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    keys: str = "",
) -> str:
    """The `[agents.NAME]` table of a program.

    Args:
        may: what the program may do unasked: `nothing`, `edits` or `anything`.
        flags: further flags, before the program's own.
        env: further environment.
        keys: further lines of the table.

    Raises:
        LookupError: the program is not installed.
    """
    recipe = RECIPES[name]
    extra = {"nothing": (), "edits": recipe.edits, "anything": recipe.anything or recipe.edits}[may]
    # A verb (`exec`, `run`) comes first, what takes the prompt comes last.
    verbs = 0 if recipe.flags[0].startswith("-") else 1
    arguments = (*recipe.flags[:verbs], *extra, *flags, *recipe.flags[verbs:])
    files = recipe.settings(place)
    return render_table(
        name, place, files, arguments, prompt=recipe.prompt, stop_signal=recipe.stop_signal, env=env, keys=keys
    )


def render_table(
    name: str,
    place: Place,
    files: Mapping[str, str],
    flags: Sequence[str],
    *,
    prompt: str,
    stop_signal: str,
    env: Mapping[str, str] | None = None,
    keys: str = "",
) -> str:
    """The `[agents.NAME]` table of a program with these flags.

    Args:
        name: the program.
        place: the model server and the program's home.
        files: files to be made in its home, by their paths.
        flags: its arguments.
        prompt: how it is given its prompt.
        stop_signal: the first signal by which it is stopped.
        env: further environment.
        keys: further lines of the table.

    Raises:
        LookupError: the program is not installed.
    """
    recipe, program = RECIPES[name], PACKAGES[name].program
    for path, text in files.items():
        file = place.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    place.home.mkdir(parents=True, exist_ok=True)
    environment = {"HOME": str(place.home), "XDG_CONFIG_HOME": str(place.home / ".config"), **recipe.env(place)}
    environment |= {"XDG_DATA_HOME": str(place.home / ".local/share"), "XDG_CACHE_HOME": str(place.home / ".cache")}
    environment |= {"XDG_STATE_HOME": str(place.home / ".local/state"), **(env or {})}
    lines = [
        f"[agents.{name}]",
        f"program = {_quoted(shlex.quote(str(program)))}",
        f"flags = [{', '.join(map(_quoted, flags))}]",
        f'prompt = "{prompt}"',
        f'stop_signal = "{stop_signal}"',
        keys,
        f"[agents.{name}.env]",
        *(f"{key} = {_quoted(value)}" for key, value in environment.items()),
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
