"""What a fresh interpreter imports."""

from __future__ import annotations

import subprocess
import sys


def test_help_needs_none_of_the_heavy_libraries() -> None:
    """`kas --help` is quick because nothing is imported for it but click."""
    code = (
        "import sys\nfrom kasmos.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'attrs', 'trio', 'rich', 'msgspec', 'apsw', 'quart', 'cattrs', 'httpx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Look:\n  status" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
