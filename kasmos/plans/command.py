"""What a task comes down to: the command that is run, and the prompt it is given.

Pure, so that `kas plan check` shows exactly what a run will start.
"""

from __future__ import annotations

import bisect
import re

from kasmos.exceptions import Mistake, PlanError
from kasmos.model.plan import Plan, PlanTask
from kasmos.model.profile import AgentProfile, PromptMode
from kasmos.model.value import frozen
from kasmos.plans.outline import read_outline, script_of

MAX_ARGUMENT_BYTES = 131_071
"""The longest single argument Linux takes: MAX_ARG_STRLEN, less the NUL at its end."""

_PLACEHOLDER = re.compile(r"\{(prompt|prompt_file|script_file|model)\}")
_FILE_PLACEHOLDERS = ("{prompt_file}", "{script_file}", "{kasmos_mailbox}")


@frozen
class Command:
    """What is run for one task."""

    argv: tuple[str, ...]
    """`{prompt_file}` and `{script_file}` still stand for files of the session."""
    prompt: str
    """The whole prompt, however it is given."""
    script: str | None = None
    """The content of `{script_file}`, if the program runs one."""
    stdin_prompt: bool = False
    """Whether the prompt is the program's standard input."""


def compile_task(plan: Plan, task: PlanTask, profile: AgentProfile, *, peers: int) -> Command:
    """Work out the command for a task.

    Args:
        plan: the plan the task stands in.
        task: the task.
        profile: the agent profile that runs it.
        peers: how many other tasks run beside it.

    Raises:
        PlanError: there is no command: no script for an agent that runs one, no model for a flag that wants one,
            or an argument that the kernel would refuse.
    """
    prompt = render_prompt(plan, task, peers)
    script = None
    if profile.prompt is PromptMode.SCRIPT:
        script = first_script(task.body)
        if script is None and task.single:
            # Who hands in a task for a shell writes what the shell is to run.
            script = task.body if task.body.endswith("\n") else f"{task.body}\n"
        if script is None:
            cure = "add a fenced block ```sh to the task, or give it another agent"
            raise _no_command(task, f"agent {profile.name} runs a script and the task has none", cure)
    words = _with_prompt_word(profile)
    argv = tuple(_fill(word, task, profile, prompt) for word in words)
    _judge_arguments(argv, task, profile)
    return Command(argv, prompt, script, stdin_prompt=profile.prompt is PromptMode.STDIN)


def render_prompt(plan: Plan, task: PlanTask, peers: int) -> str:
    """Write the prompt an agent gets: what the plan is about, where the task stands in it, and its body.

    A task that was handed in by itself is its own prompt, as it was written.
    """
    if task.single:
        return task.body
    return (
        "\n\n".join(
            part for part in (_heading(task), _header_lines(plan), _position(plan, task, peers), task.body) if part
        )
        + "\n"
    )


def first_script(body: str) -> str | None:
    """The content of the first fenced `sh` block of a task, else of its first `bash` or `shell` block."""
    lines = body.split("\n")
    block = script_of(read_outline(lines).blocks)
    return None if block is None else "".join(f"{line}\n" for line in block.content(lines))


def takes_model(profile: AgentProfile) -> bool:
    """Whether the profile's command has a place for its model, or its environment names it."""
    named = profile.model is not None and any(profile.model in value for value in profile.env.values())
    return named or any("{model}" in word for word in (*profile.program, *profile.flags))


def _heading(task: PlanTask) -> str:
    return f"# Task {task.id}: {task.title}" if task.title else f"# Task {task.id}"


def _header_lines(plan: Plan) -> str:
    headers = (("Goal", plan.goal), ("Architecture", plan.architecture), ("Tech Stack", plan.tech_stack))
    # A list stays a list: it starts on a line of its own.
    return "\n".join(f"**{name}:**{chr(10) if chr(10) in text else ' '}{text}" for name, text in headers if text)


def _position(plan: Plan, task: PlanTask, peers: int) -> str:
    place = f"This is task {task.id} of wave {task.wave}"
    total = len(plan.waves)
    # Waves stand in the order of their numbers. Counting them for every task would be quadratic.
    index = bisect.bisect(plan.waves, task.wave, key=lambda wave: wave.number)
    if total > 1:
        place += f" of {total}" if index == task.wave else f", which is number {index} of {total} waves"
    if peers == 0:
        return f"{place}. No other task runs beside it."
    others = "1 other task runs" if peers == 1 else f"{peers} other tasks run"
    return (
        f"{place}. {others} beside it in the same directory: keep to what this task is about, "
        "and leave alone changes that are not yours."
    )


def _with_prompt_word(profile: AgentProfile) -> list[str]:
    """The command's words, with a place for the prompt at the end where they have none yet."""
    words = [*profile.program, *profile.flags]
    present = {name for word in words[1:] for name in _PLACEHOLDER.findall(word)}
    if profile.prompt is PromptMode.SCRIPT and "script_file" not in present:
        words.append("{script_file}")
    elif profile.prompt is PromptMode.FILE and "prompt_file" not in present:
        words.append("{prompt_file}")
    elif profile.prompt is PromptMode.ARGUMENT and not present & {"prompt", "prompt_file"}:
        words.append("{prompt}")
    return words


def _fill(word: str, task: PlanTask, profile: AgentProfile, prompt: str) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name == "prompt":
            return _as_argument(prompt, task, profile)
        if name == "model":
            model = task.model or profile.model
            if model is None:
                cure = f'set `model = "..."` in [agents.{profile.name}], or take {{model}} out of its flags'
                raise _no_command(task, f"agent {profile.name} names no model for {{model}}", cure)
            return model
        if name == "script_file" and profile.prompt is not PromptMode.SCRIPT:
            cure = f'set `prompt = "script"` in [agents.{profile.name}]'
            raise _no_command(task, f"agent {profile.name} has {{script_file}} and runs no script", cure)
        return match[0]

    # One pass: what was filled in is never looked at again.
    return _PLACEHOLDER.sub(value, word)


def _as_argument(prompt: str, task: PlanTask, profile: AgentProfile) -> str:
    found = next((name for name in _FILE_PLACEHOLDERS if name in prompt), None)
    if found is not None:
        # The session fills these in, in every argument, and could not tell the prompt's own words apart.
        problem = f"the prompt contains the text {found}, which cannot be passed as an argument"
        raise _no_command(task, problem, _other_ways(profile))
    return prompt


def _judge_arguments(argv: tuple[str, ...], task: PlanTask, profile: AgentProfile) -> None:
    for word in argv:
        if "\0" in word:
            problem = "the prompt contains a NUL character, which no argument can"
            raise _no_command(task, problem, _other_ways(profile))
        size = len(word.encode("utf-8", "surrogatepass"))
        if size > MAX_ARGUMENT_BYTES:
            problem = f"the prompt makes an argument of {size:,} bytes; the kernel takes {MAX_ARGUMENT_BYTES:,}"
            raise _no_command(task, problem, _other_ways(profile))


def _other_ways(profile: AgentProfile) -> str:
    return f'set `prompt = "file"` or `prompt = "stdin"` in [agents.{profile.name}]'


def _no_command(task: PlanTask, problem: str, cure: str) -> PlanError:
    return PlanError([Mistake(f"task {task.id}", problem, cure)])
