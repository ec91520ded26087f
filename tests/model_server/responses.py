"""OpenAI Responses."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .chat import openai_failure
from .dialect import Answer, Asked, Failure, Stream, event, texts
from .script import Said


class Responses:
    name = "responses"

    def read(self, path: str, body: Mapping[str, Any]) -> Asked:
        tools = {tool["name"]: tool.get("type", "function") for tool in body.get("tools") or () if "name" in tool}
        return Asked(
            said=list(_said(body.get("input"))),
            tools=tools,
            # In a terminal codex asks for something beside the prompt, and has no other tool at hand then.
            helper=set(tools) == {"apply_patch"},
            stream=bool(body.get("stream")),
            model=body.get("model", "mock"),
        )

    def stream(self, answer: Answer) -> Stream:
        def told(kind: str, **fields: Any) -> bytes:
            return event({"type": kind, **fields}, kind)

        whole = self.whole(answer)
        before = [told("response.created", response={**whole, "status": "in_progress", "output": [], "usage": None})]
        after = []
        for index, item in enumerate(whole["output"]):
            if item["type"] == "message":
                place = {"item_id": item["id"], "output_index": index, "content_index": 0}
                first, second = answer.parts
                before.append(told("response.output_item.added", output_index=index, item={**item, "content": []}))
                before.append(told("response.output_text.delta", delta=first, **place))
                after.append(told("response.output_text.delta", delta=second, **place))
            else:
                after.append(told("response.output_item.added", output_index=index, item=item))
            after.append(told("response.output_item.done", output_index=index, item=item))
        after.append(told("response.completed", response=whole))
        return before, after

    def whole(self, answer: Answer) -> dict[str, Any]:
        usage = answer.usage
        return {
            "id": answer.id,
            "object": "response",
            "status": "completed",
            "model": answer.model,
            "output": list(_items(answer)),
            "usage": {
                "input_tokens": usage.input,
                "input_tokens_details": {"cached_tokens": usage.cached},
                "output_tokens": usage.output,
                "output_tokens_details": {"reasoning_tokens": usage.reasoning},
                "total_tokens": usage.input + usage.output,
            },
        }

    def failure(self, failure: Failure, now: float) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        document, headers = openai_failure(failure)
        if failure.quota:
            reset = failure.reset or 0.0
            document["error"].update(
                type="usage_limit_reached",
                plan_type="plus",
                resets_at=round(now + reset),
                resets_in_seconds=round(reset),
            )
        return document, headers


def _said(items: object) -> Iterator[Said]:
    if isinstance(items, str):
        yield Said("user", items)
        return
    for item in items if isinstance(items, list) else ():
        if str(item.get("type", "")).endswith("_call_output"):
            yield Said("tool")
        elif item.get("type", "message") == "message":
            yield Said(item.get("role", "user"), texts(item.get("content")))


def _items(answer: Answer) -> Iterator[dict[str, Any]]:
    if answer.thought:
        summary = [{"type": "summary_text", "text": answer.thought}]
        yield {"type": "reasoning", "id": f"rs_{answer.id}", "summary": summary, "encrypted_content": "bW9jaw=="}
    if answer.text:
        content = [{"type": "output_text", "text": answer.text, "annotations": []}]
        yield {
            "type": "message",
            "id": f"msg_{answer.id}",
            "role": "assistant",
            "status": "completed",
            "content": content,
        }
    call = answer.call
    if call is not None and isinstance(call.arguments, str):
        yield {
            "type": "custom_tool_call",
            "id": f"ctc_{answer.id}",
            "call_id": call.id,
            "name": call.name,
            "input": call.arguments,
        }
    elif call is not None:
        yield {
            "type": "function_call",
            "id": f"fc_{answer.id}",
            "call_id": call.id,
            "name": call.name,
            "arguments": json.dumps(call.arguments),
        }
