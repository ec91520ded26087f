"""The links by which people find logs are made behind the sessions' backs."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import trio

from kasmos.serve import links as links_module
from kasmos.serve.links import open_log_links
from kasmos.store.stateroot import StateRoot
from tests.faults.conftest import until
from tests.waiting import LIMIT


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the disk takes here at the end."""
    monkeypatch.setattr(links_module, "FINISH_TIMEOUT", LIMIT)


def root_at(path: Path) -> StateRoot:
    """A state root that is ready."""
    root = StateRoot(path / "root")
    root.prepare()
    return root


async def test_a_name_leads_to_its_newest_session(tmp_path: Path) -> None:
    """A link appears by itself, and leads to the newest session of its name, however fast they follow each other."""
    root = root_at(tmp_path)
    async with open_log_links(root, pytest.fail) as links:
        for session in ("s1", "s2", "s3"):
            links.point("coder", session)
        await until((root.logs / "coder.log").is_symlink)
        assert os.readlink(root.logs / "coder.log") == "../sessions/s3/output.log"
        links.point("coder", "s4")
        await until(lambda: os.readlink(root.logs / "coder.log") == "../sessions/s4/output.log")


async def test_what_is_wanted_at_the_end_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor that leaves at once has made the links of all its sessions, also when it is cancelled."""
    monkeypatch.setattr(links_module, "COMPANY_WAIT", float("inf"))
    root = root_at(tmp_path)
    with trio.CancelScope() as scope:
        async with open_log_links(root, pytest.fail) as links:
            links.point("coder", "s1")
            scope.cancel()
            await trio.sleep_forever()
    assert os.readlink(root.logs / "coder.log") == "../sessions/s1/output.log"


async def test_the_last_word_has_the_newest_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that is still being made in a thread when the supervisor leaves does not win over a newer one."""
    root = root_at(tmp_path)
    entered, go = threading.Event(), threading.Event()

    class Slow(StateRoot):
        def link_log(self, name: str, session_id: str) -> Path:
            if session_id == "s1":
                entered.set()
                assert go.wait(60)
            return super().link_log(name, session_id)

    async def release() -> None:
        go.set()

    async with trio.open_nursery() as nursery, open_log_links(Slow(root.path), pytest.fail) as links:
        links.point("coder", "s1")
        assert await trio.to_thread.run_sync(entered.wait, 60)
        links.point("coder", "s2")
        nursery.start_soon(release)
    assert os.readlink(root.logs / "coder.log") == "../sessions/s2/output.log"


async def test_a_disk_that_hangs_keeps_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor leaves although the disk does not answer, and says which links are not made."""
    monkeypatch.setattr(links_module, "FINISH_TIMEOUT", 0.1)
    root = root_at(tmp_path)
    go, done, said = threading.Event(), threading.Event(), list[str]()

    class Hung(StateRoot):
        def link_log(self, name: str, session_id: str) -> Path:
            assert go.wait(60)
            done.set()
            return super().link_log(name, session_id)

    try:
        with trio.fail_after(60):
            async with open_log_links(Hung(root.path), said.append) as links:
                links.point("coder", "s1")
        assert said == [f"links in {root.logs} are not made: its disk does not answer"]
    finally:
        go.set()
        assert await trio.to_thread.run_sync(done.wait, 60)


async def test_links_that_cannot_be_made_are_told(tmp_path: Path) -> None:
    """A link that cannot be made is told of, and those after it are made."""
    root = root_at(tmp_path)
    (root.logs / "coder.log").mkdir()
    said: list[str] = []
    async with open_log_links(root, said.append) as links:
        links.point("coder", "s1")
        links.point("tester", "s2")
        await until((root.logs / "tester.log").is_symlink)
        await until(lambda: bool(said))
    assert len(said) == 1
    assert "coder.log cannot be made" in said[0]


async def test_links_are_made_without_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel gives no thread, links are made all the same."""

    async def none(*args: object, **kwargs: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.to_thread, "run_sync", none)
    root = root_at(tmp_path)
    async with open_log_links(root, pytest.fail) as links:
        links.point("coder", "s1")
        await until((root.logs / "coder.log").is_symlink)
