"""Which harness a program has: named by its profile, else told by its name, else the generic one."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata

from kasmos.exceptions import ConfigError, Mistake
from kasmos.harnesses.facts import BUILT_IN, OWN, Facts, load_facts, names_of

GROUP = "kasmos.harnesses"
"""Entry points by which third parties add harnesses: each names a `Facts`, or a function that gives one."""
CURE = "mend or remove that distribution"

_RUNNERS = frozenset({"npx", "bunx", "pnpx", "uvx", "pipx", "node", "bun", "deno", "npm", "pnpm", "yarn", "uv"})
_PYTHONS = ("python",)
_WRAPPERS = frozenset({"env", "nice", "ionice", "timeout", "stdbuf", "nohup", "setsid", "sudo", "doas", "xvfb-run"})
_WORDS = frozenset({"exec", "dlx", "run", "tool", "x"})
_TAKE_VALUE = frozenset({"-p", "--package", "-u", "--user", "-n", "-c", "-s", "-k", "--from", "--with"})


@functools.cache
def _third_parties() -> dict[str, Facts]:
    found: dict[str, Facts] = {}
    mistakes = []
    for point in metadata.entry_points(group=GROUP):
        try:
            facts = _load(point)
        # It is not ours: whatever it raises, the person is to be told whose fault it is.
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
        else:
            wrong = _wrong_with(facts, found)
            if isinstance(facts, Facts) and not wrong:
                found[facts.name] = facts
                continue
        whose = point.dist.name if point.dist is not None else point.value
        mistakes.append(Mistake(f"entry point {GROUP}: {point.name} = {point.value}", wrong, f"{CURE}, {whose}"))
    if mistakes:
        raise ConfigError(mistakes)
    return found


def _load(point: metadata.EntryPoint) -> object:
    made = point.load()
    return made() if callable(made) else made


def _wrong_with(facts: object, others: Mapping[str, Facts]) -> str:
    """Why what an entry point gives cannot be used; nothing if it can."""
    if not isinstance(facts, Facts):
        return f"it gives {type(facts).__name__} and not Facts"
    if facts.name in BUILT_IN or facts.name in others:
        return f"there is a harness {facts.name!r} already"
    if facts.dialect not in (*BUILT_IN, OWN) or (facts.dialect == OWN) != (facts.speaks is not None):
        return f"there is no dialect {facts.dialect!r}"
    return ""


def harness_names() -> tuple[str, ...]:
    """Every harness there is, those of third parties last.

    Raises:
        ConfigError: a third party's harness cannot be used.
    """
    return (*BUILT_IN, *sorted(_third_parties()))


def find_harness(name: str) -> Facts | None:
    """The harness of this name, or None.

    Raises:
        ConfigError: it is none of ours, and a third party's harness cannot be used.
    """
    if name in BUILT_IN:
        return load_facts(name)
    return _third_parties().get(name)


def recognise(program: Sequence[str]) -> Facts:
    """The harness of a command, by the name of its program; `generic` where no name is known.

    Sees through `npx`, `node .../codex`, `python -m aider`, `env`, `timeout` and their like, absolute paths, and
    versions after a package's name.
    """
    return _recognise(tuple(program))


@functools.lru_cache(maxsize=256)
def _recognise(program: tuple[str, ...]) -> Facts:
    for word in _candidates(program):
        others = _third_parties()
        for name in BUILT_IN:
            if _is_named(word, *names_of(name)):
                return load_facts(name)
        for name in sorted(others):
            if _is_of(word, others[name]):
                return others[name]
    return load_facts("generic")


def words_before_arguments(program: Sequence[str], facts: Facts) -> int:
    """How many words of a command stand before the arguments of its program: itself, and what runs it.

    Where the program is not recognised by its name, its arguments begin with the first that is a flag.
    """
    for word in _candidates(program):
        if _is_of(word, facts):
            return list(program).index(word) + 1
    flags = (at for at, word in enumerate(program) if at and word.startswith("-"))
    return next(flags, len(program))


def _candidates(program: Sequence[str]) -> list[str]:
    """The words of a command that may name its program: the first, and behind a wrapper what it runs."""
    words = list(program)
    while words:
        word = words.pop(0)
        name = _basename(word)
        if not (name in _RUNNERS or name in _WRAPPERS or name.startswith(_PYTHONS)):
            return [word]
        # What a wrapper is told: its flags, its own words, settings and durations.
        while words and _is_told(words[0]):
            taken = words.pop(0)
            if taken == "-m" and name.startswith(_PYTHONS) and words:
                return [words[0]]
            if taken in _TAKE_VALUE and words:
                words.pop(0)
    return []


def _is_told(word: str) -> bool:
    if word.startswith("-") or word in _WORDS:
        return True
    return "=" in word.split("/", 1)[0] or word.rstrip("smhd").replace(".", "", 1).isdigit()


def _basename(word: str) -> str:
    return word.rstrip("/").rsplit("/", 1)[-1]


def _is_of(word: str, facts: Facts) -> bool:
    return _is_named(word, facts.programs, facts.packages)


def _is_named(word: str, programs: Collection[str], packages: Collection[str]) -> bool:
    package = word
    if word.rfind("@") > 0:
        package = word[: word.rfind("@")]
    if package.split("==")[0] in packages:
        return True
    name = _basename(word)
    stem = name.removesuffix(".js").removesuffix(".mjs").removesuffix(".cmd").removesuffix(".exe")
    if name in programs or stem in programs:
        return True
    # node .../@openai/codex/bin/cli.js
    return any(f"/{one}/" in word for one in packages)
