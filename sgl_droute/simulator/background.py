"""
What the asynchronous routes share: work that outlives its request, and lists of jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from sgl_droute.simulator.engine import Engine, Task
from sgl_droute.simulator.jobs import MOST_PER_PAGE, Job, Jobs, completed, failed, started
from sgl_droute.simulator.replies import (
    GenerationFailed,
    Problem,
    Reply,
    json_reply,
    unprocessable,
)

FAILED = "Model generation failed. Error from scheduler: "

log = Logger()


def start_work(engine: Engine, jobs: Jobs, job: Job, task: Task) -> None:
    """
    Put *job* among *jobs* and its *task* in line; the record follows the work from then on.
    """
    jobs.put(job)
    Deferred.fromCoroutine(_work(engine, jobs, job, task))


async def _work(engine: Engine, jobs: Jobs, job: Job, task: Task) -> None:
    def on_start(duration: float) -> None:
        nonlocal job
        job = started(job, engine.now(), duration)
        jobs.change(job)

    try:
        made = await engine.generate(evolve(task, on_start=on_start))
    except GenerationFailed as error:
        jobs.change(failed(job, FAILED + str(error)))
    except Exception:
        log.failure("Job {id} broke", id=job.id)
        jobs.change(failed(job, f"{FAILED}internal error"))
    else:
        memory = engine.model.peak_memory_mb
        jobs.change(completed(job, engine.now(), made.inference_time, memory))


def list_reply(
    jobs: Jobs, query: Mapping[str, str], show: Callable[[Job], dict[str, object]]
) -> Reply:
    """
    One page of *jobs*.

    Raises:
        WorkerError: 422 for a bad ``limit`` or ``order``.
    """
    after, limit, newest_first = _page(query)
    page, more = jobs.page(after, limit, newest_first=newest_first)
    answer = {
        "data": [show(job) for job in page],
        "object": "list",
        "first_id": page[0].id if page else None,
        "last_id": page[-1].id if page else None,
        "has_more": more,
    }
    return json_reply(answer)


def _page(query: Mapping[str, str]) -> tuple[str | None, int, bool]:
    limit, order = query.get("limit", "20"), query.get("order", "desc")
    found = [problem for problem in (_bad_limit(limit), _bad_order(order)) if problem]
    if found:
        raise unprocessable(*found)
    return query.get("after"), int(limit), order == "desc"


def _bad_limit(limit: str) -> Problem | None:
    where = ("query", "limit")
    if not limit.lstrip("-").isdecimal():
        message = "Input should be a valid integer, unable to parse string as an integer"
        return Problem("int_parsing", where, message, limit)
    if int(limit) < 1:
        message = "Input should be greater than or equal to 1"
        return Problem("greater_than_equal", where, message, limit, {"ge": 1})
    if int(limit) > MOST_PER_PAGE:
        message = f"Input should be less than or equal to {MOST_PER_PAGE}"
        return Problem("less_than_equal", where, message, limit, {"le": MOST_PER_PAGE})
    return None


def _bad_order(order: str) -> Problem | None:
    if order in ("asc", "desc"):
        return None
    pattern = "^(asc|desc)$"
    message = f"String should match pattern '{pattern}'"
    where = ("query", "order")
    return Problem("string_pattern_mismatch", where, message, order, {"pattern": pattern})
