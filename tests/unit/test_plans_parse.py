"""Plan documents to plans."""

import sys
import time
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasmos.exceptions import PlanError
from kasmos.model import codec
from kasmos.model.plan import Check, Plan, PlanTask, Wave
from kasmos.plans import parse_plan, read_plan
from kasmos.plans.toml import script_block

DATA = Path(__file__).parents[1] / "data" / "plans"
DOCS = Path(__file__).parents[2] / "docs" / "plans.md"

SMALL = "**Goal:** g\n\n## Wave 1\n\n### Task 1: a\n\nbody\n"


def parse(text: str, source: str = "p.md") -> Plan:
    return parse_plan(text.encode(), source).plan


def problems(text: str, source: str = "p.md") -> list[str]:
    with pytest.raises(PlanError) as caught:
        parse(text, source)
    return [str(mistake) for mistake in caught.value.mistakes]


def shape(plan: Plan) -> list[tuple[int, list[str]]]:
    return [(wave.number, [task.id for task in wave.tasks]) for wave in plan.waves]


# --- what is read ---------------------------------------------------------------------------


def test_variants() -> None:
    """Headers, separators, levels, emphasis and code that looks like headings are read as they are meant."""
    parsed = parse_plan((DATA / "variants.md").read_bytes(), "variants.md")
    plan = parsed.plan
    assert plan.title == "Greenhouse controller"
    assert plan.goal == "Keep the temperature of the greenhouse between two limits."
    assert plan.architecture == "- a sensor task\n- a valve task"
    assert plan.tech_stack == "C, a serial line"
    assert [(wave.number, wave.title) for wave in plan.waves] == [(1, "groundwork (parallel)"), (2, "**control**")]
    assert [(task.id, task.title) for task in plan.tasks] == [
        ("1", "Read the sensor"),
        ("2", "Draw the valve (optional)"),
        ("3", "Close the loop"),
        ("4", "With a space"),
    ]
    assert "## Wave 8" in plan.task("1").body
    assert "### Task 71" in plan.task("2").body
    assert "### Task 73" in plan.task("3").body
    assert plan.task("4").body == "~~~\n## Wave 9\n~~~"
    # CommonMark alone would end the outer fence of task 2 early: that is said.
    assert ["Task 71" in str(warning) for warning in parsed.warnings] == [True]


def test_line_ends_and_byte_order_mark_make_no_difference() -> None:
    """A document with Windows line ends and a byte-order mark is the same plan as one without."""
    text = (DATA / "variants.md").read_text()
    plain = parse_plan(text.encode(), "p.md")
    assert parse_plan(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(), "p.md") == plain
    assert parse_plan(text.replace("\n", "\r").encode(), "p.md") == plain


def test_numbers_per_wave() -> None:
    """Where every wave counts its tasks from 1, ids and needs carry the wave's number."""
    plan = parse_plan((DATA / "per-wave.md").read_bytes(), "p.md").plan
    assert shape(plan) == [(1, ["1.1", "1.2"]), (2, ["2.1", "2.2"])]
    assert plan.task("1.2").needs == ("1.1",)
    assert plan.task("2.1").needs == ("1.2",)


def test_numbers_with_dots() -> None:
    """`Task WAVE.N` numbers per wave too."""
    plan = parse("### Wave 1\n#### Task 1.1: a\n#### Task 1.2: b\n### Wave 2\n#### Task 2.1: c\n")
    assert shape(plan) == [(1, ["1.1", "1.2"]), (2, ["2.1"])]
    assert [task.number for task in plan.tasks] == [1, 2, 1]


@pytest.mark.parametrize(
    "text",
    [
        "## Wave 1\n### Task 1: a\n### Task 2: b\n### Task 1: c\n",
        "## Wave 1\n### Task 1: a\n## Wave 2\n### Task 1: b\n",
        "## Wave 1\n### Task 1: a\n### Task 2: b\n## Wave 2\n### Task 2: c\n### Task 3: d\n",
    ],
)
def test_duplicate_numbers(text: str) -> None:
    """A task number that is used twice is a mistake, with the line of the first."""
    (problem,) = problems(text)
    assert "is used twice (first in line" in problem


