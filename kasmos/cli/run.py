"""`kas run` and `kas resume`: grammar. What they do is in `foreground`."""

from __future__ import annotations

import click

MODES = ("headless", "tmux", "scripted")
"""The words of `ExecutionMode`, here again so that help costs no import."""
_AGENT = click.option("--agent", metavar="NAME", help="Agent for tasks that name none.")
_MODE = click.option(
    "--mode", metavar="M", type=click.Choice(MODES), help="Run every agent in this mode: headless, tmux or scripted."
)
_MAX = click.option("--max-concurrent", type=int, metavar="N", help="Tasks that may run at once.")
_TIMEOUT = click.option("--task-timeout", metavar="T", help='Time a task may take, such as "90" (seconds) or "10m".')
_FAILURE = click.option(
    "--on-failure", metavar="P", help="After a failed task: stop (default), continue, or fail_fast."
)
_KEEP = click.option("--keep", is_flag=True, help="When asked to leave (Ctrl-C), leave the programs running.")
_JSON = click.option("--json", "as_json", is_flag=True, help="One event per line as JSON, nothing else on stdout.")
_JUNIT = click.option("--junit", metavar="FILE", type=click.Path(dir_okay=False), help="Write a JUnit report.")
_SUMMARY = click.option("--summary", metavar="FILE", type=click.Path(dir_okay=False), help="Append a Markdown summary.")


@click.command("run")
@click.argument("plan")
@_AGENT
@_MODE
@_MAX
@_TIMEOUT
@_FAILURE
@click.option("--budget-daily", metavar="USD", help="What everything together may cost in a day.")
@click.option("--fresh", is_flag=True, help="Start anew; an unfinished run of the same plan is ended.")
@_KEEP
@_JSON
@_JUNIT
@_SUMMARY
@click.pass_context
def run(
    ctx: click.Context,
    plan: str,
    agent: str | None,
    mode: str | None,
    max_concurrent: int | None,
    task_timeout: str | None,
    on_failure: str | None,
    budget_daily: str | None,
    fresh: bool,
    keep: bool,
    as_json: bool,
    junit: str | None,
    summary: str | None,
) -> None:
    """Run a PLAN of waves (a Markdown or TOML file, or - for standard input).

    An unfinished run of the same plan is continued. Exits 0 when every task succeeded, 1 when some did not,
    130 when interrupted: the same command goes on from there.
    """
    from kasmos.cli import foreground
    from kasmos.daemon.terms import RunOverrides

    overrides = RunOverrides(
        agent=agent, mode=mode, max_concurrent=max_concurrent, task_timeout=task_timeout, on_failure=on_failure
    )
    request = foreground.Request(
        plan=plan,
        overrides=overrides,
        fresh=fresh,
        keep=keep,
        as_json=as_json,
        junit=junit,
        summary=summary,
        budget_daily=budget_daily,
    )
    foreground.complete(foreground.place_of(ctx), request)


@click.command("resume")
@click.argument("run_id", required=False, metavar="[RUN]")
@_KEEP
@_JSON
@_JUNIT
@_SUMMARY
@click.pass_context
def resume(
    ctx: click.Context, run_id: str | None, keep: bool, as_json: bool, junit: str | None, summary: str | None
) -> None:
    """Continue an unfinished RUN (the newest one when none is named), with the plan as it was."""
    from kasmos.cli import foreground

    request = foreground.Request(resume=run_id or "", keep=keep, as_json=as_json, junit=junit, summary=summary)
    foreground.complete(foreground.place_of(ctx), request)
