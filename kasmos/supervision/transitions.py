"""The next step of one task, decided from the folded journal alone. Pure.

Because nothing but the journal is asked, a fresh task, one whose supervisor has just been
killed and one that was put back are all the same case. Who takes the step commits its
events and asks again; after `Finish` or `PutBack` there is nothing more to ask.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from kasmos.harnesses.aftermath import Step as Way
from kasmos.harnesses.aftermath import decide_after_failure
from kasmos.model.event import AccountParked, HandedBack, TaskRetryScheduled
from kasmos.model.profile import RestartPolicy
from kasmos.model.session import UNKNOWN_EXIT, SessionKind, StopReason
from kasmos.model.task import Cause, CauseKind, Outcome
from kasmos.model.units import render_duration
from kasmos.model.usage import Failure, FailureKind
from kasmos.model.value import frozen
from kasmos.model.view import AccountView, BackingOff, Ended, SessionState, SessionView, TaskView
from kasmos.supervision.handover import TURN_ENDS, Done, Thread, count_for, decide_handover, next_thread
from kasmos.supervision.restart import decide_restart

# --- steps ------------------------------------------------------------------------


@frozen
class StartAgent:
    """Start the task's program."""

    attempt: int
    thread: Thread | None = None
    """The conversation it goes on with; None for a new one."""


@frozen
class StartCheck:
    """Start one of the task's checks."""

    attempt: int
    index: int
    """From 0."""


@frozen
class Supervise:
    """See a live session through to its end; adopt it if it is not open yet."""

    session_id: str


@frozen
class BackOff:
    """Wait until a monotonic instant, then ask again."""

    until_mono: float


@frozen
class Retry:
    """Commit the event: the attempt did not succeed and another will follow."""

    event: TaskRetryScheduled


@frozen
class PutBack:
    """The task goes back to pending."""

    reason: str


@frozen
class GiveBack:
    """Commit the event: nobody has the conversation any more."""

    event: HandedBack


@frozen
class Park:
    """Commit the event: nothing is started on the account for a while, and the task goes back to pending."""

    event: AccountParked
    reason: str


@frozen
class Finish:
    """The task has its outcome."""

    outcome: Outcome
    cause: Cause


Step = StartAgent | StartCheck | Supervise | BackOff | Retry | Park | PutBack | GiveBack | Finish


# --- decisions --------------------------------------------------------------------

_ENDED_BY_STOP: dict[StopReason, tuple[CauseKind, str]] = {
    StopReason.REQUESTED: (CauseKind.STOPPED, "stopped on request"),
    StopReason.CANCELLED: (CauseKind.RUN_CANCELLED, "stopped because its run was cancelled"),
    StopReason.FAIL_FAST: (CauseKind.FAIL_FAST, "stopped because another task failed"),
}
"""Stops that end the task for good."""
_FOR_A_PERSON = (StopReason.HANDED_OVER, StopReason.HANDED_BACK)
"""Stops that say nothing of the task."""


@frozen
class _Rules:
    """What a task is judged by: everything but what has happened."""

    policy: RestartPolicy
    retries: int
    checks: int
    retry_lost: bool
    now: float
    rand: float
    wall: float
    account: AccountView | None
    may_ask: bool


def decide_task(
    task: TaskView,
    sessions: Mapping[str, SessionView],
    *,
    policy: RestartPolicy,
    retries: int,
    checks: int,
    retry_lost: bool,
    now: float,
    rand: float,
    same_boot: bool,
    wall: float = 0.0,
    account: AccountView | None = None,
    may_ask: bool = True,
) -> Step:
    """Decide the next step of *task*.

    Args:
        task: the task as folded.
        sessions: every session of the task, by id; others do not matter.
        policy: the profile's restart policy.
        retries: attempts allowed after the first.
        checks: how many checks the task has.
        retry_lost: whether an attempt whose fate is unknown may be tried again.
        now: the present monotonic instant.
        rand: a random number from 0 to below 1.
        same_boot: whether the task's monotonic instants are of the present boot.
        wall: the present wall-clock instant, with which instants that servers told are compared.
        account: the account of the task's agent, as folded.
        may_ask: whether a person is there to see to an account.
    """
    match task.state:
        case Ended(outcome=outcome, cause=cause):
            return Finish(outcome, cause)
        case BackingOff() as state:
            # The monotonic clock starts with the boot. A back-off of an earlier boot began before instant 0,
            # so at *delay* it is over for certain, and asking again always comes to an end.
            until = state.since_mono + state.delay if same_boot else state.delay
            return StartAgent(task.attempts + 1, next_thread(task)) if now >= until else BackOff(until)
        case _:
            rules = _Rules(policy, retries, checks, retry_lost, now, rand, wall, account, may_ask)
            counted = [session for session in _counted(task, sessions) if session.kind is not SessionKind.HOOK]
            counted = count_for(task, counted)
            return _after(task, counted, rules) if counted else StartAgent(task.attempts + 1, next_thread(task))


