"""The composition root: the nursery tree of the whole process, what it is made of, and how it is reached.

Start with `tree`: it is to be read in one sitting.
"""

from kasmos.serve.engine import Engine
from kasmos.serve.later import import_later
from kasmos.serve.options import Options
from kasmos.serve.tree import open_engine
from kasmos.serve.web import import_web_stack, listen, serve_when_knocked

__all__ = ["Engine", "Options", "import_later", "import_web_stack", "listen", "open_engine", "serve_when_knocked"]
