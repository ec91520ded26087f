"""Whatever stands in a file, a variable or a flag: a configuration, or a `ConfigError` that says where."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kasmos.config.assemble import assemble
from kasmos.config.jsonschema import render_schema
from kasmos.config.keys import BUILT_IN, KEYS
from kasmos.config.layers import Findings, read_built_in, read_flags, read_table, read_variables
from kasmos.config.origin import Origin, OriginKind
from kasmos.config.render import render_value
from kasmos.config.schema import Config
from kasmos.model.located import TomlSyntaxError, read_toml

WORDS = st.sampled_from(
    [
        *("stop", "never", "headless", "pipe", "SIGTERM", "unlimited", "1", "true", "90", "10m", "64KiB", "1e9GiB"),
        *("claude -p", "'", "", " ", "\0", "~/x", "{effort}", "{prompt}", "a" * 70, "shell", "a", "idle", "\udcff"),
    ]
)
SCALARS = (
    WORDS
    | st.text(max_size=8)
    | st.integers()
    | st.integers(-3, 100_000)
    | st.floats()
    | st.booleans()
    | st.none()
    | st.datetimes()
    | st.dates()
)
NAMES = st.sampled_from(["a", "shell", "*", "env", "A", "limits", "program", "", "a.b", "x y"]) | st.text(max_size=4)
GARBAGE = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=6
)
PATHS = st.sampled_from([key.path for key in KEYS])


def nest(path: tuple[str, ...], value: object) -> dict[str, Any]:
    """A document in which this value stands at this path, the agent named `a` having a program."""
    document: dict[str, Any] = {"agents": {"a": {"program": "a"}}}
    names = ["a" if name == "*" else name for name in path]
    table: Any = document
    for name in names[:-1]:
        table = table.setdefault(name, {})
    table[names[-1]] = value
    return document


def read(document: dict[str, Any]) -> tuple[Config | None, Findings]:
    findings = Findings()
    said = read_built_in(BUILT_IN) | read_table(document, lambda _: Origin(OriginKind.FILE, "file", 1), findings)
    return assemble(said, {"HOME": "/home/me"}, findings), findings


def judge(config: Config | None, findings: Findings) -> None:
    """Either there is a configuration, or there are mistakes, and each has a place and says something."""
    assert (config is None) == bool(findings.mistakes)
    for mistake in findings.mistakes:
        assert mistake.place
        assert mistake.problem
        assert "\n" not in str(mistake)
        assert len(str(mistake)) < 500


@settings(max_examples=400)
@given(PATHS, GARBAGE)
def test_garbage_in_a_key_is_read_or_told_with_its_path(path: tuple[str, ...], value: object) -> None:
    """Any value in any key gives a valid configuration, or mistakes of which one has that key's path."""
    config, findings = read(nest(path, value))
    judge(config, findings)
    if findings.mistakes:
        shown = ".".join("a" if name == "*" else name for name in path)
        # What is short for a table, and what is only wrong with other keys, is told where it belongs.
        parent = shown.rsplit(".", 1)[0]
        assert any(shown in mistake.place or parent in mistake.place for mistake in findings.mistakes)


@given(st.dictionaries(st.sampled_from([key.path[0] for key in KEYS]) | NAMES, GARBAGE, max_size=4))
def test_garbage_as_a_document_is_read_or_told(document: dict[str, Any]) -> None:
    """Any document gives a valid configuration, or mistakes."""
    judge(*read(document))


@given(st.dictionaries(st.sampled_from([key.variable for key in KEYS if key.variable]), st.text() | WORDS))
def test_garbage_in_variables_is_read_or_told(environ: dict[str, str]) -> None:
    """Any text in any variable gives a valid configuration, or mistakes that name variables."""
    findings = Findings()
    config = assemble(read_built_in(BUILT_IN) | read_variables(environ, findings), environ, findings)
    judge(config, findings)
    assert {mistake.place.partition("[")[0] for mistake in findings.mistakes} <= set(environ)


@given(st.dictionaries(PATHS.map(".".join) | st.text(), GARBAGE, max_size=4))
def test_garbage_in_flags_is_read_or_told(flags: dict[str, object]) -> None:
    """Any value under any path of a flag gives a valid configuration, or mistakes."""
    findings = Findings()
    judge(assemble(read_built_in(BUILT_IN) | read_flags(flags, findings), {}, findings), findings)


@settings(max_examples=400)
@given(PATHS, GARBAGE)
def test_schema_accepts_whatever_is_accepted(path: tuple[str, ...], value: object) -> None:
    """An editor with the JSON Schema never marks a file that kasmos accepts."""
    document = nest(path, value)
    config, _ = read(document)
    if config is not None:
        assert complaints(document, render_schema()) == []


