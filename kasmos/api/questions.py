"""Questions: what a request's query and body say, checked whole, with every mistake at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import attrs
from quart import request

from kasmos.api.answers import JSON, Page
from kasmos.exceptions import Mistake, RequestError
from kasmos.model.codec import CodecError, decode
from kasmos.model.value import frozen

Check = Callable[[Any], str]
"""Says what is wrong with a value and what would be right; an empty string means that all is well."""

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000


@frozen
class Query:
    """The parameters of a request's query, of which only the named ones are known.

    Each is read by the method for its kind; mistakes are collected until `done`.
    """

    known: tuple[str, ...]
    mistakes: list[Mistake] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        for name in request.args:
            if name not in self.known:
                cure = f"one of {', '.join(self.known)}" if self.known else "there are none here"
                self._wrong(name, "there is no such parameter", cure)
            elif len(request.args.getlist(name)) > 1:
                self._wrong(name, "it is given more than once", "")

    def text(self, name: str) -> str | None:
        """A word, or None."""
        value: str | None = request.args.get(name)
        return value

    def choice(self, name: str, allowed: tuple[str, ...], default: str | None = None) -> str | None:
        """One of some words."""
        value = self.text(name)
        if value is None or value in allowed:
            return default if value is None else value
        self._wrong(name, f"{value!r} is not possible", f"one of {', '.join(allowed)}")
        return default

    def integer(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number within bounds."""
        value = self.text(name)
        if value is None:
            return default
        try:
            number = int(value)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            self._wrong(name, f"{value!r} is not possible", f"a whole number from {least} to {most}")
            return default
        return number

    def seconds(self, name: str, most: float) -> float:
        """A duration; none means 0."""
        value = self.text(name)
        if value is None:
            return 0.0
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0 <= number <= most:
            self._wrong(name, f"{value!r} is not possible", f"seconds, from 0 to {most:g}")
            return 0.0
        return number

    def page(self) -> Page:
        """`limit` and `cursor` of a list."""
        return Page(self.integer("limit", DEFAULT_LIMIT, 1, MAX_LIMIT), self.text("cursor"))

    def done(self) -> None:
        """All was read.

        Raises:
            RequestError: 400 `invalid_query`, with every mistake.
        """
        if self.mistakes:
            raise RequestError(400, "invalid_query", "the query is wrong", self.mistakes)

    def _wrong(self, name: str, problem: str, cure: str) -> None:
        self.mistakes.append(Mistake(f"query.{name}", problem, cure))


async def read_body(fields: Mapping[str, Check], required: tuple[str, ...] = ()) -> dict[str, Any]:
    """The request's JSON object; no body at all is an empty one. A null is as good as nothing.

    Args:
        fields: every field that may be there, with its check.

    Raises:
        RequestError: 415 if it is not JSON, 400 `invalid_json` or `invalid_body` with every mistake.
    """
    body, mistakes = await judge_body(fields, required)
    if mistakes:
        raise RequestError(400, "invalid_body", "the body is wrong", mistakes)
    return body


async def judge_body(
    fields: Mapping[str, Check], required: tuple[str, ...] = ()
) -> tuple[dict[str, Any], list[Mistake]]:
    """As `read_body`, for who looks further: the fields that are right, and every mistake in the others.

    Raises:
        RequestError: 415 if it is not JSON, 400 `invalid_json`.
    """
    data = cast(bytes, await request.get_data(as_text=False))
    if not data:
        body: dict[str, Any] = {}
    elif request.mimetype != JSON:
        raise RequestError(415, "unsupported_media_type", f"the body has to be {JSON}")
    else:
        body = _parse(data)
    mistakes = [
        Mistake(f"$.{name}", "there is no such field", f"one of {', '.join(fields)}" if fields else "")
        for name in body
        if name not in fields
    ]
    mistakes += [Mistake(f"$.{name}", "it is missing") for name in required if body.get(name) is None]
    right = {}
    for name, check in fields.items():
        if body.get(name) is None:
            continue
        if cure := check(body[name]):
            mistakes.append(Mistake(f"$.{name}", "it is not possible", cure))
        else:
            right[name] = body[name]
    return right, mistakes


def _parse(data: bytes) -> dict[str, Any]:
    try:
        return decode(data, dict[str, Any])
    except CodecError as error:
        raise RequestError(400, "invalid_json", f"the body is not a JSON object: {error}") from error


def a_text(value: Any) -> str:
    """Check for a text."""
    return "" if isinstance(value, str) else "a text"


def a_word(value: Any) -> str:
    """Check for a text that is not empty."""
    return "" if isinstance(value, str) and value else "a text that is not empty"


def a_flag(value: Any) -> str:
    """Check for true or false."""
    return "" if isinstance(value, bool) else "true or false"


def a_count(value: Any) -> str:
    """Check for a positive whole number."""
    fits = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return "" if fits else "a whole number above 0"


def a_duration(value: Any) -> str:
    """Check for seconds, or a text such as `10m`; the configuration's rules decide."""
    fits = isinstance(value, str | int | float) and not isinstance(value, bool)
    return "" if fits else 'seconds, or a text such as "10m"'


def some_words(value: Any) -> str:
    """Check for a list of texts."""
    fits = isinstance(value, list) and all(isinstance(item, str) and item for item in value)
    return "" if fits else "a list of texts"
