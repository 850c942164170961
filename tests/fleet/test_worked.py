"""
How long a worker has had work for its GPU.
"""

from __future__ import annotations

from attrs import evolve

from sgl_droute.fleet.capabilities import ANYTHING
from sgl_droute.fleet.job import Job
from sgl_droute.fleet.station import Running, Station
from sgl_droute.fleet.worker import Worker

IMAGE = evolve(ANYTHING, kind="image")


def _given(station: Station, name: str, now: float, *, slot: bool = True) -> Running:
    job = Job(id=name, want=IMAGE)
    running = Running(job, station, 5.0, False, now, alone=False)
    station.put(running, now, slot=slot)
    return running


def test_overlapping_work_counts_once() -> None:
    """
    Time counts from the first job to the end of the last one, however many there are between.
    """
    station = Station(Worker(url="http://w:1", serial=1))
    assert station.worked(100.0) == 0.0
    first = _given(station, "first", 100.0)
    second = _given(station, "second", 102.0)
    assert station.worked(103.0) == 3.0
    station.free_slot(first, 105.0)
    assert station.worked(106.0) == 6.0
    station.remove(second, 110.0)
    station.free_slot(first, 111.0)  # once more changes nothing
    assert station.worked(150.0) == 10.0
    _given(station, "third", 150.0)
    assert station.worked(151.0) == 11.0


def test_what_the_gpu_has_nothing_to_do_with() -> None:
    """
    Requests that take no slot are no work for the GPU.
    """
    station = Station(Worker(url="http://w:1", serial=1))
    _given(station, "read", 100.0, slot=False)
    assert station.worked(200.0) == 0.0
