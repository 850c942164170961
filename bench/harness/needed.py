"""
Whether the packages that the bench scripts need are installed. Needs only the standard library.
"""

from __future__ import annotations

from importlib.util import find_spec

NEEDED = ("sgl_droute", "treq", "tqdm", "matplotlib", "PIL", "av", "msgpack")


def check_installed() -> None:
    """
    End the program with one line that names the install command if a package is missing.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise SystemExit(f"bench: needs {', '.join(missing)}: pip install -e '.[bench]'")
