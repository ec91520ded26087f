"""Answers: JSON, pages of lists, validators. Every JSON body is made here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from quart import Response, request

from kasmos.exceptions import RequestError
from kasmos.model.codec import encode
from kasmos.model.value import frozen

T = TypeVar("T")

JSON = "application/json"


def answer(value: Any, status: int = 200, *, location: str | None = None) -> Response:
    """A JSON answer.

    Raises:
        RequestError: 406 if the client wants none.
    """
    response = answer_encoded(encode(value), status)
    if location is not None:
        response.headers["Location"] = location
    return response


def answer_encoded(body: bytes, status: int = 200) -> Response:
    """A JSON answer of what is rendered already.

    Raises:
        RequestError: 406 if the client wants none.
    """
    must_accept(JSON)
    return Response(body, status=status, content_type=JSON)


def answer_with_tag(tag: str, body: Callable[[], bytes]) -> Response:
    """A JSON answer with its `ETag`; 304, and no body made, if the client has it.

    Raises:
        RequestError: 406 if the client wants no JSON.
    """
    must_accept(JSON)
    if request.if_none_match.contains_weak(tag):
        response = Response(b"", status=304)
        del response.headers["Content-Type"]
    else:
        response = Response(body(), content_type=JSON)
    response.set_etag(tag)
    # A poller may keep it, and has to ask each time.
    response.headers["Cache-Control"] = "no-cache"
    return response


def must_accept(*kinds: str) -> str:
    """The one of these media types that the client likes best.

    Raises:
        RequestError: 406 if it accepts none of them.
    """
    if not request.headers.get("Accept"):
        return kinds[0]
    best = request.accept_mimetypes.best_match(kinds)
    if best is None:
        raise RequestError(406, "not_acceptable", f"this is available as {' or '.join(kinds)}")
    return best


@frozen
class Page:
    """What is asked of a list."""

    limit: int
    cursor: str | None


def page_of(
    items: Sequence[T], page: Page, *, key: Callable[[T], str], render: Callable[[T], Any], name: str
) -> dict[str, Any]:
    """One page of a list, and the cursor of the next one.

    Raises:
        RequestError: 400 `bad_cursor` if the entry that the last page ended with is not in the list.
    """
    start = 0
    if page.cursor is not None:
        try:
            start = next(i for i, item in enumerate(items) if key(item) == page.cursor) + 1
        except StopIteration:
            raise RequestError(400, "bad_cursor", f"no such place in the list: {page.cursor!r}") from None
    chosen = items[start : start + page.limit]
    more = start + page.limit < len(items)
    return {name: [render(item) for item in chosen], "next_cursor": key(chosen[-1]) if more else None}