def test_needs_are_resolved() -> None:
    """A need may be a number, text, or wave and number: the id is the same."""
    block = '```toml kasmos\nneeds = [1, "1", "1.1", "2.1", 9]\n```\n'
    plan = parse(f"## Wave 1\n### Task 1: a\n## Wave 2\n### Task 2: b\n{block}")
    assert plan.task("2").needs == ("1", "2.1", "9")


def test_settings_and_defaults() -> None:
    """A settings block is no part of the body; one in the preamble holds for every task."""
    plan = parse(
        "# T\n\n```toml kasmos\nagent = 'all'\nretries = 1\nenv = { A = '0' }\n```\n"
        "## Wave 1\n### Task 1: a\nbefore\n\n```toml kasmos\nagent = 'one'\nenv = { B = '1' }\n"
        "checks = ['make']\nfiles = ['x']\ntimeout = '1m'\n```\n\nafter\n### Task 2: b\n"
    )
    first, second = plan.tasks
    assert (first.agent, first.retries, first.env) == ("one", 1, {"A": "0", "B": "1"})
    assert (first.checks, first.files, first.timeout) == ((Check("make"),), ("x",), 60.0)
    assert "toml" not in first.body
    assert first.body.split() == ["before", "after"]
    assert (second.agent, second.retries, second.env) == ("all", 1, {"A": "0"})


def test_body_goes_to_the_next_wave_or_task() -> None:
    """Other headings belong to the body of the task they stand under; blank lines around it do not."""
    plan = parse("## Wave 1\nnot a body\n### Task 1: a\n\n\n    code\n## Notes\nx  \n\n### Task 2: b\n#### Step\n")
    assert [task.body for task in plan.tasks] == ["    code\n## Notes\nx", "#### Step"]
    assert [task.line for task in plan.tasks] == [3, 10]


@pytest.mark.parametrize(
    "header",
    [
        "**Goal:** a goal",
        "**Goal**: a goal",
        "**goal:** a\ngoal",
        "__Goal:__ a goal",
        "*Goal:* a goal",
        "- **Goal:** a goal",
        "> **Goal:** a goal",
        "Goal: a goal",
        "**GOAL:**\n\na goal",
        "## Goal\n\na goal\n\nmore",
        "**Goal** — a goal",
        "**Goal:** a goal\n**Architecture:** b",
        "**Goal:** a goal\n**Files:** b",
        "**Goal:** a goal\n- a list",
        "**Goal:** a goal\n---",
        "```\n**Goal:** code\n```\n**Goal:** a goal",
        "**Goal:** a goal\n\n**Goal:** another",
    ],
)
def test_header_variants(header: str) -> None:
    """The header lines are found however they are emphasised, wherever the colon is, and over several lines."""
    assert parse(f"# T\n\n{header}\n\n## Wave 1\n### Task 1: a\n").goal == "a goal"


def test_header_below_the_first_wave_is_text() -> None:
    """Only what stands above the first wave is a header."""
    assert parse("## Wave 1\n### Task 1: a\n**Goal:** of the task\n").goal == ""


def test_header_with_emphasis_of_its_own() -> None:
    """Emphasis in the text of a header stays."""
    assert parse(f"**Goal:** **all** of it\n{SMALL}").goal == "**all** of it"


def test_wave_overview_is_text() -> None:
    """Where waves have two #, an overview of them with three is text, and is warned about."""
    parsed = parse_plan(b"# T\n### Wave 1: first\n## Wave 1: first\n### Task 1: a\n", "p.md")
    assert shape(parsed.plan) == [(1, ["1"])]
    assert [str(warning) for warning in parsed.warnings if "p.md:2" in warning.place]


def test_task_without_separator_is_warned_about() -> None:
    """A heading that lacks only the colon is read as text, with a warning that says so."""
    parsed = parse_plan(f"{SMALL}### Task 2 Write more\n".encode(), "p.md")
    assert [task.id for task in parsed.plan.tasks] == ["1"]
    assert ["p.md:8" in str(warning) for warning in parsed.warnings] == [True]


# --- what is refused ------------------------------------------------------------------------


