"""The real programs in tmux: typed into, understood by their screens, and over when their turn is."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable

import pytest

from kasmos.model import event as ev
from kasmos.model.approval import AskKind
from kasmos.model.session import StopReason
from kasmos.model.task import Outcome

from ..faults.oracle import Running
from .conftest import LIMIT, Workshop, command_lines, marked
from .interactive import SEATS

PATIENCE = 2 * LIMIT
DIALOGS = {
    ("claude", "trust"): "1",
    ("claude", "api-key"): "1",
    ("codex", "trust"): "Enter",  # its number does nothing here
    ("codex", "new-model"): "2",
}
"""What a person presses at the dialogs of a first start, by program and the rule that sees it."""
WHY = "nothing on Fridays"
TREE = "sleep {0}1 & (sleep {0}2 & sleep {0}3) ; wait"


class Person:
    """Sees to the dialogs that stand before a program's first prompt, as `kas status` asks for."""

    def __init__(self, shop: Workshop) -> None:
        self.shop = shop
        self.pressed: list[tuple[str, str]] = []
        """Agent and rule of every dialog that was answered."""

    def look(self) -> None:
        """Answer whatever dialog stands on a screen at present."""
        for session in list(self.shop.world().sessions.values()):
            if not session.state.live or session.screen != "dialog":
                continue
            shown = self.shop.kas("explain", session.name, "--json", timeout=LIMIT)
            rule = json.loads(shown.stdout)["rule"] if shown.code == 0 else ""
            dialog = (session.profile, rule)
            if dialog in DIALOGS and self.shop.presses(session.id, rule):
                assert self.shop.kas("keys", session.name, DIALOGS[dialog], timeout=LIMIT).code == 0
                self.pressed.append(dialog)

    def wait(self, holds: Callable[[], object], kas: Running) -> None:
        """Wait until something holds, and see to dialogs meanwhile."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert kas.process.poll() is None or holds(), f"kas ended:\n{kas.text()}"
            assert time.monotonic() < deadline, f"waited in vain:\n{kas.text()}\n{self.shop.screens()}"
            if self.shop.root.db.exists():
                self.look()
            time.sleep(0.1)

    def see_through(self, kas: Running) -> int:
        """Stay until the command has ended; its exit status."""
        self.wait(lambda: kas.process.poll() is not None, kas)
        return kas.wait()


@pytest.fixture
def person(shop: Workshop) -> Person:
    """Somebody who looks at the screens."""
    return Person(shop)


def waiting(shop: Workshop) -> list[ev.ApprovalRequested]:
    """What has been asked so far."""
    return [event for event in shop.told(ev.ApprovalRequested) if isinstance(event, ev.ApprovalRequested)]


def test_plan(shop: Workshop, person: Person) -> None:
    """A plan with a task for each program in tmux: each is typed its prompt, edits its file, and is seen to be done."""
    shop.seat(*SEATS, orchestration="max_concurrent = 2")
    tasks = {}
    for name in SEATS:
        path = shop.kas.cwd / f"{name}.txt"
        path.write_text("hello\nworld\n")
        tasks[name] = f"read {path} ;; edit {path} world {name} ;; say done"
    tasks["aider"] = "edit f.txt world aider"  # it takes edits from the text, of files that git knows
    shop.write_tasks(tasks)
    with shop.start() as kas:
        assert person.see_through(kas) == 0, f"{kas.text()}\n{shop.screens()}"
    for name in SEATS:
        file = "f.txt" if name == "aider" else f"{name}.txt"
        assert (shop.kas.cwd / file).read_text() == f"hello\n{name}\n"
        # The prompt arrived as it was written.
        assert {entry["error"] for entry in shop.asked(name)} == {""}
    delivered = shop.told(ev.PromptDelivered)
    assert [event.verified for event in delivered if isinstance(event, ev.PromptDelivered)] == [True] * len(SEATS)
    assert [type(event) for event in shop.told(ev.DeliveryFailed)] == []
    assert {session.stop_reason for session in shop.world().sessions.values()} == {StopReason.SETTLED}
    assert {task.outcome for task in shop.only_run().tasks.values()} == {Outcome.SUCCEEDED}


def told_why(shop: Workshop, name: str) -> int:
    """How often the last request of a program tells its model why a person said no."""
    return json.dumps(shop.model.body(shop.asked(name)[-1]["n"])).count(WHY)


@pytest.mark.parametrize("name", ["claude", "codex", "opencode", "gemini", "qwen"])
def test_approved_and_denied(shop: Workshop, person: Person, name: str) -> None:
    """At a program's own dialog, `kas approve` has its tool done, `kas deny` has it not done and its model told why."""
    shop.seat(name, may="nothing")
    path = shop.kas.cwd / "f.txt"
    if name == "codex":  # it asks for what its sandbox does not allow
        steps = f"edit {path} world kasmos ;; edit {path} kasmos denied"
    else:
        steps = "run touch approved.txt ;; run touch denied.txt"
    shop.write_tasks({name: f"{steps} ;; say done"})
    with shop.start() as kas:
        person.wait(lambda: len(waiting(shop)) >= 1, kas)
        first = waiting(shop)[0]
        assert first.ask.kind is AskKind.PERMISSION
        assert first.ask.exact
        assert first.ask.command == "touch approved.txt" or first.ask.path.endswith("f.txt")
        assert path.read_text() == "hello\nworld\n"
        assert shop.kas("approve", first.approval_id, timeout=LIMIT).code == 0
        person.wait(lambda: len(waiting(shop)) >= 2, kas)
        # gemini forgets what it was refused, and would ask for it once more.
        reason = ("--reason", WHY) if name != "gemini" else ()
        assert shop.kas("deny", waiting(shop)[1].approval_id, *reason, timeout=LIMIT).code == 0
        person.see_through(kas)
    assert shop.told(ev.ApprovalWithdrawn) == []
    assert shop.told(ev.DeliveryFailed) == [], shop.screens()
    assert told_why(shop, name) == len(reason[1:]), shop.screens()
    assert (shop.kas.cwd / "approved.txt").exists() or path.read_text() == "hello\nkasmos\n"
    assert not (shop.kas.cwd / "denied.txt").exists()
    assert "denied" not in path.read_text()


