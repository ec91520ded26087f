"""Gemini generateContent and streamGenerateContent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .dialect import WORDS, Answer, Asked, Failure, Stream, event, texts
from .script import Said

STATES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}


class Gemini:
    name = "gemini"

    def read(self, path: str, body: Mapping[str, Any]) -> Asked:
        config = body.get("generationConfig") or {}
        declared = [tool for group in body.get("tools") or () for tool in group.get("functionDeclarations") or ()]
        return Asked(
            said=list(_said(body.get("contents") or ())),
            tools={tool["name"]: "function" for tool in declared},
            stream=":streamGenerateContent" in path,
            model=path.rpartition("/")[2].partition(":")[0],
            schema="json" in config.get("responseMimeType", ""),
        )

    def stream(self, answer: Answer) -> Stream:
        parts = _parts(answer)
        if not answer.text:
            return [], [event(self._told(answer, parts, ended=True))]
        first, second = answer.parts
        thoughts = [part for part in parts if part.get("thought")]
        rest = [part for part in parts if "functionCall" in part]
        before = [event(self._told(answer, [*thoughts, {"text": first}], ended=False))]
        return before, [event(self._told(answer, [{"text": second}, *rest], ended=True))]

    def whole(self, answer: Answer) -> dict[str, Any]:
        return self._told(answer, _parts(answer), ended=True)

    def _told(self, answer: Answer, parts: list[dict[str, Any]], *, ended: bool) -> dict[str, Any]:
        usage = answer.usage
        candidate: dict[str, Any] = {"index": 0, "content": {"role": "model", "parts": parts}}
        told: dict[str, Any] = {"candidates": [candidate], "modelVersion": answer.model, "responseId": answer.id}
        if ended:
            candidate["finishReason"] = "STOP"
            told["usageMetadata"] = {
                "promptTokenCount": usage.input,
                "cachedContentTokenCount": usage.cached,
                # Thoughts are not counted among the candidates here.
                "candidatesTokenCount": usage.output - usage.reasoning,
                "thoughtsTokenCount": usage.reasoning,
                "totalTokenCount": usage.input + usage.output,
            }
        return told

    def failure(self, failure: Failure, now: float) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        error: dict[str, Any] = {
            "code": failure.status,
            "message": WORDS.get(failure.status, "Failed"),
            "status": STATES.get(failure.status, "INTERNAL"),
        }
        prefix = "type.googleapis.com/google.rpc"
        details: list[dict[str, Any]] = []
        if failure.quota:
            error["message"] = "You exceeded your current quota, please check your plan and billing details."
            violation = {"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier", "quotaMetric": "requests"}
            details.append({"@type": f"{prefix}.QuotaFailure", "violations": [violation]})
        if failure.reset is not None:
            details.append({"@type": f"{prefix}.RetryInfo", "retryDelay": f"{failure.reset:g}s"})
        if failure.status == 401:
            details.append({"@type": f"{prefix}.ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"})
        return {"error": {**error, "details": details}}, {}


def _said(contents: Any) -> Iterator[Said]:
    for content in contents:
        parts = content.get("parts") or []
        yield from (Said("tool") for part in parts if "functionResponse" in part)
        yield Said("assistant" if content.get("role") == "model" else "user", texts(parts))


def _parts(answer: Answer) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    if answer.thought:
        parts.append({"text": answer.thought, "thought": True})
    if answer.text:
        parts.append({"text": answer.text})
    if answer.call:
        parts.append({"functionCall": {"name": answer.call.name, "args": answer.call.arguments}})
    return parts
