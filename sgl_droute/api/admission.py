"""
Makes jobs of requests: what a client's request is to the scheduler.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from secrets import token_hex

from attrs import define, evolve, field
from twisted.internet.task import Cooperator
from twisted.web.server import Request

from sgl_droute.api.asked import NOTHING, Said, asked
from sgl_droute.api.forwarded import spooled_body
from sgl_droute.api.wishes import wishes_of
from sgl_droute.errors import RouterError
from sgl_droute.fleet.capabilities import ANYTHING, READING, Want
from sgl_droute.fleet.demand import Asked
from sgl_droute.fleet.job import JOBS, Job
from sgl_droute.fleet.rollouts import Rollouts
from sgl_droute.settings import RouterSettings
from sgl_droute.workers.turns import Turns

_READING = (b"GET", b"HEAD", b"OPTIONS")


@define(eq=False)
class Admission:
    """
    Reads from requests what their turn depends on.

    Args:
        turns: Knows the time, and whether it matters which model a request names.
        rollouts: Told how many requests a batch will have.
        settings: How long requests may wait, and with which priority.
        cooperator: Reads large bodies in steps.
    """

    turns: Turns
    rollouts: Rollouts
    settings: RouterSettings
    cooperator: Cooperator
    _ids: Iterator[str] = field(factory=lambda: _job_ids(), init=False)

    async def job(self, request: Request, want: Want) -> Job:
        """
        What *request* is to the scheduler.

        Raises:
            BadRequest: A header makes no sense.
        """
        settings, now = self.settings, self.turns.now()
        wishes = wishes_of(request, max_priority=settings.max_priority, now=now)
        if request.method in _READING:
            want = READING if want is ANYTHING else evolve(want, slot=want.session)
        if wishes.epoch is not None and want.slot:
            want = evolve(want, epoch=wishes.epoch)
        said = await self._said(request) if want.abilities and want.slot else NOTHING
        if said.model is not None and self.turns.several_models:
            want = evolve(want, model=said.model)
        if wishes.batch is not None and wishes.size is not None:
            self.rollouts.expect(wishes.batch, wishes.size)
        return Job(
            id=next(self._ids),
            want=want,
            demand=Asked(want.kind, said.fields, said.references),
            submitted=now,
            priority=wishes.priority,
            client=wishes.client,
            share=wishes.share,
            batch=wishes.batch,
            group=wishes.group,
            deadline=wishes.deadline,
            expires=now + settings.queue_timeout if settings.queue_timeout else None,
            hand_over=now + settings.job_accept_timeout if want.kind in JOBS else None,
            why=wishes.why,
        )

    async def _said(self, request: Request) -> Said:
        content_type = request.getHeader(b"content-type")
        text = None if content_type is None else content_type.decode("latin-1")
        return await asked(spooled_body(request), text, self.cooperator)


@contextmanager
def named(job: Job) -> Iterator[None]:
    """
    Have errors within name *job* to the client.
    """
    try:
        yield
    except RouterError as error:
        error.headers.setdefault("X-Router-Job", job.id)
        raise


def _job_ids() -> Iterator[str]:
    """
    Ids that no other router and no other run of this one gives.
    """
    run = token_hex(4)
    return (f"{run}-{number}" for number in count(1))