def test_told_why_once_more(shop: Workshop, person: Person) -> None:
    """gemini forgets what it was refused, and its model goes on with the same; the reason has reached it."""
    shop.seat("gemini", may="nothing")
    shop.write_tasks({"gemini": "run touch denied.txt ;; say done"})
    with shop.start() as kas:
        person.wait(lambda: waiting(shop), kas)
        answered = shop.kas("deny", waiting(shop)[0].approval_id, "--reason", WHY, timeout=LIMIT)
        assert "typed into its input" in answered.stdout, answered.stderr
        person.wait(lambda: len(shop.asked("gemini")) > 1, kas)
        kas.signal(signal.SIGTERM)
        assert kas.wait() == 128 + signal.SIGTERM
    assert shop.told(ev.DeliveryFailed) == [], shop.screens()
    assert not (shop.kas.cwd / "denied.txt").exists()
    assert told_why(shop, "gemini") == 1


def test_picker_over_the_input(shop: Workshop, person: Person) -> None:
    """Nothing is typed into a picker that a person has opened over OpenCode's input; closed, the turn goes on."""
    gate = shop.conversation("opencode")
    shop.seat("opencode")
    shop.write_tasks({"opencode": f"hold {gate} Begun. ;; say done"})
    with shop.start() as kas:
        person.wait(lambda: shop.asked("opencode"), kas)
        name = shop.session().name
        person.wait(lambda: shop.session().screen == "working", kas)
        assert shop.kas("keys", name, "C-p", timeout=LIMIT).code == 0
        person.wait(lambda: shop.session().screen == "dialog", kas)
        sent = shop.kas("send", name, "and then rest", timeout=LIMIT)
        assert sent.code, sent.stdout
        assert "nothing was typed" in sent.stderr
        assert shop.kas("keys", name, "Escape", timeout=LIMIT).code == 0
        person.wait(lambda: shop.session().screen == "working", kas)
        shop.model.open_gate(gate)
        assert person.see_through(kas) == 0
    assert shop.outcome() is Outcome.SUCCEEDED


