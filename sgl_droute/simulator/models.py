"""
The models a simulated worker can pretend to serve: a table.

Reference latencies are end to end on one H100 (two for the 14B models) without a queue, as SGLang
publishes them for its own performance tests; entries marked *guess* have no published figure.
The cost rule itself is in :mod:`sgl_droute.fleet.cost`.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from sgl_droute.fleet.cost import Family, Shape, cost, family_of, image_shape, video_shape

IMAGE_TASKS = frozenset({"T2I", "I2I", "TI2I"})
VIDEO_TASKS = frozenset({"T2V", "I2V", "TI2V", "V2V", "F2V"})
NEEDS_IMAGE = frozenset({"I2V", "I2I", "I2M"})
TAKES_IMAGE = NEEDS_IMAGE | {"TI2I", "TI2V"}


@frozen(kw_only=True)
class Model:
    """
    What a worker tells of its model, and how long that model takes.

    Attributes:
        path: The ``model_path`` that the worker reports.
        tasks: Supported task types, the default one first.
        reference: Fields of the request that takes *reference_time*.
        reference_images: Input images of that request (count).
        reference_time: Seconds on the reference GPU.
        image_format: File type when a request names none.
        many_outputs: Whether ``n`` above 1 works.
        modules: Names under which its weights are known; the first is the transformer.
        peak_memory_mb: What finished requests report.
    """

    path: str
    pipeline: str
    tasks: tuple[str, ...]
    reference_time: float
    reference: Mapping[str, object] = {}
    reference_images: int = 0
    image_format: str = "jpg"
    many_outputs: bool = True
    modules: tuple[str, ...] = ("transformer", "vae", "text_encoder")
    peak_memory_mb: float = 33340.0

    @property
    def family(self) -> Family:
        return family_of(self.path)

    @property
    def makes_images(self) -> bool:
        return bool(IMAGE_TASKS & set(self.tasks))

    @property
    def makes_videos(self) -> bool:
        return bool(VIDEO_TASKS & set(self.tasks))

    @property
    def makes_meshes(self) -> bool:
        return "I2M" in self.tasks

    @property
    def takes_images(self) -> bool:
        return bool(TAKES_IMAGE & set(self.tasks))

    @property
    def output_types(self) -> list[str]:
        made = {"IMAGE": self.makes_images, "VIDEO": self.makes_videos, "MESH": self.makes_meshes}
        return [name for name, yes in made.items() if yes]

    def duration(self, shape: Shape) -> float:
        """
        Seconds that the reference GPU needs for *shape*.
        """
        return self.reference_time * cost(self.family, shape) / cost(self.family, self._standard())

    def _standard(self) -> Shape:
        shape = image_shape if not self.makes_videos or self.makes_images else video_shape
        return shape(self.family, self.reference, references=self.reference_images)


WAN = ("transformer", "vae", "text_encoder")
WAN_PAIR = ("transformer", "transformer_2", "vae", "text_encoder")
FLUX = ("transformer", "vae", "text_encoder", "text_encoder_2")
ONE_SECOND: Mapping[str, object] = {"num_frames": 24}

MODELS: dict[str, Model] = {
    "flux.1-dev": Model(
        path="black-forest-labs/FLUX.1-dev",
        pipeline="FluxPipeline",
        tasks=("T2I",),
        reference_time=6.7,
        modules=FLUX,
        peak_memory_mb=34120.0,
    ),
    "flux.2-dev": Model(
        path="black-forest-labs/FLUX.2-dev",
        pipeline="Flux2Pipeline",
        tasks=("TI2I", "T2I"),
        reference_time=23.1,
        peak_memory_mb=71450.0,
    ),
    "flux.2-klein": Model(
        path="black-forest-labs/FLUX.2-klein-4B",
        pipeline="Flux2KleinPipeline",
        tasks=("TI2I", "T2I"),
        reference_time=0.40,
        peak_memory_mb=17810.0,
    ),
    "qwen-image": Model(
        path="Qwen/Qwen-Image",
        pipeline="QwenImagePipeline",
        tasks=("T2I",),
        reference_time=12.8,
        peak_memory_mb=46938.0,
    ),
    "qwen-image-edit": Model(
        path="Qwen/Qwen-Image-Edit-2509",
        pipeline="QwenImageEditPlusPipeline",
        tasks=("I2I",),
        reference_time=32.8,
        reference_images=1,
        peak_memory_mb=48210.0,
    ),
    "z-image": Model(  # the turbo model's seconds for one pass
        path="Tongyi-MAI/Z-Image",
        pipeline="ZImagePipeline",
        tasks=("T2I",),
        reference_time=9.3,
        many_outputs=False,
        peak_memory_mb=23870.0,
    ),
    "z-image-turbo": Model(
        path="Tongyi-MAI/Z-Image-Turbo",
        pipeline="ZImagePipeline",
        tasks=("T2I",),
        reference_time=0.91,
        many_outputs=False,
        peak_memory_mb=23870.0,
    ),
    "sd3": Model(  # guess
        path="stabilityai/stable-diffusion-3-medium-diffusers",
        pipeline="StableDiffusion3Pipeline",
        tasks=("T2I",),
        reference_time=4.5,
        peak_memory_mb=19240.0,
    ),
    "wan2.1-t2v-1.3b": Model(
        path="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        pipeline="WanPipeline",
        tasks=("T2V",),
        reference=ONE_SECOND,
        reference_time=8.1,
        modules=WAN,
    ),
    "wan2.1-t2v-14b": Model(
        path="Wan-AI/Wan2.1-T2V-14B-Diffusers",
        pipeline="WanPipeline",
        tasks=("T2V",),
        reference=ONE_SECOND,
        reference_time=24.1,
        modules=WAN,
        peak_memory_mb=61030.0,
    ),
    "wan2.1-i2v": Model(
        path="Wan-AI/Wan2.1-I2V-14B-720P-Diffusers",
        pipeline="WanImageToVideoPipeline",
        tasks=("I2V",),
        reference=ONE_SECOND,
        reference_time=98.8,
        modules=(*WAN, "image_encoder"),
        peak_memory_mb=64880.0,
    ),
    "wan2.2-a14b": Model(
        path="Wan-AI/Wan2.2-T2V-A14B-Diffusers",
        pipeline="WanPipeline",
        tasks=("T2V",),
        reference=ONE_SECOND,
        reference_time=83.3,
        modules=WAN_PAIR,
        peak_memory_mb=68190.0,
    ),
    "wan2.2-ti2v-5b": Model(
        path="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
        pipeline="WanImageToVideoPipeline",
        tasks=("TI2V", "T2V"),
        reference=ONE_SECOND,
        reference_time=15.6,
        modules=WAN,
    ),
    "fastwan": Model(
        path="FastVideo/FastWan2.2-TI2V-5B-FullAttn-Diffusers",
        pipeline="WanDMDPipeline",
        tasks=("TI2V", "T2V"),
        reference=ONE_SECOND,
        reference_time=3.1,
        modules=WAN,
    ),
    "hunyuanvideo": Model(  # the fast model's seconds for one pass
        path="hunyuanvideo-community/HunyuanVideo",
        pipeline="HunyuanVideoPipeline",
        tasks=("T2V",),
        reference=ONE_SECOND,
        reference_time=71.1,
        modules=FLUX,
        peak_memory_mb=54400.0,
    ),
    "fasthunyuan": Model(
        path="FastVideo/FastHunyuan-diffusers",
        pipeline="HunyuanVideoPipeline",
        tasks=("T2V",),
        reference=ONE_SECOND,
        reference_time=9.1,
        modules=FLUX,
        peak_memory_mb=54400.0,
    ),
    "ltx-2": Model(  # guess
        path="Lightricks/LTX-2",
        pipeline="LTX2Pipeline",
        tasks=("T2V", "TI2V"),
        reference=ONE_SECOND,
        reference_time=9.0,
        modules=("transformer", "vae", "audio_vae", "text_encoder"),
        peak_memory_mb=58700.0,
    ),
    "hunyuan3d": Model(
        path="tencent/Hunyuan3D-2",
        pipeline="Hunyuan3DPipeline",
        tasks=("I2M",),
        reference_images=1,
        reference_time=237.0,
        peak_memory_mb=21500.0,
    ),
    "cosmos3": Model(  # guess
        path="nvidia/Cosmos3-Nano",
        pipeline="Cosmos3Pipeline",
        tasks=("T2V", "T2I", "TI2V"),
        reference_time=8.0,
        image_format="png",
        peak_memory_mb=52200.0,
    ),
}
