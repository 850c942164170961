"""
The webhooks that are still to be called, and whose turn it is.

Pure: calls are made by `sgl_droute.workers.webhooks`, which tells what came of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from heapq import heappop, heappush
from typing import Any

from attrs import define, evolve, field

from sgl_droute.fleet.jobs import EndedJob
from sgl_droute.fleet.webhook import PATIENCE, Webhook, body_of, tried_in_vain
from sgl_droute.fleet.webhook_hosts import host_of

# Calls under way at once, and at once to one host.
MOST_AT_ONCE = 20
MOST_AT_A_HOST = 10
# Calls that become due at one look (count); it is looked again at once.
_AT_A_LOOK = 1000


@define(eq=False)
class PendingWebhooks:
    """
    The calls that are still to be made.

    Args:
        on_change: Called with kind and id of a job and the call for it, None when there is none
            any more.
        most_at_once: Calls under way at once (count).
        most_at_a_host: Of these, those to one host: one that does not answer leaves room for
            others.
    """

    on_change: Callable[[str, str, Webhook | None], object] = lambda kind, id, webhook: None
    most_at_once: int = MOST_AT_ONCE
    most_at_a_host: int = MOST_AT_A_HOST
    _webhooks: dict[tuple[str, str], Webhook] = field(factory=dict, init=False)
    _times: list[tuple[float, tuple[str, str]]] = field(factory=list, init=False)  # a heap
    _ready: dict[str, deque[tuple[str, str]]] = field(factory=dict, init=False)  # by host
    _under_way: dict[tuple[str, str], str] = field(factory=dict, init=False)  # with the host

    def __len__(self) -> int:
        return len(self._webhooks)

    def restore(self, webhooks: Iterable[Webhook]) -> None:
        """
        Know again what was told to `on_change`.
        """
        for webhook in webhooks:
            self._webhooks[webhook.key] = webhook
            if webhook.over:
                heappush(self._times, (webhook.due, webhook.key))

    def expect(self, kind: str, id: str, url: str, event: str) -> None:
        """
        Have *url*, a normalised one, called when that job is over; nothing new happens if it was.

        Args:
            event: An id that nobody else gives, for what will be told.
        """
        known = self._webhooks.get((kind, id))
        if known is None or not known.over:
            self._keep(Webhook(kind=kind, id=id, url=url, event=event))

    def expected(self) -> list[Webhook]:
        """
        Those whose jobs are not over, as far as is known.
        """
        return [webhook for webhook in self._webhooks.values() if not webhook.over]

    def job_ended(self, ended: EndedJob, now: float) -> None:
        """
        Have the call for a job made, if there is one and its client did not delete it.
        """
        if ended.how == "deleted":
            webhook = self._webhooks.get((ended.job.kind, ended.job.id))
            if webhook is not None and not webhook.over:
                self.forget(webhook)
        else:
            self.end(ended.job.kind, ended.job.id, ended.how, ended.fields, now)

    def end(self, kind: str, id: str, how: str, fields: Mapping[str, Any], now: float) -> None:
        """
        As `job_ended`; arguments as of `body_of`.
        """
        webhook = self._webhooks.get((kind, id))
        if webhook is None or webhook.over:
            return
        body = body_of(webhook.event, kind, id, how, fields, now)
        self._schedule(evolve(webhook, body=body, due=now, until=now + PATIENCE))

    def take(self, now: float) -> Webhook | None:
        """
        The next call that is to be made now; None if there is none, or enough are under way. What
        came of it is told by `forget`, `failed` or `put_back`.
        """
        for _ in range(_AT_A_LOOK):
            if not self._times or self._times[0][0] > now:
                break
            due, key = heappop(self._times)
            webhook = self._webhooks.get(key)
            if webhook is not None and webhook.due == due and key not in self._under_way:
                self._ready.setdefault(host_of(webhook.url), deque()).append(key)
        if len(self._under_way) >= self.most_at_once:
            return None
        busy = list(self._under_way.values())
        for host in list(self._ready):
            if busy.count(host) < self.most_at_a_host:
                webhook = self._first(host)
                if webhook is not None:
                    self._under_way[webhook.key] = host
                    return webhook
        return None

    def next_due(self) -> float | None:
        """
        When `take` may have one that is not ready yet; None for never.
        """
        return self._times[0][0] if self._times else None

    def failed(self, webhook: Webhook, now: float) -> Webhook | None:
        """
        Have a call tried again later; None if it was tried for long enough and is forgotten.
        """
        after = tried_in_vain(webhook, now)
        if after is None:
            self.forget(webhook)
        elif self._ended(webhook):
            self._schedule(after)
        return after

    def put_back(self, webhook: Webhook) -> None:
        """
        Note that a call was not made after all.
        """
        if self._ended(webhook):
            self._schedule(webhook)

    def forget(self, webhook: Webhook) -> None:
        """
        Have nothing more to do with a call: it was made, or nobody wants it.
        """
        if self._ended(webhook):
            del self._webhooks[webhook.key]
            self.on_change(*webhook.key, None)

    def _ended(self, webhook: Webhook) -> bool:
        """
        Whether that call is still to be made, which is not under way any more.
        """
        self._under_way.pop(webhook.key, None)
        return self._webhooks.get(webhook.key) is webhook

    def _first(self, host: str) -> Webhook | None:
        """
        The first that is ready for *host*, which others come before from now on.
        """
        line = self._ready.pop(host)
        webhook = None
        while line and webhook is None:
            webhook = self._webhooks.get(line.popleft())
        if line:
            self._ready[host] = line
        return webhook

    def _schedule(self, webhook: Webhook) -> None:
        self._keep(webhook)
        heappush(self._times, (webhook.due, webhook.key))

    def _keep(self, webhook: Webhook) -> None:
        self._webhooks[webhook.key] = webhook
        self.on_change(*webhook.key, webhook)
