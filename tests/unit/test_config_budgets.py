"""`[budgets]`, `[prices]` and accounts, from text to values, or every mistake in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kasmos.config.load import load_config
from kasmos.config.schema import Config
from kasmos.exceptions import ConfigError
from kasmos.model.budget import Budgets, Limit
from kasmos.model.usage import Price

SAID = """\
[agents.coder]
program = "coder"
account = "work"
start_interval = "5s"
[budgets]
daily = 50
zone = "Europe/Berlin"
[budgets.per_run]
money = 10
time = "2h"
[budgets.agents.coder]
turns = 7
[budgets.accounts]
work = 30
[prices."vendor/model-4.5"]
input = 3
output = 15
"""


def load(directory: Path, text: str, **environ: str) -> Config:
    (directory / ".kasmos").mkdir(exist_ok=True)
    (directory / ".kasmos" / "config.toml").write_text(text)
    return load_config(directory, environ=environ, user_dir=directory / "none").config


def test_budgets_and_prices_are_read(tmp_path: Path) -> None:
    """What may be spent is said for a day, a run, an agent and an account; a plain number is money."""
    config = load(tmp_path, SAID, KASMOS_BUDGET_PER_TASK_TOKENS="1000")
    assert config.budgets == Budgets(
        daily=50.0,
        zone="Europe/Berlin",
        per_run=Limit(money=10.0, time=7200.0),
        per_task=Limit(tokens=1000),
        agents={"coder": Limit(turns=7)},
        accounts={"work": Limit(money=30.0)},
    )
    assert config.prices == {"vendor/model-4.5": Price(input=3.0, output=15.0)}
    coder = config.agents["coder"]
    assert (coder.account_name, coder.start_interval) == ("work", 5.0)
    assert config.agents["shell"].account_name == "shell"
    assert not load(tmp_path, "").budgets


def test_wrong_budgets_are_told_together(tmp_path: Path) -> None:
    """A zone that is not there, a negative budget and an unknown unit are three mistakes, each with its place."""
    text = '[budgets]\nzone = "Mars/Olympus"\n[budgets.per_run]\nmoney = -1\n[budgets.per_task]\ncoins = 5\n'
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    told = str(caught.value)
    for word in ("budgets.per_run.money", "budgets.per_task.coins"):
        assert word in told
    with pytest.raises(ConfigError, match=r"budgets\.zone: there is no time zone \"Mars/Olympus\""):
        load(tmp_path, '[budgets]\nzone = "Mars/Olympus"\n')
