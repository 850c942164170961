"""
A router in memory with those who look at its live page.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field

from tests.api.streaming import Listener, Stage
from tests.memory import MemoryRouter

Fields = dict[str, Any]


@define(eq=False)
class Seen:
    """
    What one who looks knows: the messages put together, as the page does it.
    """

    whole: Fields = field(factory=dict)

    def take(self, message: Fields) -> None:
        """
        Take a message; the first one is the whole.
        """
        if not self.whole:
            self.whole = {**message, "gone": []}
            self._drop_empty()
            return
        whole = self.whole
        for id in message.get("gone", []):
            del whole["workers"][id]
            whole["sparks"]["points"].pop(id, None)
        whole["workers"].update(message.get("workers", {}))
        for name in ("now", "fleet", "queue", "videos"):
            whole[name] = message.get(name, whole[name])
        whole["requests"] += message.get("requests", [])
        whole["charts"]["points"] += message.get("charts", {}).get("points", [])
        sparks = message.get("sparks", {"points": {}})
        for id, points in sparks["points"].items():
            whole["sparks"]["points"].setdefault(id, []).extend(points)
        whole["sparks"]["end"] = sparks.get("end", whole["sparks"]["end"])
        self._drop_empty()

    def _drop_empty(self) -> None:
        """
        Without points a worker may be named or not.
        """
        points = self.whole["sparks"]["points"]
        self.whole["sparks"]["points"] = {id: each for id, each in points.items() if each}


class Viewing:
    """
    A router on a clock, and a site on which its page is looked at.
    """

    def __init__(self, *workers: str, **options: Any) -> None:
        self.router = MemoryRouter(*workers, **{"worker_concurrency": "auto", **options})
        self.router.service.startService()
        self.router.settle()
        clock = self.router.clock
        self.stage = Stage(self.router.service.dashboard.stream, clock)

    def view(self) -> Listener:
        """
        One more who looks.
        """
        return self.stage.ask()

    def wait(self, seconds: float) -> None:
        """
        Let time pass, and all bytes arrive.
        """
        for _ in range(round(seconds)):
            self.router.wait(1.0)
            self.stage.settle()


def messages(viewer: Listener) -> list[Fields]:
    """
    The states that *viewer* was sent.
    """
    return [each.json for each in viewer.events if each.event == "state"]


def seen(viewer: Listener) -> Fields:
    """
    What *viewer* knows by now.
    """
    found = Seen()
    for each in messages(viewer):
        found.take(each)
    return found.whole
