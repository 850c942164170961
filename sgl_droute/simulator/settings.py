"""
Every option of a simulated worker, with unit and default.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen
from attrs.validators import ge, gt, in_, lt, optional

from sgl_droute.simulator.models import MODELS, Model


@frozen(kw_only=True)
class SimulatorSettings:
    """
    How one simulated worker behaves.

    Attributes:
        host: Address to listen on.
        port: TCP port; 0 takes a free one.
        listen_fd: Number of an inherited, already listening socket to serve on instead.
        model: Name in the table of models.
        served_model_name: Name in model cards and video jobs; the model's path when None.
        speed: How many times faster than the reference GPU.
        jitter: Largest random share added to or taken from a duration.
        seed: Start of the randomness behind *jitter*.
        dp_size: Replicas, each working on one request at a time.
        load_time: Seconds before the port opens.
        warmup_time: Seconds after that during which requests are held and /health says 503.
        output_path: Folder for results; None for a temporary one, empty for keeping none.
        pictures: Draw only so many different results and use them again; 0 draws every one.
        video_side: Longest side of encoded video (pixels); 0 for the size asked for.
        rollout_side: Longest side of the sample in a rollout answer; 0 for the size asked for.
        faults: Fault documents in force from the start.
        journal: File to append what the GPU does to, as JSON lines.
    """

    host: str = "127.0.0.1"
    port: int = field(default=30000, validator=[ge(0), lt(65536)])
    listen_fd: int | None = field(default=None, validator=optional(ge(0)))
    model: str = field(default="qwen-image", validator=in_(MODELS))
    served_model_name: str | None = None
    speed: float = field(default=1.0, validator=gt(0))
    jitter: float = field(default=0.0, validator=[ge(0), lt(1)])
    seed: int = 0
    dp_size: int = field(default=1, validator=[ge(1), lt(1025)])
    load_time: float = field(default=0.0, validator=ge(0))
    warmup_time: float = field(default=0.0, validator=ge(0))
    output_path: str | None = None
    pictures: int = field(default=0, validator=ge(0))
    video_side: int = field(default=320, validator=ge(0))
    rollout_side: int = field(default=64, validator=ge(0))
    faults: tuple[Mapping[str, object], ...] = ()
    journal: str | None = None
    verbose: bool = False
    exit_with_stdin: bool = False

    @property
    def served(self) -> Model:
        return MODELS[self.model]

    @property
    def public_name(self) -> str:
        return self.served_model_name or self.served.path
