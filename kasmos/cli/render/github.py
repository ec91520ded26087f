"""Plain lines for GitHub Actions: failed output in groups, failures as annotations, commands of agents defused.

The runner obeys lines that begin with `::` and, of old, `##[` anywhere in a line. What an agent wrote is
printed only while commands are stopped by a token that it cannot know.
See https://docs.github.com/actions/reference/workflow-commands-for-github-actions.
"""

from __future__ import annotations

import os.path
import secrets
from collections.abc import Callable

from kasmos.cli.render import facts
from kasmos.cli.render.plain import TAIL_LINES, PlainLines
from kasmos.cli.render.text import Look, clean
from kasmos.cli.render.writer import Writer
from kasmos.model.view import RunView, TaskView, World


class GitHubLines(PlainLines):
    """See `View`.

    Args:
        workspace: where the repository lies: annotations point into the plan if it is in there.
        new_token: gives words that nobody can guess.
    """

    def __init__(
        self,
        writer: Writer,
        look: Look,
        *,
        workspace: str = "",
        new_token: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        super().__init__(writer, look)
        self._workspace = workspace
        self._new_token = new_token

    def neutral(self, line: str) -> str:
        if line.lstrip().startswith("::"):
            line = f": {line.lstrip()[1:]}"
        return line.replace("##[", "## [")

    def _failed(self, world: World, run: RunView, task: TaskView) -> None:
        lines = facts.tail_lines(world, task, TAIL_LINES)
        if lines:
            token = self._new_token()
            title = _data(self.neutral(f"last output of {task.spec.name}"))
            text = "".join(f"{line}\n" for line in lines)
            self._writer.out(f"::group::{title}\n::stop-commands::{token}\n{text}::{token}::\n::endgroup::\n")
        self._writer.out(self._annotation(run, task))

    def _annotation(self, run: RunView, task: TaskView) -> str:
        cause = facts.cause_of(task)
        properties = {"title": self.neutral(f"Task {facts.task_label(task)}"), **self._place(run, task)}
        listed = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
        message = clean(cause.message) if cause is not None else ""
        return f"::error {listed}::{_data(self.neutral(message))}\n"

    def _place(self, run: RunView, task: TaskView) -> dict[str, str]:
        if not self._workspace or not task.spec.line or not os.path.isabs(run.source):
            return {}
        path = os.path.relpath(run.source, os.path.realpath(self._workspace))
        return (
            {} if path == os.pardir or path.startswith(f"{os.pardir}/") else {"file": path, "line": str(task.spec.line)}
        )


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
