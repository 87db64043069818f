"""`vidray batch status`: how far a job is, from its store alone."""

from jobs.batch.output import open_output
from jobs.batch.watch import describe_failures
from jobs.exits import Exit
from pipeline.store.commit import load_success
from pipeline.store.rows import count_rows


def run(uri: str) -> int:
    """Print; exit code 0 when finished, 3 when finished with failures, 1 before that."""
    output = open_output(uri)
    plan, made = output.plan, count_rows(output.store)
    is_finished = load_success(output.store) is not None
    print(f"job      {plan.job_id}, {'finished' if is_finished else 'not finished'}")
    print(f"source   {plan.spec.source}")
    print(f"videos   {made.num_rows} of {plan.num_items}, {describe_failures(made.codes)}")
    print(f"parts    {made.num_parts} of {plan.num_parts}")
    if not is_finished:
        return Exit.FAILED
    return Exit.SOME_FAILED if made.codes else Exit.OK
