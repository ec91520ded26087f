"""The Markdown form of a plan: waves and tasks are headings, settings are fenced TOML.

The text under a task's heading, up to the next heading of a wave or a task, is its body.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from kasmos.model.located import TomlSyntaxError, read_toml
from kasmos.model.value import frozen
from kasmos.plans.draft import Draft, DraftTask, DraftWave
from kasmos.plans.findings import Findings, quote
from kasmos.plans.headings import TaskHeading, Unclear, WaveHeading, near_miss, read_heading
from kasmos.plans.outline import Block, Heading, Outline, read_outline, script_of
from kasmos.plans.preamble import read_preamble
from kasmos.plans.settings import (
    DEFAULT_KEYS,
    NO_SETTINGS,
    TASK_KEYS,
    Settings,
    judge_unknown_key,
    read_settings,
)

_MARKED = re.compile(r" {0,3}(#{1,6})[ \t]+(.*)")


@frozen
class _Section:
    """A wave or task heading and the lines up to the next one."""

    heading: WaveHeading | TaskHeading
    start: int
    """Index of the heading's line."""
    end: int
    blocks: tuple[Block, ...]


def read_markdown(text: str, findings: Findings) -> Draft:
    """Read a Markdown document with `\\n` as its line ends, noting every mistake."""
    lines = text.split("\n")
    outline = read_outline(lines)
    sections = _sections(lines, outline, findings)
    _judge_hidden(lines, outline, findings)
    if not any(isinstance(section.heading, WaveHeading) for section in sections):
        cure = "add `## Wave 1` with `### Task 1: title` under it"
        if sections:
            cure = f"add `## Wave 1` above the first task, `### Task` in line {sections[0].start + 1}"
        findings.mistake(1, "the plan has no waves", cure)
        sections = []
    end = sections[0].start if sections else len(lines)
    preamble = read_preamble(lines[:end], outline)
    blocks = [block for block in outline.blocks if block.start < end]
    defaults = _settings(lines, blocks, DEFAULT_KEYS, findings)
    return Draft(
        waves=_waves(lines, sections, findings),
        goal=preamble.goal,
        architecture=preamble.architecture,
        tech_stack=preamble.tech_stack,
        title=preamble.title,
        defaults=defaults,
    )


def is_settings(block: Block) -> bool:
    """Whether a fenced block sets something: its first line is ` ```toml kasmos `."""
    return not block.comment and block.info.lower().split()[:2] == ["toml", "kasmos"]


# --- where waves and tasks stand -----------------------------------------------------------


def _sections(lines: Sequence[str], outline: Outline, findings: Findings) -> list[_Section]:
    found = _wave_and_task_headings(outline, findings)
    ends = [*(heading.index for heading, _ in found[1:]), len(lines)]
    sections: list[_Section] = []
    blocks = iter(outline.blocks)
    block = next(blocks, None)
    for (heading, meaning), end in zip(found, ends, strict=False):
        inside = []
        while block is not None and block.start < end:
            if block.start > heading.index:
                inside.append(block)
            block = next(blocks, None)
        sections.append(_Section(meaning, heading.index, end, tuple(inside)))
    return sections


def _wave_and_task_headings(outline: Outline, findings: Findings) -> list[tuple[Heading, WaveHeading | TaskHeading]]:
    read = [(heading, read_heading(heading.level, heading.text)) for heading in outline.headings]
    waves = [(heading, meaning) for heading, meaning in read if isinstance(meaning, WaveHeading)]
    top_waves = {meaning.number for heading, meaning in waves if heading.level == 2}
    found: list[tuple[Heading, WaveHeading | TaskHeading]] = []
    for heading, meaning in read:
        if isinstance(meaning, Unclear):
            note = findings.mistake if meaning.fatal and waves else findings.warn
            note(heading.index + 1, meaning.problem, meaning.cure)
        elif isinstance(meaning, WaveHeading) and heading.level == 3 and meaning.number in top_waves:
            # An overview of the waves, or a remark on one: the wave itself is at level two.
            problem = f"{quote(heading.text)} is read as text: wave {meaning.number} has a heading with two #"
            findings.warn(heading.index + 1, problem)
        elif meaning is not None:
            found.append((heading, meaning))
        elif (doubt := near_miss(heading.level, heading.text)) is not None:
            findings.warn(heading.index + 1, doubt.problem, doubt.cure)
    return found


