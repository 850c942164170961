"""
The simulated worker behind its HTTP face: one model on one GPU, and what it leaves behind.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IReactorTime

from sgl_droute.fleet.cost import Shape
from sgl_droute.simulator.faults import SCHEDULER_GONE, Faults
from sgl_droute.simulator.gpu import GPU
from sgl_droute.simulator.journal import Call, Generation, Journal, keep_nothing
from sgl_droute.simulator.ledger import Ledger
from sgl_droute.simulator.models import Model
from sgl_droute.simulator.replies import GenerationFailed
from sgl_droute.simulator.settings import SimulatorSettings
from sgl_droute.simulator.studio import Studio
from sgl_droute.simulator.weights import ASLEEP, Weights

MOST_PIXELS = 1 << 25
MOST_FRAMES = 5000
MOST_OUTPUTS = 64

RunInThread = Callable[..., Deferred[Any]]

T = TypeVar("T")


@frozen(kw_only=True)
class Task:
    """
    One generation.

    Attributes:
        ids: What the answer will be known by.
        make: Called in a thread with the sum of the weights, to produce the result.
        on_start: Called with the seconds it will take when the GPU takes it.
    """

    kind: str
    prompt: str
    seed: object
    shape: Shape
    ids: tuple[str, ...] = ()
    make: Callable[[str], Any]
    on_start: Callable[[float], None] = lambda duration: None


@frozen
class Made:
    """
    A finished generation.
    """

    result: Any
    inference_time: float


@define(eq=False)
class Engine:
    """
    Everything that a worker's routes share.

    Attributes:
        run_in_thread: Calls its first argument with the others, off the reactor's thread.
    """

    clock: IReactorTime
    settings: SimulatorSettings
    run_in_thread: RunInThread = execute
    faults: Faults = field(factory=Faults)
    journal: Journal = field(factory=Journal)
    folder: Path = field(init=False)
    studio: Studio = field(init=False)
    gpu: GPU = field(init=False)
    weights: Weights = field(init=False)
    _chance: random.Random = field(init=False)
    _remove: Callable[[], object] = field(init=False, default=lambda: None)
    _ledger: Ledger | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        settings = self.settings
        self.folder = self._made_folder()
        self.studio = Studio(
            self.folder, pictures=settings.pictures, video_side=settings.video_side
        )
        self.gpu = GPU(self.clock, settings.dp_size)
        self.weights = Weights.of(self.model)
        self._chance = random.Random(settings.seed)
        if settings.journal:
            self._ledger = Ledger(Path(settings.journal))
            self.journal.keep = self._ledger.write
            self._ledger.write("launch", {"at": self.now(), "weights": self.weights.fingerprint()})

    def _made_folder(self) -> Path:
        if self.settings.output_path:
            folder = Path(self.settings.output_path).resolve()
            folder.mkdir(parents=True, exist_ok=True)
            return folder
        folder = Path(tempfile.mkdtemp(prefix="sglang-d-simulator-"))
        self._remove = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

    def close(self) -> None:
        """
        Remove the temporary folder of results, if there is one; keep no journal any more.
        """
        self._remove()
        if self._ledger is not None:
            self.journal.keep = keep_nothing
            self._ledger.close()

    @property
    def model(self) -> Model:
        return self.settings.served

    @property
    def keeps_files(self) -> bool:
        return self.settings.output_path != ""

    def now(self) -> float:
        return self.clock.seconds()

    def new_id(self) -> str:
        return str(uuid4())

    def seconds(self, reference: float) -> float:
        """
        What *reference* seconds of the reference GPU are on this one.
        """
        share = 1 + self.settings.jitter * self._chance.uniform(-1, 1)
        return reference * share * self.faults.slow / self.settings.speed

    async def generate(self, task: Task) -> Made:
        """
        Wait for the GPU, then for the result.

        Raises:
            GenerationFailed: asleep, dead, or a fault.
        """
        making: list[Deferred[Any]] = []
        entry = Generation(task.kind, task.prompt, task.seed, task.ids)
        failing = False

        def begin() -> float:
            nonlocal failing
            self._check_room(task.shape)
            failing = self.faults.take_failure()
            entry.weights = self.weights.fingerprint()
            entry.sources = dict(self.weights.sources)
            entry.started = self.now()
            entry.duration = self.seconds(self.model.duration(task.shape))
            self.journal.generation(entry)
            task.on_start(entry.duration)
            making.append(self.run_in_thread(task.make, entry.weights))
            return entry.duration

        def end() -> float:
            self.journal.finished(entry, self.now(), failed=failing)
            if failing:
                raise GenerationFailed("simulated fault")
            return entry.duration

        duration = await self.gpu.generate(begin, end)
        return Made(await making[0], round(duration, 6))

    async def control(self, call: Call, reference: float, act: Callable[[], T]) -> T:
        """
        Wait for the GPU, let it work for *reference* seconds, and return what *act* does then.

        Raises:
            GenerationFailed: dead. So does what *act* raises.
        """
        seconds = self.seconds(reference)
        self.journal.call(call)

        def begin() -> float:
            self.journal.call_began(call, self.now())
            return seconds

        def acted() -> T:
            call.before = self.weights.fingerprint()
            try:
                return act()
            finally:
                call.after = self.weights.fingerprint()

        try:
            result = await self.gpu.control(begin, acted)
        except Exception as error:
            self.journal.call_ended(call, self.now(), str(error))
            raise
        self.journal.call_ended(call, self.now(), None)
        return result

    def die(self) -> None:
        """
        Let the GPU process be gone, as the fault ``dead`` does.
        """
        self.faults.dead = SCHEDULER_GONE
        if self.gpu.dead is None:
            self.gpu.kill(SCHEDULER_GONE)

    def _check_room(self, shape: Shape) -> None:
        if self.weights.sleeping:
            raise GenerationFailed(ASLEEP)
        pixels = shape.width * shape.height
        if pixels > MOST_PIXELS or shape.frames > MOST_FRAMES or shape.outputs > MOST_OUTPUTS:
            raise GenerationFailed("CUDA out of memory.")
