"""Files, then the environment, then flags: the configuration of a project, or every mistake in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs

from kasmos.config.assemble import assemble
from kasmos.config.files import CONFIG_FILE, config_files, find_project, read_config_file
from kasmos.config.keys import AGENT, BUILT_IN, KEYS
from kasmos.config.keys import Path as KeyPath
from kasmos.config.layers import Findings, Settings, read_built_in, read_flags, read_table, read_variables
from kasmos.config.lines import TomlError, parse_toml
from kasmos.config.lookup import default_of, render_path
from kasmos.config.origin import Origin, OriginKind, Setting
from kasmos.config.schema import Config
from kasmos.exceptions import ConfigError, Mistake

__all__ = ["CONFIG_FILE", "Loaded", "agent_defaults", "config_files", "find_project", "load_config"]


@attrs.frozen
class Loaded:
    """A valid configuration, and how it came about."""

    config: Config
    origins: Mapping[str, Origin]
    """Who said each value, by its key path as TOML writes it."""
    warnings: tuple[str, ...]
    """What is allowed but hardly meant."""
    files: tuple[Path, ...]
    """The files that were read, lowest first."""
    settings: Mapping[KeyPath, Setting] = attrs.field(repr=False, factory=dict)
    """Every value in effect, defaults of agents left out."""


def load_config(
    project: Path,
    *,
    environ: Mapping[str, str],
    flags: Mapping[str, object] | None = None,
    user_dir: Path | None = None,
) -> Loaded:
    """Load the configuration of a project: files, then variables, then flags. Blocks on the disk.

    Args:
        project: the project's directory; see `find_project`.
        environ: `KASMOS_*` variables, and where the user's own file is.
        flags: values by key path, such as `orchestration.max_concurrent`. A text is read as a variable's would be;
            None says nothing.
        user_dir: the directory of the user's own `config.toml`, if it is another than `~/.config/kasmos`.

    Raises:
        ConfigError: it is wrong; every mistake in every layer, in order.
    """
    findings = Findings()
    settings = read_built_in(BUILT_IN)
    read = []
    whole = True
    for file in config_files(project, environ=environ, user_dir=user_dir):
        try:
            text = read_config_file(file)
            if text is not None:
                read.append(file)
                settings.update(_read_text(file, text, findings))
        except ConfigError as error:
            findings.mistakes += error.mistakes
            whole = False
    settings.update(read_variables(environ, findings))
    settings.update(read_flags(flags or {}, findings))
    # Without one of its files, a configuration lacks what the others rely on.
    config = assemble(settings, environ, findings) if whole else None
    if config is None:
        raise ConfigError(dict.fromkeys(findings.mistakes))
    _add_defaults(settings)
    return Loaded(
        config=config,
        origins={render_path(path): setting.origin for path, setting in settings.items()},
        warnings=tuple(dict.fromkeys(findings.warnings)),
        files=tuple(read),
        settings=settings,
    )


def _read_text(file: Path, text: str, findings: Findings) -> Settings:
    try:
        document = parse_toml(text)
    except TomlError as error:
        column = "" if error.column is None else f":{error.column}"
        mistake = Mistake(f"{file}:{error.line}{column}", f"not valid TOML: {error.problem}")
        raise ConfigError([mistake]) from error
    return read_table(document.values, lambda path: Origin(OriginKind.FILE, str(file), document.line(path)), findings)


def _add_defaults(settings: Settings) -> None:
    """Complete what is in effect by the defaults outside of agents."""
    for key in KEYS:
        if key.default is not None and "*" not in key.path and key.path not in settings:
            settings[key.path] = Setting(default_of(key.path), key.default, Origin())


def agent_defaults(settings: Mapping[KeyPath, Setting]) -> Settings:
    """The defaults in effect of agents that say nothing else."""
    names = dict.fromkeys(path[1] for path in settings if path[0] == "agents")
    found: Settings = {}
    for key in KEYS:
        if key.default is None or key.path[:2] != AGENT:
            continue
        for name in names:
            path = ("agents", name, *key.path[2:])
            if path not in settings:
                found[path] = Setting(default_of(key.path), key.default, Origin())
    return found
