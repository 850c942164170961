"""
A router for fleets of SGLang diffusion workers.

>>> from sgl_droute import RouterSettings, RouterService
"""

from sgl_droute.api.http.site import RouterRequest
from sgl_droute.service import RouterService
from sgl_droute.settings import RouterSettings

__all__ = ["RouterRequest", "RouterService", "RouterSettings"]
