"""`vidray batch status`: how far a job is, from its store alone."""

from jobs.batch.output import open_output
from jobs.batch.watch import describe_failures
from jobs.exits import Exit
from jobs.printable import printable
from pipeline.errors import PlanCorrupt, StoreCorrupt
from pipeline.store.commit import load_success
from pipeline.store.job_plan import load_plan, lost_shards
from pipeline.store.objects import ObjectStore
from pipeline.store.passed_over import describe_passed_over
from pipeline.store.retries import find_retries
from pipeline.store.rows import count_newest


def run(uri: str) -> int:
    """Print; exit code 0 when finished, 3 when finished with failures, 1 before that, and where a
    part was lost since.

    StoreCorrupt names what stands where a part belongs, PlanCorrupt lists of videos that are lost,
    after all else is said.
    """
    output = open_output(uri)
    plan, made = output.plan, count_newest(output.store)
    is_finished = load_success(output.store) is not None
    print(f"job      {plan.job_id}, {'finished' if is_finished else 'not finished'}")
    print(f"source   {printable(plan.spec.source)}")
    failed = describe_failures(made.codes, made.result_codes)
    print(f"videos   {made.num_rows} of {plan.num_items}, {failed}")
    is_lost = is_finished and made.num_parts < plan.num_parts
    lost = ", the others are lost: vidray fsck names them, --repair has them made again"
    is_told = is_lost and not made.foreign  # which ends with the same advice
    print(f"parts    {made.num_parts} of {plan.num_parts}{lost if is_told else ''}")
    if plan.passed_over:
        print(f"others   {describe_passed_over(plan.passed_over)}")
    retries = [each.store for each in find_retries(output.store)]
    num_open = sum(load_success(each) is None for each in retries)
    if retries:
        print(f"retries  {len(retries)}" + (f", {num_open} not finished" if num_open else ""))
    if lists := [key for each in [output.store, *retries] for key in _lost_lists(each)]:
        raise PlanCorrupt(f"{uri}: {'; '.join(lists)} is lost")
    if made.foreign:
        raise StoreCorrupt(f"{uri}: not of this job: {'; '.join(made.foreign)}")
    if is_lost or num_open or not is_finished:
        return Exit.FAILED
    return Exit.SOME_FAILED if made.codes or made.result_codes else Exit.OK


def _lost_lists(store: ObjectStore) -> list[str]:
    plan = load_plan(store)
    return lost_shards(store, plan) if plan else []
