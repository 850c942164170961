"""
Where results are drawn and kept. Runs in threads: the reactor's thread only names files.

A result that was drawn before is linked, not drawn again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from attrs import define, evolve, field

from sgl_droute.simulator.pictures import Scene, picture_file
from sgl_droute.simulator.solids import glb_file, obj_file


@define(eq=False)
class Studio:
    """
    Draws files into one folder.

    Attributes:
        folder: Where results go.
        cache: Where drawn files stay for the next request that wants them.
        pictures: How many different results there are; 0 for no limit.
        video_side: Longest side of encoded video (pixels); 0 for no limit.
    """

    folder: Path
    cache: Path = field()
    pictures: int = 0
    video_side: int = 320

    @cache.default
    def _hidden(self) -> Path:
        return self.folder / ".drawn"

    def picture(self, scene: Scene, kind: str, quality: int | None, target: Path) -> None:
        scene = self._limited(scene)
        self._keep(target, lambda: picture_file(scene, kind, quality), scene, kind, quality)

    def film(self, scene: Scene, frames: int, fps: int, target: Path) -> None:
        from sgl_droute.simulator.films import film_file

        scene = self._limited(scene)
        self._keep(
            target, lambda: film_file(scene, frames, fps, self.video_side), scene, frames, fps
        )

    def mesh(self, key: str, target: Path) -> None:
        make = obj_file if target.suffix == ".obj" else glb_file
        self._keep(target, lambda: make(key), make.__name__, key)

    def _limited(self, scene: Scene) -> Scene:
        if not self.pictures:
            return scene
        number = int.from_bytes(sha256(repr(scene).encode()).digest()[:4], "big") % self.pictures
        return evolve(scene, prompt=f"picture {number + 1} of {self.pictures}", key="", source=None)

    def _keep(self, target: Path, draw: Callable[[], bytes], *key: object) -> None:
        self.cache.mkdir(parents=True, exist_ok=True)
        drawn = self.cache / sha256(repr(key).encode()).hexdigest()
        if not drawn.exists():
            content = draw()
            with tempfile.NamedTemporaryFile(dir=self.cache, delete=False) as file:
                file.write(content)
            os.replace(file.name, drawn)
        try:
            os.link(drawn, target)
        except OSError:
            shutil.copyfile(drawn, target)