def decide_deadline(deadline: float, session: SessionView | None) -> float:
    """When a session's time is over: the time it waits for people is not its own.

    Args:
        deadline: the monotonic instant, as if it never waited.
        session: the session as folded; None before its start is recorded.
    """
    if session is None:
        return deadline
    return float("inf") if session.waiting_since_mono is not None else deadline + session.waited


def _counted(task: TaskView, sessions: Mapping[str, SessionView]) -> list[SessionView]:
    return [sessions[session_id] for session_id in task.sessions[task.epoch :]]


def _after(task: TaskView, counted: list[SessionView], rules: _Rules) -> Step:
    """Decide what follows the newest session."""
    newest = counted[-1]
    if newest.state.live:
        return Supervise(newest.id)
    # 1. A fate that is unknown stays unknown, stop or no stop.
    if newest.state is SessionState.LOST:
        return _after_loss(task, newest, rules)
    # 2. A person has its conversation, or is to have it.
    if newest.kind is SessionKind.AGENT and newest.stop_reason in TURN_ENDS:
        match decide_handover(task, counted):
            case Thread() as thread:
                return StartAgent(newest.attempt, thread)
            case HandedBack() as event:
                return GiveBack(event)
            case Done(who=who):
                return _passed(newest, rules, f"{who} said that it is done" if who else "done, as was said")
    # 3. A stop explains whatever came of the session. The fold takes none that came after the end.
    if newest.stop_reason is not None and newest.stop_reason not in _FOR_A_PERSON:
        return _after_stop(task, counted, newest.stop_reason, rules)
    match newest.state:
        # 4. Nothing ran, so nothing was tried: the same once more.
        case SessionState.NEVER_STARTED if newest.check is not None:
            return StartCheck(newest.attempt, newest.check)
        case SessionState.NEVER_STARTED:
            return StartAgent(newest.attempt, _thread_again(task))
        # 5. It could not be started: an attempt like any other.
        case SessionState.START_FAILED:
            return _failed(task, Outcome.FAILED, _start_cause(task, newest), 0.0, rules)
        # 6. It ended by itself: its exit status counts.
        case _:
            return _after_exit(task, counted, rules)


def _thread_again(task: TaskView) -> Thread | None:
    """What an attempt goes on with that has not begun, whoever is to have it at the end of its first turn."""
    held = task.takeover
    return next_thread(attrs.evolve(task, takeover=None) if held is not None and held.back is None else task)


def _after_loss(task: TaskView, lost: SessionView, rules: _Rules) -> Step:
    cause = Cause(CauseKind.LOST, f"{_subject(task, lost)}lost: {lost.reason}", lost.id, tail=lost.tail)
    # Even where losses are tried again: not what was to end for good, and not what may still be there,
    # since it was killed and nobody saw it go.
    over = lost.stop_reason in _ENDED_BY_STOP or lost.stop_reason in (StopReason.UNANSWERED, StopReason.BUDGET)
    if not rules.retry_lost or over or lost.killed:
        return Finish(Outcome.LOST, cause)
    # How long it ran is as unknown as how it ended, so the loss never counts as a quiet period.
    return _failed(task, Outcome.LOST, cause, 0.0, rules)


