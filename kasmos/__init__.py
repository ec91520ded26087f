"""kasmos: a structured-concurrency supervisor for agent programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kasmos.connection import connect

__version__ = "0.1.0"

__all__ = ["__version__", "connect"]


def __getattr__(name: str) -> Any:
    # Late: the client takes its time to import, and most who import us want something else.
    if name == "connect":
        import importlib

        return importlib.import_module("kasmos.connection").connect
    raise AttributeError(f"module 'kasmos' has no attribute {name!r}")
