"""Who answers what a session asks: a rule, or a person. Pure.

The two sides are judged unequally, on purpose. A refusal is generous: it looks through wrappers, paths and quotes,
and a part of a command line is enough. A permission is strict: everything that the line runs has to be covered, word
by word, and what cannot be read for certain is for a person. What is not understood is never answered.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator

from kasmos.model.approval import ApprovalPolicy, Ask, AskKind, Decision, Meaning, PermissionDefault, Rule
from kasmos.model.value import frozen
from kasmos.supervision.command_line import MOST_WORDS, Command, Reading, read_command_line
from kasmos.supervision.glob import glob_matches

_SHELLS = frozenset((
    "sh", "bash", "dash", "zsh", "ksh", "fish", "ash", "mksh", "eval", "source", ".", "csh", "tcsh",
))  # fmt: skip
_WRAPPERS = frozenset((
    "sudo", "doas", "su", "env", "command", "builtin", "exec", "nohup", "nice", "ionice", "setsid", "stdbuf",
    "time", "timeout", "xargs", "parallel", "busybox", "chroot", "unshare", "nsenter", "strace", "ltrace",
    "flock", "watch", "script", "ssh", "runuser", "pkexec", "systemd-run", "chrt", "taskset", "setpriv", "npx",
    "bunx", "uvx", "pipx",
))  # fmt: skip
_INTERPRETERS = re.compile(r"(python|perl|ruby|node|php|lua|tclsh|awk|gawk|mawk|deno|bun|osascript)[0-9.]*")
_RUNS_OTHERS = frozenset((
    "-exec", "-execdir", "-ok", "-okdir", "-delete", "-fprint", "-fprintf", "-fprint0", "-fls",
))  # fmt: skip
"""Arguments by which `find` does more than finding."""
_DEPTH = 3
"""How many commands within commands a refusal looks through."""


@frozen
class Verdict:
    """What becomes of an ask, and why."""

    decision: Decision
    rule: str = ""
    """Ids of the rules it rests on; empty where no rule speaks of it."""
    why: str = ""
    """One sentence for people."""


def decide_approval(ask: Ask, policy: ApprovalPolicy, *, cwd: str = "/") -> Verdict:
    """Decide what becomes of *ask*.

    Args:
        ask: what is asked.
        policy: the profile's rules and default.
        cwd: what relative paths and path patterns are relative to. Absolute.
    """
    if ask.kind is AskKind.QUESTION:
        return _ask_person("questions are for people")
    if not (ask.tool or ask.command or ask.path):
        return _ask_person("it was not understood what is asked")
    reading = read_command_line(ask.command) if ask.command else None
    verdict = _denied(ask, reading, policy.rules, cwd) or _not_denied(ask, reading, policy, cwd)
    if verdict.decision is Decision.ALLOW and not ask.exact:
        return _ask_person("what would run was not read to the letter")
    wanted = {Decision.ALLOW: Meaning.ALLOW_ONCE, Decision.DENY: Meaning.DENY}.get(verdict.decision)
    if wanted is not None and not ask.offers(wanted):
        return _ask_person(f"{verdict.why}, and the dialog offers no plain {'yes' if wanted != 'deny' else 'no'}")
    return verdict


def _ask_person(why: str, rule: str = "") -> Verdict:
    return Verdict(Decision.ASK, rule, why)


def _denied(ask: Ask, reading: Reading | None, rules: Iterable[Rule], cwd: str) -> Verdict | None:
    for rule in rules:
        if rule.decision is Decision.DENY and _touches(rule, ask, reading, cwd):
            return Verdict(Decision.DENY, rule.id, f"rule {rule.id} denies it")
    return None


def _not_denied(ask: Ask, reading: Reading | None, policy: ApprovalPolicy, cwd: str) -> Verdict:
    for rule in policy.rules:
        if rule.decision is Decision.ASK and _touches(rule, ask, reading, cwd):
            return _ask_person(f"rule {rule.id} wants a person to see it", rule.id)
    doubts = reading.doubts if reading is not None else ()
    bypass = policy.default is PermissionDefault.BYPASS
    holding = [rule for rule in policy.rules if rule.decision is not Decision.ALLOW]
    if doubts and (not bypass or any(rule.command for rule in holding)):
        return _ask_person(f"the command cannot be read for certain: {', '.join(doubts)}")
    if bypass and any(path.startswith("~") for path in ask.paths) and any(rule.path for rule in holding):
        return _ask_person("it is not known whose home ~ is")
    allowing = [rule for rule in policy.rules if rule.decision is Decision.ALLOW]
    if not doubts and (covering := _covering(ask, reading, allowing, cwd)):
        names = ", ".join(dict.fromkeys(rule.id for rule in covering))
        return Verdict(Decision.ALLOW, names, f"allowed by rule {names}")
    if bypass:
        return Verdict(Decision.ALLOW, "", "allowed, as permission_default is bypass and no rule speaks of it")
    return _ask_person("no rule allows it")


# --- refusals and reservations: generous --------------------------------------------


def _touches(rule: Rule, ask: Ask, reading: Reading | None, cwd: str) -> bool:
    """Whether a rule that holds something back speaks of this ask."""
    if rule.tool is not None and not _name_matches(rule.tool, ask.tool, fold=True):
        return False
    if rule.command is not None:
        pattern = rule.command.split()
        if reading is None or not any(_words_match(pattern, words, loose=True) for words in _runs(reading)):
            return False
    spellings = (spelling for path in ask.paths for spelling in _spellings(path, cwd))
    return rule.path is None or any(_path_matches(rule.path, path, cwd) for path in spellings)


def _runs(reading: Reading, depth: int = _DEPTH) -> Iterator[tuple[str, ...]]:
    """Every command that may be run, with its program's bare name: behind wrappers and in shells as well."""
    for command in reading.commands:
        inner = False
        for words in _behind(command.words[:MOST_WORDS]):
            yield (posixpath.basename(words[0]), *words[1:])
            inner |= _is_runner(words[0])
        for word in command.words if inner and depth else ():
            if re.search(r"\s", word):
                yield from _runs(read_command_line(word), depth - 1)


