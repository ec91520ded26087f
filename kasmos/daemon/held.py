"""The configuration a supervisor goes by: what was loaded last and was right."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kasmos.config.load import Loaded, with_flags
from kasmos.config.reload import decide_change
from kasmos.config.schema import Config
from kasmos.daemon.life import Reloaded


class Held:
    """Holds a configuration until a right one takes its place. Methods that load block on the disk.

    Args:
        load: reads files, variables and flags.

    Raises:
        ConfigError: there is nothing right to begin with.
    """

    def __init__(self, load: Callable[[], Loaded]) -> None:
        self._load = load
        loaded = load()
        self.warnings = tuple(map(str, loaded.warnings))
        """What the loader had to say."""
        self.config: Config = loaded.config.for_daemon()
        """What is in force."""

    def present(self) -> Config:
        """What is in force."""
        return self.config

    def configure(self, flags: Mapping[str, object]) -> Config:
        """What is in force, with the settings of one submission on top.

        A file that was changed, and may be half written, plays no part in it until it was reloaded.

        Raises:
            ConfigError: a setting of the submission is wrong.
        """
        return with_flags(self.config, flags)

    def reload(self) -> Reloaded:
        """Read everything again, and put in force what can change while sessions run.

        Raises:
            ConfigError: it is wrong; nothing has changed.
        """
        loaded = self._load()
        change = decide_change(self.config, loaded.config.for_daemon())
        self.config = change.config
        return Reloaded(change.applied, change.restart, tuple(map(str, loaded.warnings)))


class Reread:
    """The configuration a `kas run` goes by: read anew with everything that it is handed, or told to try again.

    So what a submission is checked against is what its sessions are made of, and a mended profile counts without
    a new supervisor. While nothing is handed in, a file that changes plays no part.

    Args:
        load: reads files, variables and flags, with these on top. Blocks on the disk.

    Raises:
        ConfigError: there is nothing right to begin with.
    """

    def __init__(self, load: Callable[[Mapping[str, object]], Config]) -> None:
        self._load = load
        self._config = load({})

    def present(self) -> Config:
        """What is in force."""
        return self._config

    def configure(self, flags: Mapping[str, object]) -> Config:
        """Read everything again and put it in force; with the settings of one submission on top.

        Raises:
            ConfigError: it is wrong, and the old one stays in force; or a setting of the submission is wrong.
        """
        self._config = self._load({})
        return with_flags(self._config, flags)
