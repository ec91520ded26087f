"""Anthropic Messages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .dialect import WORDS, Answer, Asked, Failure, Stream, event, texts
from .script import Said

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


class Anthropic:
    name = "anthropic"

    def read(self, path: str, body: Mapping[str, Any]) -> Asked:
        return Asked(
            said=list(_said(body)),
            tools={tool["name"]: "function" for tool in body.get("tools") or () if "name" in tool},
            stream=bool(body.get("stream")),
            model=body.get("model", "mock"),
            schema="output_format" in body or "format" in (body.get("output_config") or {}),
        )

    def stream(self, answer: Answer) -> Stream:
        def told(kind: str, **fields: Any) -> bytes:
            return event({"type": kind, **fields}, kind)

        message = {**self.whole(answer), "content": [], "stop_reason": None}
        message["usage"] = {**message["usage"], "output_tokens": 1}
        before, after = [told("message_start", message=message)], []
        blocks = _blocks(answer)
        for index, block in enumerate(blocks):
            place = after if index else before
            empty, deltas = _opened(block, answer)
            place.append(told("content_block_start", index=index, content_block=empty))
            place.append(told("content_block_delta", index=index, delta=deltas[0]))
            after += [told("content_block_delta", index=index, delta=delta) for delta in deltas[1:]]
            after.append(told("content_block_stop", index=index))
        whole = self.whole(answer)
        after.append(told("message_delta", delta={"stop_reason": whole["stop_reason"]}, usage=whole["usage"]))
        after.append(told("message_stop"))
        return before, after

    def whole(self, answer: Answer) -> dict[str, Any]:
        usage = answer.usage
        return {
            "id": answer.id,
            "type": "message",
            "role": "assistant",
            "model": answer.model,
            "content": _blocks(answer),
            "stop_reason": "tool_use" if answer.call else "end_turn",
            "stop_sequence": None,
            "usage": {
                # What was read from the cache is not counted as input here.
                "input_tokens": usage.input - usage.cached,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": usage.cached,
                "output_tokens": usage.output,
            },
        }

    def failure(self, failure: Failure, now: float) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        words = "You have used up what this account may use" if failure.quota else WORDS.get(failure.status, "Failed")
        kind = KINDS.get(failure.status, "api_error")
        headers = {"request-id": "req_mock"}
        if failure.reset is not None:
            headers["retry-after"] = str(round(failure.reset))
            headers["anthropic-ratelimit-unified-reset"] = str(round(now + failure.reset))
            headers["anthropic-ratelimit-unified-status"] = "rejected"
        return {"type": "error", "error": {"type": kind, "message": words}, "request_id": "req_mock"}, headers


def _said(body: Mapping[str, Any]) -> Iterator[Said]:
    for message in body.get("messages") or ():
        content = message.get("content")
        results = isinstance(content, list) and [block for block in content if block.get("type") == "tool_result"]
        if results:
            yield from (Said("tool") for _ in results)
        yield Said(message.get("role", "user"), texts(content))


def _blocks(answer: Answer) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if answer.thought:
        blocks.append({"type": "thinking", "thinking": answer.thought, "signature": "bW9jaw=="})
    if answer.text:
        blocks.append({"type": "text", "text": answer.text})
    if answer.call:
        call = answer.call
        blocks.append({"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments})
    return blocks


def _opened(block: Mapping[str, Any], answer: Answer) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A block as it begins, and what is added to it."""
    if block["type"] == "thinking":
        return {"type": "thinking", "thinking": "", "signature": ""}, [
            {"type": "thinking_delta", "thinking": block["thinking"]},
            {"type": "signature_delta", "signature": block["signature"]},
        ]
    if block["type"] == "tool_use":
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
    return {"type": "text", "text": ""}, [{"type": "text_delta", "text": part} for part in answer.parts]
