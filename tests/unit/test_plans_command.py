"""Tasks to commands and prompts."""

import pytest

from kasmos.exceptions import PlanError
from kasmos.model.plan import Plan, PlanTask, Wave
from kasmos.model.profile import AgentProfile, PromptMode
from kasmos.plans import compile_task, first_script, render_prompt
from kasmos.plans.command import MAX_ARGUMENT_BYTES


def plan_of(body: str = "Do it.", title: str = "One") -> Plan:
    first = PlanTask(id="1", number=1, wave=1, title=title, body=body)
    second = PlanTask(id="2", number=2, wave=2, title="Two", body="")
    return Plan((Wave(1, (first,)), Wave(2, (second,))), goal="A goal", tech_stack="- a\n- b")


def profile_of(prompt: PromptMode, *flags: str, model: str | None = None) -> AgentProfile:
    return AgentProfile(name="coder", program=("agent", "run"), flags=flags, prompt=prompt, model=model)


def argv(prompt: PromptMode, *flags: str, model: str | None = None) -> tuple[str, ...]:
    plan = plan_of("x\n```sh\nls\n```")
    return compile_task(plan, plan.task("1"), profile_of(prompt, *flags, model=model), peers=0).argv


PROMPT = render_prompt(plan_of("x\n```sh\nls\n```"), plan_of("x\n```sh\nls\n```").task("1"), 0)


@pytest.mark.parametrize(
    ("mode", "flags", "words"),
    [
        (PromptMode.ARGUMENT, (), (PROMPT,)),
        (PromptMode.ARGUMENT, ("-p", "{prompt}", "-v"), ("-p", PROMPT, "-v")),
        (PromptMode.ARGUMENT, ("--prompt={prompt}",), (f"--prompt={PROMPT}",)),
        (PromptMode.ARGUMENT, ("-f", "{prompt_file}"), ("-f", "{prompt_file}")),
        (PromptMode.FILE, (), ("{prompt_file}",)),
        (PromptMode.FILE, ("--file={prompt_file}", "-v"), ("--file={prompt_file}", "-v")),
        (PromptMode.STDIN, ("-v",), ("-v",)),
        (PromptMode.SCRIPT, (), ("{script_file}",)),
        (PromptMode.SCRIPT, ("-e", "{script_file}", "x"), ("-e", "{script_file}", "x")),
        (PromptMode.STDIN, ('{"a": 1}', "{other}"), ('{"a": 1}', "{other}")),
    ],
)
def test_argv(mode: PromptMode, flags: tuple[str, ...], words: tuple[str, ...]) -> None:
    """The prompt goes where the flags say, else to the end; other braces are left alone."""
    assert argv(mode, *flags) == ("agent", "run", *words)


def test_argv_model() -> None:
    """`{model}` is the profile's model."""
    assert argv(PromptMode.STDIN, "-m", "{model}", model="m-1") == ("agent", "run", "-m", "m-1")


def test_argv_fills_once() -> None:
    """What was filled in is not looked at again: a prompt may speak of placeholders of the flags."""
    plan = plan_of("Explain {model} and {prompt}.")
    command = compile_task(plan, plan.task("1"), profile_of(PromptMode.ARGUMENT, "{prompt}", model="m"), peers=0)
    assert "Explain {model} and {prompt}." in command.argv[-1]


def test_stdin_and_script() -> None:
    """Only `stdin` gives the prompt as standard input; only `script` has a script."""
    plan = plan_of("x\n```sh\nls\n```")
    commands = {mode: compile_task(plan, plan.task("1"), profile_of(mode), peers=0) for mode in PromptMode}
    assert {mode for mode, command in commands.items() if command.stdin_prompt} == {PromptMode.STDIN}
    assert {mode for mode, command in commands.items() if command.script is not None} == {PromptMode.SCRIPT}
    assert commands[PromptMode.SCRIPT].script == "ls\n"
    assert {command.prompt for command in commands.values()} == {PROMPT}


