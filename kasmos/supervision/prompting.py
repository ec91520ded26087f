"""Typing a session's prompt: once, whatever is killed in between.

The journal has the intent before anything is typed. A supervisor that finds an intent and no end looks at the
screen: what shows that it was taken is believed; a text that still stands in the input is sent; else it is said
not to be known.
"""

from __future__ import annotations

import math

from kasmos.exceptions import DeliveryError, SessionClosedError, SessionError
from kasmos.failpoints import reach
from kasmos.model import event as ev
from kasmos.model.view import DeliveryState
from kasmos.supervision.delivery import Order
from kasmos.supervision.ledger import Ledger
from kasmos.supervision.terminal import Terminal
from kasmos.supervision.typist import Typist


async def deliver_prompt(terminal: Terminal, prompt: str, ledger: Ledger, session_id: str) -> bool:
    """Type the prompt, unless that has been done or given up; False if it certainly was not typed, and will not be.

    It waits for as long as something stands in the way: a dialog before the first prompt is for a person to answer.

    Cancellation: it may have been typed; the journal has the intent then.
    """
    state = ledger.world.sessions[session_id].delivery
    if state in (DeliveryState.DELIVERED, DeliveryState.FAILED):
        return True
    typed = state is DeliveryState.DELIVERING

    async def intent(file: str) -> None:
        nonlocal typed
        await ledger.append(ev.PromptDelivering(session_id, file))
        typed = True
        reach("prompt.delivering")

    typist, order = Typist(terminal), Order(prompt.rstrip("\n"), patience=math.inf)
    try:
        if typist.is_blind:
            if typed:
                raise DeliveryError("the supervisor died while it was typing, and no screen rules tell what came of it")
            await typist.type_blind(order, keep_as="typed-prompt.md", intent=intent)
        else:
            await typist.deliver(order, keep_as="typed-prompt.md", intent=intent, doubtful=typed)
    except SessionClosedError:
        # It has ended: that is what is told.
        return True
    except SessionError as error:
        reason, screen = (error.reason, error.screen) if isinstance(error, DeliveryError) else (str(error), "")
        await ledger.append(ev.DeliveryFailed(session_id, reason, screen[:20_000]))
        # What may have been typed may be under way: nothing that ends it is built on not knowing.
        return typed
    await ledger.append(ev.PromptDelivered(session_id, verified=not typist.is_blind))
    reach("prompt.delivered")
    return True
