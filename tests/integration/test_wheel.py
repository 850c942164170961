"""
The package as it is installed from a wheel.
"""

from __future__ import annotations

import subprocess
import sys
import urllib.request
import venv
import zipfile
from pathlib import Path

from tests.integration.commands import BIN, environment, free_port, once_up

ROOT = Path(__file__).parents[2]


def test_the_plugins_are_found_from_a_wheel(tmp_path: Path) -> None:
    """
    A wheel brings both plugins and no ``twisted/__init__.py``, and twistd finds and runs the router
    from it in an environment that has no checkout on its path.
    """
    subprocess.run(
        [BIN / "python", "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT],
        check=True,
        capture_output=True,
        timeout=120,
    )
    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "twisted/plugins/sgl_droute_plugin.py" in names
    assert [name for name in names if name.startswith("twisted/") and "__init__" in name] == []
    assert "sgl_droute/py.typed" in names
    page = {name.rpartition("/")[2] for name in names if name.startswith("sgl_droute/dashboard/")}
    assert page == {each.name for each in (ROOT / "sgl_droute/dashboard").iterdir()}
    assert not [name for name in names if name.startswith(("tests/", "bench/", "docs/"))]

    home = tmp_path / "environment"
    venv.create(home, with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = home / "lib" / version / "site-packages"
    zipfile.ZipFile(wheel).extractall(packages)
    # The dependencies, but not the editable checkout, whose .pth file would bring its own plugins.
    own = BIN.parent / "lib" / version / "site-packages"
    path = {**environment(), "PYTHONPATH": f"{packages}:{own}"}
    python = home / "bin" / "python"
    where = "import sgl_droute; print(sgl_droute.__file__)"
    found = subprocess.run(
        [python, "-c", where], env=path, check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert Path(found.stdout.strip()).is_relative_to(packages)
    port = free_port()
    words = ["-m", "twisted", "sglang-d-router", "--port", str(port)]
    router = subprocess.Popen([python, *words], env=path, cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        assert once_up(f"http://127.0.0.1:{port}/liveness") == {"status": "ok"}
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/dashboard", timeout=30) as shown:
            assert b"<title>Fleet" in shown.read()
    finally:
        router.terminate()
        router.wait(30)
