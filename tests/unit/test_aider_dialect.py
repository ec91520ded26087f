"""What aider prints of itself is not taken for an answer."""

from __future__ import annotations

from kasmos.harnesses.catalog import find_harness
from kasmos.harnesses.conclusion import FailureKind
from kasmos.harnesses.parser import TranscriptParser
from kasmos.model.session import ExitStatus

FIRST_START = b"""Aider v0.86.2
Main model: openai/gpt-4o with diff edit format
Repo-map: using 4096 tokens, auto refresh

https://aider.chat/HISTORY.html#release-notes

litellm.AuthenticationError: AuthenticationError: OpenAIException - Incorrect
API key provided: sk-mock.
The API provider is not able to authenticate you. Check your API key.
"""


def test_words_before_an_error() -> None:
    """An error is final although aider has printed something before it, such as where its release notes are."""
    facts = find_harness("aider")
    assert facts is not None
    parser = TranscriptParser(facts)
    parser.feed(FIRST_START)
    parser.close()
    failure = parser.finish(ExitStatus(code=0)).failure
    assert failure is not None
    assert failure.kind is FailureKind.AUTH
