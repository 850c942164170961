"""
The table of termination codes in ``docs/logs.md``, against the code.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from sgl_droute import errors
from sgl_droute.api.telemetry.account import DONE, Account
from sgl_droute.errors import Refused, RouterError

ROOT = Path(__file__).parent.parent
_ROW = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)


def documented() -> list[str]:
    """The codes in the table, in its order."""
    text = (ROOT / "docs" / "logs.md").read_text()
    return _ROW.findall(text.split("## Termination codes", 1)[1].split("\n## ", 1)[0])


def kinds() -> list[type[RouterError]]:
    """All kinds of errors."""
    return [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, RouterError)
    ]


def given_reasons() -> Iterator[str]:
    """Reasons that the package gives to single errors, read from its source."""
    names = {kind.__name__ for kind in kinds()}
    refusals = {kind.__name__ for kind in kinds() if issubclass(kind, Refused)} | {"_refused"}
    for path in (ROOT / "sgl_droute").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
                continue
            if call.func.id not in names | refusals:
                continue
            values = [keyword.value for keyword in call.keywords if keyword.arg == "reason"]
            if call.func.id in refusals:
                values += call.args[1:2]
            for value in values:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield value.value


def stages() -> set[str]:
    """The codes of clients that hang up."""
    gone = set()
    times: tuple[tuple[float | None, float | None, float | None], ...] = (
        (None, None, None),
        (1.0, None, None),
        (1.0, 1.0, None),
        (1.0, 1.0, 1.0),
    )
    for ready, bound, answered in times:
        account = Account(
            id="", method="", path="", began=0.0, ready=ready, bound=bound, answered=answered
        )
        account.client_left()
        gone.add(account.code)
    return gone


def test_all_codes_are_documented() -> None:
    """
    The table has every code that a request can end with, once, and no other.
    """
    own = {kind.reason for kind in kinds() if not issubclass(kind, Refused)}
    assert len(stages()) == 4
    expected = {DONE} | stages() | own | set(given_reasons())
    assert sorted(documented()) == sorted(expected)


def test_codes_are_words() -> None:
    """
    Codes are one lower-case word each, so that they can be counted and searched for.
    """
    assert [code for code in documented() if not re.fullmatch(r"[a-z_]+", code)] == []
