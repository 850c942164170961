"""
Whether a worker that somebody asks the router to register is where workers may be.

Where that is, `sgl_droute.fleet.networks` knows. What a name resolves to is looked at again at each
connection: here it is told early, where that is possible.
"""

from __future__ import annotations

from typing import Any

from attrs import define
from twisted.internet.defer import CancelledError

from sgl_droute.errors import BadRequest, Forbidden
from sgl_droute.fleet.networks import Networks
from sgl_droute.workers.addresses import BlockedAddress, addresses_of, host_and_port


@define(eq=False)
class Vetting:
    """
    Looks at workers before they are registered.

    Args:
        networks: Where they may be.
        reactor: Provides time and a name resolver.
        timeout: Seconds for a name to be looked up.
    """

    networks: Networks
    reactor: Any
    timeout: float

    async def check(self, url: str) -> None:
        """
        Raise unless the worker at *url*, a normalised base URL, may be registered. A name that has
        no address yet may.

        Raises:
            Forbidden: It has no address that workers may have.
            BadRequest: It has one that is never a worker.
        """
        if not self.networks.limit(url):
            return
        host, port = host_and_port(url)
        try:
            hosts = await addresses_of(self.reactor, host, port, self.timeout)
        except CancelledError:
            raise
        except BlockedAddress as problem:
            raise BadRequest(f"worker URL {url!r}: {problem}") from problem
        except Exception:
            return  # not to be found out now, for whatever reason; who connects will
        if hosts and not self.networks.among(url, hosts):
            found = host if hosts == [host] else f"{host}, which resolves to {', '.join(hosts)},"
            raise Forbidden(
                f"worker URL {url!r}: {found} is in none of the networks that workers may be"
                " registered in (--add-worker-allow)"
            )
