"""The body that asks for one task: checked whole, with the JSON path of every mistake."""

from __future__ import annotations

import re
from typing import Any

from kasmos.api.questions import a_flag, a_word, judge_body
from kasmos.daemon.single import TaskRequest
from kasmos.exceptions import Mistake
from kasmos.model.plan import Check
from kasmos.model.units import DURATION_EXAMPLES, parse_duration

LONGEST_TIMEOUT = 366 * 86400.0
MOST_RETRIES = 1000
MOST_NEEDS = 1000
LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
ENV_NAME = re.compile(r"(?!KASMOS_)[A-Za-z_][A-Za-z0-9_]{0,255}")
_MODEL_LENGTH = 256


async def read_task_body() -> tuple[TaskRequest, bool, list[Mistake]]:
    """The task that is asked for, whether the answer is to be a stream, and what is wrong with the body.

    A field that is wrong is left out of the task, so that the rest of it can be looked at further.

    Raises:
        RequestError: 415 if it is not JSON, 400 `invalid_json`.
    """
    body, mistakes = await judge_body(_FIELDS, ("prompt",))
    request = TaskRequest(
        prompt=body.get("prompt", "-"),
        agent=body.get("agent"),
        model=body.get("model"),
        context=body.get("context"),
        context_in_prompt=body.get("context_in_prompt", False),
        workdir=body.get("workdir"),
        timeout=_seconds(body.get("timeout")),
        retries=body.get("retries"),
        checks=_checks(body.get("checks", []), mistakes),
        env=_env(body.get("env", {}), mistakes),
        needs=tuple(body.get("needs", ())),
        name=body.get("name", ""),
        continues=body.get("continue", ""),
    )
    return request, body.get("stream", False), mistakes


def _seconds(said: Any) -> float | None:
    return None if said is None else parse_duration(said) if isinstance(said, str) else float(said)


def _checks(said: list[Any], mistakes: list[Mistake]) -> tuple[Check, ...]:
    checks = []
    for index, item in enumerate(said):
        path = f"$.checks[{index}]"
        whole = {"command": item} if isinstance(item, str) else item
        if not isinstance(whole, dict):
            mistakes.append(Mistake(path, "it is not possible", 'a command, or {"command": ..., "timeout": ...}'))
            continue
        mistakes += [Mistake(f"{path}.{name}", "there is no such field") for name in whole if name not in _CHECK]
        if cure := a_plain_word(whole.get("command")):
            mistakes.append(Mistake(f"{path}.command" if whole is item else path, "it is not possible", cure))
        if whole.get("timeout") is not None and (cure := a_timeout(whole["timeout"])):
            mistakes.append(Mistake(f"{path}.timeout", "it is not possible", cure))
        if not mistakes:
            checks.append(Check(whole["command"], _seconds(whole.get("timeout"))))
    return tuple(checks)


def _env(said: dict[str, Any], mistakes: list[Mistake]) -> dict[str, str]:
    for name, value in said.items():
        path = f"$.env.{name}" if ENV_NAME.fullmatch(name) else f"$.env[{name!r}]"
        if not ENV_NAME.fullmatch(name):
            mistakes.append(Mistake(path, "no variable can be called so", "letters, digits and _; not KASMOS_*"))
        elif not isinstance(value, str) or "\0" in value:
            mistakes.append(Mistake(path, "it is not possible", "a text without NUL"))
    return said


# --- checks of single fields ----------------------------------------------------------


def a_plain_word(value: Any) -> str:
    """Check for a text that is not empty and can be an argument."""
    return a_word(value) or ("a text without NUL" if "\0" in value else "")


def a_prompt(value: Any) -> str:
    """Check for a text with something in it."""
    return "" if isinstance(value, str) and value.strip() else "a text that is not empty"


def a_timeout(value: Any) -> str:
    """Check for a duration above 0."""
    cure = f"a time above 0 and up to a year: {DURATION_EXAMPLES}"
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return cure
    try:
        seconds = parse_duration(value) if isinstance(value, str) else float(value)
    except (ValueError, OverflowError):
        return cure
    return "" if 0 < seconds <= LONGEST_TIMEOUT else cure


def a_model(value: Any) -> str:
    """Check for the name of a model."""
    return a_plain_word(value) or (f"at most {_MODEL_LENGTH} characters" if len(value) > _MODEL_LENGTH else "")


def a_label(value: Any) -> str:
    """Check for a name that can be a file's."""
    fits = isinstance(value, str) and LABEL.fullmatch(value)
    return "" if fits else "letters, digits, _ and -, at most 64"


def some_retries(value: Any) -> str:
    """Check for a number of retries."""
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_RETRIES
    return "" if fits else f"a whole number from 0 to {MOST_RETRIES}"


def an_object(value: Any) -> str:
    """Check for a JSON object."""
    return "" if isinstance(value, dict) else "a JSON object"


def a_list(value: Any) -> str:
    """Check for a list."""
    return "" if isinstance(value, list) else "a list"


def some_tasks(value: Any) -> str:
    """Check for ids of tasks."""
    fits = isinstance(value, list) and all(isinstance(item, str) and item for item in value)
    return "" if fits and len(value) <= MOST_NEEDS else f"a list of at most {MOST_NEEDS} task ids"


_CHECK = ("command", "timeout")

_FIELDS = {
    "prompt": a_prompt,
    "context": an_object,
    "context_in_prompt": a_flag,
    "model": a_model,
    "stream": a_flag,
    "agent": a_word,
    "workdir": a_plain_word,
    "timeout": a_timeout,
    "retries": some_retries,
    "checks": a_list,
    "env": an_object,
    "needs": some_tasks,
    "name": a_label,
    "continue": a_word,
}
