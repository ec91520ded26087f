"""Names of the files in a session's directory. What each holds is said in `docs/design.md`."""

SPEC = "spec.json"
PROMPT = "prompt.md"
SCRIPT = "script.sh"
CONTEXT = "context.json"
LEASE = "lease"
SHIM = "shim"
PID = "pid"
COPIER = "copier"
OUTPUT = "output.log"
OUTPUT_BASE = "output.base"
SHIM_LOG = "shim.log"
EXIT = "exit"
LOST = "lost"
GATE = "gate"
HEARD = "heard"
SCREEN = "screen"
ASKS = "asks"
"""A directory: the mailbox of a session that asks without a terminal."""
ALL = (
    SPEC, PROMPT, SCRIPT, CONTEXT, LEASE, SHIM, PID, COPIER, OUTPUT, OUTPUT_BASE, SHIM_LOG, EXIT, LOST,
    GATE, HEARD, SCREEN,
)  # fmt: skip

EXIT_RECORD_BYTES = 32
"""Size of the records `exit` and `lost`, reserved before the start so that a full disk cannot keep them from being
written."""
