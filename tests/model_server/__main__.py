"""Serve until standard input ends: whoever started this server takes it along. Prints its port when it listens."""

from __future__ import annotations

import os
import sys

import trio

from .book import Book
from .server import serve_model


async def main() -> None:
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    async with trio.open_nursery() as nursery:
        print(await nursery.start(serve_model, Book(), port), flush=True)
        async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as owner:
            while await owner.receive_some():
                pass
        nursery.cancel_scope.cancel()


trio.run(main)
