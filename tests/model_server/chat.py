"""OpenAI Chat Completions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .dialect import SUBMIT, WORDS, Answer, Asked, Failure, Stream, event, texts
from .script import Said

CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}


class Chat:
    name = "chat"

    def read(self, path: str, body: Mapping[str, Any]) -> Asked:
        messages = body.get("messages") or []
        spoken = [texts(message.get("content")) for message in messages]
        tools = [tool.get("function") or {} for tool in body.get("tools") or ()]
        return Asked(
            said=[Said(message.get("role", "user"), texts(message.get("content"))) for message in messages],
            tools={tool["name"]: "function" for tool in tools if "name" in tool},
            stream=bool(body.get("stream")),
            model=body.get("model", "mock"),
            prose=any("SEARCH/REPLACE" in text for text in spoken),
            schema=(body.get("response_format") or {}).get("type") in ("json_schema", "json_object"),
            helper=any("memory extraction subagent" in text for text in spoken[:1]),
            submits=any(SUBMIT in text for text in spoken),
        )

    def stream(self, answer: Answer) -> Stream:
        whole = self.whole(answer)
        (choice,) = whole["choices"]

        def told(delta: Mapping[str, Any], finish: str | None = None) -> bytes:
            choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
            return event({**whole, "object": "chat.completion.chunk", "choices": choices, "usage": None})

        before = [told({"role": "assistant", "content": ""})]
        if answer.thought:
            before.append(told({"reasoning_content": answer.thought}))
        first, second = answer.parts
        before.append(told({"content": first}))
        after = [told({"content": second})] if second else []
        for index, call in enumerate(choice["message"].get("tool_calls") or ()):
            after.append(told({"tool_calls": [{"index": index, **call}]}))
        after.append(told({}, choice["finish_reason"]))
        after.append(event({**whole, "object": "chat.completion.chunk", "choices": []}))
        after.append(event("[DONE]"))
        return before, after

    def whole(self, answer: Answer) -> dict[str, Any]:
        usage = answer.usage
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if answer.thought:
            message["reasoning_content"] = answer.thought
        if answer.call:
            function = {"name": answer.call.name, "arguments": json.dumps(answer.call.arguments)}
            message["tool_calls"] = [{"id": answer.call.id, "type": "function", "function": function}]
        return {
            "id": answer.id,
            "object": "chat.completion",
            "created": 0,
            "model": answer.model,
            "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if answer.call else "stop"}],
            "usage": {
                "prompt_tokens": usage.input,
                "prompt_tokens_details": {"cached_tokens": usage.cached},
                "completion_tokens": usage.output,
                "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
                "total_tokens": usage.input + usage.output,
            },
        }

    def failure(self, failure: Failure, now: float) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        return openai_failure(failure)


def openai_failure(failure: Failure) -> tuple[dict[str, Any], dict[str, str]]:
    """An error as both formats of OpenAI tell it."""
    words, code = WORDS.get(failure.status, "Failed"), CODES.get(failure.status)
    if failure.quota:
        words, code = (
            "You exceeded your current quota, please check your plan and billing details.",
            "insufficient_quota",
        )
    if failure.status == 401:
        words = "Incorrect API key provided: sk-mock."  # litellm knows it by these words
    kind = "server_error" if failure.status >= 500 else "invalid_request_error"
    headers = {"x-request-id": "req_mock"}
    if failure.reset is not None:
        headers["retry-after"] = str(round(failure.reset))
        headers["x-ratelimit-remaining-requests"] = "0"
        headers["x-ratelimit-reset-requests"] = f"{failure.reset:g}s"
    return {"error": {"message": words, "type": code if failure.quota else kind, "param": None, "code": code}}, headers
