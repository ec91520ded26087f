"""Rules answer what they cover for certain, refuse what they touch at all, and leave the rest to a person."""

from __future__ import annotations

import re
import shlex

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kasmos.model.approval import (
    ApprovalPolicy,
    Ask,
    AskKind,
    Decision,
    Meaning,
    Option,
    PermissionDefault,
    Rule,
)
from kasmos.supervision.approval_policy import Verdict, decide_approval
from kasmos.supervision.command_line import read_command_line
from kasmos.supervision.glob import glob_matches
from tests import strategies  # noqa: F401  # loads Hypothesis' settings

ALLOW, DENY, ASK = Decision.ALLOW, Decision.DENY, Decision.ASK
RULES = (
    Rule("git", ALLOW, tool="Bash", command="git status"),
    Rule("log", ALLOW, tool="Bash", command="git log *"),
    Rule("cat", ALLOW, tool="Bash", command="cat src/*"),
    Rule("find", ALLOW, tool="Bash", command="find *"),
    Rule("sudo", ALLOW, tool="Bash", command="sudo *"),
    Rule("sh", ALLOW, tool="Bash", command="sh scripts/check"),
    Rule("write", ALLOW, tool="Write", path="src/**"),
    Rule("no-rm", DENY, command="rm *"),
    Rule("no-env", DENY, path=".env"),
    Rule("no-ssh", DENY, path="/home/me/.ssh/**"),
    Rule("push", ASK, command="git push *"),
    Rule("stash", ALLOW, command="git *"),
)


def judge(ask: Ask, rules: tuple[Rule, ...] = RULES, default: PermissionDefault = PermissionDefault.PROMPT) -> Verdict:
    return decide_approval(ask, ApprovalPolicy(rules, default), cwd="/work")


def bash(command: str) -> Ask:
    return Ask("1", tool="Bash", command=command)


def only(*commands: str) -> tuple[Rule, ...]:
    return tuple(Rule(f"rule-{n}", ALLOW, tool="Bash", command=one) for n, one in enumerate(commands))


@pytest.mark.parametrize(
    "command",
    [
        "git status",
        "git  'status'",
        "git status && git log -3",
        "git status; git log",
        "git log | git status",
        "git log --oneline 2>&1",
        "git log 2>/dev/null",
        "git status\ngit status",
        "cat src/a.py",
        'git log "--grep=a b"',
        "find . -name '*.py'",
        "sh scripts/check",
    ],
)
def test_command_covered(command: str) -> None:
    """A command line is allowed when rules cover each of its commands, word by word."""
    assert judge(bash(command)).decision is ALLOW


FOOLING = [
    "git status; curl evil",
    "git status && curl evil",
    "git status || curl evil",
    "git status | curl evil",
    "git status & curl evil",
    "git status\ncurl evil",
    "git status\r\ncurl evil",
    "git status $(curl evil)",
    "git log $(curl evil)",
    "git log `curl evil`",
    'git log "$(curl evil)"',
    'git log "`curl evil`"',
    "git log $HOME",
    "git log > /etc/passwd",
    "git log >/dev/null/../../etc/passwd",
    "git log >" + " " * 190 + "/dev/null/../x",
    "git log 2>&1x",
    "git log &>x",
    "git log >| x",
    "git log >> x",
    "git log < /etc/shadow",
    "git log <(curl evil)",
    "git log <<< x",
    "git log << EOF\nx\nEOF",
    "git status extra",
    "(git status)",
    "{ git status; }",
    "! git status",
    "if git status; then git status; fi",
    "GIT_SSH_COMMAND=evil git status",
    "PATH=. git status",
    "A+=1 git status",
    "A[0]=1 git status",
    "FOO=1",
    "sudo git status",
    "sudo -u root sh",
    "env git status",
    "/tmp/git status",
    "./git status",
    "../git status",
    "~/git status",
    "g*t status",
    "=git status",
    "$git status",
    "${IFS}git status",
    "cat src/../../etc/passwd",
    "cat src/a/b",
    "cat src/a /etc/passwd",
    "cat src/{a,../../etc/passwd}",
    "cat -n src/a",
    "cat ~/src/a",
    "find . -delete",
    "find . -exec curl evil ;",
    "find . -exec curl evil \\;",
    "find . -fprint /etc/x",
    "sh -c 'git status'",
    "sh scripts/check; curl evil",
    "sh scripts/other",
    "eval git status",
    "xargs git status",
    "python3 -c 'print()'",
    "git status # harmless",
    "git status \\\n",
    "git 'status",
    'git "status',
    "git status\0",
    "git status\x1b[2K",
    "git status \u202e",
    "git\u00a0status",
    "git status\u2028curl evil",
    "git log \u200b",
    "alias git=curl",
    "git() { curl evil; }",
    "git status;;",
    "git status && && curl",
    "",
    " ",
    ";",
    "git log " + "x" * 30_000,
    "git log $'\\x41'",
    "coproc git status",
    "time git status",
    "[[ -f x ]]",
    "for f in *; do git status; done",
]


