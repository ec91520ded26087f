"""Nothing that the description allows, and nothing beside it, makes the API stumble."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import trio

from kasmos.config.schema import Daemon
from kasmos.serve import listen
from tests.e2e.supervisor_world import make_site

LIMIT = 900.0
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
CONFIG = """
[orchestration]
default_agent = "sleeper"
max_concurrent = 1

[agents.sleeper]
program = "sleep"
flags = ["{prompt}"]
"""


async def test_the_description_is_true(root: Path) -> None:
    """Requests made from the description, right ones and wrong ones, get answers that it knows, and never a bug.

    Streams, long polls, and what would make the supervisor leave are not among them.
    """
    site = make_site(root, CONFIG)
    shutdown = trio.Event()
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run"),
        *(
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        ),
        *("--max-examples", "4", "--seed", "1", "--phases", "examples,coverage,fuzzing", "--no-color"),
        *("--exclude-path-regex", "/(events|metrics|stop|output)$", "--generation-database", "none"),
        *("--request-timeout", "60", "--suppress-health-check", "all", "--max-failures", "5"),
    ]
    with trio.fail_after(LIMIT):
        async with site.supervisor(LIMIT) as here, trio.open_nursery() as nursery:
            # It has the only slot, so that nothing of what is handed in runs.
            await here.submit("1000", name="sleeper")
            tcp = Daemon(listen=("127.0.0.1:0",))
            serve = partial(listen, here.engine.service, tcp, root / "other.sock", shutdown)
            _, url = await nursery.start(serve)
            done = await trio.run_process(
                [*command, f"{url}/openapi.json"], capture_stdout=True, stderr=subprocess.STDOUT, check=False, cwd=root
            )
            shutdown.set()
            await here.engine.service.runs.cancel_all("it is over")
            await here.engine.orchestrator.wait_idle()
    assert done.returncode == 0, done.stdout.decode()[-6000:]
