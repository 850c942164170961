"""
The command line of the bench scripts, read into one frozen record.

What a real or a simulated fleet makes of the settings is decided in `bench.harness.fleet`.
"""

from __future__ import annotations

from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, BooleanOptionalAction
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from attrs import evolve, fields_dict, frozen

from bench.harness import values
from bench.harness.arm import Arm
from bench.harness.expected import arrival_rate
from bench.harness.workload import MIXES, Plan, Shape
from sgl_droute.fleet.selection import ALGORITHMS
from sgl_droute.simulator.models import MODELS, Model

CONCURRENCY = 4


@frozen(kw_only=True)
class Settings:
    """
    Every setting of one benchmark; times are seconds. The options of the same names say the rest.

    Attributes:
        arms: To measure, in this order.
        load: Share of the workers' time that *request_rate* was made from; None if it was not.
        batch: Name of the rollout batch that all requests belong to, sent at once.
        repeat: Measurements of each, with *seed* and those that follow it.
        mix: Name of a mix, or ``fixed``.
        shapes: The kinds of request that the mix stands for.
        simulate: Whether workers are simulated; None leaves it to the machine.
        worker_speeds: Of each simulated worker, as a factor of *speed*.
    """

    model: str
    arms: tuple[Arm, ...]
    num_workers: int
    num_prompts: int
    max_concurrency: int
    request_rate: float | None
    load: float | None
    batch: str | None
    repeat: int
    task: str
    mix: str
    shapes: tuple[Shape, ...]
    seed: int
    warmup: int
    router_warmup: int
    timeout: float
    poll_interval: float
    response_format: str
    simulate: bool | None
    speed: float
    worker_speeds: tuple[float, ...]
    jitter: float
    skip_workers: bool
    worker_urls: tuple[str, ...]
    worker_base_port: int
    num_gpus_per_worker: int
    worker_extra_args: tuple[str, ...]
    startup_timeout: float
    skip_router: bool
    router_url: str | None
    router_port: int
    router_extra_args: tuple[str, ...]
    progress: bool | None
    output_file: str | None
    plot: str | None

    @property
    def plan(self) -> Plan:
        return Plan(
            count=self.num_prompts,
            mix=self.shapes,
            seed=self.seed,
            request_rate=self.request_rate,
        )

    @property
    def speeds(self) -> tuple[float, ...]:
        """Of each simulated worker."""
        factors = self.worker_speeds or (1.0,) * self.num_workers
        return tuple(self.speed * factor for factor in factors)

    @property
    def known_model(self) -> Model | None:
        """The simulator's entry for the model, by its short name or its path."""
        return known_model(self.model)


def known_model(name: str) -> Model | None:
    """
    The simulator's model with this short name or path; case does not matter.
    """
    matching = (
        model for short, model in MODELS.items() if name.lower() in (short, model.path.lower())
    )
    return next(matching, None)


def read_settings(script: str, argv: Sequence[str], *, compare: bool) -> Settings:
    """
    The settings that *argv* asks for.

    Args:
        script: Name of the command, for messages.
        compare: Whether the script compares routing algorithms, and so takes several.

    Raises:
        SystemExit: Help was asked for, or an option is wrong; the reason is on standard error.
    """
    parser = _Parser(prog=script, formatter_class=ArgumentDefaultsHelpFormatter, allow_abbrev=False)
    _add_load(parser)
    _add_algorithms(parser, compare)
    _add_workers(parser)
    _add_router(parser, compare)
    _add_output(parser)
    given = vars(parser.parse_args(argv))
    try:
        return _settings(given)
    except ValueError as problem:
        parser.error(str(problem))


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """
        End the program with one line, without the list of all options.
        """
        self.exit(2, f"{self.prog}: {message}\n")
        raise AssertionError("exit does not return")


