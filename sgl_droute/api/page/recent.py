"""
The requests that ended lately, as the live page lists them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, TypeVar

from attrs import define, field

from sgl_droute.api.telemetry.account import Account
from sgl_droute.api.telemetry.request_log import is_probe
from sgl_droute.log_lines import masked, masked_target

# Kept, and sent at once at most: as many as the page keeps.
MOST = 300

# Characters of a path, and of an error, that are shown at most.
_LONGEST = 500

Item = TypeVar("Item")


def between(items: Sequence[Item], number: int, after: int, until: int) -> list[Item]:
    """
    The items with the numbers behind *after* up to *until*, as far as they are kept.

    Args:
        items: The latest ones; the last has this *number*, the one before it one less, and so on.
    """
    end = len(items) - (number - until)
    begin = len(items) - (number - after)
    return list(items)[max(0, begin) : max(0, end)]


@define(eq=False)
class Recent:
    """
    What became of the latest requests; `note` is an observer for `Accounts.watch`. Those that only
    watch the router are left out.

    Attributes:
        number: Requests that there were (count), which is that of the last one.
    """

    number: int = field(default=0, init=False)
    _latest: deque[Account] = field(factory=lambda: deque(maxlen=MOST), init=False)

    def note(self, account: Account) -> None:
        """
        Keep *account*, which is closed.
        """
        if not is_probe(account):
            self._latest.append(account)
            self.number += 1

    def shown(self, after: int, until: int) -> list[dict[str, Any]]:
        """
        Those with the numbers behind *after* up to *until*, oldest first.
        """
        found = between(self._latest, self.number, after, until)
        first = until - len(found) + 1
        return [_shown(number, account) for number, account in enumerate(found, first)]


def _shown(number: int, account: Account) -> dict[str, Any]:
    error = account.error
    return {
        "n": number,
        "id": account.id,
        "time": account.ended,
        "method": account.method,
        "path": masked_target(account.path)[:_LONGEST],
        "kind": account.kind,
        "status": account.status,
        "code": account.code,
        "error": masked(error[:_LONGEST]) if error else None,
        "worker": account.worker,
        "client": account.client or (f"ip:{account.address}" if account.address else None),
        "epoch": account.epoch,
        "queue": _short(account.queue),
        "work": _short(account.work),
        "transfer": _short(account.transfer),
        "total": _short(account.total),
        "bytes_in": account.bytes_in,
        "bytes_out": account.bytes_out,
    }


def _short(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