@pytest.mark.parametrize(
    ("body", "script"),
    [
        ("```sh\nls\n```", "ls\n"),
        ("```bash\na\n```\n```sh\nb\n```\n```sh\nc\n```", "b\n"),
        ("```python\na\n```\n```bash\nb\n```", "b\n"),
        ("```shell\nb\n```", "b\n"),
        ("~~~ sh title=x\nb\n\n  c\n~~~", "b\n\n  c\n"),
        ("- ```sh\n  b\n  ```", "b\n"),
        ("````md\n```sh\na\n```\n````\n```sh\nb\n```", "b\n"),
        ("```sh\n```", ""),
        ("```shell-session\nb\n```", None),
        ("<!--\n```sh\nb\n```\n-->", None),
        ("    ```sh\n    b\n    ```", None),
        ("", None),
    ],
)
def test_first_script(body: str, script: str | None) -> None:
    """A task's script is its first fenced `sh` block, else its first `bash` or `shell` block."""
    assert first_script(body) == script


@pytest.mark.parametrize(
    ("body", "profile", "problem", "cure"),
    [
        ("no code", profile_of(PromptMode.SCRIPT), "the task has none", "```sh"),
        ("x", profile_of(PromptMode.STDIN, "{model}"), "names no model", "model = "),
        ("x", profile_of(PromptMode.STDIN, "{script_file}"), "runs no script", 'prompt = "script"'),
        ("x" * MAX_ARGUMENT_BYTES, profile_of(PromptMode.ARGUMENT), "131,071", 'prompt = "file"'),
        ("é" * 70_000, profile_of(PromptMode.ARGUMENT), "131,071", 'prompt = "stdin"'),
        ("a\0b", profile_of(PromptMode.ARGUMENT), "NUL", 'prompt = "file"'),
        ("see {prompt_file}", profile_of(PromptMode.ARGUMENT), "{prompt_file}", 'prompt = "file"'),
    ],
)
def test_no_command(body: str, profile: AgentProfile, problem: str, cure: str) -> None:
    """What could not be started is refused before anything runs, with the cure."""
    plan = plan_of(body)
    with pytest.raises(PlanError) as caught:
        compile_task(plan, plan.task("1"), profile, peers=0)
    (mistake,) = caught.value.mistakes
    assert mistake.place == "task 1"
    assert problem in mistake.problem
    assert cure in mistake.cure


@pytest.mark.parametrize("mode", [PromptMode.STDIN, PromptMode.FILE])
def test_large_prompt(mode: PromptMode) -> None:
    """A prompt of a megabyte, with any characters in it, goes by file or standard input."""
    plan = plan_of("x\0{prompt_file}" * 100_000)
    command = compile_task(plan, plan.task("1"), profile_of(mode), peers=0)
    assert plan.task("1").body in command.prompt


def test_longest_argument() -> None:
    """An argument of exactly the kernel's limit is accepted, one byte more is not."""
    room = MAX_ARGUMENT_BYTES - len(render_prompt(plan_of(""), plan_of("").task("1"), 0).encode()) - 2
    plan = plan_of("x" * room)
    command = compile_task(plan, plan.task("1"), profile_of(PromptMode.ARGUMENT), peers=0)
    assert len(command.argv[-1].encode()) == MAX_ARGUMENT_BYTES
    plan = plan_of("x" * (room + 1))
    with pytest.raises(PlanError):
        compile_task(plan, plan.task("1"), profile_of(PromptMode.ARGUMENT), peers=0)


def test_prompt() -> None:
    """A prompt has the task, the plan's header lines, where the task stands, who runs beside it, and its body."""
    plan = plan_of("  Do it.\n\n## Part")
    assert render_prompt(plan, plan.task("1"), 2) == (
        "# Task 1: One\n\n"
        "**Goal:** A goal\n**Tech Stack:**\n- a\n- b\n\n"
        "This is task 1 of wave 1 of 2. 2 other tasks run beside it in the same directory: keep to what this task "
        "is about, and leave alone changes that are not yours.\n\n"
        "  Do it.\n\n## Part\n"
    )


def test_prompt_of_a_wave_out_of_step() -> None:
    """Where numbers of waves have gaps, the prompt says which wave of how many this is."""
    task = PlanTask(id="7", number=7, wave=5, title="", body="")
    plan = Plan((Wave(0, ()), Wave(5, (task,)), Wave(9, ())))
    assert "task 7 of wave 5, which is number 2 of 3 waves. 1 other task runs" in render_prompt(plan, task, 1)


def test_prompt_alone() -> None:
    """A task without title, header, peers or body still gets a prompt."""
    task = PlanTask(id="7", number=7, wave=3, title="", body="")
    plan = Plan((Wave(3, (task,)),))
    assert render_prompt(plan, task, 0) == ("# Task 7\n\nThis is task 7 of wave 3. No other task runs beside it.\n")
