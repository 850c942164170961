"""
Brings a worker to what the fleet has, before it gets work: the updates that it lacks, in order and
unchanged, then the LoRA set, then a look at its checksums beside those of another worker.

What a worker has and is to have is known by `sgl_droute.fleet.refits`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from attrs import define
from twisted.logger import Logger

from sgl_droute.errors import RouterError
from sgl_droute.fleet.checksums import Likeness, Weighed
from sgl_droute.fleet.loras import UNMERGE, LoraCall
from sgl_droute.fleet.modules import NONE
from sgl_droute.fleet.refit import Verdict
from sgl_droute.fleet.refits import Refits
from sgl_droute.fleet.weights import Adaptation, Desired, Update
from sgl_droute.fleet.worker import Worker
from sgl_droute.workers.broadcast import Result
from sgl_droute.workers.orders import Orders, reason_of
from sgl_droute.workers.outstanding import Outstanding

log = Logger()

_LONGEST_TOLD = 300
_PLAIN = LoraCall(UNMERGE, {})


class Behind(Exception):
    """
    A worker cannot be brought up to date now; the text says why.
    """


@define(eq=False)
class CatchUp:
    """
    Brings workers up to date.

    Args:
        refits: Knows what they have and are to have.
        orders: Sends them calls.
        outstanding: Tells when a worker has answered what it was sent.
        written: Fires when what was noted so far is safe from a crash.
    """

    refits: Refits
    orders: Orders
    outstanding: Outstanding
    written: Callable[[], Awaitable[None]]

    async def bring(self, worker: Worker) -> None:
        """
        Give *worker* what it lacks; it gets work when this returns.

        Raises:
            Behind: It lacks something still.
        """
        with self._held(worker):
            await self.outstanding.none(worker)
            actual = self._now(worker).actual
            if actual.stranded:
                raise Behind("an operator has set it aside until it is restarted")
            if actual.torn != NONE or not actual.sure:
                await self._prove(worker)
            await self._replay(worker)
            await self._give_loras(worker)
            await self._compare(worker)
            if not self._now(worker).actual.current(self._desired(worker)):
                raise Behind("the fleet's weights changed meanwhile")
        log.info(
            "worker {url} is at weights epoch {epoch}",
            url=worker.url,
            epoch=self._now(worker).actual.epoch,
        )

    async def _prove(self, worker: Worker) -> None:
        """
        Find out whether a worker of whose weights that is not known has those that it is to have.
        Where that cannot be told, it is to get all of them.
        """
        refits = self.refits
        likeness = await self._likeness(worker)
        if likeness is Likeness.SAME:
            refits.proven(worker)
            return
        interrupted = refits.interrupted
        # Adapters are given anew in any case.
        if (
            interrupted is not None
            and isinstance(interrupted.change, Update)
            and worker.url in interrupted.unfinished
        ):
            if likeness is Likeness.OPEN or not interrupted.change.replayable:
                raise Behind("nobody knows whether it took the update that was interrupted")
            await self._send_again(worker, interrupted.change)
        else:
            refits.begun_anew(worker)

    async def _send_again(self, worker: Worker, update: Update) -> None:
        """
        Find out what becomes of an interrupted update that a worker has taken, or it was restarted
        since.
        """
        refits = self.refits
        await self._calling(worker)
        result = await self.orders.update(worker, update)
        if result.verdict not in (Verdict.TOOK, Verdict.REFUSED):
            self._failed(worker, update, result)
        if refits.interrupted is None or refits.interrupted.change is not update:
            raise Behind("the fleet's weights changed meanwhile")
        refits.begun_anew(worker)
        if result.verdict is Verdict.REFUSED:
            log.warn("the interrupted update cannot be made: {why}", why=result.body)
            refits.void()
            return
        log.warn("worker {url} has taken the interrupted update", url=worker.url)
        refits.roll_forward()
        refits.replayed(worker, update)

    async def _replay(self, worker: Worker) -> None:
        desired, actual = self._desired(worker), self._now(worker).actual
        if not desired.cures(actual):
            raise Behind("nobody knows which weights it has: update all modules, or restart it")
        missing = desired.missing(actual)
        if not all(update.replayable for update in missing):
            raise Behind(
                "it missed an update from tensors, which cannot be sent again: it waits for the"
                " next one"
            )
        for update in missing:
            await self._calling(worker)
            result = await self.orders.update(worker, update)
            if result.verdict is not Verdict.TOOK:
                self._failed(worker, update, result)
            self.refits.replayed(worker, update)

    async def _give_loras(self, worker: Worker) -> None:
        desired = self._desired(worker)
        loras = self._now(worker).actual.loras
        if loras == desired.loras_number:
            return
        calls, sent = desired.loras.calls, []
        if not calls or (loras != 0 and "all" not in calls[0].targets):
            calls = (_PLAIN, *calls)  # parts that are not set may have adapters
        for call in calls:
            await self._calling(worker)
            result = await self.orders.adapt(worker, call)
            if result.verdict not in (Verdict.TOOK, Verdict.EXEMPT):
                self._failed(worker, Adaptation(0, call), result)
            sent += [call] if result.verdict is Verdict.TOOK else []
        self.refits.given_loras(worker, desired, sent)

    async def _compare(self, worker: Worker) -> None:
        if await self._likeness(worker) is Likeness.DIFFERENT:
            self.refits.differs(worker)
            raise Behind("its checksums differ from the fleet's")

    async def _likeness(self, worker: Worker) -> Likeness:
        """
        How its weights compare with what it is to have: with known sums, or with those of a peer.
        """
        desired = self._desired(worker)
        peer = self._peer(worker, desired)
        if peer is None and not desired.sums:
            return Likeness.OPEN
        weighed = await self._weigh(worker)
        if peer is not None and not set(weighed.sums) <= set(desired.sums):
            try:
                of_peer = await self._weigh(peer)
            except Behind as problem:
                log.info("{url} was not compared: {problem}", url=worker.url, problem=problem)
                return Likeness.OPEN
            self._check_still(desired, worker)
            self.refits.refer(self._now(worker).capabilities.model, of_peer.known)
        self._check_still(desired, worker)
        return weighed.likeness(self._desired(worker).sums)

    def _check_still(self, desired: Desired, worker: Worker) -> None:
        if self._desired(worker).epoch != desired.epoch:
            raise Behind("the fleet's weights changed meanwhile")

    def _peer(self, worker: Worker, desired: Desired) -> Worker | None:
        """
        Another worker that has what is *desired*; the least busy one.
        """
        epochs = self.refits.pool.epochs
        peers = [
            other
            for other in self.refits.pool
            if other.serial != worker.serial
            and not (other.dead or other.stale)
            and epochs.of(other) is desired
        ]
        return min(peers, key=lambda other: other.in_flight + other.jobs, default=None)

    async def _weigh(self, worker: Worker) -> Weighed:
        try:
            sums = await self.orders.checksums(worker)
        except RouterError as problem:
            text = f"{worker.url} did not tell its checksums: {reason_of(problem)}"
            raise Behind(text) from problem
        self.refits.sums[worker.serial] = sums
        return Weighed(worker.url, sums, self._now(worker).actual.history)

    def _failed(self, worker: Worker, change: Update | Adaptation, result: Result) -> None:
        if result.verdict in (Verdict.LOST, Verdict.FAILED):
            self.refits.not_replayed(worker, change)
        path = change.path if isinstance(change, Update) else change.call.path
        told = f"{result.status_code} {result.body}"[:_LONGEST_TOLD]
        raise Behind(f"{path} failed: {told}")

    async def _calling(self, worker: Worker) -> None:
        # After a crash it is not to have anything of which nobody knows.
        try:
            await self.written()
        except ValueError as problem:
            raise Behind(f"what it is to have cannot be noted: {problem}") from problem
        self._now(worker)
        self.refits.sent(worker)

    def _desired(self, worker: Worker) -> Desired:
        return self.refits.pool.epochs.of(self._now(worker))

    def _now(self, worker: Worker) -> Worker:
        now = self.refits.pool.still(worker)
        if now is None or now.incarnation != worker.incarnation or now.lapsed:
            raise Behind("it was restarted, or removed")
        return now

    @contextmanager
    def _held(self, worker: Worker) -> Iterator[None]:
        """
        A block in which *worker* gets no work, whatever it has.
        """
        pool = self.refits.pool
        pool.epochs.catching_up.add(worker.serial)
        pool.judge_one(worker)
        try:
            yield
        finally:
            pool.epochs.catching_up.discard(worker.serial)
            pool.judge_one(worker)
