"""
The commands that twistd and twist find: the router, and a worker without a GPU.
"""

from twisted.application.service import ServiceMaker

router = ServiceMaker(
    "SGLang diffusion router",
    "sgl_droute.tap",
    "Route requests to SGLang diffusion workers.",
    "sglang-d-router",
)

simulator = ServiceMaker(
    "SGLang diffusion worker simulator",
    "sgl_droute.simulator.tap",
    "Simulate an SGLang diffusion worker without a GPU.",
    "sglang-d-simulator",
)
