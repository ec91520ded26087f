"""Plan documents: Markdown or TOML to `kasmos.model.plan.Plan`, and what can be said about one before it runs.

Pure: bytes and profiles in, values out. Knows nothing of files, sessions or runs.
"""

from kasmos.plans.check import Checked, agent_of, check_plan, load_plan
from kasmos.plans.command import Command, compile_task, first_script, render_prompt, takes_model
from kasmos.plans.findings import in_document_order
from kasmos.plans.parse import ParsedPlan, ReadPlan, parse_plan, read_plan

__all__ = [
    "Checked",
    "Command",
    "ParsedPlan",
    "ReadPlan",
    "agent_of",
    "check_plan",
    "compile_task",
    "first_script",
    "in_document_order",
    "load_plan",
    "parse_plan",
    "read_plan",
    "render_prompt",
    "takes_model",
]