def _judge_hidden(lines: Sequence[str], outline: Outline, findings: Findings) -> None:
    """Speak up where a fence or comment may have swallowed waves or tasks."""
    disputed = [
        heading
        for heading in outline.disputed
        if isinstance(read_heading(heading.level, heading.text), WaveHeading | TaskHeading)
    ]
    if disputed:
        # One fence that is read otherwise changes what all that follow are: the first is where to look.
        name = quote(disputed[0].text)
        problem = f"whether {name} is a heading or code depends on how fences in fences are read"
        cure = "give the outer fence one more backtick than the inner"
        findings.warn(disputed[0].index + 1, problem, cure)
    block = outline.unclosed
    if block is None:
        return
    what = "comment" if block.comment else "code fence"
    swallowed = [number for number in range(block.start + 1, len(lines)) if _may_be_heading(lines[number])]
    problem = f"the {what} opened here is never closed"
    if swallowed:
        findings.mistake(block.start + 1, problem, f"it hides the heading in line {swallowed[0] + 1}: close it")
    else:
        findings.warn(block.start + 1, problem)


def _may_be_heading(line: str) -> bool:
    match = _MARKED.match(line)
    return match is not None and isinstance(read_heading(len(match[1]), match[2]), WaveHeading | TaskHeading)


# --- what they say -------------------------------------------------------------------------


def _waves(lines: Sequence[str], sections: Sequence[_Section], findings: Findings) -> tuple[DraftWave, ...]:
    waves: list[tuple[_Section, WaveHeading, list[DraftTask]]] = []
    for section in sections:
        heading = section.heading
        if isinstance(heading, WaveHeading):
            _refuse_settings(section, findings)
            waves.append((section, heading, []))
        elif waves:
            waves[-1][2].append(_task(lines, section, heading, findings))
        else:
            cure = "put `## Wave 1` above it"
            findings.mistake(section.start + 1, f"task {heading.number} stands before the first wave", cure)
    return tuple(
        DraftWave(heading.number, heading.title, section.start + 1, tuple(tasks)) for section, heading, tasks in waves
    )


def _task(lines: Sequence[str], section: _Section, heading: TaskHeading, findings: Findings) -> DraftTask:
    return DraftTask(
        number=heading.number,
        title=heading.title,
        body=_body(lines, section),
        line=section.start + 1,
        settings=_settings(lines, section.blocks, TASK_KEYS, findings),
        wave=heading.wave,
        script_line=_script_line(section),
    )


def _script_line(section: _Section) -> int | None:
    block = script_of(section.blocks)
    return None if block is None else block.start + 2


def _body(lines: Sequence[str], section: _Section) -> str:
    kept: list[str] = []
    position = section.start + 1
    for block in filter(is_settings, section.blocks):
        kept += lines[position : block.start]
        position = block.end
    kept += lines[position : section.end]
    return strip_blank_lines(kept)


def strip_blank_lines(lines: Sequence[str]) -> str:
    """Join lines without the blank ones at either end, and without blanks at the very end."""
    start = next((index for index, line in enumerate(lines) if line.strip()), len(lines))
    return "\n".join(lines[start:]).rstrip()


def _settings(lines: Sequence[str], blocks: Sequence[Block], keys: tuple[str, ...], findings: Findings) -> Settings:
    read: Settings | None = None
    for block in filter(is_settings, blocks):
        if read is not None:
            findings.mistake(block.start + 1, "a second settings block", "put all settings into one")
            continue
        read = _read_block(lines, block, keys, findings)
    return read or NO_SETTINGS


def _read_block(lines: Sequence[str], block: Block, keys: tuple[str, ...], findings: Findings) -> Settings:
    first_line = block.start + 2
    try:
        table = read_toml("\n".join(block.content(lines)), "settings block")
    except TomlSyntaxError as error:
        findings.mistake(first_line - 1 + error.line, f"the settings are not TOML: {error.problem}")
        return NO_SETTINGS
    for key in table.values:
        line = first_line - 1 + table.line((key,))
        if key in TASK_KEYS and key not in keys:
            findings.mistake(line, f"{key} cannot be a default of the plan", "set it in the task it is for")
        elif key not in keys:
            judge_unknown_key(key, keys, line, findings)
    return read_settings(table, (), keys, findings, first_line)


def _refuse_settings(section: _Section, findings: Findings) -> None:
    for block in filter(is_settings, section.blocks):
        cure = "put it above the first wave for the whole plan, or under a task"
        findings.mistake(block.start + 1, "a wave has no settings of its own", cure)