def _after_stop(task: TaskView, counted: list[SessionView], reason: StopReason, rules: _Rules) -> Step:
    stopped = counted[-1]
    match reason:
        case StopReason.INTERRUPTED:
            # Exit 0 is no exception: many agents answer a signal by leaving politely with their work half done,
            # and whether this one had finished by itself just before the signal cannot be known. Doing the work
            # twice is what the next supervisor expects of a task that was interrupted; skipping half of it is not.
            return PutBack("interrupted")
        case StopReason.TIMEOUT:
            if stopped.state is SessionState.START_FAILED:
                return _failed(task, Outcome.FAILED, _start_cause(task, stopped), 0.0, rules)
            # Exit 0 does not make up for it: the limit had passed before the stop was committed.
            message = f"{_subject(task, stopped)}timed out{_after_how_long(task, stopped)}"
            cause = _cause(CauseKind.TIMEOUT, message, stopped)
            return _failed(task, Outcome.TIMED_OUT, cause, _ran_for(counted), rules)
        case StopReason.SETTLED:
            # It was done before it was sent away: what it said counts.
            return _after_exit(task, counted, rules)
        case StopReason.UNANSWERED:
            # Not tried again: it would only ask once more, and nobody is there.
            message = f"{_subject(task, stopped)}stopped because nobody answered what it asked"
            return Finish(Outcome.TIMED_OUT, _cause(CauseKind.UNANSWERED, message, stopped))
        case StopReason.UNDELIVERED:
            message = f"its prompt could not be typed: {stopped.delivery_reason}"
            cause = _cause(CauseKind.UNDELIVERED, message, stopped)
            return _failed(task, Outcome.FAILED, cause, _ran_for(counted), rules)
        case StopReason.BUDGET:
            # What it has done stays where it did it; trying again would spend more.
            return Finish(Outcome.FAILED, _cause(CauseKind.BUDGET, "stopped because its budget was spent", stopped))
        case _:
            kind, message = _ENDED_BY_STOP[reason]
            return Finish(Outcome.CANCELLED, _cause(kind, message, stopped))


def _after_exit(task: TaskView, counted: list[SessionView], rules: _Rules) -> Step:
    ended = counted[-1]
    status = ended.exit or UNKNOWN_EXIT
    said = ended.conclusion
    if said is not None:
        # The program's own word decides; exit 0 proves nothing.
        if said.outcome is not Outcome.SUCCEEDED:
            failure = said.failure or Failure(FailureKind.UNKNOWN, "")
            return _after_failure(task, counted, failure, rules)
    elif not status.succeeded:
        kind = CauseKind.EXIT if ended.check is None else CauseKind.CHECK
        cause = _cause(kind, f"{_subject(task, ended)}{status}", ended)
        return _failed(task, Outcome.FAILED, cause, _ran_for(counted), rules)
    return _passed(ended, rules, "exit 0" if status.succeeded else f"done, then {status}")


def _passed(ended: SessionView, rules: _Rules, how: str) -> Step:
    """Decide what follows a session that has succeeded."""
    following = 0 if ended.check is None else ended.check + 1
    if following < rules.checks:
        return StartCheck(ended.attempt, following)
    passed = {0: "", 1: ", 1 check passed"}.get(rules.checks, f", {rules.checks} checks passed")
    return Finish(Outcome.SUCCEEDED, _cause(CauseKind.DONE, f"{how}{passed}", ended))


_TOLD_BY_EXIT = frozenset({FailureKind.UNKNOWN, FailureKind.CRASH, FailureKind.KILLED, FailureKind.TIMED_OUT})
"""Failures of which the exit status says as much as the program."""
_PATIENCE = 4
"""How often a failure that may pass by itself is waited out at least, also where nothing is tried again."""
_LEAST_PARKED = 5.0
"""Seconds an account is parked at least, doubled each time in a row: a reset that was told may be over already."""
_LONGEST_LEAST = 600.0


def _after_failure(task: TaskView, counted: list[SessionView], failure: Failure, rules: _Rules) -> Step:
    """Decide what follows an attempt whose program was not done, by its own word."""
    ended = counted[-1]
    cause = _failure_cause(ended, failure)
    streak = rules.account.streak if rules.account is not None else 0
    # An account's failures in a row are anybody's; what may pass by itself is counted by those who wait for it.
    alike = streak if failure.kind in _OF_ACCOUNTS else len(task.failures)
    way = decide_after_failure(failure, attempt=alike + 1, now=rules.wall)
    match way.step:
        case Way.PARK | Way.ASK if ended.account:
            if way.step is Way.ASK and not rules.may_ask:
                return Finish(Outcome.FAILED, attrs.evolve(cause, kind=CauseKind.ACCOUNT))
            return Park(_parked(ended, failure, way.wait if way.step is Way.PARK else None, rules), cause.message)
        case Way.RETRY:
            # A clock of its own: `retries` is for failures that are the task's.
            if len(task.failures) < max(rules.retries, _PATIENCE):
                delay = way.wait * (1.0 + rules.policy.jitter * rules.rand)
                return Retry(TaskRetryScheduled(task.run_id, task.spec.id, task.attempts, delay, cause))
            return Finish(Outcome.FAILED, cause)
        case Way.GIVE_UP:
            tried = f"{cause.message}; not tried again: {way.reason}" if rules.retries > 0 else cause.message
            return Finish(Outcome.FAILED, attrs.evolve(cause, message=tried))
        case _:
            return _failed(task, Outcome.FAILED, cause, _ran_for(counted), rules)