def _add_load(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("load")
    group.add_argument("--model", default="Qwen/Qwen-Image", help="model path or name")
    group.add_argument("--num-prompts", type=values.count, default=20, help="requests to send")
    group.add_argument(
        "--max-concurrency",
        type=values.count,
        help=f"requests under way at once (default: {CONCURRENCY}; no limit with arrivals)",
    )
    group.add_argument(
        "--request-rate", type=values.positive, help="mean arrivals per second, Poisson distributed"
    )
    group.add_argument(
        "--load",
        type=values.positive,
        help="share of the time of simulated workers that Poisson arrivals keep busy, such as 0.85",
    )
    group.add_argument(
        "--batch",
        nargs="?",
        const="bench",
        metavar="ID",
        help="send all at once, as one rollout batch",
    )
    group.add_argument("--task", choices=tuple(MIXES), help="default: what the model makes")
    mixes = sorted({name for mixes in MIXES.values() for name in mixes})
    group.add_argument("--mix", choices=["fixed", *mixes], help="kinds of request in the load")
    group.add_argument(
        "--size", type=values.size, help="WIDTHxHEIGHT of every request; a fixed mix"
    )
    group.add_argument("--steps", type=values.count, help="denoising steps of every request")
    group.add_argument("--num-frames", type=values.count, help="frames of every video; a fixed mix")
    group.add_argument(
        "--fps", type=values.count, help="frames per second of every video; a fixed mix"
    )
    group.add_argument("--seed", type=int, default=0, help="of the workload")
    group.add_argument(
        "--warmup", type=values.whole, default=1, help="requests to each worker before"
    )
    group.add_argument(
        "--router-warmup",
        type=values.whole,
        default=0,
        help="requests through each router before, so that it has learned how fast workers are",
    )
    group.add_argument(
        "--timeout", type=values.positive, default=1800.0, help="seconds per request"
    )
    group.add_argument(
        "--poll-interval",
        type=values.positive,
        default=0.2,
        help="seconds between looks at a video job",
    )
    group.add_argument(
        "--response-format", choices=("b64_json", "url"), default="b64_json", help="of images"
    )


def _add_algorithms(parser: ArgumentParser, compare: bool) -> None:
    group = parser.add_argument_group("algorithm")
    if compare:
        group.add_argument(
            "--algorithms",
            type=values.arms,
            default=",".join(ALGORITHMS),
            help="separated by commas; NAME@1 or NAME@auto with that --worker-concurrency",
        )
        group.add_argument("--repeat", type=values.count, default=1, help="measurements of each")
        return
    group.add_argument(
        "--routing-algorithm",
        type=values.arm,
        default="least-request",
        help="to measure; NAME@1 or NAME@auto with that --worker-concurrency",
    )
    group.add_argument("--repeat", type=values.count, default=1, help="measurements, put together")


def _add_workers(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("workers")
    group.add_argument("--num-workers", type=values.count, help="workers to start (default: 2)")
    group.add_argument(
        "--simulate",
        action=BooleanOptionalAction,
        help="simulated workers; by default when there is no GPU or no sglang command",
    )
    group.add_argument("--speed", type=values.positive, default=10.0, help="of simulated workers")
    group.add_argument(
        "--worker-speeds",
        type=values.speeds,
        default=(),
        help="factors of --speed, such as 1,1,0.5",
    )
    group.add_argument("--jitter", type=values.share, default=0.0, help="random share of durations")
    group.add_argument("--skip-workers", action="store_true", help="use running --worker-urls")
    group.add_argument(
        "--worker-urls", nargs="+", type=values.url, default=[], help="running workers"
    )
    group.add_argument(
        "--worker-base-port", type=values.port, default=30000, help="first port to try"
    )
    group.add_argument(
        "--num-gpus-per-worker", type=values.count, default=1, help="of real workers"
    )
    group.add_argument(
        "--worker-extra-args", type=values.words, default=(), help="for sglang serve, as ...=WORDS"
    )
    group.add_argument(
        "--startup-timeout",
        type=values.positive,
        default=1800.0,
        help="seconds until all are ready",
    )


def _add_router(parser: ArgumentParser, compare: bool) -> None:
    group = parser.add_argument_group("router")
    group.add_argument("--router-port", type=values.port, default=0, help="0 takes a free one")
    group.add_argument(
        "--router-extra-args", type=values.words, default=(), help="for the router, as ...=WORDS"
    )
    if compare:
        return
    group.add_argument("--skip-router", action="store_true", help="use a running --router-url")
    group.add_argument("--router-url", type=values.url, help="running router")


def _add_output(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--progress",
        action=BooleanOptionalAction,
        help="show a progress bar; by default when standard error is a terminal",
    )
    group.add_argument("--output-file", metavar="JSON", help="write everything that was measured")
    group.add_argument("--plot", metavar="PNG", help="draw the latencies and the shares")


def _settings(given: dict[str, Any]) -> Settings:
    given.setdefault("skip_router", False)
    given.setdefault("router_url", None)
    _check_running(given)
    _check_load(given)
    _check_outputs(given)
    given["arms"] = _arms_of(given)
    given["num_workers"] = _number_of_workers(given)
    given["task"] = given["task"] or _task_of(given["model"])
    given["mix"], given["shapes"] = _mix(given)
    if given["load"] is not None:
        given["simulate"] = True
    if given["max_concurrency"] is None:
        at_once = given["request_rate"] or given["load"] or given["batch"]
        given["max_concurrency"] = given["num_prompts"] if at_once else CONCURRENCY
    given["worker_urls"] = tuple(given["worker_urls"])
    return _with_rate(Settings(**{name: given[name] for name in fields_dict(Settings)}))


def _with_rate(settings: Settings) -> Settings:
    if settings.load is None:
        return settings
    model = settings.known_model
    if model is None:
        raise ValueError(f"--load: the simulator does not know {settings.model}")
    rate = arrival_rate(model, settings.task, settings.shapes, settings.load, settings.speeds)
    return evolve(settings, request_rate=rate)


def _check_load(given: dict[str, Any]) -> None:
    if given["load"] is not None and (given["skip_workers"] or given["simulate"] is False):
        raise ValueError("--load is of simulated workers, whose durations are known")
    arrivals = [name for name in ("request_rate", "load", "batch") if given[name] is not None]
    if len(arrivals) > 1:
        one, other, *_ = (f"--{name.replace('_', '-')}" for name in arrivals)
        raise ValueError(f"{one} and {other} both say when requests arrive")
    if given["batch"] is not None and given["max_concurrency"] is not None:
        raise ValueError("--batch sends all at once, whatever --max-concurrency says")


def _check_running(given: dict[str, Any]) -> None:
    if given["skip_router"] != (given["router_url"] is not None):
        raise ValueError("--skip-router and --router-url go together")
    if given["skip_router"]:
        given["skip_workers"] = True
    elif given["skip_workers"] != bool(given["worker_urls"]):
        raise ValueError("--skip-workers and --worker-urls go together")
    if given["skip_workers"] and given["simulate"]:
        raise ValueError("--simulate starts workers, --skip-workers and --skip-router do not")
    if given["skip_router"] and given["worker_urls"]:
        raise ValueError("--skip-router takes the workers from the router, not from --worker-urls")


def _check_outputs(given: dict[str, Any]) -> None:
    # Before anything is measured: a measurement with nowhere to go is lost time.
    for name in ("output_file", "plot"):
        if given[name] is not None and not Path(given[name]).absolute().parent.is_dir():
            raise ValueError(f"there is no folder for {given[name]}")


def _arms_of(given: dict[str, Any]) -> tuple[Arm, ...]:
    if given["skip_router"]:
        return (Arm("running router"),)
    chosen: tuple[Arm, ...] = given.get("algorithms") or (given["routing_algorithm"],)
    return chosen


def _number_of_workers(given: dict[str, Any]) -> int:
    speeds = len(given["worker_speeds"])
    asked: int | None = given["num_workers"]
    if given["skip_workers"]:
        return len(given["worker_urls"])
    if speeds and asked not in (None, speeds):
        raise ValueError(f"--worker-speeds names {speeds} workers, --num-workers {asked}")
    return asked or speeds or 2


def _task_of(name: str) -> str:
    model = known_model(name)
    return "video" if model is not None and not model.makes_images else "image"


def _mix(given: dict[str, Any]) -> tuple[str, tuple[Shape, ...]]:
    one_shape = {name: given[name] for name in ("size", "num_frames", "fps")}
    fixed = any(value is not None for value in one_shape.values())
    mixes = MIXES[given["task"]]
    name: str = given["mix"] or ("fixed" if fixed else next(iter(mixes)))
    if name == "fixed":
        return name, (Shape(**one_shape, steps=given["steps"]),)
    if fixed:
        raise ValueError(f"--size, --num-frames and --fps fix what --mix {name} varies")
    if name not in mixes:
        raise ValueError(f"--mix {name} is not for --task {given['task']}")
    if given["steps"] is None:
        return name, mixes[name]
    if any(shape.steps is not None for shape in mixes[name]):
        raise ValueError(f"--steps fixes what --mix {name} varies")
    return name, tuple(evolve(shape, steps=given["steps"]) for shape in mixes[name])
