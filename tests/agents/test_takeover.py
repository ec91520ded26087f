"""Real programs that a person sits down beside: headless, in a terminal, and headless again, in one conversation."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kasmos.client.sync import Supervisor
from kasmos.exceptions import RequestError
from kasmos.model import event as ev
from kasmos.model.task import Outcome
from kasmos.model.view import SessionState

from ..faults.oracle import Running
from .conftest import LIMIT, Workshop

NAMES = ("claude", "codex", "opencode", "gemini", "qwen")
SEEN_TO = {
    "codex": {"Trust this folder?": ["Enter"], "Use existing model": ["2"]},
    "gemini": {"Do you trust": ["Enter"]},
}
"""What each asks in a terminal before it takes a prompt, and the keys of the person who sits there."""


INPUT = "Type your message"
"""What stands in gemini's input."""


def settle_in(shop: Workshop, name: str) -> None:
    """What a person has long answered who uses the program in a terminal."""
    home = shop.place(name).home
    if name == "claude":
        project = {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
        known = {
            "hasCompletedOnboarding": True,
            "theme": "dark",
            "customApiKeyResponses": {"approved": ["sk-ant-mock"], "rejected": []},
            "projects": {str(shop.kas.cwd): project},
        }
        (home / "claude").mkdir(parents=True, exist_ok=True)
        (home / "claude" / ".claude.json").write_text(json.dumps(known))


def wait(holds: Callable[[], object], running: Running) -> None:
    """Wait until something holds that a big program takes its time for."""
    deadline = time.monotonic() + LIMIT
    while not holds():
        assert running.process.poll() is None, running.text()
        assert time.monotonic() < deadline, running.text()
        time.sleep(0.1)


def reach(shop: Workshop, running: Running) -> Supervisor:
    """The supervisor: it begins its work before it opens its door."""
    supervisor = Supervisor(shop.root.socket, timeout=LIMIT)
    wait(supervisor.alive, running)
    return supervisor


def told(supervisor: Supervisor, task: str) -> bool:
    """Whether the program has told its conversation, so that it may be taken over."""
    try:
        supervisor.post(f"/v1/tasks/{task}/attach", {"check": True})
    except RequestError as error:
        if error.code != "no_conversation":
            raise
        return False
    return True


def at_terminal(shop: Workshop, supervisor: Supervisor, name: str) -> bool:
    """Whether the program takes a prompt in its terminal; what it asks before is answered."""
    view = shop.session()
    if not view.attended or view.state is not SessionState.RUNNING:
        return False
    screen = supervisor.get(f"/v1/sessions/{view.id}/screen")
    shown = "\n".join(screen["lines"])
    for text, keys in SEEN_TO.get(name, {}).items():
        if text in shown and shop.presses(view.id, text):
            supervisor.post(f"/v1/sessions/{view.id}/keys", {"keys": keys})
            return False
    return bool(screen["state"] == "ready")


def shows(shop: Workshop, supervisor: Supervisor, *texts: str) -> bool:
    """Whether the terminal of a conversation that was taken over shows these texts."""
    view = shop.session()
    if not view.attended or view.state is not SessionState.RUNNING:
        return False
    shown = "\n".join(supervisor.get(f"/v1/sessions/{view.id}/screen")["lines"])
    return all(text in shown for text in texts)


def is_open(shop: Workshop, supervisor: Supervisor, name: str, text: str) -> bool:
    """Whether the terminal shows a text of the conversation; what is asked before is answered."""
    at_terminal(shop, supervisor, name)
    return shows(shop, supervisor, text)


def is_said(shop: Workshop, supervisor: Supervisor, name: str, text: str) -> bool:
    """Whether the program has taken a text in its terminal. It is refused, untyped, while something is in the way."""
    if not at_terminal(shop, supervisor, name):
        return False
    sent = shop.kas("send", shop.session().name, text, timeout=LIMIT)
    assert sent.code == 0 or "nothing was typed" in sent.stderr, sent.stderr
    return sent.code == 0


@pytest.mark.parametrize("name", NAMES)
def test_taken_over_and_handed_back(shop: Workshop, name: str) -> None:
    """What is said headless, typed in the terminal and said headless again is one conversation, and one attempt."""
    gate, typed, last = shop.conversation(name), shop.kas.cwd / "typed.txt", shop.kas.cwd / "last.txt"

    def steps(path: Path, text: str) -> str:
        return f"[[mock {gate}: write {path} '{text}' ;; say done]]"

    # Who is asked to end may take its time.
    shop.equip(name, may="anything" if name == "opencode" else "edits", keys='stop_grace = "1m"')
    settle_in(shop, name)
    shop.write_tasks({name: f"hold {gate} Begun."}, settings='checks = ["test -e typed.txt", "test -e last.txt"]')
    with shop.start() as kas:
        shop.model.requests(gate, at_least=1)
        supervisor, task = reach(shop, kas), f"{shop.only_run().id}.1"
        if name == "opencode":  # it tells nothing before its first step
            shop.model.open_gate(gate)
        wait(lambda: told(supervisor, task), kas)
        supervisor.post(f"/v1/tasks/{task}/attach")
        shop.model.open_gate(gate)
        if name == "gemini":
            # Its input is not recognised where it draws no colours: nothing is typed by us.
            # And while it takes the conversation up, it shows no input: who ends it then has it lose the conversation.
            wait(lambda: shows(shop, supervisor, "Begun.", INPUT), kas)
            typed.write_text("by hand")
        else:
            wait(lambda: is_said(shop, supervisor, name, steps(typed, "by hand")), kas)
        wait(typed.exists, kas)
        handed = shop.kas("detach", task, "--prompt", steps(last, "alone"))
        assert handed.code == 0, handed.stderr
        assert kas.wait() == 0, f"{kas.text()}\n{shop.output()}"
    assert shop.outcome() is Outcome.SUCCEEDED
    assert (typed.read_text().strip(), last.read_text().strip()) == ("by hand", "alone")
    sessions = [shop.world().sessions[one] for one in shop.session_ids]
    assert [(one.attended, one.attempt) for one in sessions] == [(False, 1), (True, 1), (False, 1)]
    assert len({one.conversation for one in sessions}) == 1
    assert not shop.told(ev.KillSent)


@pytest.mark.parametrize("name", ["claude", "codex", "gemini", "qwen"])
def test_one_that_asks_is_taken_over(shop: Workshop, name: str) -> None:
    """A conversation in which a headless program can ask is the same in its terminal, and headless again."""
    gate = shop.conversation(name)
    shop.equip(name, may="nothing")
    config = shop.kas.cwd / ".kasmos" / "config.toml"
    config.write_text(
        config.read_text().replace(f"[agents.{name}.env]", f'permission_default = "prompt"\n[agents.{name}.env]')
    )
    settle_in(shop, name)
    shop.write_tasks({name: f"hold {gate} Begun with."})
    with shop.start() as kas:
        shop.model.requests(gate, at_least=1)
        supervisor, task = reach(shop, kas), f"{shop.only_run().id}.1"
        wait(lambda: told(supervisor, task), kas)
        supervisor.post(f"/v1/tasks/{task}/attach")
        shop.model.open_gate(gate)
        wait(lambda: is_open(shop, supervisor, name, "Begun with."), kas)
        if name == "gemini":
            wait(lambda: shows(shop, supervisor, "Begun with.", INPUT), kas)
        assert shop.kas("detach", task, "--prompt", f"[[mock {gate}: say Ended.]]").code == 0
        assert kas.wait() == 0, f"{kas.text()}\n{shop.output()}"
    assert shop.outcome() is Outcome.SUCCEEDED
    sessions = [shop.world().sessions[one] for one in shop.session_ids]
    assert [one.attended for one in sessions] == [False, True, False]
    assert len({one.conversation for one in sessions}) == 1
