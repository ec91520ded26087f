"""Talking to a running supervisor over its socket.

`kasmos.client.sync` is for one-shot commands and imports next to nothing;
`kasmos.client.aio` is for programs that stream, on Trio.
"""
