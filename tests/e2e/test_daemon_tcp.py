"""A daemon that listens on TCP: the first request of the manual works as printed; nobody gets in without a token."""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.conftest import Kas

CONFIG = '[orchestration]\ndefault_agent = "cat"\n\n[agents.cat]\nprogram = "cat"\nprompt = "stdin"\n'
SEED = {
    "prompt": "Triage this issue and label it.",
    "context": {"issue_url": "https://github.com/org/repo/issues/42"},
    "model": "claude-opus-4-7",
}
TOKEN = "t" * 32


@pytest.fixture
def daemon(kas: Kas) -> Iterator[Kas]:
    """The command line, in a project whose daemon is stopped at the end."""
    (kas.cwd / ".kasmos").mkdir()
    (kas.cwd / ".kasmos" / "config.toml").write_text(CONFIG)
    yield kas
    kas("daemon", "stop")


def start(kas: Kas, *arguments: str) -> str:
    """Start it on a free port; where it listens."""
    done = kas("daemon", "start", "--listen", "127.0.0.1:0", *arguments)
    assert done.code == 0, done.stderr
    told = json.loads(kas("daemon", "status", "--json").stdout)
    (url,) = (address for address in told["addresses"] if address.startswith("http"))
    return str(url)


def post(url: str, body: dict[str, object], **headers: str) -> tuple[int, bytes]:
    """As curl sends it."""
    head = {"Content-Type": "application/json", "Accept": "*/*", **headers}
    request = urllib.request.Request(url, json.dumps(body).encode(), head, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=240) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_the_first_request_of_the_manual(daemon: Kas) -> None:
    """The seed's request is answered with a stream, each line with the task's id; submit and poll works as well."""
    url = start(daemon)
    status, data = post(f"{url}/v1/tasks", {**SEED, "stream": True})
    lines = [json.loads(line) for line in data.splitlines()]
    assert status == 200
    assert len({line["task_id"] for line in lines}) == 1
    assert (lines[-1]["type"], lines[-1]["outcome"]) == ("task_ended", "succeeded")
    status, data = post(f"{url}/v1/tasks", {**SEED, "stream": False})
    assert status == 202
    task_id = json.loads(data)["task_id"]
    assert re.fullmatch(r"task_[a-z0-9]+", task_id)
    assert daemon("tail", "-f", task_id).code == 0
    with urllib.request.urlopen(f"{url}/v1/tasks/{task_id}", timeout=240) as response:
        assert json.load(response)["status"] == "succeeded"


def test_no_way_in_without_a_token(daemon: Kas) -> None:
    """With a token file the API asks for it; other addresses than loopback are refused without one, as a mistake."""
    refused = daemon("daemon", "start", "--listen", "0.0.0.0:0")
    assert refused.code == 2
    assert "daemon.listen" in refused.stderr
    file = daemon.cwd / "token"
    file.write_text(TOKEN)
    url = start(daemon, "--http-admin-token-file", os.fspath(file))
    assert post(f"{url}/v1/tasks", SEED)[0] == 401
    assert post(f"{url}/v1/tasks", SEED, Authorization=f"Bearer {TOKEN}")[0] == 202
