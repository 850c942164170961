"""
The router of a benchmark: started here, or running already.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field
from twisted.internet.defer import CancelledError

from bench.harness.arm import Arm
from bench.harness.children import Child, Children
from bench.harness.client import Caller, described
from bench.harness.fleet import twist
from bench.harness.options import Settings
from bench.harness.ports import free_port

# Fewer than the router's own default would make it the bottleneck of a large load.
FEWEST_CONNECTIONS = 1000


@define(eq=False)
class Router:
    """
    Attributes:
        url: Its base URL.
    """

    url: str
    child: Child | None = field(default=None)

    def check_running(self) -> None:
        """
        Raises:
            ChildFailed: It was started here and is gone.
        """
        if self.child is not None:
            self.child.check_running()


def start_router(
    children: Children, settings: Settings, arm: Arm, workers: Sequence[str]
) -> Router:
    """
    A router in front of *workers*.
    """
    port = settings.router_port or free_port()
    command = router_command(settings, arm, workers, port)
    child = children.start_guarded(f"router {arm.name}", command)
    return Router(f"http://127.0.0.1:{port}", child)


def router_command(settings: Settings, arm: Arm, workers: Sequence[str], port: int) -> list[str]:
    """
    Runs a router.
    """
    options: dict[str, object] = {
        "host": "127.0.0.1",
        "port": port,
        "routing-algorithm": arm.algorithm,
        "timeout": settings.timeout,
        "max-connections": max(FEWEST_CONNECTIONS, settings.max_concurrency),
    }
    if arm.concurrency is not None:
        options["worker-concurrency"] = arm.concurrency
    arguments = [f"--{name}={value}" for name, value in options.items()]
    arguments += [f"--worker-urls={url}" for url in workers]
    return [*twist(), "sglang-d-router", *arguments, *settings.router_extra_args]


async def workers_of(caller: Caller, router: Router) -> tuple[str, ...]:
    """
    Base URLs of the workers that *router* knows.

    Raises:
        ValueError: It does not tell.
    """
    try:
        answer = await caller.get(f"{router.url}/list_workers", 30.0)
    except CancelledError:
        raise
    except Exception as error:
        raise ValueError(f"{router.url}/list_workers: {described(error)}") from error
    urls = answer.json().get("urls")
    if answer.status != 200 or not isinstance(urls, list):
        raise ValueError(f"{router.url}/list_workers: {answer.complaint()}")
    return tuple(str(url) for url in urls)