_OF_ACCOUNTS = frozenset({FailureKind.AUTH, FailureKind.QUOTA, FailureKind.RATE_LIMIT})


def _failure_cause(ended: SessionView, failure: Failure) -> Cause:
    """What a program said of its failure, and how it exited, in the words that say most."""
    status, kind, words = ended.exit or UNKNOWN_EXIT, failure.kind, failure.message
    by_exit = not status.succeeded and kind in _TOLD_BY_EXIT
    if by_exit:
        for told in (f"exited {status.code}", str(status), str(status).replace("killed by", "ended by")):
            words = words.removeprefix(told).lstrip(": ")
        message = f"{status}: {words}" if words else str(status)
    else:
        said = [*([] if kind is FailureKind.UNKNOWN and words else [kind.value]), *([words] if words else [])]
        message = f"{': '.join(said)} ({status})"
    cause = _cause(CauseKind.EXIT if by_exit else CauseKind.AGENT, message, ended)
    return attrs.evolve(cause, failure=kind)


def _parked(session: SessionView, failure: Failure, wait: float | None, rules: _Rules) -> AccountParked:
    until = None
    if wait is not None:
        streak = rules.account.streak if rules.account is not None else 0
        least = min(_LEAST_PARKED * 2.0 ** min(streak, 30), _LONGEST_LEAST)
        # Never before the instant that was told, and not all at it: other machines wait for the same one.
        until = rules.wall + max(wait, least) + rules.rand * min(30.0, 0.05 * wait)
    return AccountParked(session.account, failure.kind, failure.message, until, session.id)


def _failed(task: TaskView, outcome: Outcome, cause: Cause, ran_for: float, rules: _Rules) -> Step:
    """Decide what follows an attempt that did not succeed."""
    verdict = decide_restart(
        rules.policy,
        retries=rules.retries,
        failures=task.failures,
        ran_for=ran_for,
        now=rules.now,
        rand=rules.rand,
    )
    if verdict.again:
        return Retry(TaskRetryScheduled(task.run_id, task.spec.id, task.attempts, verdict.delay, cause))
    if rules.retries > 0:
        cause = attrs.evolve(cause, message=f"{cause.message} ({verdict.reason})")
    return Finish(outcome, cause)


# --- causes -----------------------------------------------------------------------


def _cause(kind: CauseKind, message: str, session: SessionView) -> Cause:
    return Cause(kind, message, session_id=session.id, exit=session.exit, tail=session.tail)


def _start_cause(task: TaskView, session: SessionView) -> Cause:
    return _cause(CauseKind.START, f"{_subject(task, session)}could not be started: {session.reason}", session)


def _subject(task: TaskView, session: SessionView) -> str:
    """The words that lead a message about a check; nothing for the program itself."""
    if session.check is None:
        return ""
    commands = [check.command for check in task.spec.checks]
    lines = commands[session.check].strip().splitlines() if session.check < len(commands) else []
    first = lines[0] if lines else ""
    shown = first if len(lines) <= 1 and len(first) <= 60 else f"{first[:57]}..."
    return f"check {session.check + 1} ({shown}): " if shown else f"check {session.check + 1}: "


def _ran_for(counted: list[SessionView]) -> float:
    """Seconds the newest attempt's program ran; a check's time is not the program's."""
    for session in reversed(counted):
        if session.kind is SessionKind.AGENT and session.attempt == counted[-1].attempt:
            return _elapsed(session.started_mono, session.ended_mono)
    return 0.0


def _elapsed(start: float | None, end: float | None) -> float:
    # Instants of two boots cannot be subtracted; where that shows, the time is taken as none.
    return max(0.0, end - start) if start is not None and end is not None else 0.0


def _after_how_long(task: TaskView, stopped: SessionView) -> str:
    """The limit as the plan says it; where the plan says none, how long it ran."""
    limit = task.spec.timeout
    if stopped.check is not None and stopped.check < len(task.spec.checks):
        own = task.spec.checks[stopped.check].timeout
        limit = own if own is not None else limit
    if limit is not None:
        return f" after its limit of {render_duration(limit)}"
    if stopped.started_mono is None:
        return ""
    ran = max(0.0, _elapsed(stopped.started_mono, stopped.stop_mono) - stopped.waited)
    return f" after {f'{ran:.1f}s' if ran < 10 else render_duration(round(ran))}"
