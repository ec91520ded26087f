"""Names of the files in a session's directory. What each holds is said in `docs/design.md`."""

SPEC = "spec.json"
PROMPT = "prompt.md"
SCRIPT = "script.sh"
LEASE = "lease"
SHIM = "shim"
PID = "pid"
COPIER = "copier"
OUTPUT = "output.log"
OUTPUT_BASE = "output.base"
SHIM_LOG = "shim.log"
EXIT = "exit"

EXIT_RECORD_BYTES = 32
"""Size of the exit record, reserved before the start so that a full disk cannot keep it from being written."""