@pytest.mark.parametrize("name", ["claude", "codex"])
def test_first_start(shop: Workshop, person: Person, name: str) -> None:
    """The dialogs of a first start are for a person; the prompt waits until they are gone."""
    shop.seat(name, known=False)
    shop.write_tasks({name: "say done"})
    with shop.start() as kas:
        assert person.see_through(kas) == 0, f"{kas.text()}\n{shop.screens()}"
    assert (name, "trust") in person.pressed
    notes = [event.note for event in shop.told(ev.ScreenSeen) if isinstance(event, ev.ScreenSeen)]
    assert any("a dialog stands before its input" in note for note in notes)
    kinds = [record.event for record in shop.records() if isinstance(record.event, ev.PromptDelivering | ev.ScreenSeen)]
    typed_at = next(at for at, event in enumerate(kinds) if isinstance(event, ev.PromptDelivering))
    dialogs = [at for at, event in enumerate(kinds) if isinstance(event, ev.ScreenSeen) and event.screen == "dialog"]
    assert max(dialogs) < typed_at
    assert len(shop.asked(name)) == 1, shop.asked(name)


@pytest.mark.parametrize("name", ["claude", "codex"])
def test_adopted_in_mid_turn(shop: Workshop, person: Person, name: str) -> None:
    """After `kill -9` of the supervisor in mid-turn, its successor sees the same program to the end of that turn."""
    gate = shop.conversation(name)
    shop.seat(name)
    shop.write_tasks({name: f"hold {gate} The answer is forty-two."})
    with shop.start() as kas:
        person.wait(lambda: shop.told(ev.PromptDelivered), kas)
        shop.model.requests(shop.conversation(name), at_least=1)
        before = shop.session()
        kas.kill()
    with shop.start() as kas:
        person.wait(lambda: shop.told(ev.SessionAdopted), kas)
        shop.model.open_gate(gate)
        assert person.see_through(kas) == 0, kas.text()
    assert shop.session_ids == [before.id]
    assert shop.session().pid == before.pid
    assert shop.outcome() is Outcome.SUCCEEDED
    assert len(shop.told(ev.PromptDelivering)) == 1
    assert len(shop.asked(name)) == 1, shop.asked(name)


@pytest.mark.parametrize("name", ["claude", "codex"])
def test_terminated_supervisor(shop: Workshop, person: Person, name: str) -> None:
    """SIGTERM to `kas run` leaves nothing of the tool tree of a program in tmux, nor of its terminal."""
    number = 10**7 + int.from_bytes(os.urandom(3))
    tree = [f"sleep {number}{n}" for n in (1, 2, 3)]
    shop.seat(name)
    shop.write_tasks({name: f"run {TREE.format(number)} ;; hang"})
    with shop.start() as kas:
        if name == "claude":
            person.wait(lambda: waiting(shop), kas)
            assert shop.kas("approve", waiting(shop)[0].approval_id, timeout=LIMIT).code == 0
        person.wait(lambda: len([line for line in command_lines() if line in tree]) == 3, kas)
        kas.signal(signal.SIGTERM)
        assert kas.wait() == 128 + signal.SIGTERM
    assert [line for line in command_lines() if line in tree] == []
    assert marked(shop.session_ids[0]) == {}
    assert not (shop.root.path / "tmux" / "sock").exists()
