"""The snapshot for pollers, with a real supervisor."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.supervisor_world import make_site


async def test_the_snapshot_tells_what_is_under_way(root: Path) -> None:
    """It has tasks under way, how many wait, and when sessions last wrote; its tag does not know that time passes."""
    site = make_site(root, '[orchestration]\ndefault_agent = "shell"\nmax_concurrent = 1\n')
    async with site.supervisor() as here:
        first = await here.submit("echo hello; until test -e go; do sleep 0.05; done")
        second = await here.submit("true")
        assert (await here.running(first))["status"] == "running"
        assert (await here.http.get(f"/v1/tasks/{first}/output?wait=30")).text == "hello\n"
        response = await here.http.get("/v1/status")
        status = response.json()
        assert [task["task_id"] for task in status["tasks"]] == [first]
        assert (status["queue_depth"], status["runs"]) == (1, [])
        assert status["counts"]["tasks"] == {"running": 1, "queued": 1}
        assert status["sessions"][0]["last_output_at"] is not None
        assert status["uptime"] >= 0
        again = await here.http.get("/v1/status", headers={"If-None-Match": response.headers["ETag"]})
        assert again.status_code == 304
        (site.project / "go").touch()
        await here.ended(second)
        again = await here.http.get("/v1/status", headers={"If-None-Match": response.headers["ETag"]})
        assert (again.status_code, again.json()["queue_depth"]) == (200, 0)
