"""
A Twisted application of one's own with the router below /diffusion.

    twistd -n --pidfile= -y docs/examples/embedded.tac
"""

import os

from twisted.application import service, strports
from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data

from sgl_droute import RouterRequest, RouterService, RouterSettings

urls = os.environ.get("WORKER_URLS", "http://127.0.0.1:30000").split()
router = RouterService(reactor, RouterSettings(worker_urls=urls))

root = Resource()
root.putChild(b"", Data(b"My own page\n", "text/plain"))
root.putChild(b"diffusion", router.resource())

site = Site(root)
site.requestFactory = RouterRequest  # keeps large bodies out of memory, and forms unparsed
site.max_body_size = router.settings.max_body_size

application = service.Application("my-service")
router.setServiceParent(application)  # health checks run with the application
listen = os.environ.get("LISTEN", "tcp:8080:interface=127.0.0.1")
strports.service(listen, site).setServiceParent(application)