@pytest.mark.parametrize(
    "document",
    [
        {"agents": {"a": {"progam": "a"}}},
        {"agents": {"a": {"program": "a", "flags": "x"}}},
        {"agents": {"a b": {"program": "a"}}},
        {"agents": {"a": {"program": "a", "restart": "nevr"}}},
        {"agents": {"a": {"program": "a", "restart": {"jitter": 2}}}},
        {"agents": {"a": {"program": "a", "env": {"A": 1}}}},
        {"orchestration": {"max_concurrent": True}},
        {"orchestration": {"task_timeout": "10 m"}},
        {"deamon": {}},
    ],
)
def test_schema_refuses_what_is_refused(document: dict[str, Any]) -> None:
    """An editor with the JSON Schema marks unknown keys, wrong types and wrong words."""
    config, _ = read(document)
    assert config is None
    assert complaints(document, render_schema())


@given(GARBAGE.filter(lambda value: "None" not in repr(value) and "datetime" not in repr(value)))
def test_rendered_value_is_read_back(value: object) -> None:
    """A value that is rendered as TOML is the same when it is parsed."""
    if re.search(r"\\ud[89a-f]|nan|inf", ascii(value)) or "{" in ascii(value):
        return  # no TOML has surrogates, and tables are rendered for keys that are plain
    assert read_toml(f"x = {render_value(value)}").values == {"x": value}


@given(st.text(alphabet="abc.[]{}=\"'#\n\r\t ,1\\", max_size=40))
def test_scanner_agrees_with_the_parser(text: str) -> None:
    """Any TOML text gives lines within the text for all of its keys; any other is refused with a line."""
    lines = text.split("\n")
    try:
        document = read_toml(text)
    except TomlSyntaxError as error:
        places = {error.line: ""}
    else:
        places = {document.line((name,)): name for name in document.values}
    for line, name in places.items():
        assert 1 <= line <= len(lines)
        assert name in lines[line - 1] or "\\" in text


def test_every_committed_example_is_right() -> None:
    """The configuration of the examples loads without a warning."""
    text = (Path(__file__).parents[2] / "examples" / "agents" / "config.toml").read_text()
    config, findings = read(read_toml(text).values)
    assert config is not None
    assert findings.warnings == []


def complaints(value: Any, schema: dict[str, Any], at: str = "$") -> list[str]:
    """Judge a value by the part of JSON Schema that ours uses; any other keyword is an error."""
    known = {"$schema", "title", "description", "default", "deprecated", "minLength"}
    found = []
    for keyword, rule in schema.items():
        if keyword in known:
            continue
        if not _KEYWORDS[keyword](value, rule, schema, at):
            found.append(f"{at}: {keyword} {rule!r}")
    return found


def _is(value: Any, kind: str) -> bool:
    kinds: dict[str, Any] = {"object": dict, "array": list, "string": str, "boolean": bool}
    if kind in kinds:
        return isinstance(value, kinds[kind])
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole or (kind == "number" and isinstance(value, float))


def _number(value: Any) -> bool:
    return _is(value, "number")


_KEYWORDS: dict[str, Any] = {
    "type": lambda value, kind, schema, at: _is(value, kind),
    "enum": lambda value, words, schema, at: value in words,
    "const": lambda value, word, schema, at: value == word,
    "anyOf": lambda value, kinds, schema, at: any(not complaints(value, kind, at) for kind in kinds),
    "minimum": lambda value, least, schema, at: not _number(value) or value >= least,
    "maximum": lambda value, most, schema, at: not _number(value) or value <= most,
    "exclusiveMinimum": lambda value, least, schema, at: not _number(value) or value > least,
    "pattern": lambda value, text, schema, at: not isinstance(value, str) or re.search(text, value) is not None,
    "minItems": lambda value, least, schema, at: not isinstance(value, list) or len(value) >= least,
    "items": lambda value, kind, schema, at: (
        not isinstance(value, list) or not any(complaints(item, kind, at) for item in value)
    ),
    "properties": lambda value, kinds, schema, at: (
        not isinstance(value, dict)
        or not any(complaints(item, kinds[name], f"{at}.{name}") for name, item in value.items() if name in kinds)
    ),
    "additionalProperties": lambda value, kind, schema, at: (
        not isinstance(value, dict)
        or not any(
            kind is False or complaints(item, kind, f"{at}.{name}")
            for name, item in value.items()
            if name not in schema.get("properties", {})
        )
    ),
    "propertyNames": lambda value, kind, schema, at: (
        not isinstance(value, dict) or not any(complaints(name, kind, at) for name in value)
    ),
}
