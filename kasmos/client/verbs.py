"""The verbs of a supervisor: what can be asked of it, typed. How it is asked is the client's."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from kasmos.client.results import Agent, Page, Run, RunDetail, Session, Submission, Task
from kasmos.exceptions import ClientError
from kasmos.model.codec import CodecError, decode

T = TypeVar("T")


class Verbs:
    """What can be asked; made by `connect`.

    Raises:
        ClientError: in every method: it could not be reached, or broke off its answer.
        RequestError: in every method: it refused.
    """

    async def ask(self, path: str) -> bytes:
        """Ask; the answer's body."""
        raise NotImplementedError

    async def tell(
        self, path: str, body: Mapping[str, Any] | None = None, *, key: str | None = None, patient: bool = False
    ) -> bytes:
        """Command; the answer's body. With *patient*, as often as it takes to get one."""
        raise NotImplementedError

    # --- tasks ------------------------------------------------------------------------

    async def submit(
        self,
        prompt: str,
        *,
        agent: str | None = None,
        model: str | None = None,
        context: Mapping[str, Any] | None = None,
        context_in_prompt: bool = False,
        workdir: str | None = None,
        timeout: float | str | None = None,
        retries: int | None = None,
        checks: Sequence[str | Mapping[str, Any]] = (),
        env: Mapping[str, str] | None = None,
        needs: Sequence[str] = (),
        name: str | None = None,
        key: str | None = None,
    ) -> Submission:
        """Hand in one task; it is accepted once, even if the answer is lost and it has to be asked again.

        Args:
            key: with the same key, the same request is given the same task; without one, each call is a task.

        Cancellation: the task may have been accepted.
        """
        said = {
            "prompt": prompt,
            "agent": agent,
            "model": model,
            "context": context,
            "context_in_prompt": context_in_prompt or None,
            "workdir": workdir,
            "timeout": timeout,
            "retries": retries,
            "checks": list(checks) or None,
            "env": env,
            "needs": list(needs) or None,
            "name": name,
        }
        body = {field: value for field, value in said.items() if value is not None}
        return _read(await self.tell("/v1/tasks", body, key=key or secrets.token_hex(16), patient=True), Submission)

    async def task(self, name: str) -> Task:
        """The task that is called so."""
        return _read(await self.ask(f"/v1/tasks/{_part(name)}"), Task)

    async def tasks(
        self, *, run: str | None = None, status: str | None = None, agent: str | None = None
    ) -> AsyncIterator[Task]:
        """Tasks, newest run first; all of them, page by page."""
        cursor: str | None = None
        while True:
            page = _read(await self.ask(_with("/v1/tasks", run=run, status=status, agent=agent, cursor=cursor)), Page)
            for task in page.tasks:
                yield task
            cursor = page.next_cursor
            if cursor is None:
                return

    async def cancel_task(self, name: str) -> Task:
        """Stop a task for good."""
        return _read(await self.tell(f"/v1/tasks/{_part(name)}/cancel"), Task)

    async def retry_task(self, name: str) -> Task:
        """Try a task again."""
        return _read(await self.tell(f"/v1/tasks/{_part(name)}/retry"), Task)

    async def attach_task(self, name: str, *, now: bool = False, check: bool = False) -> Task:
        """Have a headless task's conversation opened in a terminal when its turn has ended; the task as it is then.

        Args:
            name: the task.
            now: its turn is interrupted for it.
            check: only ask whether it may be.
        """
        body = {"now": now, "check": check}
        return _read(await self.tell(f"/v1/tasks/{_part(name)}/attach", body), Task)

    async def detach_task(self, name: str, prompt: str = "", *, done: bool = False, now: bool = False) -> Task:
        """Let a conversation that was taken over go on headless.

        Args:
            name: the task.
            prompt: what its program is told then; empty is that it should go on.
            done: nothing is left to be done; its checks decide.
            now: a turn that is under way in the terminal is not waited for.
        """
        body = {"prompt": prompt, "done": done, "now": now}
        return _read(await self.tell(f"/v1/tasks/{_part(name)}/detach", body), Task)

    # --- runs -------------------------------------------------------------------------

    async def run(self, name: str) -> RunDetail:
        """One run with its tasks."""
        return _read(await self.ask(f"/v1/runs/{_part(name)}"), RunDetail)

    async def runs(self) -> AsyncIterator[Run]:
        """Runs of plans, newest first; all of them, page by page."""
        cursor: str | None = None
        while True:
            page = _read(await self.ask(_with("/v1/runs", cursor=cursor)), Page)
            for run in page.runs:
                yield run
            cursor = page.next_cursor
            if cursor is None:
                return

    async def advance(self, name: str) -> Run:
        """Let a parked run go on."""
        return _read(await self.tell(f"/v1/runs/{_part(name)}/advance"), Run)

    async def continue_run(self, name: str) -> Run:
        """Take up a run that was interrupted."""
        return _read(await self.tell(f"/v1/runs/{_part(name)}/continue"), Run)

    async def cancel_run(self, name: str, reason: str = "cancelled by a client") -> Run:
        """End a run for good."""
        return _read(await self.tell(f"/v1/runs/{_part(name)}/cancel", {"reason": reason}), Run)

    async def retry_run(self, name: str, tasks: Sequence[str] = ()) -> Run:
        """Try tasks of a run again; none named means all that did not succeed."""
        return _read(await self.tell(f"/v1/runs/{_part(name)}/retry", {"tasks": list(tasks)}), Run)

    # --- sessions, agents ---------------------------------------------------------------

    async def session(self, name: str) -> Session:
        """The session that is called so."""
        return _read(await self.ask(f"/v1/sessions/{_part(name)}"), Session)

    async def live_sessions(self) -> tuple[Session, ...]:
        """Sessions that have not ended, newest first."""
        return _read(await self.ask("/v1/sessions?live=true&limit=1000"), Page).sessions

    async def stop_session(self, name: str) -> Session:
        """Stop a session, politely and then firmly."""
        return _read(await self.tell(f"/v1/sessions/{_part(name)}/stop"), Session)

    async def send_input(self, name: str, text: str, *, enter: bool = True) -> None:
        """Type a text into a session with a terminal."""
        await self.tell(f"/v1/sessions/{_part(name)}/input", {"text": text, "enter": enter})

    async def send_keys(self, name: str, keys: str) -> None:
        """Type keys into a session with a terminal."""
        await self.tell(f"/v1/sessions/{_part(name)}/keys", {"keys": keys})

    async def agents(self) -> tuple[Agent, ...]:
        """Agent profiles, and whether they can be used."""
        return _read(await self.ask("/v1/agents"), Page).agents


def _read(data: bytes, kind: type[T]) -> T:
    try:
        return decode(data, kind)
    except CodecError as error:
        raise ClientError(f"the supervisor's answer cannot be read: {error}") from error


def _part(name: str) -> str:
    return quote(name, safe="")


def _with(path: str, **query: str | None) -> str:
    said = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(said)}" if said else path
