"""Plans against themselves and against the agents there are."""

import itertools
import time
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasmos.exceptions import PlanError
from kasmos.model.profile import AgentProfile, PromptMode
from kasmos.plans import Checked, check_plan, load_plan, parse_plan

AGENTS = {
    "coder": AgentProfile(name="coder", program=("coder",)),
    "shell": AgentProfile(name="shell", program=("sh",), prompt=PromptMode.SCRIPT),
    "asleep": AgentProfile(name="asleep", program=("zzz",), enabled=False),
    "vain": AgentProfile(name="vain", program=("vain",), model="big"),
}


def document(*waves: Iterable[str]) -> str:
    """A plan of waves, each task given by its settings."""
    text, number = "", 0
    for index, wave in enumerate(waves, start=1):
        text += f"## Wave {index}\n"
        for settings in wave:
            number += 1
            text += f"### Task {number}: t\n```toml kasmos\n{settings}\n```\n"
    return text


def check(*waves: Iterable[str], default: str | None = "coder") -> Checked:
    return check_plan(parse_plan(document(*waves).encode(), "p.md"), AGENTS, default)


def texts(checked: Checked) -> list[str]:
    return [str(mistake) for mistake in checked.mistakes]


def test_nothing_wrong() -> None:
    """A plan that can run has no mistakes and no warnings."""
    assert check([""], ["needs = [1]", "agent = 'coder'"]) == Checked((), ())


@pytest.mark.parametrize(
    ("waves", "place", "problem"),
    [
        ((["needs = [1]"],), "p.md:4", "task 1 needs itself"),
        ((["needs = [7]"],), "p.md:4", "needs task 7, which does not exist (the plan has task 1)"),
        ((["needs = [2]"], [""]), "p.md:4", "needs task 2 of the later wave 2"),
        ((["needs = [2]", "needs = [1]"],), "p.md:4", "needs form a cycle: 1 -> 2 -> 1"),
        ((["needs = [2]", "needs = [3]", "needs = [2]"],), "p.md:8", "needs form a cycle: 2 -> 3 -> 2"),
    ],
)
def test_needs(waves: tuple[list[str], ...], place: str, problem: str) -> None:
    """Needs that could never be met are mistakes in the line of the needs."""
    (found,) = texts(check(*waves))
    assert found.startswith(f"{place}: ")
    assert problem in found


def test_long_cycle() -> None:
    """A cycle of very many tasks is told in one short line."""
    (found,) = texts(check([f"needs = [{number % 500 + 1}]" for number in range(1, 501)]))
    assert found.endswith("cycle: 1 -> 2 -> 3 -> 4 -> 5 -> 6 -> 7 -> 8 -> 9 -> 10 -> (490 more) -> 1")


def test_cycle_across_waves() -> None:
    """A cycle is told as one also where it spans waves."""
    assert any("cycle: 1 -> 2 -> 1" in text for text in texts(check(["needs = [2]"], ["needs = [1]"])))


@given(st.lists(st.lists(st.integers(1, 8), max_size=3), min_size=1, max_size=8))
def test_cycles_are_found_exactly_when_there_are_some(needs: list[list[int]]) -> None:
    """A cycle is reported exactly when the tasks cannot be put into an order; what is printed is one."""
    graph = {
        number: [need for need in wanted if need <= len(needs) and need != number]
        for number, wanted in enumerate(needs, start=1)
    }
    left = dict(graph)
    while free := [number for number, wanted in left.items() if not set(wanted) & set(left)]:
        for number in free:
            del left[number]
    found = [
        text for text in texts(check([f"needs = {wanted}" for wanted in graph.values()])) if "form a cycle" in text
    ]
    assert bool(found) == bool(left)
    for text in found:
        chain = [int(part) for part in text.partition("cycle: ")[2].split(" -> ")]
        assert chain[0] == chain[-1]
        assert all(second in graph[first] for first, second in itertools.pairwise(chain))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ("agent = 'codr'", 'p.md:4: unknown agent "codr" (did you mean "coder"?)'),
        ("agent = 'x'", 'p.md:4: unknown agent "x" (there are: coder, shell, vain)'),
        ("agent = 'asleep'", 'p.md:4: agent "asleep" is disabled (`enabled = false`)'),
        ("agent = 'shell'", "p.md:2: agent shell runs a script and the task has none"),
    ],
)
def test_agents(settings: str, problem: str) -> None:
    """An agent that does not exist, is disabled, or cannot run the task is a mistake."""
    (found,) = texts(check([settings]))
    assert found.startswith(problem)


