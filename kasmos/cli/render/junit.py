"""A run as JUnit XML: a suite for each wave, a case for each task.

Every reader of the format knows it differently; what is written here is what all of them accept (the schema
of Jenkins, `junit-10.xsd`, is the strictest), and XML cannot hold what it must not.
"""

from __future__ import annotations

import re
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable

from kasmos.cli.render import facts
from kasmos.cli.render.text import clean, clean_lines
from kasmos.model.task import CauseKind, Outcome
from kasmos.model.view import Ended, RunView, TaskView, World

TAIL_LINES = 200
"""Lines of output in a failure."""

_ERRORS = (CauseKind.LOST, CauseKind.INTERNAL, CauseKind.CONFIG, CauseKind.START)
"""Causes that lie outside of the task's own program and checks."""

# https://www.w3.org/TR/xml/#charsets: nothing else may stand in a document, not even as a reference.
_INVALID = re.compile(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(world: World, run_id: str, tail_of: Callable[[str], str]) -> bytes:
    """The report as a document in UTF-8.

    Args:
        tail_of: gives the last lines of a session's output; where it raises `OSError`, the journal's word is used.

    Raises:
        KeyError: there is no such run.
    """
    run = world.runs[run_id]
    suites = ET.Element("testsuites", name=_text(facts.run_title(run)))
    totals = [0, 0, 0]
    for wave, tasks in facts.waves(run):
        suite = ET.SubElement(suites, "testsuite", name=_text(facts.wave_label(wave)))
        cases = [_case(world, run, task, tail_of) for task in tasks]
        suite.extend(cases)
        counted = [len(cases), *(sum(case.find(kind) is not None for case in cases) for kind in ("failure", "error"))]
        _count(suite, counted)
        suite.set("skipped", str(sum(case.find("skipped") is not None for case in cases)))
        suite.set("time", _seconds(_wave_seconds(world, tasks)))
        suite.set("timestamp", _instant(min((task.started_at or run.started_at for task in tasks), default=0.0)))
        totals = [total + one for total, one in zip(totals, counted, strict=True)]
    _count(suites, totals)
    suites.set("time", _seconds(facts.run_seconds(world, run, time.monotonic(), time.time())))
    ET.indent(suites)
    document: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _count(element: ET.Element, counted: list[int]) -> None:
    for name, count in zip(("tests", "failures", "errors"), counted, strict=True):
        element.set(name, str(count))


def _case(world: World, run: RunView, task: TaskView, tail_of: Callable[[str], str]) -> ET.Element:
    classname = f"wave{task.spec.wave}"
    case = ET.Element("testcase", name=_text(facts.task_label(task)), classname=classname)
    case.set("time", _seconds(facts.task_seconds(world, task, time.monotonic(), time.time())))
    kind = _verdict(task)
    if kind is not None:
        cause = facts.cause_of(task)
        message = clean(cause.message) if cause is not None else "the run was interrupted before it ended"
        told = ET.SubElement(case, kind, message=_text(message))
        told.set("type", cause.kind.value if cause is not None else "unfinished")
        if kind != "skipped":
            told.text = _text("\n".join((message, *_tail(world, task, tail_of))))
    return case


def _verdict(task: TaskView) -> str | None:
    """What kind of case a task is; None for one that succeeded."""
    state = task.state
    if not isinstance(state, Ended):
        # A report of an unfinished run: what had begun has not passed.
        return "error" if task.sessions else "skipped"
    if state.outcome is Outcome.SUCCEEDED:
        return None
    if state.outcome is Outcome.SKIPPED or state.cause.kind is CauseKind.FAIL_FAST:
        return "skipped"
    return "error" if state.cause.kind in _ERRORS or state.outcome is Outcome.CANCELLED else "failure"


def _tail(world: World, task: TaskView, tail_of: Callable[[str], str]) -> list[str]:
    cause = facts.cause_of(task)
    session_id = cause.session_id if cause is not None else None
    text = ""
    if session_id is not None:
        try:
            text = tail_of(session_id)
        except OSError:
            text = ""  # its directory has been removed
    return clean_lines(text or facts.tail_of(world, task), TAIL_LINES)


def _wave_seconds(world: World, tasks: list[TaskView]) -> float:
    starts = [task.started_at for task in tasks if task.started_at is not None]
    ends = [task.ended_at for task in tasks if task.ended_at is not None]
    return max(0.0, max(ends) - min(starts)) if starts and ends else 0.0


def _seconds(seconds: float | None) -> str:
    return f"{seconds or 0.0:.3f}"


def _instant(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))


def _text(text: str) -> str:
    return _INVALID.sub("\N{REPLACEMENT CHARACTER}", text)
