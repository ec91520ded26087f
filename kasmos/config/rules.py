"""The kind of value that an agent's approval rules are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from kasmos.config.kinds import Plain, Problem, WrongValueError, wrong
from kasmos.config.messages import guess, one_of
from kasmos.model.approval import Decision, Rule
from kasmos.model.value import frozen
from kasmos.model.wording import name_kind

_DECISIONS = tuple(str(word) for word in Decision)
_CONDITIONS = ("command", "path")
_KEYS = (*_DECISIONS, *_CONDITIONS, "name")
EXAMPLE = '[{ allow = "Bash", command = "git log *" }, { deny = "*", path = ".env" }]'


@frozen
class Rules(Plain):
    """A list of tables: what is allowed, denied or asked, each for a tool and perhaps a command or a path."""

    def read(self, value: object) -> tuple[Rule, ...]:
        if not isinstance(value, list):
            wrong(f"must be a list of tables, not {name_kind(value)}", f"such as {EXAMPLE}")
        problems: list[Problem] = []
        rules: list[Rule] = []
        for number, item in enumerate(value):
            found = _problems(item)
            problems += [attrs.evolve(problem, suffix=f"[{number}]{problem.suffix}") for problem in found]
            if found:
                continue
            rule = _rule(item)
            if any(other.id == rule.id for other in rules):
                problems.append(Problem("says the same as a rule before it", "take it out", f"[{number}]"))
            rules.append(rule)
        if problems:
            raise WrongValueError(problems)
        return tuple(rules)

    def schema(self) -> dict[str, Any]:
        text = {"type": "string", "minLength": 1}
        return {
            "type": "array",
            "items": {
                "type": "object",
                "properties": dict.fromkeys(_KEYS, text),
                "oneOf": [{"required": [word]} for word in _DECISIONS],
                "additionalProperties": False,
            },
        }


def _problems(item: object) -> list[Problem]:
    if not isinstance(item, Mapping):
        return [Problem(f"must be a table, not {name_kind(item)}", 'such as { allow = "Bash" }')]
    found = [
        Problem("unknown key", guess(key, _KEYS) or f"known here: {', '.join(_KEYS)}", f".{_short(key)}")
        for key in item
        if key not in _KEYS
    ]
    said = [word for word in _DECISIONS if word in item]
    if len(said) != 1:
        problem = f"says {' and '.join(said)}" if said else "does not say what becomes of it"
        found.append(Problem(problem, f"{one_of(_DECISIONS)}, with the name of a tool"))
    for key in _KEYS:
        if key not in item:
            continue
        text = item[key]
        if not isinstance(text, str):
            found.append(Problem(f"must be text, not {name_kind(text)}", suffix=f".{key}"))
        elif not text.strip() or not text.isprintable():
            found.append(Problem("must be text that can be seen", suffix=f".{key}"))
    if all(key in item for key in _CONDITIONS):
        found.append(Problem("speaks of a command and a path", "a tool has one of them: write two rules"))
    return found


def _short(key: object) -> str:
    text = "".join(letter if letter.isprintable() else "?" for letter in str(key))
    return text if len(text) <= 40 else text[:37] + "..."


def _rule(item: Mapping[str, str]) -> Rule:
    decision = next(word for word in _DECISIONS if word in item)
    tool, command, path = item[decision], item.get("command"), item.get("path")
    name = item.get("name") or " ".join(part for part in (decision, tool, command, path) if part)
    return Rule(id=name, decision=Decision(decision), tool=tool, command=command, path=path)
