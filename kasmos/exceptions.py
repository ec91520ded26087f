"""Every error kasmos raises on purpose, told apart by whose fault it is.

    KasmosError
    ├── ConfigError               the configuration is wrong (every mistake at once)
    ├── PlanError                 the plan document is wrong (every mistake at once)
    ├── SessionError
    │   ├── SessionStartError     the program could not be started; nothing is left behind
    │   │   └── NoRoomError       the disk had no room for it
    │   ├── SessionClosedError    the session has ended or its scope was left
    │   ├── SessionBusyError      somebody else is using the session's input
    │   ├── DeliveryError         a text was typed, or was to be, and was not seen to be taken
    │   ├── SessionLostError      the session's fate can no longer be learnt
    │   ├── StaleApprovalError    what is answered is not asked any more
    │   └── InteractiveOnlyError  this backend has no terminal (alias ErrInteractiveOnly)
    ├── BackendUnavailableError   the backend cannot run on this machine, or not yet
    ├── SupervisionError          the supervisor refuses: the request does not fit the present state
    ├── StoreError
    │   ├── StateLockedError      another supervisor owns the state root
    │   └── JournalCorruptError   the journal cannot be read and was kept aside untouched
    ├── RequestError              a request to the API was refused (HTTP status and stable code)
    └── ClientError               the supervisor could not be reached or did not answer

`KasmosInternalError` (we have a bug) is deliberately outside the family, so that a
broad ``except KasmosError`` cannot swallow it.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs


@attrs.frozen
class Mistake:
    """One thing that is wrong in a document, where it is, and what would be right."""

    place: str
    """Where: ``FILE: key.path`` or ``FILE:LINE``."""
    problem: str
    """What is wrong, without a final full stop."""
    cure: str = ""
    """What would be right; empty when the problem says it already."""

    def __str__(self) -> str:
        text = f"{self.place}: {self.problem}"
        return f"{text} ({self.cure})" if self.cure else text


class KasmosError(Exception):
    """The family of every error kasmos raises on purpose."""


class _MistakesError(KasmosError):
    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        """Every mistake that was found, in document order."""
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))


class ConfigError(_MistakesError):
    """The configuration is wrong; carries every mistake, not the first."""


class PlanError(_MistakesError):
    """The plan document is wrong; carries every mistake, not the first."""

    def __init__(self, mistakes: Iterable[Mistake], warnings: Iterable[Mistake] = ()) -> None:
        super().__init__(mistakes)
        self.warnings = tuple(warnings)
        """What is doubtful beside them: often why there are mistakes."""


class SessionError(KasmosError):
    """A session could not do what was asked of it."""


class SessionStartError(SessionError):
    """The program could not be started. Nothing is left behind."""


class NoRoomError(SessionStartError):
    """The disk had no room for what a session needs. Nothing ran, and nothing is left behind."""


class SessionClosedError(SessionError):
    """The session has ended, or the scope that owned it was left."""


class SessionBusyError(SessionError):
    """Somebody else holds the session's input at the moment."""


class DeliveryError(SessionError):
    """A text that was to be typed was not seen to be taken; it is not typed a second time."""

    def __init__(self, reason: str, screen: str = "") -> None:
        self.reason = reason
        """Why, in one sentence."""
        self.screen = screen
        """What the terminal showed last."""
        super().__init__(f"{reason}; its screen:\n{screen}" if screen else reason)


class SessionLostError(SessionError):
    """The session's fate can no longer be learnt: neither alive nor recorded."""


class StaleApprovalError(SessionError):
    """What is answered is not asked any more: the answer was not given."""


class InteractiveOnlyError(SessionError):
    """The verb needs a terminal and this backend has none."""


ErrInteractiveOnly = InteractiveOnlyError


class BackendUnavailableError(KasmosError):
    """The backend cannot run on this machine; the message says what is missing."""


class SupervisionError(KasmosError):
    """The request does not fit the present state; the message says which would."""


class StoreError(KasmosError):
    """The state root could not be used."""


class StateLockedError(StoreError):
    """Another supervisor owns the state root."""


class JournalCorruptError(StoreError):
    """The journal cannot be read. The damaged file is kept, never overwritten."""


class RequestError(KasmosError):
    """A request to the API was refused."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        mistakes: Iterable[Mistake] = (),
        *,
        retry_after: int | None = None,
    ) -> None:
        self.status = status
        """The HTTP status."""
        self.code = code
        """A stable machine-readable word, such as ``unknown_run``."""
        self.detail = detail
        """One sentence for a person."""
        self.mistakes = tuple(mistakes)
        """Every mistake in the body, when the body was wrong."""
        self.retry_after = retry_after
        """Whole seconds after which it may be otherwise; None where nothing special is known."""
        super().__init__(detail)


class ClientError(KasmosError):
    """The supervisor could not be reached, or broke off its answer."""


class KasmosInternalError(Exception):
    """We have a bug. Please report it with the text of this error."""