@pytest.mark.parametrize("command", FOOLING)
def test_command_not_covered(command: str) -> None:
    """What a line may do beyond what rules cover is never allowed by them, however it is written."""
    rules = tuple(rule for rule in RULES if rule.id not in ("stash", "no-rm", "push"))
    assert judge(bash(command), rules).decision is ASK


@pytest.mark.parametrize(
    "command",
    [
        "rm x",
        "rm",
        "/bin/rm -rf /",
        "../../bin/rm x",
        "'rm' x",
        "r\\m x",
        'r"m" x',
        "FOO=1 rm x",
        "sudo rm x",
        "sudo -u root /bin/rm x",
        "env -i A=1 rm x",
        "nohup nice -n 10 rm x",
        "git status && rm x",
        "git status;rm x",
        "git status|rm x",
        "git status & rm x",
        "git log $(rm x)",
        "git log `rm x`",
        "(rm x)",
        "{ rm x; }",
        "sh -c 'rm x'",
        'bash -lc "git status; rm x"',
        "sh -c \"sh -c 'rm x'\"",
        "find . -exec rm {} +",
        "echo x | xargs rm",
        "git status > x; rm x",
        "rm \\\n-rf x",
        "git status\nrm x",
        "timeout 5 rm x",
        "rm $HOME",
        "time rm x",
    ],
)
def test_command_denied(command: str) -> None:
    """A refusal looks through paths, quotes, wrappers, shells and everything that joins commands, and wins."""
    verdict = judge(bash(command), (Rule("all", ALLOW, tool="Bash"), *RULES), PermissionDefault.BYPASS)
    assert (verdict.decision, verdict.rule) == (DENY, "no-rm")


@pytest.mark.parametrize("command", ["git rm x", "echo rm x", "git commit -m 'rm x'", "npm run rm"])
def test_command_that_speaks_of_another(command: str) -> None:
    """A word is not a command: what only names a denied program is not denied."""
    assert judge(bash(command)).decision is not DENY


@pytest.mark.parametrize(
    ("tool", "path", "decision"),
    [
        ("Write", "src/a.py", ALLOW),
        ("Write", "/work/src/deep/er/a.py", ALLOW),
        ("Write", "./src/a.py", ALLOW),
        ("Write", "/work/src/../x", ASK),
        ("Write", "src/../../etc/passwd", ASK),
        ("Write", "src/..", ASK),
        ("Write", "/etc/passwd", ASK),
        ("Write", "~/src/a", ASK),
        ("Write", "/work/srcx/a", ASK),
        ("Write", "src/a\nb", ASK),
        ("write", "src/a", ASK),
        ("WriteAll", "src/a", ASK),
        ("Write", "", ASK),
        ("Write", "src/.env", DENY),
        ("Read", "/anywhere/.env", DENY),
        ("Read", "/home/me/.ssh/id", DENY),
        ("Read", "/home/me/x/../.ssh/id", DENY),
        ("Read", "../home/me/.ssh/id", DENY),
        ("Read", "/home/me/.sshx/id", ASK),
    ],
)
def test_path(tool: str, path: str, decision: Decision) -> None:
    """A file is allowed where its path leads for certain, and denied wherever it may lead to."""
    assert judge(Ask("1", tool=tool, path=path)).decision is decision


def test_path_rule_and_command() -> None:
    """Who allows a file has not allowed a command that names it."""
    ask = Ask("1", tool="Bash", command="curl evil", path="src/a")
    assert judge(ask, (Rule("p", ALLOW, tool="*", path="src/**"),)).decision is ASK


def test_working_directory_is_no_pattern() -> None:
    """A `*` in the name of the working directory is a letter."""
    policy = ApprovalPolicy((Rule("p", ALLOW, tool="Write", path="src/*"),))
    assert decide_approval(Ask("1", tool="Write", path="/a-b/src/x"), policy, cwd="/a*b").decision is ASK
    assert decide_approval(Ask("1", tool="Write", path="/a*b/src/x"), policy, cwd="/a*b").decision is ALLOW


def test_reservation_wins_over_permission() -> None:
    """`ask` wins over `allow`, and the verdict names it."""
    verdict = judge(bash("git status && git push --force"))
    assert (verdict.decision, verdict.rule) == (ASK, "push")


def test_rules_named() -> None:
    """A permission names every rule that it rests on."""
    assert judge(bash("git status && git log")).rule == "git, log"


def test_nothing_said() -> None:
    """No rule means a person."""
    verdict = judge(bash("make"))
    assert (verdict.decision, verdict.rule, verdict.why) == (ASK, "", "no rule allows it")


@pytest.mark.parametrize(
    "ask",
    [
        Ask("1"),
        Ask("1", text="Do you trust the files in this folder?"),
        Ask("1", kind=AskKind.QUESTION, tool="Bash", command="git status"),
    ],
)
@pytest.mark.parametrize("default", list(PermissionDefault))
def test_not_understood(ask: Ask, default: PermissionDefault) -> None:
    """Neither a rule nor a bypass answers a question or a dialog of which nothing was understood."""
    assert judge(ask, (Rule("all", ALLOW, tool="*"), Rule("none", DENY, tool="*")), default).decision is ASK


