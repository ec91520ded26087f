"""Files, then the environment, then flags: the configuration of a project, or every mistake in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs

from kasmos.config.assemble import assemble
from kasmos.config.files import CONFIG_FILE, config_files, find_project, read_config_file
from kasmos.config.keys import BUILT_IN, KEYS, default_of, render_path
from kasmos.config.keys import Path as KeyPath
from kasmos.config.layers import Findings, Settings, read_built_in, read_flags, read_table, read_variables
from kasmos.config.lines import TomlError, parse_toml
from kasmos.config.origin import Origin, OriginKind, Setting
from kasmos.config.schema import Config
from kasmos.exceptions import ConfigError, Mistake

__all__ = ["CONFIG_FILE", "Loaded", "config_files", "find_project", "load_config"]


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
    for file in config_files(project, environ=environ, user_dir=user_dir):
        layer = _read_file(file, findings)
        if layer is not None:
            read.append(file)
            settings.update(layer)
    settings.update(read_variables(environ, findings))
    settings.update(read_flags(flags or {}, findings))
    config = assemble(settings, environ, findings)
    if config is None or findings.mistakes:
        raise ConfigError(dict.fromkeys(findings.mistakes))
    _add_defaults(settings)
    return Loaded(
        config=config,
        origins={render_path(path): setting.origin for path, setting in settings.items()},
        warnings=tuple(dict.fromkeys(findings.warnings)),
        files=tuple(read),
        settings=settings,
    )


def _read_file(file: Path, findings: Findings) -> Settings | None:
    try:
        text = read_config_file(file)
        if text is None:
            return None
        document = parse_toml(text)
    except ConfigError as error:
        findings.mistakes += error.mistakes
        return None
    except TomlError as error:
        column = "" if error.column is None else f":{error.column}"
        findings.mistakes.append(Mistake(f"{file}:{error.line}{column}", f"not valid TOML: {error.problem}"))
        return None
    return read_table(document.values, lambda path: Origin(OriginKind.FILE, str(file), document.line(path)), findings)


def _add_defaults(settings: Settings) -> None:
    """Complete what is in effect by the defaults outside of agents."""
    for key in KEYS:
        if key.default is not None and "*" not in key.path and key.path not in settings:
            settings[key.path] = Setting(default_of(key.path), key.default, Origin())
