"""A harness and its dialect from another distribution, as docs/harnesses.md shows them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from ..conftest import Kas

PAGE = Path(__file__).parents[2] / "docs" / "harnesses.md"
PROGRAM = f"""#!{sys.executable}
import json, os, sys
assert sys.argv[1:3] == ["run", "--json"], sys.argv
told = os.environ.get("ACME_SAYS", "hello")
print("starting up", flush=True)
print(json.dumps({{"type": "says", "words": told}}))
print(json.dumps({{"type": "news", "words": told}}))
bad = "no more beans" if told == "nothing" else ""
print(json.dumps({{"type": "over", "ok": not bad, "words": bad, "read": 70, "written": 7}}))
"""


def blocks(kind: str) -> list[str]:
    """The page's examples of this kind, below "Adding a program"."""
    page = PAGE.read_text()
    return re.findall(rf"^```{kind}\n(.*?)^```", page[page.index("## Adding a program") :], re.DOTALL | re.MULTILINE)


def install(site: Path, code: str, *, point: str = "acme_kasmos:facts", name: str = "acme_kasmos") -> dict[str, str]:
    """Install a distribution as pip lays it out; the variables by which Python finds it."""
    package, info = site / name, site / f"{name}-1.0.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    (package / "__init__.py").write_text(code)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[kasmos.harnesses]\nacme = {point}\n")
    return {"PYTHONPATH": str(site)}


@pytest.fixture
def acme(kas: Kas, root: Path) -> dict[str, str]:
    """The page's example, installed, and a program that speaks so."""
    (code,) = blocks("python")
    (document,) = [one for one in blocks("toml") if "[launch]" in one]
    found = install(root / "site", code)
    (root / "site" / "acme_kasmos" / "acme.toml").write_text(document)
    program = root / "acme"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    (kas.cwd / ".kasmos").mkdir()
    (kas.cwd / ".kasmos" / "config.toml").write_text(
        f'[orchestration]\ndefault_agent = "coder"\n[agents.coder]\nprogram = "{program}"\nenv_pass = ["ACME_SAYS"]\n'
    )
    (kas.cwd / "plan.md").write_text("## Wave 1\n### Task 1: Work\nDo it.\n")
    return found


def test_a_dialect_of_a_third_party(kas: Kas, acme: dict[str, str]) -> None:
    """A distribution's own dialect decides, counts and is rendered like ours."""
    ran = kas("run", "plan.md", env=acme)
    assert ran.code == 0, ran.stdout + ran.stderr
    logs = kas("logs", "w1t1-work", env=acme).stdout
    assert "hello" in logs.splitlines()
    assert "70 in, 7 out" in logs
    events = [json.loads(line) for line in kas("logs", "w1t1-work", "--json", env=acme).stdout.splitlines()]
    assert [event.get("type") for event in events[:-1]] == ["unknown", "message", "unknown", "result"]
    (row,) = json.loads(kas("usage", "--by", "agent", "--json", env=acme).stdout)["usage"]
    assert row["input_tokens"]["value"] == 70


def test_a_failure_by_its_own_rules(kas: Kas, acme: dict[str, str]) -> None:
    """What its dialect calls a failure is told by kind, by the rules of its document."""
    parsed = kas("agents", "parse", "--program", "acme", "--json", "-", env=acme, stdin=FAILED)
    conclusion = json.loads(parsed.stdout.splitlines()[-1])
    assert (conclusion["outcome"], conclusion["failure"]["kind"]) == ("failed", "quota")


FAILED = '{"type":"over","ok":false,"words":"no more beans","read":1,"written":1}\n'


def test_a_dialect_that_breaks(kas: Kas, acme: dict[str, str]) -> None:
    """A dialect that raises costs its own line, which says so; the rest is understood."""
    stream = '{"type":"says"}\n{"type":"says","words":"after"}\n'
    parsed = kas("agents", "parse", "--program", "acme", "--json", "-", env=acme, stdin=stream)
    broken, message, _ = (json.loads(line) for line in parsed.stdout.splitlines())
    assert (broken["type"], broken["name"]) == ("unknown", "dialect_error")
    assert "KeyError" in broken["text"]
    assert message["text"] == "after"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def facts(): raise RuntimeError('no bean')", "RuntimeError: no bean"),
        ("facts = 7", "it gives int and not Facts"),
        ("import attrs\nfrom kasmos.harnesses.facts import Facts\nfacts = Facts('claude')", "'claude' already"),
        ("from kasmos.harnesses.facts import Facts\nfacts = Facts('acme', dialect='klingon')", "no dialect 'klingon'"),
        ("import nothing_of_the_kind", "ModuleNotFoundError"),
    ],
)
def test_a_distribution_that_cannot_be_used(kas: Kas, root: Path, code: str, words: str) -> None:
    """A harness that cannot be used is refused by the name of its distribution, without a traceback."""
    found = install(root / "site", code)
    refused = kas("agents", "--offline", env=found)
    assert refused.code == 2
    assert words in refused.stderr
    assert "acme_kasmos" in refused.stderr
    assert "Traceback" not in refused.stderr
