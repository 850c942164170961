"""
Facts of this machine: its GPUs, and what a reader of results needs to know of it.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from attrs import frozen

PACKAGES = ("sgl-droute", "sglang", "twisted", "klein", "treq", "attrs")
_QUERY = ("nvidia-smi", "--query-gpu=index,name", "--format=csv,noheader")


@frozen
class GPU:
    """
    Attributes:
        name: As ``CUDA_VISIBLE_DEVICES`` takes it.
        kind: Product name.
    """

    name: str
    kind: str


def gpus() -> list[GPU]:
    """
    The NVIDIA GPUs that this process may use.
    """
    if shutil.which(_QUERY[0]) is None:
        return []
    try:
        asked = subprocess.run(_QUERY, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return visible_gpus(asked.stdout, os.environ.get("CUDA_VISIBLE_DEVICES"))


def visible_gpus(listing: str, visible: str | None) -> list[GPU]:
    """
    The GPUs in *listing*, lines of ``index, name``, that *visible* lets through.

    Args:
        visible: The value of ``CUDA_VISIBLE_DEVICES``; None lets all through.
    """
    rows = (line.partition(",") for line in listing.splitlines() if "," in line)
    found = {index.strip(): kind.strip() for index, _, kind in rows}
    if visible is None:
        return [GPU(index, kind) for index, kind in found.items()]
    names = [name.strip() for name in visible.split(",") if name.strip()]
    # A name that is no index is a UUID, which the listing does not hold.
    return [GPU(name, found.get(name, "")) for name in names] if found else []


def why_simulated() -> str | None:
    """
    Why real workers cannot be started here; None when they can.
    """
    if shutil.which("sglang") is None:
        return "no sglang command found"
    return None if gpus() else "no NVIDIA GPU found"


def machine_facts() -> dict[str, object]:
    """
    What this machine is.
    """
    return {
        "system": platform.platform(),
        "cpu": _cpu(),
        "cpu_count": os.cpu_count(),
        "load_average": list(os.getloadavg()),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": [gpu.kind for gpu in gpus()],
    }


def versions() -> dict[str, str]:
    """
    Versions of Python and of the packages that were measured, as far as they are installed.
    """
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
