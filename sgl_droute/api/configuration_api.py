"""
Calls about the router's own configuration: what is in force, and that it be read again.
"""

from __future__ import annotations

from typing import Any, Protocol

from attrs import define
from twisted.web.server import Request

from sgl_droute.api.replies import reply


class Shown(Protocol):
    """What can be told in JSON."""

    def shown(self) -> dict[str, Any]: ...


class Reloadable(Shown, Protocol):
    """What can be read again; see `sgl_droute.reloading.Reloading`."""

    def reload(self) -> Shown: ...


@define(eq=False)
class ConfigurationAPI:
    """
    Shows the configuration of a router, and has it read again.
    """

    configuration: Reloadable

    def show(self, request: Request) -> bytes:
        """
        Every option with its value, who said it, and whether it can change without a restart.
        """
        return reply(request, self.configuration.shown())

    def reload(self, request: Request) -> bytes:
        """
        Read the file and the environment again, and answer with what has changed.

        Raises:
            BadRequest: That cannot be; nothing is changed.
        """
        return reply(request, {"status": "success", **self.configuration.reload().shown()})
