"""The judgement of a transcript: pure, from the evidence and the exit status to a conclusion.

Exit 0 proves nothing. Success needs the program's own word that it is done, or, where it has no such word, an exit 0
with an answer and without an error. What a signal ended is never a success unless the program was done before.
"""

from __future__ import annotations

import re
import signal as signals
from collections.abc import Collection

from kasmos.harnesses.conclusion import Conclusion, Failure, FailureKind, Shortfall, Usage
from kasmos.harnesses.evidence import Evidence, Problem, Verdict
from kasmos.harnesses.words import MAX_WORDS, classify, read_comeback, status_in
from kasmos.model.session import ExitStatus
from kasmos.model.task import Outcome

_ENDING = {1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 9: "SIGKILL", 15: "SIGTERM"}
"""Signals that somebody sends; the others say that a program broke."""
_BREAKING = (4, 6, 7, 8, 11)
TIMEOUT_CODE = 124
"""What `timeout(1)` exits with."""

Judgement = tuple[Outcome, Failure | None]


def conclude(
    evidence: Evidence,
    usage: Usage,
    status: ExitStatus | None,
    *,
    accept: Collection[Shortfall] = (),
    structured: bool | None = None,
) -> Conclusion:
    """Judge a transcript.

    Args:
        evidence: what it has shown.
        usage: what was used.
        status: how the program ended; None if that is not known.
        accept: what may be missing all the same.
        structured: whether the program was asked for its stream of events; None if that is not known.
    """
    outcome, failure = _judge(evidence, status, frozenset(accept), structured)
    return Conclusion(
        outcome,
        failure,
        usage,
        evidence.conversation,
        evidence.model,
        evidence.version,
        evidence.answer,
        tuple(evidence.denied),
    )


def _judge(
    evidence: Evidence, status: ExitStatus | None, accept: frozenset[Shortfall], structured: bool | None
) -> Judgement:
    # 1. The program's own word, if nothing has gone on since.
    verdict = evidence.verdict
    if verdict is not None and not evidence.turn_open:
        return _done(evidence, verdict, status, accept) if verdict.ok else _said_no(evidence, verdict)
    # 2. Somebody ended it.
    ended_by = killed_by(status)
    if ended_by is not None:
        return _killed(evidence, ended_by)
    if evidence.interrupted:
        return Outcome.CANCELLED, _failure(FailureKind.KILLED, "interrupted", evidence)
    code = None if status is None else status.code
    if code == TIMEOUT_CODE:
        return Outcome.TIMED_OUT, _failure(FailureKind.TIMED_OUT, "it was out of time (exit 124)", evidence)
    # 3. It said why, or its exit code does, or what it wrote last.
    if evidence.problem is not None and (evidence.problem.final or code is not None):
        return Outcome.FAILED, _of(evidence.problem, evidence)
    if status is not None and status.known and not status.succeeded:
        return Outcome.FAILED, _by_exit(evidence, status)
    if status is None or not status.known:
        words = "the transcript ends without a result, and how the program ended is not known"
        return Outcome.LOST, _failure(FailureKind.UNKNOWN, words, evidence, Shortfall.NO_RESULT)
    # 4. Exit 0 without a word.
    return _silent(evidence, accept, structured)


def _done(evidence: Evidence, verdict: Verdict, status: ExitStatus | None, accept: frozenset[Shortfall]) -> Judgement:
    code = None if status is None else status.code
    if code is not None and code != 0 and killed_by(status) is None:
        words = f"it said that it is done, and exited {code}"
        return Outcome.FAILED, _failure(FailureKind.CRASH, _with_tail(words, evidence), evidence)
    if evidence.interrupted:
        return Outcome.CANCELLED, _failure(FailureKind.KILLED, "interrupted", evidence)
    if evidence.denied and Shortfall.TOOL_DENIED not in accept:
        return Outcome.FAILED, _denied(evidence)
    if verdict.cut_off and Shortfall.CUT_OFF not in accept:
        words = "the answer was cut off at the model's limit"
        return Outcome.FAILED, _failure(FailureKind.UNKNOWN, words, evidence, Shortfall.CUT_OFF)
    if verdict.empty and not verdict.cut_off and Shortfall.EMPTY_ANSWER not in accept:
        words = "it says that it is done, and has said nothing"
        return Outcome.FAILED, _failure(FailureKind.UNKNOWN, words, evidence, Shortfall.EMPTY_ANSWER)
    return Outcome.SUCCEEDED, None


def _said_no(evidence: Evidence, verdict: Verdict) -> Judgement:
    if evidence.interrupted:
        if evidence.denied:
            return Outcome.FAILED, _denied(evidence)
        words = verdict.problem.message if verdict.problem is not None else ""
        return Outcome.CANCELLED, _failure(FailureKind.KILLED, f"interrupted: {words}".rstrip(": "), evidence)
    if verdict.problem is None:
        return Outcome.FAILED, _failure(FailureKind.UNKNOWN, "it says that it failed", evidence)
    return Outcome.FAILED, _of(verdict.problem, evidence)


def killed_by(status: ExitStatus | None) -> int | None:
    """The signal that ended the program, if one did that somebody sends; None if it ended by itself.

    A shell, and a program that handles its signal, exits with 128 and the signal's number.
    """
    if status is None:
        return None
    if status.signal is not None and status.certain:
        return None if status.signal in _BREAKING else status.signal
    number = status.signal if status.signal is not None else (status.code or 0) - 128
    return number if number in _ENDING else None


