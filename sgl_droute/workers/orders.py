"""
Calls that the router itself sends to change or question what a worker generates with.

They wait in the worker's queue like generations.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO

from attrs import frozen
from twisted.internet.task import Cooperator
from twisted.web.http_headers import Headers

from sgl_droute.errors import NotConnected, RouterError, WorkerFailed, WorkerTimeout
from sgl_droute.fleet.checksums import Sums
from sgl_droute.fleet.loras import LoraCall
from sgl_droute.fleet.weights import Update
from sgl_droute.fleet.worker import Worker
from sgl_droute.workers.bodies import Spool, fields_of
from sgl_droute.workers.broadcast import Broadcasts, Result
from sgl_droute.workers.client import Call

_LARGEST_ANSWER = 1 << 20


@frozen(eq=False)
class Orders:
    """
    Sends them.

    Args:
        broadcasts: Carries them.
        cooperator: Sends bodies.
    """

    broadcasts: Broadcasts
    cooperator: Cooperator

    async def update(self, worker: Worker, update: Update) -> Result:
        """
        What came of sending *update*, as it came, to *worker*.
        """
        return await self._post(worker, *told(update))

    async def adapt(self, worker: Worker, call: LoraCall) -> Result:
        """
        What came of sending a LoRA *call* to *worker*.
        """
        return await self._post(worker, *told(call))

    async def checksums(self, worker: Worker) -> Sums:
        """
        The sum of each module of *worker*; empty if it tells none.

        Raises:
            RouterError: It did not answer.
        """
        call = self.call(worker, "/get_weights_checksum", b"{}")
        answer = await self.broadcasts.client.fetch(call, limit=_LARGEST_ANSWER)
        # A failure in the GPU process shows as 200 with null.
        fields: Mapping[str, object] = fields_of(answer.body) if answer.status == 200 else {}
        return {name: each for name, each in fields.items() if isinstance(each, str)}

    async def reaches_gpu(self, worker: Worker) -> bool:
        """
        True once *worker* has done all that it was given before, as its ``/stats`` come behind
        that, or if it gives no answer at all; false if it is late, and may be at work still.
        """
        try:
            call = Call(b"GET", worker.url, b"/stats")
            await self.broadcasts.client.fetch(call, limit=_LARGEST_ANSWER)
        except NotConnected:
            return True
        except WorkerTimeout:
            return False
        except RouterError:
            return True
        return True

    async def _post(self, worker: Worker, path: str, body: bytes) -> Result:
        return await self.broadcasts.ask(self.call(worker, path, body))

    def call(self, worker: Worker, path: str, body: bytes) -> Call:
        """
        A POST of JSON to *worker*.
        """
        headers = Headers({b"Content-Type": [b"application/json"]})
        producer = Spool.of(BytesIO(body)).producer(self.cooperator)
        return Call(b"POST", worker.url, path.encode("ascii"), headers, producer)


def told(change: Update | LoraCall) -> tuple[str, bytes]:
    """
    Path and body of the call that makes *change*.
    """
    if isinstance(change, Update):
        return change.path, change.body
    return change.path, json.dumps(dict(change.body)).encode()


def reason_of(problem: RouterError) -> str:
    """
    What went wrong, without the worker's name.
    """
    return problem.why if isinstance(problem, WorkerFailed) else str(problem)
