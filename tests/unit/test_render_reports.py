"""`junit` and `summary`: reports that other programs read."""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import junitparser
import pytest

from kasmos.cli.render.files import check_writable, write_reports
from kasmos.cli.render.junit import junit
from kasmos.cli.render.summary import LIMIT, summary
from kasmos.model import event as ev
from kasmos.model.session import ExitStatus, StopReason
from kasmos.model.task import Cause, CauseKind, Outcome
from tests.unit.histories import History, failed_run, make_plan

# What the strictest schema (Jenkins, junit-10.xsd) allows: attributes, those that must be there, children.
_ALLOWED: dict[str, tuple[set[str], set[str], set[str]]] = {
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, set(), {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "time", "skipped", "timestamp"},
        {"name", "tests", "failures", "errors"},
        {"testcase"},
    ),
    "testcase": ({"name", "time", "classname"}, {"name"}, {"skipped", "error", "failure"}),
    "failure": ({"type", "message"}, set(), set()),
    "error": ({"type", "message"}, set(), set()),
    "skipped": ({"type", "message"}, set(), set()),
}
_TIME = re.compile(r"(([0-9]{0,3},)*[0-9]{3}|[0-9]{0,3})*(\.[0-9]*)?")


def no_log(session_id: str) -> str:
    raise FileNotFoundError(session_id)


def check_schema(document: bytes) -> ET.Element:
    """Hold a document against the schema; its root."""
    root = ET.fromstring(document)
    for element in root.iter():
        allowed, needed, children = _ALLOWED[element.tag]
        assert needed <= set(element.attrib) <= allowed
        assert {child.tag for child in element} <= children
        if "time" in element.attrib:
            assert _TIME.fullmatch(element.attrib["time"])
    return root


# --- JUnit ------------------------------------------------------------------------


def test_junit_is_read_by_a_junit_reader() -> None:
    """A real reader finds a suite per wave, a case per task, their results and the tail of what failed."""
    history = failed_run()
    logs = {"r1-2a1": "a longer tail\nfrom the log\n"}
    document = junit(history.world, "r1", logs.__getitem__)
    check_schema(document)
    read = junitparser.JUnitXml.fromstring(document)
    suites = list(read)
    assert [suite.name for suite in suites] == ["Wave 1", "Wave 2"]
    assert (read.tests, read.failures, read.errors, read.time) == (3, 1, 0, 5.0)
    assert [suite.skipped for suite in suites] == [0, 1]
    passed, failed = suites[0]
    (skipped,) = suites[1]
    assert passed.is_passed
    assert passed.time == 2.0
    assert failed.name == "2 Do it 2"
    (result,) = failed.result
    assert isinstance(result, junitparser.Failure)
    assert (result.type, result.message) == ("exit", "exit 3")
    assert result.text == "exit 3\na longer tail\nfrom the log"
    assert skipped.is_skipped


def test_junit_takes_the_journals_word_where_the_log_is_gone() -> None:
    """When the session's directory has been removed, the tail in the journal is used."""
    document = junit(failed_run().world, "r1", no_log)
    assert b"error: no such file" in document


def test_junit_holds_no_character_that_xml_forbids() -> None:
    """Output with controls, surrogates and markup makes a document that can be parsed."""
    history = History(make_plan(1, title="<&\"'\x00\ufffe"))
    history.start("1")
    history.end("1", code=1, tail="\x00\x08\x1b[31m]]>\ud800\uffff & <b>\n", message="<bad> \x0b")
    root = check_schema(junit(history.world, "r1", no_log))
    failure = root.find(".//failure")
    assert failure is not None
    assert failure.text is not None
    assert "& <b>" in failure.text


@pytest.mark.parametrize(
    ("outcome", "kind", "element"),
    [
        (Outcome.FAILED, CauseKind.EXIT, "failure"),
        (Outcome.FAILED, CauseKind.CHECK, "failure"),
        (Outcome.TIMED_OUT, CauseKind.TIMEOUT, "failure"),
        (Outcome.FAILED, CauseKind.START, "error"),
        (Outcome.FAILED, CauseKind.CONFIG, "error"),
        (Outcome.FAILED, CauseKind.INTERNAL, "error"),
        (Outcome.LOST, CauseKind.LOST, "error"),
        (Outcome.CANCELLED, CauseKind.STOPPED, "error"),
        (Outcome.CANCELLED, CauseKind.RUN_CANCELLED, "error"),
        (Outcome.CANCELLED, CauseKind.FAIL_FAST, "skipped"),
        (Outcome.SKIPPED, CauseKind.NEED_FAILED, "skipped"),
    ],
)
def test_junit_verdicts(outcome: Outcome, kind: CauseKind, element: str) -> None:
    """A failure lies in the program or its checks, an error elsewhere; nothing but success passes."""
    history = History(make_plan(1))
    history.finish("1", outcome, Cause(kind, "because"))
    root = check_schema(junit(history.world, "r1", no_log))
    case = root.find(".//testcase")
    assert case is not None
    assert [child.tag for child in case] == [element]