def test_every_mistake_at_once() -> None:
    """A wrong document gets every mistake at once, in document order, each with its line."""
    with pytest.raises(PlanError) as caught:
        parse_plan((DATA / "wrong.md").read_bytes(), "wrong.md")
    found = [(mistake.place, mistake.problem) for mistake in caught.value.mistakes]
    expected = [
        (4, 'unknown key "agnet"'),
        (5, "needs cannot be a default"),
        (6, "timeout must be a duration"),
        (9, "task 9 stands before the first wave"),
        (16, 'needs[0] does not name a task: "two"'),
        (16, "does not name a task: 1.5"),
        (17, "retries must be a whole number"),
        (18, "checks must be a list"),
        (19, "must be text"),
        (22, "wave 1 stands after wave 2"),
        (24, "task number 1 is used twice"),
        (29, "the settings are not TOML"),
        (32, "wave 1 appears twice"),
        (32, "wave 1 has no tasks"),
        (34, "does not number one task"),
    ]
    assert [place for place, _ in found] == [f"wrong.md:{line}" for line, _ in expected]
    for (_, problem), (_, part) in zip(found, expected, strict=True):
        assert part in problem


@pytest.mark.parametrize("text", ["# Just prose\n\nwords\n", "# T\n\n#### Wave 1\n", "# Wave 1\n"])
def test_no_waves(text: str) -> None:
    """A document without waves is refused, and is told what to add."""
    (problem,) = problems(text)
    assert "the plan has no waves" in problem
    assert "## Wave 1" in problem
    assert "### Task 1: title" in problem


def test_no_waves_but_tasks() -> None:
    """A document with tasks and no waves is told where the wave is missing, once."""
    (problem,) = problems("# T\n\n### Task 1: a\n\n### Task 2: b\n")
    assert "add `## Wave 1` above the first task" in problem
    assert "line 3" in problem


