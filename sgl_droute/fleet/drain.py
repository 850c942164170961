"""
When the line will be empty, as things stand: what clients are told who find it full.

Which workers may do what is known to `sgl_droute.fleet.floor`, and who waits to
`sgl_droute.fleet.line`.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, field

from sgl_droute.fleet.floor import Floor
from sgl_droute.fleet.line import Line
from sgl_droute.fleet.station import Station

# An answer holds for so many seconds: to find it takes a look at every worker, and those who find
# the line full may be thousands a second.
_HOLDS = 0.1


@define(eq=False)
class Drain:
    """
    Predicts when nobody of *line* will wait any more, nor run.
    """

    line: Line
    floor: Floor
    _looked: float | None = field(default=None, init=False)
    _seconds: float = field(default=0.0, init=False)

    def seconds(self, now: float) -> float:
        """
        Seconds from *now*, or from a tenth of a second before, until all is done that waits and
        what workers have.
        """
        if self._looked is None or not 0 <= now - self._looked < _HOLDS:
            self._looked, self._seconds = now, self._found(now)
        return self._seconds

    def _found(self, now: float) -> float:
        """
        The time that all need together, or those who want the same if only few can serve them.
        """
        stations = self.floor.stations
        found = [_shared(self.line.seconds(), self._working(), now)]
        for key, seconds in self.line.seconds_by_key():
            tier = self.floor.tier(*key)
            if tier is not None and len(tier.urls) < len(stations):
                theirs = (stations[url] for url in tier.urls.difference(key[1]))
                found.append(_shared(seconds, theirs, now))
        return max(found)

    def _working(self) -> list[Station]:
        stations = self.floor.stations.values()
        eligible = [each for each in stations if each.worker.eligible]
        # In an update of the whole fleet nobody works, and all will again.
        return eligible or [each for each in stations if each.worker.in_rotation]


def _shared(waiting: float, stations: Iterable[Station], now: float) -> float:
    """
    Seconds until *stations* have done what they have, and *waiting* seconds of work besides.
    """
    left = [max(0.0, lane.free - now) for station in stations for lane in station.lanes]
    return (sum(left) + waiting) / max(1, len(left))
