"""
The router as a Twisted service: puts the rooms together, starts and stops them.

It decides nothing: options are in `sgl_droute.settings`, the command line in `sgl_droute.tap`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any
from weakref import WeakSet

from twisted.application.service import MultiService
from twisted.application.strports import service as strports_service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.web.resource import IResource

from sgl_droute.api.admission import Admission
from sgl_droute.api.carrier import Carrier
from sgl_droute.api.configuration_api import ConfigurationAPI
from sgl_droute.api.dispatch import RouterResource
from sgl_droute.api.entry.cors import Cors
from sgl_droute.api.entry.door import Door
from sgl_droute.api.entry.keyfiles import KeyFiles, KeySources
from sgl_droute.api.fields.file_fields import FileFields
from sgl_droute.api.fleetwide import FleetWide
from sgl_droute.api.http.drain import drain
from sgl_droute.api.http.site import RouterSite
from sgl_droute.api.inference import Inference
from sgl_droute.api.lists import Lists
from sgl_droute.api.management import Management
from sgl_droute.api.observe import Observe
from sgl_droute.api.owned import Owned
from sgl_droute.api.page.dashboard import open_dashboard
from sgl_droute.api.routes import RouterAPI
from sgl_droute.api.telemetry.account import Accounts
from sgl_droute.api.telemetry.exposition import Exposition
from sgl_droute.api.telemetry.metrics import Metrics
from sgl_droute.api.telemetry.telemetry import Telemetry
from sgl_droute.api.tunnels import Tunnels
from sgl_droute.api.updates import Updates
from sgl_droute.api.waiting import Waiting
from sgl_droute.configuration import Configuration
from sgl_droute.control import FleetControl
from sgl_droute.fleet.keyring import Keyring
from sgl_droute.fleet.reporter import Alarm
from sgl_droute.fleet.rollouts import Rollouts
from sgl_droute.open_files import clients_that_fit, open_files_limit
from sgl_droute.reloading import Following, Reloading, Wanted
from sgl_droute.roads import Roads
from sgl_droute.settings import RouterSettings
from sgl_droute.state.store import Store
from sgl_droute.workers.engine_metrics import EngineMetrics
from sgl_droute.workers.gate import Gate
from sgl_droute.workers.handshake import Handshakes
from sgl_droute.workers.once import Once
from sgl_droute.workers.vetting import Vetting

log = Logger()

# Seconds that a worker may take to tell of a job: it does so at once, if it is not stuck.
_RECORD_TIMEOUT = 30.0
_HANDSHAKE_TIMEOUT = 30.0


class RouterService(MultiService):
    """
    A router, as a service for any Twisted application.

    It listens where the settings say; without ``listen`` it serves through `resource` only.

    Args:
        reactor: Provides TCP, time and a name resolver.
        settings: Every option; those of *configuration* if that is given.
        roads: What carries requests to workers; real connections if None.
        store: Where the state is kept; what the settings name if None.
        configuration: Where the settings come from, if they can be read again.

    Attributes:
        control: The fleet's side of it.
        reloading: Reads the configuration again.

    Raises:
        ValueError: A file that the settings name does not hold what it must; one sentence says why.
    """

    def __init__(
        self,
        reactor: Any,
        settings: RouterSettings | None = None,
        *,
        roads: Roads | None = None,
        store: Store | None = None,
        configuration: Configuration | None = None,
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._sites: WeakSet[RouterSite] = WeakSet()
        self._stopping: Once[str, None] = Once()
        configuration = configuration or Configuration.of(settings or RouterSettings())
        settings = configuration.settings
        self.following = Following(settings)
        control = self.control = FleetControl(
            reactor, self.following, configuration.workers, roads, store
        )
        self.pool, self.holdings, self.turns = control.pool, control.holdings, control.turns
        self.reloading = Reloading(configuration, self.following, self.pool, control.monitor.check)
        self.accounts = Accounts(reactor.seconds)
        jobs = self.holdings.jobs
        self.telemetry = Telemetry(
            self.accounts,
            control.refits,
            jobs,
            lambda: len(self.turns.scheduler.line),
            Alarm(settings.queue_alert),
            reactor,
        )
        self.dashboard = open_dashboard(self.accounts, self.turns, jobs, self.telemetry.streams)
        self._metrics = Metrics(
            self.turns,
            jobs,
            self.accounts,
            control.monitor,
            lambda: sum(site.connections for site in self._sites),
            reactor,
        )
        self._door = Door(reactor.seconds, Keyring(b""), settings.allow_file_fields)
        self.telemetry.streams.may_listen = self._door.still_admits
        self._key_files = KeyFiles(self._door, _key_sources_of(settings), reactor)
        self._cors = Cors(settings.cors_origins)
        self._resource = RouterResource(self._api(), self.accounts, self._door, self._cors)
        watching = (self.telemetry, self.dashboard.measuring, self._key_files, self._metrics)
        for service in (*watching, control):
            service.setServiceParent(self)
        self._follow()
        self._ports = MultiService()
        self._ports.setServiceParent(self)
        site = self.site()
        for description in settings.listen:
            strports_service(description, site, reactor).setServiceParent(self._ports)

    @property
    def settings(self) -> RouterSettings:
        """Every option, as it is in force."""
        return self.following.settings

    def trace(self, tracing: Any) -> None:
        """
        Have requests traced; to be called before the service starts.

        Args:
            tracing: What `sgl_droute.api.telemetry.tracing.open_tracing` gives.
        """
        self.telemetry.trace(tracing)

    def _api(self) -> RouterAPI:
        settings, control, pool = self.settings, self.control, self.pool
        turns, holdings, questions = self.turns, self.holdings, control.questions()
        cooperator = control.cooperator()
        fleet = FleetWide(
            pool,
            control.broadcasts,
            control.readiness,
            control.outstanding,
            cooperator,
            control.refitting.turn,
        )
        rollouts = Rollouts()
        turns.scheduler.watch(rollouts.note)
        admission = self.following.keep(
            Admission(turns, rollouts, settings, cooperator), settings=lambda settings: settings
        )
        carrier = self._carrier("timeout")
        file_fields = FileFields(self._door, cooperator)
        self.tunnels = self._tunnels(admission, carrier, file_fields)
        gate = Gate(settings.max_connections)
        self.following.call(lambda settings: gate.resize(settings.max_connections))
        vetting = Vetting(control.networks, self._reactor, settings.connect_timeout)
        self.following.keep(vetting, timeout="connect_timeout")
        return RouterAPI(
            Inference(
                turns,
                admission,
                holdings,
                control.outstanding,
                carrier,
                control.webhooks,
                file_fields,
            ),
            Owned(
                pool,
                holdings,
                control.finder,
                self._carrier(_within(_RECORD_TIMEOUT)),
                carrier,
                gate,
                self._reactor.seconds,
            ),
            Lists(pool, questions, control.asking(control.roads.control, "timeout"), holdings.row),
            fleet,
            Updates(control.refitting, fleet, control.store.durable),
            Management(
                pool, control.monitor, control.readiness, control.speeds, vetting, self._reactor
            ),
            Observe(pool),
            self.tunnels,
            Waiting(turns, rollouts),
            self._cors,
            self.telemetry.events,
            ConfigurationAPI(self.reloading),
            Exposition(
                self._metrics.registry, EngineMetrics(pool, questions, cooperator), cooperator
            ),
            self.dashboard,
        )

    def _carrier(self, timeout: Wanted) -> Carrier:
        control = self.control
        client = control.client(control.roads.traffic, timeout)
        carrier = Carrier(
            client, control.monitor.not_reached, control.cooperator(), self.settings.idle_timeout
        )
        return self.following.keep(carrier, idle_timeout="idle_timeout")

    def _tunnels(self, admission: Admission, carrier: Carrier, file_fields: FileFields) -> Tunnels:
        settings, reactor = self.settings, self._reactor
        timeout = _within(_HANDSHAKE_TIMEOUT)
        handshakes = Handshakes(
            reactor, settings.connect_timeout, timeout(settings), self.control.terms
        )
        self.following.keep(handshakes, connect_timeout="connect_timeout", timeout=timeout)
        tunnels = Tunnels(
            self.turns, admission, handshakes, carrier, file_fields, reactor, settings.idle_timeout
        )
        return self.following.keep(tunnels, idle_timeout="idle_timeout")

    def _follow(self) -> None:
        """
        Have what clients meet follow the settings.
        """
        following = self.following
        following.check(lambda settings: _key_sources_of(settings).read(b""))
        following.keep(self._cors, origins="cors_origins")
        following.keep(self._door, file_fields="allow_file_fields")
        following.keep(self.telemetry.reporter, alarm=lambda settings: Alarm(settings.queue_alert))
        following.call(lambda settings: self._key_files.reload(_key_sources_of(settings)))
        following.call(self._limit_sites)

    def _limit_sites(self, settings: RouterSettings) -> None:
        for site in self._sites:
            for name, limit in _limits_of(settings).items():
                setattr(site, name, limit)

    def resource(self) -> RouterResource:
        """
        The whole API, to be put at the root of a site or at any path below it.

        A site other than `site` should have `sgl_droute.RouterRequest` as its ``requestFactory``:
        the stock class has no limit for bodies, and reads and parses forms in memory before the
        router sees them.
        """
        return self._resource

    def site(self, root: IResource | None = None) -> RouterSite:
        """
        A site with all the router's limits.

        When the router stops, it ends the connections of this site as those of its own ports.

        Args:
            root: What it serves, with `resource` somewhere below; `resource` itself if None.
        """
        site = RouterSite(
            self._reactor,
            root or self._resource,
            **_limits_of(self.settings),
            deadlines=self.control.deadlines,
            accounts=self.accounts,
            # Other pages of *root* are not the door's.
            early=self._door.early if root is None else None,
        )
        self._sites.add(site)
        return site

    def startService(self) -> None:
        """
        Start listening and checking the workers' health.
        """
        self.control.store.startService()
        super().startService()
        log.info(
            "sgl-droute {version}: {workers} workers, {algorithm}, listening on {listen}",
            version=version("sgl-droute"),
            workers=len(self.pool),
            algorithm=self.settings.routing_algorithm,
            listen=", ".join(self.settings.listen) or "no port of its own",
        )

    def stopService(self) -> Deferred[Any]:
        """
        Stop listening, give running answers `RouterSettings.drain_timeout` to end, then stop all
        else and write the state; the result comes when that is done.

        Until the last answer has ended, health checks and fleet-wide calls go on. Requests that
        came through a site that is not `site` are not waited for.
        """
        return self._stopping.run("stop", self._stop)

    async def _stop(self) -> None:
        await self._ports.stopService()
        self.telemetry.streams.close()
        await drain(self._sites, self._reactor, self.settings.drain_timeout)
        self.tunnels.cut()
        await maybeDeferred(super().stopService)
        await maybeDeferred(self.control.store.stopService)
        await self.control.close()


def _within(most: float) -> Callable[[RouterSettings], float]:
    """
    Seconds that a worker may take for something quick: `RouterSettings.timeout`, *most* at most.
    """
    return lambda settings: min(settings.timeout, most)


def _key_sources_of(settings: RouterSettings) -> KeySources:
    return KeySources(settings.api_keys, settings.admin_keys)


def _limits_of(settings: RouterSettings) -> dict[str, Any]:
    """
    The limits of a site.
    """
    fit = clients_that_fit(open_files_limit(), settings.max_connections)
    return {
        "max_body_size": settings.max_body_size,
        "read_timeout": settings.read_timeout,
        "idle_timeout": settings.idle_timeout,
        "max_clients": settings.max_clients or fit,
    }
