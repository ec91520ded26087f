"""`kasmos.connect`: a supervisor's verbs for other programs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trio

import kasmos
from kasmos.client.results import TaskOutput
from kasmos.exceptions import ClientError, RequestError
from kasmos.model.event import Record
from tests.e2e.supervisor_world import LIMIT, Site, make_site

DOCS = Path(__file__).parents[2] / "docs" / "api.md"


@pytest.fixture
def site(root: Path) -> Site:
    return make_site(root)


async def test_a_task_from_another_program(site: Site) -> None:
    """A program hands a task in, follows it to its end, and has everything typed."""
    async with site.supervisor(), kasmos.connect(socket=site.root.socket) as kas:
        task = await kas.submit("echo hello", name="greeter", checks=["true"])
        items = [item async for item in kas.follow(task.id)]
        assert "".join(item.text for item in items if isinstance(item, TaskOutput)) == "hello\n"
        seqs = [item.seq for item in items if isinstance(item, Record)]
        assert seqs == sorted(set(seqs))
        found = await kas.wait(task.id)
        assert (found.succeeded, found.ended, found.exit and found.exit.code) == (True, True, 0)
        assert [one.id async for one in kas.tasks()] == [task.id]
        assert [one async for one in kas.runs()] == []
        assert (await kas.session("greeter")).task_id == task.id
        assert "shell" in [agent.name for agent in await kas.agents() if agent.usable]
        with pytest.raises(RequestError, match="no task"):
            await kas.task("task_none")


async def test_a_key_is_a_task(site: Site) -> None:
    """With a key, whoever asks again is given the same task; without one, each call is another."""
    async with site.supervisor(), kasmos.connect(socket=site.root.socket) as kas:
        first, again = [await kas.submit("true", key="k") for _ in range(2)]
        assert (first.id, first.repeated) == (again.id, False)
        assert again.repeated
        assert (await kas.submit("true")).id != (await kas.submit("true")).id


async def test_a_follower_goes_on_with_the_next_supervisor(site: Site) -> None:
    """A stream comes back by itself when another supervisor takes over: every event and every byte once."""
    seen: list[Record | TaskOutput] = []
    begun, over = trio.Event(), trio.Event()

    async def follow() -> None:
        async with kasmos.connect(socket=site.root.socket) as kas:
            task = await kas.submit("echo one; until test -e go; do sleep 0.05; done; echo two")
            async for item in kas.follow(task.id):
                seen.append(item)
                if isinstance(item, TaskOutput):
                    begun.set()
        over.set()

    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            async with site.supervisor():
                nursery.start_soon(follow)
                await begun.wait()
            async with site.supervisor() as here:
                (site.project / "go").touch()
                await here.engine.orchestrator.wait_idle()
                await over.wait()
    assert "".join(item.text for item in seen if isinstance(item, TaskOutput)) == "one\ntwo\n"
    seqs = [item.seq for item in seen if isinstance(item, Record)]
    assert seqs == sorted(set(seqs))


async def test_nobody_listens(root: Path) -> None:
    """Without a supervisor the first question says so; of socket and address one is needed."""
    async with kasmos.connect(socket=root / "none.sock") as kas:
        with pytest.raises(ClientError, match="no supervisor"):
            await kas.status()
    with pytest.raises(AttributeError, match="nothing"):
        _ = kasmos.nothing  # type: ignore[attr-defined]


async def test_the_example_in_the_manual_runs(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The examples in docs/api.md do what they say, in a project with a supervisor."""
    examples = re.findall(r"```python\n(import kasmos.*?)```", DOCS.read_text(), re.DOTALL)
    monkeypatch.chdir(site.project)
    monkeypatch.setenv("KASMOS_STATE_ROOT", str(site.root.path))
    assert len(examples) == 2
    async with site.supervisor():
        for example in examples:
            names: dict[str, object] = {}
            exec(compile(example.replace("trio.run(main)", ""), "docs/api.md", "exec"), names)
            with trio.fail_after(LIMIT):
                await names["main"]()  # type: ignore[operator]
            # The second one shows what the first one's task wrote, though that has ended long since.
            assert "hello\n" in capsys.readouterr().out
