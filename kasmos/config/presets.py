"""Profiles for well-known agent programs, as `kas config init` offers them.

What is said here was seen with the version named beside it; programs change.
"""

from __future__ import annotations

from collections.abc import Mapping

from kasmos.model.value import frozen


@frozen
class Preset:
    """A ready profile; its name is its program's."""

    name: str
    about: tuple[str, ...]
    """Comment lines."""
    values: Mapping[str, object]
    """Keys of the profile as in a file; `env` is a table."""


PRESETS: tuple[Preset, ...] = (
    Preset(
        "claude",
        (
            "Claude Code (2.1). The prompt comes by standard input, so its size has no limit. SIGINT lets it end the",
            "tools it has started. It ends with 0 when a tool was denied: give tasks a check.",
            'To choose a model: flags "--model", "{model}" and model = "...".',
        ),
        {
            "program": "claude",
            "flags": ["-p", "--output-format", "stream-json", "--verbose", "--permission-mode", "acceptEdits"],
            "prompt": "stdin",
            "stop_signal": "SIGINT",
            "env_pass": ["ANTHROPIC_*", "CLAUDE_CONFIG_DIR", "CLAUDE_CODE_OAUTH_TOKEN"],
            "env": {"DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"},
        },
    ),
    Preset(
        "codex",
        (
            'Codex (0.169). "-" is the prompt on standard input. It wants a git repository; a command that its sandbox',
            "refuses does not make it fail: give tasks a check.",
        ),
        {
            "program": "codex",
            "flags": ["exec", "--json", "--sandbox", "workspace-write", "-c", "check_for_update_on_startup=false", "-"],
            "prompt": "stdin",
            "stop_signal": "SIGINT",
            "env_pass": ["OPENAI_API_KEY", "OPENAI_BASE_URL", "CODEX_*"],
        },
    ),
    Preset(
        "opencode",
        ('opencode (1.18). Without "--auto" it refuses what it would ask about, and ends with 0 all the same.',),
        {
            "program": "opencode",
            "flags": ["run", "--format", "json", "--auto"],
            "prompt": "stdin",
            "env_pass": ["OPENCODE_*", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "OPENROUTER_API_KEY"],
            "env": {"OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_LSP_DOWNLOAD": "1"},
        },
    ),
    Preset(
        "gemini",
        (
            "Gemini CLI (0.61). When the API fails it ends with the HTTP status modulo 256. It would start itself once",
            "more and ignore SIGTERM then; the variable keeps it from that.",
        ),
        {
            "program": "gemini",
            "flags": ["--skip-trust", "--output-format", "stream-json", "--approval-mode", "auto_edit"],
            "prompt": "stdin",
            "env_pass": ["GEMINI_API_KEY", "GOOGLE_*"],
            "env": {"GEMINI_CLI_NO_RELAUNCH": "true"},
        },
    ),
    Preset(
        "qwen",
        (
            "Qwen Code (0.15). It ends with 0 even when the API has failed: a task without a check proves nothing.",
            "The variable keeps it from starting itself once more, and leaving its real self behind when stopped.",
        ),
        {
            "program": "qwen",
            "flags": ["--output-format", "stream-json", "--approval-mode", "auto-edit"],
            "prompt": "stdin",
            "env_pass": ["OPENAI_*", "DASHSCOPE_API_KEY"],
            "env": {"QWEN_CODE_NO_RELAUNCH": "true"},
        },
    ),
    Preset(
        "aider",
        (
            "aider (0.86). It ends with 0 when the API has failed, too: a task without a check proves nothing.",
            "Set git's user.name and user.email, or it writes its own into the repository's configuration.",
        ),
        {
            "program": "aider",
            "flags": [
                *("--message-file", "{prompt_file}", "--yes-always", "--no-auto-commits", "--no-gitignore"),
                *("--no-pretty", "--no-check-update", "--no-analytics", "--no-show-model-warnings"),
            ],
            "prompt": "file",
            "env_pass": [
                *("OPENAI_*", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OPENROUTER_API_KEY", "DEEPSEEK_API_KEY"),
            ],
        },
    ),
)
