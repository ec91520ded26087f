"""Approval rules in a configuration: read into what they mean, every mistake told with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from kasmos.config.load import load_config
from kasmos.exceptions import ConfigError
from kasmos.model.approval import ApprovalPolicy, Decision, OnUnanswered, PermissionDefault, Rule
from kasmos.model.profile import AgentProfile


def load(text: str, project: Path) -> AgentProfile:
    (project / ".kasmos").mkdir()
    (project / ".kasmos" / "config.toml").write_text(text)
    return load_config(project, environ={"HOME": "/home/me"}).config.agents["claude"]


RULES = """
[agents.claude]
program = "claude"
permission_default = "bypass"
approval_timeout = "30m"
on_unanswered = "stop"

[[agents.claude.rules]]
allow = "Bash"
command = "git log *"

[[agents.claude.rules]]
name = "secrets"
deny = "*"
path = "~/.ssh/**"
"""


def test_rules_read(tmp_path: Path) -> None:
    """Rules are read in order; one without a name is called by what it says."""
    profile = load(RULES, tmp_path)
    assert profile.approvals == ApprovalPolicy(
        rules=(
            Rule("allow Bash git log *", Decision.ALLOW, tool="Bash", command="git log *"),
            Rule("secrets", Decision.DENY, tool="*", path="/home/me/.ssh/**"),
        ),
        default=PermissionDefault.BYPASS,
        timeout=1800.0,
        on_timeout=OnUnanswered.STOP,
    )


def test_nothing_said(tmp_path: Path) -> None:
    """Without a word about approvals everything waits for a person, for ever."""
    assert load('[agents.claude]\nprogram = "claude"\n', tmp_path).approvals == ApprovalPolicy()


@pytest.mark.parametrize(
    ("rules", "problems"),
    [
        ('"x"', ["must be a list of tables"]),
        ('["x"]', ["rules[0]: must be a table"]),
        ('[{ allow = "A" }, {}]', ["rules[1]: does not say what becomes of it"]),
        ('[{ allow = "A", deny = "B" }]', ["rules[0]: says allow and deny"]),
        ('[{ alow = "A" }]', ['rules[0].alow: unknown key (did you mean "allow"?)', "does not say"]),
        ("[{ allow = 1 }]", ["rules[0].allow: must be text"]),
        ('[{ allow = " " }]', ["rules[0].allow: must be text that can be seen"]),
        ('[{ allow = "A", command = "a", path = "b" }]', ["speaks of a command and a path"]),
        ('[{ allow = "A" }, { allow = "A" }]', ["rules[1]: says the same as a rule before it"]),
    ],
)
def test_rules_that_are_wrong(rules: str, problems: list[str], tmp_path: Path) -> None:
    """Each mistake in a rule is told with the rule's number."""
    with pytest.raises(ConfigError) as caught:
        load(f'[agents.claude]\nprogram = "claude"\nrules = {rules}\n', tmp_path)
    assert len(caught.value.mistakes) == len(problems)
    for mistake, problem in zip(caught.value.mistakes, problems, strict=True):
        assert problem in str(mistake)