@pytest.mark.parametrize("data", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_empty_document(data: bytes) -> None:
    """An empty document is refused as such."""
    with pytest.raises(PlanError, match=r"p\.md:1: the document is empty"):
        parse_plan(data, "p.md")


def test_not_utf8() -> None:
    """Bytes that are not UTF-8 are mistakes with their lines, among the others."""
    with pytest.raises(PlanError) as caught:
        parse_plan(b"## Wave 1\r\n### Task 1: \xff\r\n### Task 1: b\n\xc3\n", "p.md")
    assert [mistake.place for mistake in caught.value.mistakes] == ["p.md:2", "p.md:3", "p.md:4"]
    assert "0xff" in caught.value.mistakes[0].problem


def test_not_text_at_all() -> None:
    """A binary file is refused with a bounded number of mistakes; UTF-16 with the cure."""
    with pytest.raises(PlanError) as caught:
        parse_plan(b"\xff\n" * 1000, "p.md")
    assert len(caught.value.mistakes) < 30
    with pytest.raises(PlanError, match="UTF-16"):
        parse_plan(SMALL.encode("utf-16"), "p.md")


@pytest.mark.parametrize(
    ("text", "line"),
    [(f"{SMALL}```sh\n### Task 2: b\n", 8), (f"{SMALL}<!-- note\n### Task 2: b\n", 8)],
)
def test_unclosed_block_that_hides_a_task(text: str, line: int) -> None:
    """A fence or comment left open that swallows a task is a mistake: no work disappears in silence."""
    (problem,) = problems(text)
    assert problem.startswith(f"p.md:{line}: ")
    assert "never closed" in problem


def test_unclosed_block_that_hides_nothing() -> None:
    """A fence left open in the last body is only warned about."""
    parsed = parse_plan(f"{SMALL}```sh\nls\n".encode(), "p.md")
    assert parsed.plan.task("1").body.endswith("ls")
    assert ["never closed" in str(warning) for warning in parsed.warnings] == [True]


def test_second_settings_block() -> None:
    """A task has one settings block; a wave has none."""
    block = "```toml kasmos\nretries = 1\n```\n"
    assert ["a second settings block" in problem for problem in problems(f"{SMALL}{block}{block}")] == [True]
    assert ["a wave has no settings" in p for p in problems(SMALL.replace("\n\n###", f"\n{block}###"))] == [True]


def test_dotted_numbers_must_fit() -> None:
    """`Task WAVE.N` must stand in that wave, and all tasks are numbered alike."""
    found = problems("## Wave 1\n### Task 1.1: a\n### Task 2.2: b\n### Task 3: c\n")
    assert "number it 1.2" in found[0]
    assert "`### Task 1.3: title`" in found[1]


def test_place_of_stdin() -> None:
    """Mistakes in a plan from standard input say so."""
    assert problems("# T\n", "-")[0].startswith("<stdin>:1: ")


# --- TOML -----------------------------------------------------------------------------------

TOML = '''
title = "T"
goal = "g"
architecture = "a"
tech_stack = "t"

[defaults]
agent = "coder"

[[wave]]
number = 1
title = "first"

[[wave.task]]
number = 1
title = "one"
body = """
Do it.
"""
checks = ["make"]

[[wave.task]]
title = "two"
script = "echo ```\\n"
needs = [1]

[[wave]]

[[wave.task]]
title = "three"
agent = "other"
'''


def test_toml() -> None:
    """The TOML form says what the Markdown form says; numbers that are left out go on counting."""
    plan = parse(TOML, "p.toml")
    assert (plan.title, plan.goal, plan.architecture, plan.tech_stack) == ("T", "g", "a", "t")
    assert shape(plan) == [(1, ["1", "2"]), (2, ["3"])]
    one, two, three = plan.tasks
    assert (one.body, one.agent, one.checks) == ("Do it.", "coder", (Check("make"),))
    assert (two.body, two.needs) == ("````sh\necho ```\n````", ("1",))
    assert (three.agent, three.line) == ("other", 29)


def test_toml_from_stdin() -> None:
    """A plan from standard input is TOML when it looks like TOML."""
    assert shape(parse(TOML, "-")) == shape(parse(TOML, "p.toml"))
    assert shape(parse(SMALL, "-")) == [(1, ["1"])]


def test_toml_mistakes() -> None:
    """TOML plans get every mistake at once too."""
    found = problems(
        'gaol = "g"\ndefaults = 1\n[[wave]]\ntitle = 1\nname = "x"\n[[wave.task]]\nnumber = -1\nprompt = "x"\n'
        '[[wave.task]]\ntitle = "a"\nagent = 1\n[[wave]]\nnumber = 1\n',
        "p.toml",
    )
    assert [problem.split(": ", 1)[0] for problem in found] == [
        "p.toml:1", "p.toml:2", "p.toml:4", "p.toml:5", "p.toml:7", "p.toml:8", "p.toml:11", "p.toml:12", "p.toml:12",
    ]  # fmt: skip
    assert 'did you mean "goal"?' in found[0]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("goal = 'g'\n", "the plan has no waves (add `[[wave]]`"),
        ("wave = 1\n", "wave must be an array of tables"),
        ("wave = [1]\n", "wave must be an array of tables"),
        ("[wave]\nnumber = 1\n", "wave must be an array of tables"),
        ("[[wave]]\ntask = [1]\n", "wave.task must be an array of tables"),
        ("goal =\n", "not TOML"),
        ("[[wave]]\nnumber = true\n", "number must be a whole number"),
    ],
)
def test_toml_shape(text: str, problem: str) -> None:
    """A TOML plan of another shape is refused with the shape it must have."""
    assert [found for found in problems(text, "p.toml") if problem in found]


# --- promises about every document ------------------------------------------------------------


def test_documentation_example() -> None:
    """The complete examples in the documentation are plans without a mistake or a warning, and the same plan."""
    text = DOCS.read_text()
    markdown = text.split("`````markdown\n")[1].split("`````\n")[0]
    toml = text.split("`````toml\n")[1].split("`````\n")[0]
    parsed = parse_plan(markdown.encode(), "plan.md")
    assert parsed.warnings == ()
    assert without_lines(parse(toml, "plan.toml")) == without_lines(parsed.plan)