def test_agent_of_the_defaults_is_told_once() -> None:
    """A wrong agent in the plan's defaults is one mistake, in the line of the defaults."""
    text = "```toml kasmos\nagent = 'x'\n```\n" + document(["", ""])
    checked = check_plan(parse_plan(text.encode(), "p.md"), AGENTS, None)
    assert [mistake.place for mistake in checked.mistakes] == ["p.md:2"]


def test_default_agent_that_does_not_exist_is_told_once() -> None:
    """A wrong default agent is one mistake and none of the plan's."""
    (found,) = texts(check(["", ""], default="x"))
    assert found.startswith('default agent: unknown agent "x"')


def test_no_agents_at_all() -> None:
    """Where no agent is configured, the cure is to add one."""
    checked = check_plan(parse_plan(document(["agent = 'x'"]).encode(), "p.md"), {}, None)
    assert "add [agents.x]" in checked.mistakes[0].cure


def test_no_agent() -> None:
    """A task without any agent cannot run; who only looks at the plan is warned."""
    parsed = parse_plan(document(["", ""]).encode(), "p.md")
    (mistake,) = check_plan(parsed, AGENTS, None).mistakes
    assert mistake.problem == "tasks 1, 2 have no agent and there is no default"
    assert "--agent shell" not in mistake.cure
    assert check_plan(parsed, AGENTS, None, require_agent=False) == Checked((), (mistake,))


def test_no_agent_but_the_one_that_is_built_in() -> None:
    """Who has configured nothing is told of the agent that is there all the same, and how to get others."""
    (mistake,) = check_plan(parse_plan(document([""]).encode(), "p.md"), {"shell": AGENTS["shell"]}, None).mistakes
    assert "--agent shell" in mistake.cure
    assert "kas config init" in mistake.cure


def test_model_that_is_not_passed() -> None:
    """A model that no flag passes on is warned about, once."""
    (warning,) = check(["", ""], default="vain").warnings
    assert "{model}" in warning.cure


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ("files = ['a.py']", "files = ['./a.py']", True),
        ("files = ['src/*.py']", "files = ['src/a.py']", True),
        ("files = ['src/a.py']", "files = ['src/**']", True),
        ("files = ['src/a.py']", "files = ['src/b.py']", False),
        ("files = ['a.py']", "files = ['a.py']\nneeds = [1]", False),
        ("files = ['a.py', 'a.py']", "", False),
    ],
)
def test_shared_files(first: str, second: str, shared: bool) -> None:
    """Two tasks of a wave that declare the same file are warned about, unless one waits for the other."""
    checked = check([first, second])
    assert checked.mistakes == ()
    assert ["both declare" in str(warning) for warning in checked.warnings] == [True] * shared


def test_shared_files_in_different_waves() -> None:
    """Tasks of different waves may share files."""
    assert check(["files = ['a']"], ["files = ['a']"]).warnings == ()


def test_load_tells_everything_at_once() -> None:
    """Mistakes of the document and reasons why it cannot run come together."""
    text = document(["needs = [1]\nagent = 'x'\nretries = -1"]) + "\n# Wave 2\n"
    with pytest.raises(PlanError) as caught:
        load_plan(text.encode(), "p.md", AGENTS, None)
    assert len(caught.value.mistakes) == 3
    assert ["is read as text" in str(doubt) for doubt in caught.value.warnings] == [True]


def test_load_has_all_warnings() -> None:
    """A loaded plan has the warnings of its document and those of its check."""
    text = document(["files = ['a']", "files = ['a']"]) + "```\nopen\n"
    assert len(load_plan(text.encode(), "p.md", AGENTS, "coder").warnings) == 2


def test_large_plans_are_checked_in_linear_time() -> None:
    """Eight times the plan takes about eight times as long to check, also when every wave has one task."""

    def cost(count: int) -> float:
        text = "".join(f"## Wave {number}\n### Task {number}: t\n" for number in range(count))
        parsed = parse_plan(text.encode(), "p.md")
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            check_plan(parsed, AGENTS, "coder")
            best = min(best, time.process_time() - start)
        return best

    assert cost(4000) < 25 * cost(500) + 0.02


def test_how_agents_are_come_by() -> None:
    """Where nobody has configured an agent, the cure names the verb that does; where somebody has, it does not."""
    shell = {"shell": AGENTS["shell"]}
    for settings in ("", "agent = 'coder'"):
        parsed = parse_plan(document([settings]).encode(), "p.md")
        (mistake,) = check_plan(parsed, shell, None).mistakes
        assert "kas config init" in mistake.cure
    parsed = parse_plan(document([""]).encode(), "p.md")
    (mistake,) = check_plan(parsed, AGENTS, None).mistakes
    assert "kas config init" not in mistake.cure
