"""Kinds of values that are network addresses: `HOST:PORT`, with an IPv6 host in brackets."""

from __future__ import annotations

import re
from typing import Any

import attrs

from kasmos.config.kinds import Plain, Problem, WrongValueError, wrong
from kasmos.config.messages import show, split_words
from kasmos.model.value import frozen
from kasmos.model.wording import name_kind

_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):(?P<port>[0-9]{1,5})")
_CURE = 'such as "127.0.0.1:7878" or "[::1]:7878"'


@frozen
class Address(Plain):
    """One address to listen on; port 0 is any that is free."""

    def read(self, value: object) -> str:
        if not isinstance(value, str):
            wrong(f"must be an address, not {name_kind(value)}", _CURE)
        found = _ADDRESS.fullmatch(value)
        if found is None or int(found["port"]) > 65_535:
            wrong(f"must be HOST:PORT, not {show(value)}", _CURE)
        return value

    def schema(self) -> dict[str, Any]:
        return {
            "type": "string",
            "pattern": f"^(?:{_ADDRESS.pattern.replace('?P<host>', '').replace('?P<port>', '')})$",
        }


@frozen
class Addresses:
    """Addresses to listen on: a text, or a list of them."""

    def read(self, value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            return (Address().read(value),)
        if not isinstance(value, list):
            wrong(f"must be an address or a list of them, not {name_kind(value)}", _CURE)
        read: list[str] = []
        problems: list[Problem] = []
        for number, item in enumerate(value):
            try:
                read.append(Address().read(item))
            except WrongValueError as error:
                problems += [attrs.evolve(problem, suffix=f"[{number}]") for problem in error.problems]
        if problems:
            raise WrongValueError(problems)
        return tuple(dict.fromkeys(read))

    def from_text(self, text: str) -> object:
        words = split_words(text)
        return words if words is not None and len(words) > 1 else text.strip()

    def schema(self) -> dict[str, Any]:
        one = Address().schema()
        return {"anyOf": [one, {"type": "array", "items": one}]}


def split_address(address: str) -> tuple[str, int]:
    """Host, without brackets, and port of a valid address."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