@pytest.mark.parametrize(
    "unit",
    [
        "## Wave {0}\n### Task {0}: t\n\nbody\n```sh\nls\n```\n",
        "### Task {0}: t\n",
        "```md\n```sh\n",
        "<!--\n",
        "# " + "a" * 200 + "\n",
        "## Wave 1 " + "*" * 200 + "\n",
        "- " * 50 + "\n",
        "**Goal:** " + "x " * 50 + "\n",
        "\xff" * 100 + "\n",
    ],
)
def test_large_documents_are_read_in_linear_time(unit: str) -> None:
    """Eight times the document takes about eight times the steps, whatever it consists of."""

    def cost(count: int) -> int:
        # Steps of the interpreter, not seconds: the same on every machine, however busy.
        data = "".join(unit.format(number) for number in range(count)).encode()
        steps = 0

        def count_step(frame: object, event: str, arg: object) -> None:
            nonlocal steps
            steps += 1

        sys.setprofile(count_step)
        try:
            read_plan(data, "p.md")
        finally:
            sys.setprofile(None)
        return steps

    assert cost(1600) < 12 * cost(200) + 1000


@pytest.mark.parametrize(
    "line",
    [
        "#" * 300_000,
        "## " + " " * 300_000 + "x",
        "`" * 300_000,
        "### Task 1" + " " * 300_000,
        "*" * 300_000,
        "**Goal:**" + " " * 300_000 + "*",
        "## Wave 1" + "-" * 300_000,
        "### Task 1: " + "(" * 300_000,
        " " * 300_000,
    ],
)
def test_long_lines_are_read_in_linear_time(line: str) -> None:
    """No line, however long, makes reading take more than a moment."""
    start = time.process_time()
    read_plan(f"{SMALL}{line}\n".encode(), "p.md")
    assert time.process_time() - start < 1.0


@given(st.binary(max_size=400), st.sampled_from(["p.md", "p.toml", "-"]))
def test_any_bytes(data: bytes, source: str) -> None:
    """Any bytes are a plan or a `PlanError`, and nothing else."""
    read = read_plan(data, source)
    if read.mistakes:
        with pytest.raises(PlanError) as caught:
            parse_plan(data, source)
        assert caught.value.mistakes == read.mistakes
    else:
        assert parse_plan(data, source) == read.parsed


PIECES = st.sampled_from(
    [
        *("## Wave 1", "## Wave 2", "### Wave 1", "### Task 1: a", "#### Task 2 - b", "### Task 1.2: c"),
        *("```", "```sh", "```toml kasmos", "~~~", "    ```", "<!--", "-->", "- x", "**Goal:** g"),
        *("agent = 'a'", "needs = [1]", "retries = x", "[[wave]]", "[[wave.task]]", "[defaults]"),
        *("title = 'x'", 'body = """', "", "\ufeff", "\u2028", "\0"),
    ]
)


@given(st.lists(PIECES, max_size=25), st.sampled_from(["\n", "\r\n"]), st.sampled_from(["p.md", "p.toml", "-"]))
def test_any_lines(lines: list[str], end: str, source: str) -> None:
    """Any mixture of the things plans are made of is a plan, or a `PlanError` with lines that exist."""
    read = read_plan(end.join(lines).encode(), source)
    found = (*read.mistakes, *read.parsed.warnings)
    assert all(1 <= int(mistake.place.rpartition(":")[2]) <= len(lines) + 1 for mistake in found)
    if read.mistakes:
        return
    parsed = read.parsed
    ids = [task.id for task in parsed.plan.tasks]
    assert ids
    assert len(set(ids)) == len(ids)
    assert all(wave.tasks for wave in parsed.plan.waves)
    assert codec.decode(codec.encode(parsed.plan), Plan) == parsed.plan


@given(st.lists(st.sampled_from(["## Wave 5", "### Task 9: x", "text", "```sh", "~~~"]), max_size=12))
def test_fenced_code_never_becomes_a_wave(code: list[str]) -> None:
    """Whatever stands in a fence that is longer than any in it, the plan is the same but for that body."""
    fenced = "\n".join(["`````md", *code, "`````"])
    plan = parse(f"## Wave 1\n### Task 1: a\n{fenced}\n### Task 2: b\n## Wave 2\n### Task 3: c\n")
    assert shape(plan) == [(1, ["1", "2"]), (2, ["3"])]
    assert plan.task("1").body == fenced


# --- rendering and reading again --------------------------------------------------------------

