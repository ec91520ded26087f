"""The table of keys as JSON Schema, draft 2020-12, for editors."""

from __future__ import annotations

from typing import Any

from kasmos.config.keys import Key, Table
from kasmos.config.lookup import TABLE_BY_PATH, children


def render_schema() -> dict[str, Any]:
    """The JSON Schema of a configuration file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "kasmos configuration",
        **_table(TABLE_BY_PATH[()]),
    }


def _table(table: Table) -> dict[str, Any]:
    schema: dict[str, Any] = {"description": table.why, "type": "object"}
    entries = children(table.path)
    properties = {name: _entry(entry) for name, entry in entries.items() if name != "*"}
    if properties:
        schema["properties"] = properties
    schema["additionalProperties"] = _entry(entries["*"]) if "*" in entries else False
    if table.name_rule is not None:
        schema["propertyNames"] = table.name_rule.schema()
    if table.former:
        schema["deprecated"] = True
    if not table.short:
        return schema
    short = next(entry for name, entry in entries.items() if name == table.short)
    return {"description": table.why, "anyOf": [_entry(short), schema]}


def _entry(entry: Key | Table) -> dict[str, Any]:
    if isinstance(entry, Table):
        return _table(entry)
    schema = {"description": entry.why or f"It {entry.former}.", **entry.kind.schema()}
    if entry.default is not None:
        schema["default"] = entry.default
    if entry.former:
        schema["deprecated"] = True
    return schema
