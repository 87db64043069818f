"""`vidray plan`: what a job would take, before anything is started or paid for."""

from rich.console import Console

from jobs.exits import Exit
from jobs.plan.options import Outlook
from jobs.plan.outlook import make_plan
from jobs.plan.plan_table import show


def run(outlook: Outlook, console: Console) -> int:
    """Scan, reckon, show; returns the exit code: FAILED for what cannot run at all."""
    plan = make_plan(outlook, console)
    show(plan, outlook, console)
    is_told = plan.scan.seen and not any(each.stops for each in plan.problems)
    return Exit.OK if is_told else Exit.FAILED
