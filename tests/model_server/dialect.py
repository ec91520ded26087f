"""What the server needs of a wire format, and the words the formats share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import attrs

from .script import Said, Step


@attrs.frozen
class Usage:
    """Tokens handed out with one answer. `cached` is a part of `input`, `reasoning` one of `output`."""

    input: int
    cached: int
    output: int
    reasoning: int


@attrs.frozen
class Asked:
    """A request, whatever the wire format."""

    said: Sequence[Said]
    tools: Mapping[str, str] = attrs.field(factory=dict)
    """Name and kind (`function`, `custom`) of every tool the program offers."""
    stream: bool = True
    model: str = "mock"
    prose: bool = False
    """Whether the program reads edits out of the text (aider): it offers no tools and still means business."""
    schema: bool = False
    """Whether the answer has to be JSON."""
    helper: bool = False
    """Whether a hidden helper of the program asks, which keeps its memory."""
    submits: bool = False
    """Whether the program is over only when a command says so (mini-swe-agent)."""


@attrs.frozen
class Call:
    """A tool call."""

    id: str
    name: str
    arguments: Mapping[str, Any] | str
    """A text for a tool of kind `custom`."""


@attrs.frozen
class Answer:
    """What the model says or does."""

    id: str
    model: str
    usage: Usage
    text: str = ""
    thought: str = ""
    call: Call | None = None

    @property
    def parts(self) -> tuple[str, str]:
        """The text in two pieces, both of them something if the text is."""
        middle = len(self.text) // 2
        return self.text[:middle], self.text[middle:]


@attrs.frozen
class Failure:
    """An error as HTTP knows it."""

    status: int
    reset: float | None = None
    """Seconds from now; None when nothing is said."""
    quota: bool = False


Stream = tuple[list[bytes], list[bytes]]
"""Server-sent events: those up to the first piece of the answer's text, and the rest."""


class Dialect(Protocol):
    """One wire format."""

    name: str

    def read(self, path: str, body: Mapping[str, Any]) -> Asked:
        """Understand a request."""

    def stream(self, answer: Answer) -> Stream:
        """An answer as server-sent events."""

    def whole(self, answer: Answer) -> Mapping[str, Any]:
        """An answer as one document."""

    def failure(self, failure: Failure, now: float) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        """An error's document and headers."""


def event(data: Mapping[str, Any] | str, name: str | None = None) -> bytes:
    """One server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def texts(content: object) -> str:
    """The text in a message's content, which is a string or a list of blocks in every format."""
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    return "\n".join(str(block.get("text") or "") for block in blocks if isinstance(block, dict))


def tool_call(step: Step, tools: Mapping[str, str], call_id: str) -> Call:
    """The call of the tool that the program offers for a step.

    Raises:
        LookupError: it offers none.
    """
    if step.verb == "call":
        return Call(call_id, step["tool"], json.loads(step["arguments"]))
    path, content = step["path"], step["content"]
    edit = {"old_string": step["old"], "new_string": step["new"]}
    # Two programs call their tool so, and name its arguments differently.
    camel = {"filePath": path, "oldString": step["old"], "newString": step["new"]}
    command = {"command": step["command"], "description": "Do as asked"}
    change = f"@@\n-{step['old']}\n+{step['new']}"
    for name, arguments in {
        "write": {
            "Write": {"file_path": path, "content": content},
            "write": {"filePath": path, "content": content},
            "write_file": {"file_path": path, "content": content},
            "apply_patch": f"*** Begin Patch\n*** Add File: {path}\n+{content}\n*** End Patch",
            "bash": {"command": f"printf '%s\\n' '{content}' >'{path}'"},
        },
        "read": {
            "Read": {"file_path": path},
            "read": {"filePath": path},
            "read_file": {"file_path": path},
            "exec_command": {"cmd": f"cat '{path}'"},
            "shell_command": {"command": f"cat '{path}'"},
            "bash": {"command": f"cat '{path}'"},
        },
        "edit": {
            "Edit": {"file_path": path, **edit},
            "edit": {"file_path": path, **edit} if "write_file" in tools else camel,
            "replace": {"file_path": path, "instruction": "Do as asked", **edit},
            "apply_patch": f"*** Begin Patch\n*** Update File: {path}\n{change}\n*** End Patch",
            "bash": {"command": f"sed -i 's/{step['old']}/{step['new']}/' '{path}'"},
        },
        "run": {
            "Bash": command,
            "bash": command,
            "run_shell_command": {**command, "is_background": False},
            "exec_command": {"cmd": step["command"]},
            "shell_command": {"command": step["command"]},
        },
    }[step.verb].items():
        if name not in tools:
            continue
        if isinstance(arguments, str) and tools[name] != "custom":
            arguments = {"input": arguments}
        return Call(call_id, name, arguments)
    raise LookupError(f"no tool for {step.verb!r} among {', '.join(sorted(tools))}")


def prose_edit(step: Step) -> str:
    """An edit in the words in which aider takes it."""
    old, new = ("", step["content"]) if step.verb == "write" else (step["old"], step["new"])
    old += "\n" if old else ""
    return f"As asked:\n\n{step['path']}\n```\n<<<<<<< SEARCH\n{old}=======\n{new}\n>>>>>>> REPLACE\n```\n"


SUBMIT = "COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
"""What mini-swe-agent waits for as the first line of a command's output."""


WORDS = {
    400: "That request is not right",
    401: "Invalid API key",
    403: "Not allowed with this key",
    404: "No such model",
    429: "Rate limit reached, slow down",
    500: "Internal server error",
    503: "The model is overloaded",
    529: "Overloaded",
}
"""What the server says with a status."""