def _behind(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The command itself, and what it may run in its turn."""
    if not words:
        return
    yield words
    name = posixpath.basename(words[0])
    if _is_runner(name):
        starts = range(1, len(words))
    else:
        starts = range(0)
        for at, word in enumerate(words[1:], 1):
            if word in ("-exec", "-execdir", "-ok", "-okdir"):
                starts = range(at + 1, len(words))
                break
    for at in starts:
        if words[at]:
            yield words[at:]


def _is_runner(name: str) -> bool:
    """Whether a program runs what it is told to."""
    name = posixpath.basename(name)
    return name in _SHELLS or name in _WRAPPERS or _INTERPRETERS.fullmatch(name) is not None


def _spellings(path: str, cwd: str) -> tuple[str, ...]:
    """The ways to write a path that may be the same file."""
    absolute = posixpath.join(cwd, path)
    return absolute, posixpath.normpath(absolute)


# --- permissions: strict -------------------------------------------------------------


def _covering(ask: Ask, reading: Reading | None, rules: Iterable[Rule], cwd: str) -> list[Rule]:
    """The rules that together allow all of an ask; empty when something is left over."""
    fitting = [rule for rule in rules if _allows_rest(rule, ask, cwd)]
    if reading is None:
        return [rule for rule in fitting if rule.command is None][:1]
    found: list[Rule] = []
    for command in reading.commands:
        covering = next((rule for rule in fitting if _allows_command(rule, command)), None)
        if covering is None:
            return []
        found.append(covering)
    return found


def _allows_rest(rule: Rule, ask: Ask, cwd: str) -> bool:
    """Whether a rule allows the ask's tool and path; its command is judged apart."""
    if rule.tool is not None and not _name_matches(rule.tool, ask.tool, fold=False):
        return False
    if rule.path is None:
        return True
    # Who speaks of a file only has not spoken of what a command does.
    if ask.command and rule.command is None:
        return False
    return bool(ask.paths) and all(_allows_path(rule.path, path, cwd) for path in ask.paths)


def _allows_path(pattern: str, path: str, cwd: str) -> bool:
    # Where `..` leads is not known for certain as long as there are links; nor whose home `~` is.
    if ".." in path.split("/") or path.startswith("~") or not path.isprintable():
        return False
    return _path_matches(pattern, posixpath.normpath(posixpath.join(cwd, path)), cwd)


def _allows_command(rule: Rule, command: Command) -> bool:
    if rule.command is None:
        return rule.tool is not None
    # A variable can make any program do anything (LD_PRELOAD, PATH, GIT_SSH_COMMAND).
    if command.assignments or not command.words:
        return False
    pattern = rule.command.split()
    runs_others = _is_runner(command.words[0]) or not _RUNS_OTHERS.isdisjoint(command.words)
    if runs_others and any("*" in word for word in pattern):
        # What such a program runs was not thought of by who wrote `*`; only what is written out is allowed.
        return False
    return _words_match(pattern, command.words, loose=False)


# --- patterns ------------------------------------------------------------------------


def _words_match(pattern: list[str], words: tuple[str, ...], *, loose: bool) -> bool:
    """Whether a command's words fit a pattern, word by word; a last `*` is any number of further words."""
    if pattern and pattern[-1] == "*" and len(pattern) > 1:
        pattern, words = pattern[:-1], words[: len(pattern) - 1] if len(words) >= len(pattern) - 1 else ()
    elif pattern == ["*"]:
        return bool(words)
    if len(pattern) != len(words):
        return False
    return all(_word_matches(one, word, loose=loose) for one, word in zip(pattern, words, strict=True))


def _word_matches(pattern: str, word: str, *, loose: bool) -> bool:
    if "*" not in pattern:
        return pattern == word
    # `*` means a name or a file: it does not come to an option, nor does it lead out of a directory.
    if not loose and ((word.startswith("-") and not pattern.startswith("-")) or ".." in word.split("/")):
        return False
    if not loose and (word.startswith("~") or not word.isprintable()):
        return False
    return glob_matches(pattern, word, across=loose)


def _name_matches(pattern: str, name: str, *, fold: bool) -> bool:
    if fold:
        pattern, name = pattern.lower(), name.lower()
    return bool(name) and glob_matches(pattern, name, across=True)


def _path_matches(pattern: str, path: str, cwd: str) -> bool:
    """Whether an absolute path fits; a pattern without `/` is for the file's name, wherever it lies."""
    if "/" not in pattern:
        return glob_matches(pattern, posixpath.basename(path))
    if pattern.startswith("/"):
        return glob_matches(pattern, path)
    inside = cwd.rstrip("/") + "/"
    return path.startswith(inside) and glob_matches(pattern.removeprefix("./"), path[len(inside) :])
