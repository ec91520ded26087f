"""kasmos: a structured-concurrency supervisor for agent programs."""

__version__ = "0.1.0"