def test_junit_of_an_unfinished_run_does_not_pass() -> None:
    """What had begun when the run was interrupted is an error, what had not is skipped."""
    history = History(make_plan(2))
    session = history.start("1")
    history.add(ev.StopRequested(session, StopReason.INTERRUPTED))
    history.add(ev.SessionEnded(session, ExitStatus(signal=15)))
    history.add(ev.TaskPutBack("r1", "1", "SIGINT"))
    root = check_schema(junit(history.world, "r1", no_log))
    assert [[child.tag for child in case] for case in root.iter("testcase")] == [["error"], ["skipped"]]


# --- Markdown ---------------------------------------------------------------------


def test_summary_has_verdict_table_timeline_and_output() -> None:
    """The summary says how it ended, lists every task, draws when it ran, and folds the failed output."""
    text = summary(failed_run().world, "r1")
    assert text.startswith("## ❌ Build the parser\n\nRun `r1` failed after 5.0s: 1 succeeded, 1 failed, 1 skipped.\n")
    assert "| 1 | 1 Do it 1 | ✅ succeeded | 2.0s |  |" in text
    assert "| 1 | 2 Do it 2 | ❌ failed | 5.0s | exit 3 |" in text
    assert "| 2 | 3 Do it 3 | ⏭️ skipped | - | wave 1 did not succeed: task 2 failed |" in text
    bars = [line for line in text.splitlines() if "█" in line]
    assert [line.count("█") for line in bars] == [19, 48]
    assert "<summary>2 Do it 2: failed: exit 3</summary>\n\n```text\ncompiling\nerror: no such file\n```" in text


def test_summary_of_a_run_that_has_done_nothing() -> None:
    """A run in which nothing has begun has no timeline."""
    text = summary(History(make_plan(1)).world, "r1")
    assert "Timeline" not in text
    assert "| 1 | 1 Do it 1 |" in text


def test_summary_shows_text_as_text() -> None:
    """Names and causes are neither Markdown nor HTML nor mentions, and cannot leave their cell."""
    evil = "a|b `c` <img src=x> [l](http://x) @org/team *s* $m$ www.x.y"
    history = History(make_plan(1, goal=evil, title=evil))
    history.start("1")
    history.end("1", code=1, message=evil)
    text = summary(history.world, "r1")
    rows = [line for line in text.splitlines() if line.startswith("| 1 ")]
    assert len(rows) == 1
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 6
    heading = text.splitlines()[0]
    for line in (*rows, heading):
        assert "<img" not in line
        assert "http://" not in line
        assert not re.search(r"(?<!\\)[`*\[\]$]", line)
        assert "@org" not in line
        assert "www." not in line
    assert "<img" not in re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def test_summary_fences_cannot_be_closed_by_output() -> None:
    """Output with fences of its own stays inside of a longer one."""
    history = History(make_plan(1))
    history.start("1")
    history.end("1", code=1, tail="```\n````\n# heading\n")
    text = summary(history.world, "r1")
    assert "`````text\n```\n````\n# heading\n`````\n" in text


def test_summary_stays_below_githubs_limit() -> None:
    """However much failed, the summary fits; what is left out is counted."""
    history = History(make_plan(3000, title="&" * 200))
    for number in range(1, 3001):
        history.start(str(number))
        history.end(str(number), code=1, tail="x" * 900 + "\n" + ("line of output\n" * 100), after=0.1)
    text = summary(history.world, "r1")
    assert LIMIT // 2 < len(text.encode()) <= LIMIT
    assert "more tasks that did not succeed" in text
    assert re.search(r"\| \| and \d+ more tasks \| \| \| \|", text)


# --- files ------------------------------------------------------------------------


def test_a_report_that_can_be_written_is_known_without_a_trace(tmp_path: Path) -> None:
    """The check neither leaves a file behind nor changes one that is there."""
    there = tmp_path / "there.xml"
    there.write_text("old")
    check_writable(str(there))
    check_writable(str(tmp_path / "new.xml"))
    check_writable(os.devnull)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("there.xml", "old")]


@pytest.mark.parametrize("name", ["", "nowhere/report.xml", ".", "x" * 300, "file/report.xml", "dangling"])
def test_a_report_that_cannot_be_written_is_known_before(name: str, tmp_path: Path) -> None:
    """A directory, a missing one, a file in its place, a link to nowhere and a name too long are all refused."""
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "report.xml")
    with pytest.raises(OSError, match=r"\w"):
        check_writable(f"{tmp_path}/{name}" if name else name)


def test_each_report_is_written_whatever_became_of_the_other(tmp_path: Path) -> None:
    """What went wrong with one is told, and the other is there."""
    world = failed_run().world
    lost, kept = tmp_path / "gone" / "report.xml", tmp_path / "summary.md"
    kept.write_text("before\n")
    problems = write_reports(world, "r1", junit_file=str(lost), summary_file=str(kept), tail_of=no_log)
    assert problems == [f"the report {lost} cannot be written: No such file or directory"]
    assert kept.read_text().startswith("before\n## ❌ Build the parser")
    assert write_reports(world, "r1", junit_file=None, summary_file=None, tail_of=no_log) == []
