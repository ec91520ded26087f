"""The table of keys as text: TOML values, `config.toml.example`, the file of `kas config init`, the reference."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping

from kasmos.config.keys import AGENT, KEYS, TABLES, Key, Path, Table
from kasmos.config.lookup import keys_in
from kasmos.config.presets import PRESETS, Preset

_WIDTH = 110


def render_value(value: object) -> str:
    """A value as TOML, on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # TOML's basic strings are JSON's, but for DEL, which JSON leaves alone.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(render_value(item) for item in value)}]"
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{name} = {render_value(item)}" for name, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    return str(value)


def render_example() -> str:
    """`config.toml.example`: every key with its default and one line of why."""
    lines = [
        "# Every key of kasmos' configuration. Copy what you change to .kasmos/config.toml in your project or, for all",
        "# projects, to ~/.config/kasmos/config.toml. `kas config init` writes a file to begin with.",
        "#",
        "# A line that begins with `#` and no space is a key with its default, or with an example if it has none.",
        '# Durations are numbers of seconds or text such as "90s", "10m", "1h30m"; sizes are numbers of bytes or text',
        '# such as "64KiB", "10MB", "1GiB". Every mistake is an error: `kas config check` lists them all.',
    ]
    for table in TABLES:
        if not table.former:
            lines += _example_table(table)
    return "\n".join(lines) + "\n"


def _example_table(table: Table) -> Iterator[str]:
    keys = keys_in(table.path)
    if table.path:
        yield from ("", f"# {table.why}")
        if not keys:
            return
        yield f"[{'.'.join(_example_path(table.path))}]"
    else:
        yield ""
    for key in keys:
        yield f"# {key.why}{_no_default(key)}"
        yield f"{'' if _needed(key) else '#'}{_example_name(key)} = {_example_value(key)}"


def _needed(key: Key) -> bool:
    return key.path == (*AGENT, "program")


def _no_default(key: Key) -> str:
    return " (No default.)" if key.default is None and not _needed(key) else ""


def _example_path(path: Path) -> Path:
    names = {"prices": '"claude-opus-5"', "accounts": "work"}
    return tuple(names.get(path[index - 1], "coder") if name == "*" else name for index, name in enumerate(path))


def _example_name(key: Key) -> str:
    if key.path[-1] != "*":
        return key.path[-1]
    return "implementing" if key.path[0] == "phases" else "NAME"


def _example_value(key: Key) -> str:
    return key.example if key.default is None else render_value(key.default)


def render_init(found: Collection[str]) -> str:
    """The file that `kas config init` writes.

    Args:
        found: the agent programs that are on this machine; their profiles are enabled, the others' commented out.
    """
    ready = [preset.name for preset in PRESETS if preset.name in found]
    lines = [
        "# kasmos configuration of this project. `kas config check` tells whether it is right, `kas config show` what",
        "# is in effect and why, config.toml.example has every key. A line that begins with `#` and no space is a key",
        "# with its default, or with an example if it has none.",
        "",
        "[orchestration]",
    ]
    for key in keys_in(("orchestration",)):
        lines.append(f"# {key.why}")
        if key.path[-1] == "default_agent" and ready:
            lines.append(f"default_agent = {render_value(ready[0])}")
        else:
            lines.append(f"#{key.path[-1]} = {_example_value(key)}")
    lines += ["", "[logs]"]
    for key in keys_in(("logs",)):
        lines += [f"# {key.why}", f"#{key.path[-1]} = {_example_value(key)}"]
    lines += [
        "",
        "# Agent profiles. `shell` is built in: it runs the first fenced `sh` block of a task.",
        "# An API key in your environment reaches a program only if env_pass names it.",
    ]
    for preset in PRESETS:
        lines += ["", *_preset(preset, ready=preset.name in found)]
    return "\n".join(lines) + "\n"


def _preset(preset: Preset, *, ready: bool) -> Iterator[str]:
    yield from (f"# {line}" for line in preset.about)
    if not ready:
        yield f"# ({preset.name} was not found on PATH when this file was written.)"
    prefix = "" if ready else "#"
    yield f"{prefix}[agents.{preset.name}]"
    for name, value in preset.values.items():
        if not isinstance(value, Mapping):
            yield from (f"{prefix}{line}" for line in _assignment(name, value))
    for name, value in preset.values.items():
        if isinstance(value, Mapping):
            yield f"{prefix}[agents.{preset.name}.{name}]"
            yield from (f"{prefix}{key} = {render_value(item)}" for key, item in value.items())


def _assignment(name: str, value: object) -> Iterable[str]:
    line = f"{name} = {render_value(value)}"
    if len(line) <= _WIDTH or not isinstance(value, list):
        return [line]
    return [f"{name} = [", *(f"    {render_value(item)}," for item in value), "]"]


def render_reference() -> str:
    """Every key as Markdown tables, for the manual."""
    lines: list[str] = []
    for table in TABLES:
        keys = keys_in(table.path)
        if table.former or not keys:
            continue
        name = ".".join("NAME" if part == "*" else part for part in table.path)
        lines += [f"### `[{name}]`" if name else "### Top level", "", table.why, ""]
        lines += ["| key | default | what it decides |", "|---|---|---|"]
        for key in keys:
            label = "NAME" if key.path[-1] == "*" else key.path[-1]
            default = "" if key.default is None else f"`{render_value(key.default)}`"
            lines.append(f"| `{label}` | {default} | {_cell(key.why)} |")
        lines.append("")
    return "\n".join(lines)


def render_variables() -> str:
    """Which variable and which flag set which key, as a Markdown table."""
    lines = ["| key | variable | flag |", "|---|---|---|"]
    for key in KEYS:
        if key.variable:
            flag = f"`{key.flag}`" if key.flag else ""
            lines.append(f"| `{'.'.join(key.path)}` | `{key.variable}` | {flag} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