WORDS = (
    st.text(alphabet="abcXYZ äß漢-.'", min_size=1, max_size=20).map(str.strip).filter(lambda text: text[:1].isalpha())
)
BODIES = st.lists(
    st.sampled_from(["words", "- item", "## Notes", "    code", "```sh\nls  -l\n## Wave 9\n```", "", "> quote"]),
    max_size=6,
).map(lambda lines: "\n".join(lines).strip("\n").rstrip())


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    waves: list[Wave] = []
    number = 0
    for wave_number in sorted(draw(st.sets(st.integers(0, 50), min_size=1, max_size=4))):
        tasks = []
        for _ in range(draw(st.integers(1, 3))):
            number += draw(st.integers(1, 5))
            tasks.append(draw(tasks_of(wave_number, number)))
        waves.append(Wave(wave_number, tuple(tasks), draw(st.just("") | WORDS)))
    header = st.just("") | WORDS
    return Plan(tuple(waves), draw(header), draw(header), draw(header), draw(header))


@st.composite
def tasks_of(draw: st.DrawFn, wave: int, number: int) -> PlanTask:
    checks = st.builds(Check, WORDS, st.none() | st.floats(0.5, 9999.0))
    return PlanTask(
        id=str(number),
        number=number,
        wave=wave,
        title=draw(WORDS),
        body=draw(BODIES),
        agent=draw(st.none() | WORDS),
        needs=tuple(str(need) for need in draw(st.lists(st.integers(60, 99), unique=True, max_size=3))),
        timeout=draw(st.none() | st.floats(0.5, 9999.0)),
        retries=draw(st.none() | st.integers(0, 9)),
        checks=tuple(draw(st.lists(checks, max_size=2))),
        files=tuple(draw(st.lists(WORDS, unique=True, max_size=2))),
        env=draw(st.dictionaries(st.sampled_from(["A", "B_2"]), WORDS, max_size=2)),
    )


def toml_settings(task: PlanTask) -> str:
    lines = []
    if task.agent is not None:
        lines.append(f"agent = {quoted(task.agent)}")
    if task.needs:
        lines.append(f"needs = [{', '.join(task.needs)}]")
    if task.timeout is not None:
        lines.append(f"timeout = {task.timeout!r}")
    if task.retries is not None:
        lines.append(f"retries = {task.retries}")
    if task.checks:
        lines.append(f"checks = [{', '.join(toml_check(check) for check in task.checks)}]")
    if task.files:
        lines.append(f"files = [{', '.join(map(quoted, task.files))}]")
    if task.env:
        lines.append(f"env = {{ {', '.join(f'{name} = {quoted(value)}' for name, value in task.env.items())} }}")
    return "".join(f"{line}\n" for line in lines)


def toml_check(check: Check) -> str:
    command = quoted(check.command)
    return command if check.timeout is None else f"{{ command = {command}, timeout = {check.timeout!r} }}"


def quoted(text: str) -> str:
    return '"' + text.replace("\n", "\\n") + '"'


def as_markdown(plan: Plan) -> str:
    parts = [f"# {plan.title}\n"] if plan.title else []
    headers = (("Goal", plan.goal), ("Architecture", plan.architecture), ("Tech Stack", plan.tech_stack))
    parts += [f"**{name}:** {text}\n" for name, text in headers if text]
    for wave in plan.waves:
        parts.append(f"## Wave {wave.number}: {wave.title}\n" if wave.title else f"## Wave {wave.number}\n")
        for task in wave.tasks:
            settings = toml_settings(task)
            block = f"```toml kasmos\n{settings}```\n" if settings else ""
            parts.append(f"### Task {task.number}: {task.title}\n{task.body}\n{block}")
    return "\n".join(parts)


def as_toml(plan: Plan) -> str:
    headers = (("title", plan.title), ("goal", plan.goal), ("architecture", plan.architecture))
    text = "".join(f"{name} = {quoted(value)}\n" for name, value in (*headers, ("tech_stack", plan.tech_stack)))
    for wave in plan.waves:
        text += f"[[wave]]\nnumber = {wave.number}\ntitle = {quoted(wave.title)}\n"
        for task in wave.tasks:
            text += f"[[wave.task]]\nnumber = {task.number}\ntitle = {quoted(task.title)}\n"
            text += f"body = {quoted(task.body)}\n{toml_settings(task)}"
    return text


