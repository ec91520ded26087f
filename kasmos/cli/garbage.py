"""When the garbage collector looks.

What is imported stays for good, and there is much of it: looked at as often as is usual, it would be walked through
some two hundred times until a supervisor is up, and nothing would be found.
"""

from __future__ import annotations

import gc

IMPORTED = 200_000
"""How many more objects there may be before they are looked at, while a command comes up."""
_USUAL = gc.get_threshold()


def look_rarely() -> None:
    """From now on, let more come together than imports make in some tenths of a second."""
    gc.set_threshold(IMPORTED, *_USUAL[1:])


def settle() -> None:
    """What is there by now is never looked at again, and what comes from now on as often as is usual.

    Each of the collector's full rounds would walk through it, and everybody would wait for that.
    """
    gc.freeze()
    gc.set_threshold(*_USUAL)
