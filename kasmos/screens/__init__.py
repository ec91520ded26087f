"""What a screen shows: which state a program is in, by rules that are data.

Owns the values (`Screen`, `Verdict`), the cut into regions and the shipped rules. Knows nothing of terminals, tmux,
sessions or approvals: a screen comes in as text, a verdict goes out, never more certain than the screen.
"""

from kasmos.screens.detect import Tried, detect, examine, transcript
from kasmos.screens.layout import NEVER
from kasmos.screens.load import PROJECT_RULES, known_programs, load_rules, program_of, rules_for
from kasmos.screens.rule import Ruleset
from kasmos.screens.screen import Cursor, Screen
from kasmos.screens.verdict import Choice, Composer, Evidence, Meaning, Request, ScreenState, Verdict

__all__ = [
    "NEVER",
    "PROJECT_RULES",
    "Choice",
    "Composer",
    "Cursor",
    "Evidence",
    "Meaning",
    "Request",
    "Ruleset",
    "Screen",
    "ScreenState",
    "Tried",
    "Verdict",
    "detect",
    "examine",
    "known_programs",
    "load_rules",
    "program_of",
    "rules_for",
    "transcript",
]
