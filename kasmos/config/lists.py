"""Kinds of values that are lists, or may be one."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import attrs

from kasmos.config.kinds import Plain, Problem, Text, WrongValueError, wrong
from kasmos.config.messages import as_list, guess, show, split_words
from kasmos.model.value import frozen
from kasmos.model.wording import name_kind


@frozen
class Words:
    """A list of texts."""

    item: Text = Text(empty=True)
    example: str = '["--flag", "value"]'

    def read(self, value: object) -> tuple[str, ...]:
        if not isinstance(value, list):
            wrong(f"must be a list, not {name_kind(value)}", as_list(value) or f"such as {self.example}")
        read: list[str] = []
        problems: list[Problem] = []
        for number, item in enumerate(value):
            try:
                read.append(self.item.read(item))
            except WrongValueError as error:
                problems += [attrs.evolve(problem, suffix=f"[{number}]") for problem in error.problems]
        if problems:
            raise WrongValueError(problems)
        return tuple(read)

    def from_text(self, text: str) -> object:
        return split_words(text) or text

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": self.item.schema()}


@frozen
class Command:
    """A program and its leading arguments: a shell-style text, or a list."""

    def read(self, value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            Text().read(value)
            words = split_words(value)
            if words is None:
                wrong(f"is not a command line: a quote is not closed in {show(value)}")
        elif isinstance(value, list):
            words = list(Words().read(value))
        else:
            cure = 'such as "claude" or ["claude"]'
            wrong(f"must be text or a list, not {name_kind(value)}", cure)
        if not words or not words[0].strip():
            wrong("must not be empty", "name the program to run")
        return tuple(words)

    def from_text(self, text: str) -> object:
        return text

    def schema(self) -> dict[str, Any]:
        words = {"type": "array", "items": {"type": "string"}, "minItems": 1}
        return {"anyOf": [{"type": "string", "minLength": 1}, words]}


@frozen
class WordOrWords(Plain):
    """One of a few words, or a list of names; `make` turns either into the value."""

    words: type[enum.StrEnum]
    names: Words
    make: Callable[[enum.StrEnum | tuple[str, ...]], object]

    def read(self, value: object) -> object:
        if isinstance(value, list):
            return self.make(self.names.read(value))
        known = [str(word) for word in self.words]
        if isinstance(value, str) and value in known:
            return self.make(self.words(value))
        quoted = " or ".join(f'"{word}"' for word in known)
        wrong(f"must be {quoted} or a list of names, not {show(value)}", guess(value, known))

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"enum": [str(word) for word in self.words]}, self.names.schema()]}
