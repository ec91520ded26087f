"""Files, then the environment, then flags: the configuration of a project, or every mistake in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from kasmos.config.assemble import assemble, judge_state_root
from kasmos.config.files import CONFIG_FILE, config_files, find_project, locate_project, read_config_file
from kasmos.config.keys import AGENT, BUILT_IN, KEYS
from kasmos.config.keys import Path as KeyPath
from kasmos.config.layers import Findings, Settings, read_built_in, read_flags, read_table, read_variables
from kasmos.config.lookup import default_of, render_path
from kasmos.config.origin import Origin, OriginKind, Setting
from kasmos.config.schema import Config
from kasmos.exceptions import ConfigError, Mistake
from kasmos.model.located import TomlSyntaxError, read_toml
from kasmos.model.value import frozen
from kasmos.model.wording import did_you_mean

__all__ = [
    "CONFIG_FILE",
    "Loaded",
    "StateRootSetting",
    "agent_defaults",
    "config_files",
    "find_project",
    "load_config",
    "locate_project",
    "read_state_root",
    "with_flags",
]

_STATE_ROOT: KeyPath = ("state_root",)
_HEADER = re.compile(r"^[ \t]*\[", re.MULTILINE)
_STATE_ROOT_LINE = re.compile(r"^[ \t]*state_root[ \t]*=.*$", re.MULTILINE)


@frozen
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
    layers = _read_layers(project, environ, flags, user_dir)
    # Without one of its files, a configuration lacks what the others rely on.
    config = assemble(layers.settings, environ, layers.findings) if layers.whole else None
    if config is None:
        raise ConfigError(_in_order(layers))
    settings = layers.settings
    _add_defaults(settings)
    return Loaded(
        config=config,
        origins={render_path(path): setting.origin for path, setting in settings.items()},
        warnings=tuple(dict.fromkeys(layers.findings.warnings)),
        files=layers.files,
        settings=settings,
    )


def with_flags(config: Config, flags: Mapping[str, object]) -> Config:
    """A configuration that is in force, with flags of `[orchestration]` on top. Reads nothing from the disk.

    Raises:
        ConfigError: a flag is wrong.
    """
    findings = Findings()
    settings = read_flags(flags, findings)
    changes: dict[str, Any] = {
        path[1]: setting.value for path, setting in settings.items() if path[0] == "orchestration"
    }
    agent = changes.get("default_agent")
    profile = config.agents.get(str(agent))
    if agent is not None and (profile is None or not profile.enabled):
        problem = f'there is no agent "{agent}"' if profile is None else f'the agent "{agent}" is disabled'
        cure = did_you_mean(str(agent), config.agents) or f"there is {', '.join(config.agents)}"
        origin = settings["orchestration", "default_agent"].origin
        findings.mistake(origin, ("orchestration", "default_agent"), problem, cure)
    if findings.mistakes:
        raise ConfigError(findings.mistakes)
    return attrs.evolve(config, orchestration=attrs.evolve(config.orchestration, **changes))


@frozen
class StateRootSetting:
    """What a configuration says about the state root, whatever else it says."""

    value: str | None
    """As it was written; None where it is not."""
    mistakes: int
    """How many mistakes there are in the rest."""


def read_state_root(project: Path, *, environ: Mapping[str, str], user_dir: Path | None = None) -> StateRootSetting:
    """Read where state is kept from a configuration that may be wrong in every other respect.

    For verbs that look at what runs, or stop it: they must work while somebody edits the file. Blocks on the disk.

    Raises:
        ConfigError: it is this very key that is wrong.
    """
    layers = _read_layers(project, environ, None, user_dir)
    findings = layers.findings
    if layers.whole:
        assemble(layers.settings, environ, findings)
    else:
        judge_state_root(layers.settings, findings)
    if wrong := findings.failed.get(_STATE_ROOT):
        raise ConfigError(wrong)
    said = layers.settings.get(_STATE_ROOT)
    return StateRootSetting(None if said is None else str(said.value), len(_in_order(layers)))


@frozen
class _Layers:
    settings: Settings
    findings: Findings
    files: tuple[Path, ...]
    """Those that were there, lowest first."""
    whole: bool
    """Whether each of them could be parsed."""


def _read_layers(
    project: Path, environ: Mapping[str, str], flags: Mapping[str, object] | None, user_dir: Path | None
) -> _Layers:
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
            settings.update(_rescue_state_root(file, findings))
    settings.update(read_variables(environ, findings))
    settings.update(read_flags(flags or {}, findings))
    return _Layers(settings, findings, tuple(read), whole)


def _rescue_state_root(file: Path, findings: Findings) -> Settings:
    """What a file that is no TOML says about the state root, if the line itself is right.

    Without it, a slip anywhere in the file would make `kas stop` look for the supervisor in another place.
    """
    try:
        text = read_config_file(file) or ""
    except ConfigError:
        return {}
    top = _HEADER.split(text, maxsplit=1)[0]
    line = _STATE_ROOT_LINE.search(top)
    if line is None:
        return {}
    try:
        values = read_toml(line[0]).values
    except TomlSyntaxError:
        return {}
    number = top.count("\n", 0, line.start()) + 1
    return read_table(values, lambda _: Origin(OriginKind.FILE, str(file), number), findings)


def _in_order(layers: _Layers) -> tuple[Mistake, ...]:
    """Every mistake once: file by file and line by line, then those in variables and flags."""

    def position(mistake: Mistake) -> tuple[int, int]:
        for index, file in enumerate(layers.files):
            line = mistake.place.removeprefix(f"{file}:")
            if line != mistake.place:
                number = line.partition(":")[0]
                return index, int(number) if number.isdecimal() else 0
        return len(layers.files), 0

    return tuple(sorted(dict.fromkeys(layers.findings.mistakes), key=position))


def _read_text(file: Path, text: str, findings: Findings) -> Settings:
    try:
        document = read_toml(text)
    except TomlSyntaxError as error:
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
