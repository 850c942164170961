"""
A bench script from its command line to its exit status.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater, react

from bench.harness.children import ChildFailed
from bench.harness.machine import machine_facts, versions
from bench.harness.measure import Measured, WarmupFailed, measure
from bench.harness.options import Settings, read_settings
from bench.harness.plot import draw
from bench.harness.report import document, header, report

INTERRUPTED = 130


def run(script: str, *, compare: bool) -> NoReturn:
    """
    Measure what the command line asks for, print it, and exit: with 0 when every request was
    answered well, 1 when one was not or nothing could be measured, 2 for a wrong option.

    Args:
        compare: Whether several arms are measured.
    """
    settings = read_settings(script, sys.argv[1:], compare=compare)
    react(_main, (script, settings))


async def _main(reactor: Any, script: str, settings: Settings) -> None:
    # Only a running reactor turns Ctrl-C into an orderly end.
    await deferLater(reactor, 0)
    began = datetime.now(timezone.utc)
    facts = machine_facts()
    work = Deferred.fromCoroutine(measure(reactor, settings, say))
    interruption = _Interruption(work)
    reactor.addSystemEventTrigger("before", "shutdown", interruption.stop)
    try:
        measured = await work
    except CancelledError:
        raise ended(script, "interrupted", INTERRUPTED) from None
    except (ChildFailed, WarmupFailed, ValueError) as problem:
        raise ended(script, str(problem), 1) from None
    finally:
        interruption.over()
    print(f"\n{report(settings, measured)}\n", flush=True)
    surroundings = {"began": began.isoformat(), "machine": facts, "versions": versions()}
    _write(script, settings, measured, surroundings)
    if any(result.failed for result in measured.results):
        raise ended(script, "requests failed", 1)


class _Interruption:
    """
    Ends *work* before the reactor stops, as it does on Ctrl-C and SIGTERM.
    """

    def __init__(self, work: Deferred[Measured]) -> None:
        self._work = work
        self._ended: Deferred[None] = Deferred()

    def stop(self) -> Deferred[None]:
        """
        Cancel the work; the result comes when it has cleaned up.
        """
        if not self._ended.called:
            self._work.cancel()
        return self._ended

    def over(self) -> None:
        """
        Say that the work has ended.
        """
        self._ended.callback(None)


def _write(
    script: str, settings: Settings, measured: Measured, surroundings: Mapping[str, object]
) -> None:
    if settings.output_file:
        whole = document(script, sys.argv, settings, measured, surroundings)
        write_json(whole, Path(settings.output_file))
    if settings.plot:
        draw(measured.results, header(settings, measured), Path(settings.plot))
        say(f"Wrote {settings.plot}")


def write_json(document: Mapping[str, object], path: Path) -> None:
    """
    Write *document* to *path*, and say so.
    """
    path.write_text(json.dumps(document, indent=2) + "\n")
    say(f"Wrote {path}")


def say(line: str) -> None:
    """
    Print *line* at once.
    """
    print(line, flush=True)


def ended(script: str, reason: str, status: int) -> SystemExit:
    """
    The end of *script*, after its reason on standard error.
    """
    print(f"{script}: {reason}", file=sys.stderr, flush=True)
    return SystemExit(status)
