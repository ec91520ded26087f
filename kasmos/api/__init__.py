"""The HTTP API over a Unix socket: it translates requests into calls of the service, and nothing more.

Importing this package imports the whole web stack, which takes a few hundred milliseconds:
import it late.
"""

from kasmos.api.app import create_app
from kasmos.api.server import serve_api

__all__ = ["create_app", "serve_api"]
