"""
What the README says, for machines: its two opening commands, and its console lines with answers.

    readme.py run       prints the command that runs the router
    readme.py test      prints the command that runs the tests
    readme.py check     runs every console line of "First requests" and compares the answers
"""

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text()


def opening_commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", README.partition("\n## ")[0], re.S | re.M)
    assert len(blocks) == 2, "the README opens with two commands"
    return [block.strip() for block in blocks]


def console_lines() -> list[tuple[str, str]]:
    section = README.partition("\n## First requests\n")[2].partition("\n## ")[0]
    found = re.search(r"^```console\n(.*?)^```", section, re.S | re.M)
    assert found is not None
    steps = re.split(r"^\$ ", found[1], flags=re.M)[1:]
    return [(command, answer) for command, _, answer in (step.partition("\n") for step in steps)]


def shape(text: str) -> str:
    """*text* with what differs from run to run left out: ids, folders, ports, times."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", text)
    text = re.sub(r"/tmp/sglang-d-simulator-\w+", "FOLDER", text)
    text = re.sub(r'"request_id":"[0-9a-f]{32}"', '"request_id":"ID"', text)
    text = re.sub(r"127\.0\.0\.1:\d+", "WORKER", text)
    return re.sub(r'"created_at":\d+', '"created_at":TIME', text).strip()


def check() -> None:
    lines = console_lines()
    for command, expected in lines:
        done = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, timeout=120, check=True
        )
        print(f"$ {command}\n{done.stdout.rstrip()[:300]}")
        assert shape(done.stdout) == shape(expected), f"the README says:\n{expected}"
    print(f"README: {len(lines)} console lines answer as written")


if __name__ == "__main__":
    what = sys.argv[1]
    if what == "check":
        check()
    else:
        print(opening_commands()[["run", "test"].index(what)])