def _killed(evidence: Evidence, number: int) -> Judgement:
    words = f"ended by {_name(number)}"
    said = evidence.problem or _last_words(evidence)
    if said is not None:
        words += f" while it said: {said.message}"
    elif evidence.turn_open:
        words += " in the middle of a turn"
    # An interrupt is what a person, or a supervisor on a person's behalf, sends.
    outcome = Outcome.CANCELLED if number == signals.SIGINT else Outcome.FAILED
    return outcome, _failure(FailureKind.KILLED, words, evidence)


def _name(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _by_exit(evidence: Evidence, status: ExitStatus) -> Failure:
    if status.signal is not None and status.certain:
        return _failure(FailureKind.CRASH, _with_tail(f"ended by {_name(status.signal)}", evidence), evidence)
    code = status.code if status.code is not None else 128 + (status.signal or 0)
    if code - 128 in _BREAKING and code not in evidence.facts.exits:
        return _failure(FailureKind.CRASH, _with_tail(f"ended by {_name(code - 128)}", evidence), evidence)
    said = _last_words(evidence)
    meaning = evidence.facts.exits.get(code)
    if said is not None and (meaning is None or meaning.kind is FailureKind.UNKNOWN):
        return said
    if said is not None and said.kind is FailureKind.QUOTA:
        return said  # exacter than the status it comes under
    if meaning is not None:
        words = said.message if said is not None else meaning.message
        return _failure(meaning.kind, _with_tail(words, evidence) if said is None else words, evidence)
    if evidence.turn_open and evidence.records:
        words = f"exited {code} in the middle of a turn"
        return _failure(FailureKind.CRASH, _with_tail(words, evidence), evidence)
    return _failure(FailureKind.UNKNOWN, _with_tail(f"exited {code}", evidence), evidence)


def _silent(evidence: Evidence, accept: frozenset[Shortfall], structured: bool | None) -> Judgement:
    if not evidence.facts.terminal_result and evidence.facts.dialect == "generic":
        return Outcome.SUCCEEDED, None  # of this program nothing but its exit is known
    plain = evidence.records == 0 and structured is not True
    if plain and evidence.spoke and evidence.facts.dialect != "aider":
        # Asked for plain text, it prints its answer and exits: there is nothing else to go by.
        return Outcome.SUCCEEDED, None
    if evidence.denied and Shortfall.TOOL_DENIED not in accept:
        return Outcome.FAILED, _denied(evidence)
    if plain and not evidence.spoke and not evidence.turn_open:
        shortfall, words = Shortfall.EMPTY_ANSWER, "exited 0 without an answer"
    else:
        shortfall, words = Shortfall.NO_RESULT, "exited 0 without a result"
    if shortfall in accept:
        return Outcome.SUCCEEDED, None
    return Outcome.FAILED, _failure(FailureKind.UNKNOWN, words, evidence, shortfall)


def _denied(evidence: Evidence) -> Failure:
    tools = ", ".join(sorted(tool for tool in evidence.denied if tool))
    words = f"it was not allowed to use {tools}" if tools else "it was not allowed to use a tool"
    return _failure(FailureKind.TOOL_DENIED, words, evidence, Shortfall.TOOL_DENIED)


def _of(problem: Problem, evidence: Evidence) -> Failure:
    comeback = problem.comeback
    told = evidence.comeback
    kind = problem.kind
    if kind in (FailureKind.RATE_LIMIT, FailureKind.UNKNOWN) and told.reset_at is not None:
        kind = FailureKind.QUOTA  # a limit that the program announced with the time of its end
    if (
        kind in (FailureKind.QUOTA, FailureKind.RATE_LIMIT)
        and comeback.reset_at is None
        and comeback.retry_after is None
    ):
        comeback = told
    return Failure(kind, problem.message, None, comeback.retry_after, comeback.reset_at, problem.status)


def _failure(kind: FailureKind, words: str, evidence: Evidence, shortfall: Shortfall | None = None) -> Failure:
    return Failure(kind, words[:MAX_WORDS], shortfall)


def _last_words(evidence: Evidence) -> Failure | None:
    """What the lines that are no events say of a failure."""
    found: Failure | None = None
    for line in reversed(evidence.tail):
        kind = classify(line, evidence.facts.rules, status_in(line))
        if kind is FailureKind.UNKNOWN:
            continue
        comeback = read_comeback(line, evidence.now, evidence.zone_of)
        said = Failure(kind, line.strip(), None, comeback.retry_after, comeback.reset_at, status_in(line))
        if kind is not FailureKind.CRASH:
            return said
        found = found or said  # a program that breaks over a refused key says so first
    return found


_COMPLAINT = re.compile(r"^\W*(?:\w*error|fatal|unknown|invalid|usage:|no |not |cannot )|: error\b", re.IGNORECASE)

_EPITAPH = re.compile(r"kasmos: (?=the program (?:exited|was killed))")
"""What the mediator notes below a program's last words: the exit status says as much."""


def _with_tail(words: str, evidence: Evidence) -> str:
    """The words, and the line that says most about them."""
    lines = [*evidence.head, *evidence.tail]
    complaint = next((line for line in lines if _COMPLAINT.search(line)), None)
    own = next((line for line in reversed(evidence.tail) if not _EPITAPH.match(line)), None)
    last = complaint or own
    if last is None and evidence.tail:
        return _EPITAPH.sub("", evidence.tail[-1])  # nothing but that is known
    return f"{words}: {last.strip()}" if last else words