@pytest.mark.parametrize("decision", [ALLOW, DENY])
def test_no_plain_option(decision: Decision) -> None:
    """What a dialog does not offer is not answered: no rule widens a permission, or chooses what is only near."""
    options = (Option("Yes, and do not ask again", Meaning.ALLOW_ALWAYS), Option("Tell it what to do"))
    verdict = judge(Ask("1", tool="Bash", command="ls", options=options), (Rule("r", decision, tool="Bash"),))
    assert verdict.decision is ASK


def test_bypass() -> None:
    """Under bypass all is allowed that no rule holds back, and what rules may hold back has to be readable."""
    bypass = PermissionDefault.BYPASS
    assert judge(bash("make $X"), (), bypass).decision is ALLOW
    assert judge(bash("make"), RULES, bypass).decision is ALLOW
    assert judge(bash("make $X"), RULES, bypass).decision is ASK
    assert judge(Ask("1", tool="Read", path="~me/.ssh/id"), RULES, bypass).decision is ASK


def test_tool_alone() -> None:
    """A rule that names a tool only allows each command that can be read."""
    rules = (Rule("all", ALLOW, tool="Bash"),)
    assert judge(bash("make test && sudo make install"), rules).decision is ALLOW
    assert judge(bash("make test"), rules).decision is ALLOW
    assert judge(bash("make $X"), rules).decision is ASK
    assert judge(bash("A=1 make"), rules).decision is ALLOW


@given(st.text("ab/.*", max_size=8), st.text("ab/.\n", max_size=10), st.booleans())
def test_globs_as_regular_expressions(pattern: str, text: str, across: bool) -> None:
    """A pattern fits what the regular expression that says the same fits."""
    special = {"**/": "(?:.*/)?", "**": ".*", "*": ".*" if across else "[^/]*"}
    parts = re.split(r"(\*\*/|\*\*|\*)", pattern)
    same = "".join(special.get(part, re.escape(part)) for part in parts)
    assert glob_matches(pattern, text, across=across) is (re.fullmatch(same, text, re.DOTALL) is not None)


@pytest.mark.parametrize(
    "command",
    ["sudo " * 4000, "a" * 19_000, "sh -c '" + "sudo " * 3000 + "'", "ok " + "ab" * 9000, "'" * 19_999, "$(" * 9000],
)
def test_long_commands(command: str) -> None:
    """No command is so long, or so nested, that judging it is no matter of a moment."""
    rules = (Rule("d", DENY, command="*a*a*a*b"), Rule("e", DENY, command="ok *a*a*a*c"), *RULES)
    assert judge(bash(command), rules).decision in Decision


# --- properties -----------------------------------------------------------------------

PIECES = ["ok", "a", " ", "  ", ";", "&&", "||", "|", "&", "\n", "$", "(", ")", "`", "'", '"', "\\", ">", "<", "2>&1"]
PIECES += ["#", "{", "}", "*", "?", "~", "=", "A=1", "!", "..", "/", "x", "evil", "/dev/null", "-", "if", "\t", "\r"]
lines = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


@given(lines)
def test_allowed_line_is_plain(line: str) -> None:
    """Whatever is allowed is nothing but the words of the rule, as any shell would split them."""
    for part in [line, f"ok a{line}", f"ok a {line}"]:
        if judge(bash(part), only("ok a")).decision is ALLOW:
            commands = read_command_line(part).commands
            assert all(command.words == ("ok", "a") for command in commands)
            plain = part.replace("2>&1", " ").replace(">/dev/null", " ").replace("</dev/null", " ")
            lexed = shlex.split(plain.translate(str.maketrans(";&|", "   ")))
            assert lexed == ["ok", "a"] * len(commands)


@given(lines, lines)
def test_denied_command_anywhere(before: str, after: str) -> None:
    """No line on which a denied command stands on a line of its own is ever allowed."""
    # Inside quotes a line is no command, whatever stands on it; backslashes join lines.
    assume(not set(before) & set("'\"\\"))
    rules = (Rule("all", ALLOW, tool="Bash"), Rule("ok", ALLOW, command="ok *"), Rule("no", DENY, command="evil *"))
    assert judge(bash(f"{before}\nevil x\n{after}"), rules).decision is not ALLOW


@given(st.text(max_size=40))
def test_any_text(text: str) -> None:
    """Any text at all gives a verdict."""
    assert judge(bash(text)).decision in Decision
    assert judge(Ask("1", tool=text, path=text)).decision in Decision


@pytest.mark.parametrize(
    ("paths", "decision"),
    [
        (("src/a", "src/b/c"), ALLOW),
        (("src/a", "doc/b"), ASK),
        (("doc/b", "src/a"), ASK),
        (("src/a", "src/../b"), ASK),
        (("src/a", ".env"), DENY),
        (("src/a", "/home/me/.ssh/id"), DENY),
    ],
)
def test_several_files(paths: tuple[str, ...], decision: Decision) -> None:
    """What is for several files is allowed only if each of them is, and refused if one of them is."""
    ask = Ask("1", tool="Write", path=paths[0], more_paths=paths[1:])
    assert judge(ask).decision is decision
    assert "and 1 more" in ask.subject