def without_lines(plan: Plan) -> Plan:
    def bare(task: PlanTask) -> PlanTask:
        return attrs.evolve(task, line=0)

    return attrs.evolve(
        plan,
        waves=tuple(attrs.evolve(wave, line=0, tasks=tuple(bare(task) for task in wave.tasks)) for wave in plan.waves),
    )


@given(plans())
def test_markdown_round_trip(plan: Plan) -> None:
    """A plan written as Markdown is read as the same plan."""
    assert without_lines(parse(as_markdown(plan))) == plan


@given(plans())
def test_toml_round_trip(plan: Plan) -> None:
    """A plan written as TOML is read as the same plan."""
    assert without_lines(parse(as_toml(plan), "p.toml")) == plan


@given(st.text(alphabet="`ab\n", max_size=40))
def test_script_block_round_trip(script: str) -> None:
    """A script of the TOML form reaches the program byte for byte, whatever fences it has in it."""
    from kasmos.plans import first_script

    assert first_script(script_block(script)) == script.removesuffix("\n") + "\n"


def test_slips_in_headings_are_warned_about() -> None:
    """A heading that is not read as the task it seems to be is told, and its text stays with the task before."""
    parsed = parse_plan(b"## Wave 1\n### Task 1: one\n### Taks 2: two\nbody\n", "p.md")
    (task,) = parsed.plan.tasks
    assert task.body == "### Taks 2: two\nbody"
    assert [warning.place for warning in parsed.warnings] == ["p.md:3"]


@pytest.mark.parametrize(
    ("text", "source"),
    [("## Wave 1\n### Task 1\nx\n", "p.md"), ("[[wave]]\n[[wave.task]]\nbody = 'x'\n", "p.toml")],
)
def test_a_task_without_a_title_is_warned_about(text: str, source: str) -> None:
    """A title may be missing: the plan is read, with a warning in the task's line."""
    parsed = parse_plan(text.encode(), source)
    assert [str(warning).split(" (")[0] for warning in parsed.warnings] == [f"{source}:2: task 1 has no title"]


def test_a_wrong_need_hides_no_other() -> None:
    """Each wrong element of a list is told by its place in it, and those that are right are read."""
    text = "## Wave 1\n### Task 1: a\n```toml kasmos\nneeds = ['x', 7, true, 8]\n```\n"
    read = read_plan(text.encode(), "p.md")
    assert [mistake.problem.split(":")[0] for mistake in read.mistakes] == [
        "needs[0] does not name a task",
        "needs[2] does not name a task",
    ]
    assert [task.needs for task in read.parsed.plan.tasks] == [("7", "8")]


@pytest.mark.parametrize(
    ("text", "source", "problem"),
    [
        ("x = [\n", "p.toml", "p.toml:1: not TOML: the document ends inside a value"),
        ("x = {a = 1", "p.toml", "p.toml:1: not TOML: the document ends inside a value"),
        ("x = ", "p.toml", "p.toml:1: not TOML: the document ends inside a value"),
        ("x = 'a", "p.toml", "p.toml:1: not TOML: the document ends inside a value"),
        ("[a", "p.toml", "p.toml:1: not TOML: Expected ']' at the end of a table declaration"),
        (
            "## Wave 1\n### Task 1: a\n```toml kasmos\nneeds = [\n```\n",
            "p.md",
            "p.md:4: the settings are not TOML: the settings block ends inside a value",
        ),
    ],
)
def test_a_value_that_is_cut_short(text: str, source: str, problem: str) -> None:
    """A document that ends too early says that, and not that a value is invalid."""
    assert [str(mistake) for mistake in read_plan(text.encode(), source).mistakes][:1] == [problem]


def test_scripts_have_their_line() -> None:
    """The line of a script in the document is known, in both forms."""
    text = "## Wave 1\n### Task 1: a\n```bash\nb\n```\n```toml kasmos\nretries = 1\n```\n```sh\ns\n```\n"
    assert parse_plan(text.encode(), "p.md").lines["1", "script"] == 10
    text = "[[wave]]\n[[wave.task]]\ntitle = 'a'\nscript = 'ls'\n"
    assert parse_plan(text.encode(), "p.toml").lines["1", "script"] == 4
