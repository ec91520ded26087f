"""The house keeps its layers, and each import contract of pyproject.toml can be broken."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]

# contract, file, line that breaks it
VIOLATIONS = [
    pytest.param("layers", "model/task.py", "import kasmos.store.fold", id="a lower room imports a higher one"),
    pytest.param("layers", "store/fold.py", "import kasmos.sessions.protocol", id="siblings"),
    pytest.param("layers", "exceptions.py", "import kasmos.model.task", id="the ground imports something"),
    pytest.param("layers", "utils.py", "", id="a room without a place"),
    pytest.param("backends", "daemon/__init__.py", "import kasmos.sessions.launch", id="a backend by name"),
    pytest.param("pure", "model/plan.py", "import time", id="a clock in the vocabulary"),
    pytest.param("pure", "store/fold.py", "import kasmos.store.database", id="the disk behind the fold"),
    pytest.param("pure", "supervision/restart.py", "import random", id="chance in a decision"),
    pytest.param("outside", "daemon/__init__.py", "import httpx", id="a second HTTP client"),
    pytest.param("outside", "store/fold.py", "import msgspec", id="a second codec"),
    pytest.param("outside", "store/fold.py", "import apsw", id="a second door to the database"),
]


def lint(directory: Path, *contracts: str) -> subprocess.CompletedProcess[str]:
    """Check the contracts on the package in *directory*."""
    chosen = [argument for contract in contracts for argument in ("--contract", contract)]
    # The directory comes first on the path, before the installed package.
    program = "from importlinter.cli import lint_imports_command as run; run()"
    return subprocess.run(
        [sys.executable, "-c", program, "--no-cache", "--no-logo", *chosen],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package without what it was compiled to, and the contracts."""
    shutil.copytree(CHECKOUT / "kasmos", tmp_path / "kasmos", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    return tmp_path


def test_layers_of_the_package(copy: Path) -> None:
    """Every import contract is kept."""
    result = lint(copy)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(("contract", "file", "line"), VIOLATIONS)
def test_layers_violation(copy: Path, contract: str, file: str, line: str) -> None:
    """An import that breaks a contract is found, and only the one that was planted."""
    path = copy / "kasmos" / file
    before = path.read_text() if path.exists() else ""
    path.write_text(f"{before}\n{line}\n")

    result = lint(copy, contract)

    assert result.returncode == 1, result.stdout + result.stderr
    assert "0 kept, 1 broken" in result.stdout
    module = "kasmos." + file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    assert module in result.stdout
