"""
The weights of the fleet over HTTP: updates, adapters, what everybody has, and the end of an update
that was interrupted.

Once begun an update runs to its end, also when its client hangs up. How it is made is written in
`sgl_droute.workers.refitting`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import define, evolve
from twisted.web.server import Request

from sgl_droute.api.fleetwide import FleetWide, fields_in
from sgl_droute.api.forwarded import spooled_body
from sgl_droute.api.reading import choice, count, flag, json_fields, parameter, seconds
from sgl_droute.api.replies import reply
from sgl_droute.api.weights_object import comparison_shown, weights_shown
from sgl_droute.errors import BadRequest, BodyTooLarge
from sgl_droute.fleet.loras import LoraCall
from sgl_droute.fleet.refits import Refits
from sgl_droute.fleet.weights import DISK, Adaptation, Update, modules_of
from sgl_droute.fleet.worker import Worker
from sgl_droute.workers.bodies import Spool
from sgl_droute.workers.client import Call
from sgl_droute.workers.refitting import MODES, Manner, Refitting, Report, Told

# What is kept for workers that come later; calls of this kind are small JSON objects.
LARGEST_KEPT = 1 << 20

_ACTIONS = ("retry", "accept", "abandon")


@define(eq=False)
class Updates:
    """
    Updates workers, and tells what they have.

    Args:
        refitting: Makes updates.
        fleet: Keeps a request's body while the workers are told.
        durable: Whether updates are noted where a crash of the router does not reach.
    """

    refitting: Refitting
    fleet: FleetWide
    durable: bool

    @property
    def refits(self) -> Refits:
        """What was made so far."""
        return self.refitting.refits

    async def update_weights(self, request: Request, path: str) -> bytes:
        """
        Send the request, an update of weights, to all workers.

        Args:
            path: `DISK`, or that of updates from tensors.

        Raises:
            BadRequest: An option has a value that it cannot have.
            BodyTooLarge: It is from disk, and too large to be kept.
            NoWorker: There is nobody to send it to.
            NotFound: Nobody serves the model that it is for.
            Conflict: Another update is under way, and the request is strict.
            NotDrained: It is fenced, and work went on for too long.
            NoStorage: It could not be noted.
        """
        if path == DISK:
            _check_length(request, "An update of weights from disk")

        def told(spool: Spool) -> Told:
            # Tensors are bound to a GPU of their sender: nobody else could be given them later.
            body = spool.read() if path == DISK else b""
            modules = modules_of(path, fields_in(spool))
            change = Update(0, path, body, modules)
            shown = body or f"{spool.length} bytes".encode()
            return Told(path, shown, lambda n: evolve(change, number=n), self._call(request, spool))

        return await self._update(request, told)

    async def change_loras(self, request: Request, path: str) -> bytes:
        """
        As `update_weights`, for a call that changes the adapters.
        """
        _check_length(request, "A LoRA call")

        def told(spool: Spool) -> Told:
            call = LoraCall(path, fields_in(spool) or {})
            made = partial(Adaptation, call=call)
            return Told(path, spool.read(), made, self._call(request, spool))

        return await self._update(request, told)

    def show(self, request: Request) -> bytes:
        """
        What all models and workers have, and the updates so far.
        """
        return reply(request, weights_shown(self.refits, durable=self.durable))

    async def verify(self, request: Request) -> bytes:
        """
        Compare the checksums of all workers that are not known to be stale, now.
        """
        found = await self.fleet.to_the_end(self.refitting.verify())
        answer = {
            "consistent": all(each.agreed and not each.differing for each in found.values())
            and not any(each.silent for each in found.values()),
            "models": [comparison_shown(model, each) for model, each in found.items()],
            "stale": [worker.url for worker in self.refits.pool if worker.stale],
        }
        return reply(request, answer)

    async def resolve(self, request: Request) -> bytes:
        """
        End an update that was interrupted, as the request's ``action`` says.

        Raises:
            BadRequest: There is no such action, or it cannot be done.
            Conflict: No update was interrupted; or most workers do not agree.
        """
        action = json_fields(request, ("action",)).get("action")
        if action not in _ACTIONS:
            raise BadRequest(f"action must be one of {', '.join(_ACTIONS)}")
        if action == "accept":
            await self.fleet.to_the_end(self.refitting.accept())
        elif action == "abandon":
            self.refitting.abandon()
        else:
            report = await self.fleet.to_the_end(self.refitting.retry())
            return reply(request, _reported(report))
        return reply(request, weights_shown(self.refits, durable=self.durable))

    async def _update(self, request: Request, told: Callable[[Spool], Told]) -> bytes:
        manner = _manner_of(request)
        report: Report = await self.fleet.run(
            request, lambda spool: self.refitting.update(told(spool), manner)
        )
        return reply(request, _reported(report), _status(report) if manner.strict else 200)

    def _call(self, request: Request, spool: Spool) -> Callable[[Worker], Call]:
        return lambda worker: self.fleet.call(request, worker, spool)


def _manner_of(request: Request) -> Manner:
    given = {
        "mode": choice(request, "mode", MODES),
        "max_unavailable": count(request, "max_unavailable"),
        "drain_timeout": seconds(request, "drain_timeout"),
        "verify": flag(request, "verify"),
        "strict": flag(request, "strict"),
        "model": parameter(request, "model"),
    }
    options: dict[str, Any] = {name: each for name, each in given.items() if each is not None}
    return Manner(**options)


def _status(report: Report) -> int:
    if not report.took:
        return 502
    return 200 if report.whole else 207


def _reported(report: Report) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "results": [result.shown() for result in report.results],
        "epoch": max(report.epochs.values()),
        "consistent": report.consistent,
        "stale": report.stale,
    }
    if len(report.epochs) > 1:
        answer["epochs"] = report.epochs
    if report.compared:
        answer["verified"] = [comparison_shown(*each) for each in report.compared.items()]
    return answer


def _check_length(request: Request, what: str) -> None:
    if spooled_body(request).length > LARGEST_KEPT:
        raise BodyTooLarge(f"{what} is kept, and has at most {LARGEST_KEPT} bytes")
