"""
Processes that write state until they are killed, all copies of one that has imported everything.

A line on standard input that names a state file starts such a process; an empty line kills it. It
prints the number and the time of each operation that it has put, and ``killed`` with the time right
before; of every fiftieth it prints that it is ``written``, with its number, when the store says so.
The n-th operation in the life of a state file is the same in every process, so the whole state
follows from the number of the last one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

from sgl_droute.state.opening import open_store
from sgl_droute.state.saved import Saved, SavedOwner, SavedWorker
from sgl_droute.state.store import Store


def operate(store: Store, number: int) -> None:
    """
    Operation *number*: some changes that belong together.
    """
    url = f"http://w{number % 5}:1"
    if number % 11 == 0:
        store.drop_worker(url)
        store.drop_speeds(url)
    store.put_worker(SavedWorker(url=url, dead=number % 2 == 0, concurrency=number % 3))
    store.put_speeds(url, str(number))
    store.put_owner(
        SavedOwner(
            kind="video",
            id=str(number % 50),
            worker=url,
            used=float(number),
            epoch=str(number // 10),
        )
    )
    store.drop_owner("video", str(number * 3 % 50))
    store.put_weights(json.dumps({"epoch": number, "body": "x" * (number % 5000)}))


def last_operation(saved: Saved) -> int:
    """
    The number of the last operation that *saved* holds; 0 for none.
    """
    return int(json.loads(saved.weights)["epoch"]) if saved.weights else 0


def write_until_killed(path: str) -> None:
    """
    An operation every 2 ms, from where the file ends.
    """
    from twisted.internet import reactor
    from twisted.internet.task import LoopingCall

    store = open_store(f"sqlite://{path}", reactor, job_ttl=1e12, max_owners=1000)
    number = last_operation(store.load())

    def operate_next() -> None:
        nonlocal number
        number += 1
        operate(store, number)
        tell(number)
        if number % 50 == 0:
            told = f"written {number}"
            store.written().addCallback(lambda _: tell(told))

    store.startService()
    LoopingCall(operate_next).start(0.002)
    reactor.run()


def tell(what: object) -> None:
    os.write(1, f"{what} {time.monotonic()}\n".encode())


def main() -> None:
    child = 0
    for line in sys.stdin:
        if line.strip():
            child = os.fork()
            if not child:
                write_until_killed(line.strip())
        else:
            tell("killed")
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


if __name__ == "__main__":
    main()
