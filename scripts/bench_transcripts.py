"""How fast transcripts of agents are read: one row for `scripts/bench`, or by itself.

    scripts/bench_transcripts.py [--megabytes 100] [--json]

The log is made of the lines of a working claude: messages, tool calls, results of tools of several sizes.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator

from kasmos.harnesses.facts import load_facts
from kasmos.harnesses.parser import TranscriptParser
from kasmos.model.session import ExitStatus

PIECE = 262_144


def lines(size: int) -> Iterator[bytes]:
    """About *size* bytes of a log, in pieces as they are read."""
    session = {"parent_tool_use_id": None, "session_id": "00000000-0000-4000-8000-000000000000", "uuid": "0" * 36}
    usage = {
        "input_tokens": 1000,
        "cache_creation_input_tokens": 20,
        "cache_read_input_tokens": 500,
        "output_tokens": 1,
    }
    made = 0
    turn = 0
    piece = b""
    while made < size:
        turn += 1
        call = f"toolu_{turn}"
        said = {"type": "text", "text": "I look at the next file and think about what it says. " * 3}
        used = {"type": "tool_use", "id": call, "name": "Bash", "input": {"command": f"sed -n 1,80p file{turn}.py"}}
        head = {"id": f"msg_{turn}", "type": "message", "role": "assistant", "model": "claude-opus-4-8", "usage": usage}
        output = "def function(value: int) -> int:\n    return value + 1  # \u00e9\n" * (turn % 40)
        back = {"type": "tool_result", "tool_use_id": call, "content": output, "is_error": False}
        for record in (
            {"type": "assistant", "message": {**head, "content": [said]}, **session},
            {"type": "assistant", "message": {**head, "content": [used]}, **session},
            {
                "type": "user",
                "message": {"role": "user", "content": [back]},
                **session,
                "tool_use_result": {"stdout": output},
            },
        ):
            piece += json.dumps(record, separators=(",", ":")).encode() + b"\n"
        if len(piece) >= PIECE:
            made += len(piece)
            yield piece
            piece = b""
    yield piece + b'{"type":"result","subtype":"success","is_error":false,"result":"done","usage":{"input_tokens":1}}\n'


def measure(megabytes: int) -> dict[str, float]:
    """Read a log of that size; speed in MB/s of processor time, and how much memory grew."""
    parser = TranscriptParser(load_facts("claude"))
    made = list(lines(megabytes << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun, events = time.process_time(), 0
    for piece in made:
        events += len(parser.feed(piece))
    spent = time.process_time() - begun
    assert parser.finish(ExitStatus(code=0)).outcome == "succeeded"
    size = sum(map(len, made))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"mb_per_s": size / 1e6 / spent, "events_per_s": events / spent, "grown_kib": grown, "megabytes": size / 1e6}


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--megabytes", type=int, default=100)
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    found = measure(chosen.megabytes)
    if chosen.json:
        print(json.dumps(found))
    else:
        print(
            f"transcript of {found['megabytes']:.0f} MB: {found['mb_per_s']:.0f} MB/s, "
            f"{found['events_per_s']:,.0f} events/s, memory +{found['grown_kib']:.0f} KiB"
        )


if __name__ == "__main__":
    main()
