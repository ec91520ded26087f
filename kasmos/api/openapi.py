"""`/openapi.json` and `/docs`: what can be asked, for programs and for people, made from the routes there are."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Any

from quart import Response

from kasmos import __version__
from kasmos.api.access import Operation, Routes
from kasmos.api.answers import JSON, answer
from kasmos.api.app import API_REVISION, this_app
from kasmos.api.errors import Problem
from kasmos.api.questions import Query
from kasmos.daemon.access import Needs
from kasmos.model.codec import json_schemas

if TYPE_CHECKING:
    from kasmos.api.documents import Document

routes = Routes("openapi")

_REF = "#/components/schemas/{name}"
_NO_BODY = (204, 304)


@routes.get("/openapi.json", Needs.READ)
async def get_openapi() -> Response:
    """This description, as OpenAPI 3.1."""
    Query(()).done()
    return answer(describe(this_app().admission.operations))


@routes.get("/docs", Needs.READ)
async def get_docs() -> Response:
    """The same for people: one page, which loads nothing from anywhere."""
    Query(()).done()
    page = render_page(describe(this_app().admission.operations))
    response = Response(page, content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
    return response


def describe(operations: list[Operation]) -> dict[str, Any]:
    """Everything that can be asked, as an OpenAPI document."""
    # Late: nobody may ever ask.
    from kasmos.api.documents import DOCUMENTS

    documents = {(each.method, each.path): DOCUMENTS[each.method, each.path] for each in operations}
    kinds = tuple({kind: None for document in documents.values() for kind in document.kinds()} | {Problem: None})
    _, components = json_schemas(kinds, _REF)
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        if each.method != "WEBSOCKET":
            path = each.path.replace("<name>", "{name}")
            paths.setdefault(path, {})[each.method.lower()] = _operation(each, documents[each.method, each.path])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "kasmos",
            "version": __version__,
            "description": f"Revision {API_REVISION} of the API of a supervisor. Pass over what you do not know.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "responses": {
                "Problem": {
                    "description": "It was refused, or could not be done: `code` says why, for programs.",
                    "content": {"application/problem+json": {"schema": _ref(Problem)}},
                }
            },
        },
        # None is an alternative: the Unix socket never asks for a token, TCP only where one is configured.
        "security": [{}, {"bearer": []}],
    }


def _operation(each: Operation, document: Document) -> dict[str, Any]:
    says = " ".join((each.handler.__doc__ or "").split())
    problem = {"$ref": "#/components/responses/Problem"}
    found: dict[str, Any] = {
        "operationId": each.endpoint.replace(".", "_"),
        "summary": says,
        "description": f"Needs: {each.needs.value}.",
        "responses": {
            **{str(status): _answer(status, document) for status in document.statuses},
            "4XX": problem,
            **({} if 503 in document.statuses else {"503": problem}),
        },
    }
    parameters = [_parameter(name, "query", schema) for name, schema in document.query.items()]
    if "<name>" in each.path:
        name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        parameters.insert(0, name)
    parameters += [_parameter(name, "header", schema) for name, schema in document.headers.items()]
    if parameters:
        found["parameters"] = parameters
    if document.body is not None:
        found["requestBody"] = {
            "required": bool(document.body.get("required")),
            "content": {
                "application/json": {"schema": document.body},
                **{kind: {"schema": {"type": "string"}} for kind in document.takes},
            },
        }
    return found


def _parameter(name: str, where: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": where, "required": False, "schema": schema}


def _answer(status: int, document: Document) -> dict[str, Any]:
    if status in _NO_BODY:
        return {"description": "You have it already."}
    kind = document.answer
    schema = (_ref(kind) if isinstance(kind, type) else kind) or {}
    content: dict[str, Any] = {JSON: {"schema": schema}}
    if document.streams and status == 200:
        content = {one: {"schema": schema if one == JSON else {"type": "string"}} for one in document.streams}
    return {"description": document.says.get(status, "As asked."), "content": content}


def _ref(kind: type) -> dict[str, str]:
    return {"$ref": _REF.format(name=kind.__name__)}


# --- the page -------------------------------------------------------------------------

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
h2{font:600 1rem ui-monospace,monospace;border-top:1px solid #ddd;padding-top:1rem;margin-top:2rem}
b{display:inline-block;min-width:3.5rem;color:#06c}code,pre{font:0.9rem ui-monospace,monospace}
pre{background:#f5f5f5;padding:.7rem;overflow:auto}table{border-collapse:collapse}td{padding:.1rem 1rem .1rem 0}
@media(prefers-color-scheme:dark){body{background:#16181c;color:#ddd}pre{background:#22252b}b{color:#6af}
h2{border-color:#333}}
"""


def render_page(described: dict[str, Any]) -> str:
    """The description as one page of HTML."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>kasmos API</title><style>{_STYLE}</style><h1>kasmos API</h1>",
        f"<p>{html.escape(described['info']['description'])} Errors are <code>application/problem+json</code>.</p>",
    ]
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            parts.append(_section(method.upper(), path, operation))
    return "".join([*parts, "</html>"])


def _section(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{html.escape(one['name'])}</code><td>{one['in']}<td>{html.escape(_short(one['schema']))}"
        for one in operation.get("parameters", ())
    )
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    rows += "".join(
        f"<tr><td><code>{html.escape(name)}</code><td>body<td>{html.escape(_short(schema))}"
        for name, schema in body.get("properties", {}).items()
    )
    statuses = ", ".join(operation["responses"])
    return (
        f"<h2 id='{html.escape(operation['operationId'])}'><b>{method}</b> {html.escape(path)}</h2>"
        f"<p>{html.escape(re.sub('`', '', operation['summary']))} {html.escape(operation['description'])}</p>"
        f"<table>{rows}</table><p>Answers: {statuses}</p>"
    )


def _short(schema: dict[str, Any]) -> str:
    kind = schema.get("type", "")
    text = " or ".join(kind) if isinstance(kind, list) else str(kind)
    if "enum" in schema:
        text = " | ".join(str(word) for word in schema["enum"])
    return f"{text}: {schema['description']}" if "description" in schema else text
