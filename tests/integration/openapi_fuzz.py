"""
A running router with simulated workers, and schemathesis in front of it, which makes requests of
what ``/openapi.json`` says and of what it rules out.

Scope ``all``: every route. Workers come, go, sleep and are updated, and are brought back every so
often; no answer may be a 500 of the router, show a traceback, or have a status, media type, header
or shape that is not described.

Scope ``inference``: what a key for generations may do, with workers that stay well. There no answer
may be a 5xx at all.

In full length, once each: ``python -m tests.integration.openapi_fuzz --minutes 10``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal, get_args
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from attrs import define, field, frozen

from sgl_droute.api.openapi.document import document
from sgl_droute.api.routes import RouterAPI
from tests.integration.commands import BIN, ROOT, free_port, once_up, running

Scope = Literal["all", "inference"]

MODELS = ("cosmos3", "qwen-image-edit", "hunyuan3d")
_SIMULATOR = ("twistd", "-n", "--pidfile=", "sglang-d-simulator")
_QUICK = ("--speed", "1000000", "--pictures", "2", "--video-side", "64")
# A request for an epoch that never comes would wait for ever.
_ROUTER = ("--queue-timeout", "2", "--timeout", "100", "--health-check-interval", "1")
_WEBHOOKS = ("--webhook-hosts", "127.0.0.1")
_CHECKS = (
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
    "the_router_did_well",
    "the_worker_did_well",
)
_JSON = "application/json"
# Beyond the time that schemathesis is given, for its start and its last request (seconds).
_GRACE = 240


@frozen(kw_only=True)
class Plan:
    """
    One run.

    Attributes:
        seconds: How long; 0 for one pass of *examples*, which is the same each time.
        examples: Generated requests for each operation (count).
    """

    scope: Scope
    seconds: int = 0
    seed: int = 1
    examples: int = 5

    def words(self) -> Iterator[str]:
        yield from ("--seed", str(self.seed), "--max-examples", str(self.examples))
        if self.seconds:
            yield from ("--max-time", str(self.seconds), "--generation-database", "none")
        else:
            # Going through all values one by one is for when there is time.
            yield from ("--generation-deterministic", "--phases", "fuzzing,stateful")


@define
class Outcome:
    """
    What came of a run.

    Attributes:
        tally: Answers by route and status (count).
        report: What schemathesis says.
        problems: What is wrong; nothing if all is well.
    """

    tally: dict[str, dict[str, int]] = field(factory=dict)
    report: str = ""
    problems: list[str] = field(factory=list)

    @property
    def cases(self) -> int:
        return sum(self.statuses().values())

    def statuses(self) -> Counter[str]:
        """How often which status was answered."""
        counted: Counter[str] = Counter()
        for statuses in self.tally.values():
            counted.update(statuses)
        return counted

    def table(self) -> str:
        """For people."""
        lines = [f"{self.cases} requests: {dict(sorted(self.statuses().items()))}"]
        for route, statuses in sorted(self.tally.items()):
            counts = "  ".join(f"{status}: {count}" for status, count in statuses.items())
            lines.append(f"{route:44} {counts}")
        return "\n".join([*lines, *self.problems])


def fuzzed(plan: Plan, folder: Path) -> Outcome:
    """
    Run *plan*; its files are in *folder*.
    """
    with ExitStack() as stack:
        workers = [_worker(stack, folder, model) for model in MODELS]
        home = folder / "router"
        home.mkdir()
        keys = _keys(home)
        port = free_port()
        router = stack.enter_context(
            running(
                *("sglang-d-router", "--host", "127.0.0.1", "--port", str(port)),
                *("--api-keys", "api.keys", "--admin-keys", "admin.keys", *_ROUTER, *_WEBHOOKS),
                *("--worker-urls", *workers),
                cwd=home,
            )
        )
        url = f"http://127.0.0.1:{port}"
        once_up(f"{url}/health")
        outcome = _schemathesis(plan, folder, url, workers, keys)
        if plan.scope == "all":
            outcome.problems += _streams(url, keys["all"])
        if router.poll() is not None:
            outcome.problems.append("the router has ended")
    log = (home / "log").read_text()
    if "Traceback" in log:
        outcome.problems.append(log[log.index("Traceback") - 500 :][:5000])
    return outcome


def _worker(stack: ExitStack, folder: Path, model: str) -> str:
    home = folder / model
    home.mkdir()
    port = free_port()
    stack.enter_context(
        running(*_SIMULATOR, "--port", str(port), "--model", model, *_QUICK, cwd=home)
    )
    url = f"http://127.0.0.1:{port}"
    once_up(f"{url}/health")
    return url


def _keys(home: Path) -> dict[Scope, str]:
    """
    A key for each scope; the router in *home* will know them.
    """
    keys: dict[Scope, str] = {"all": token_hex(16), "inference": token_hex(16)}
    for file, (scope, key) in zip(("admin.keys", "api.keys"), keys.items(), strict=True):
        digest = sha256(key.encode()).hexdigest()
        (home / file).write_text(f"{scope} sha256:{digest}\n")
    return keys


def _schemathesis(
    plan: Plan, folder: Path, url: str, workers: list[str], keys: dict[Scope, str]
) -> Outcome:
    tally = folder / "tally"
    environment = {
        **os.environ,
        "FUZZED_ROUTER": url,
        "FUZZED_KEY": keys["all"],
        "FUZZED_WORKERS": " ".join(workers),
        "FUZZED_SCOPE": plan.scope,
        "FUZZED_SEED": str(plan.seed),
        "FUZZED_TALLY": str(tally),
        "SCHEMATHESIS_HOOKS": "tests.integration.openapi_checks",
        "PYTHONPATH": str(ROOT),
    }
    words = [
        *(str(BIN / "schemathesis"), "run", f"{url}/openapi.json", "--url", url),
        *("--checks", ",".join(_CHECKS), "--continue-on-failure", "--no-shrink", "--no-color"),
        *("--workers", "1", "--request-timeout", "120"),
        # Complaints about what it could generate say nothing of the router.
        *("--suppress-health-check", "all"),
        *("--warnings", "off", "--generation-with-security-parameters", "false"),
        *("--header", f"Authorization: Bearer {keys[plan.scope]}", *plan.words()),
    ]
    for operation in operations(document(RouterAPI), plan.scope):
        words += ["--include-operation-id", operation]
    ended = subprocess.run(
        words,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=(plan.seconds or _GRACE) + _GRACE,
        check=False,
    )
    outcome = Outcome(json.loads(tally.read_text()), ended.stdout + ended.stderr)
    if ended.returncode:
        outcome.problems.append(outcome.report)
    return outcome


def _streams(url: str, key: str) -> list[str]:
    """
    What is wrong with the heads of answers that have no end.
    """
    wrong = []
    for path, methods in document(RouterAPI)["paths"].items():
        told = methods.get("get", {}).get("responses", {})
        for query in ("", "?types=worker", "?types=none") if _endless(told) else ():
            request = Request(f"{url}{path}{query}", headers={"X-Api-Key": key})
            try:
                answer = urlopen(request, timeout=30)
            except HTTPError as error:
                answer = error
            with answer:
                media = answer.headers.get_content_type()
                part = told.get(str(answer.status))
                if part is None or media not in part.get("content", (_JSON,)):
                    wrong.append(f"{path}{query}: {answer.status} {media}")
    return wrong


def _endless(responses: dict[str, Any]) -> bool:
    return "text/event-stream" in responses.get("200", {}).get("content", {})


def operations(document: dict[str, Any], scope: Scope) -> list[str]:
    """
    The operations to be fuzzed, by name: those of the *scope* that come to an end, and do not send
    elsewhere, where schemathesis would follow.
    """
    found = []
    for methods in document["paths"].values():
        for operation in methods.values():
            roles = [needed.get("bearer") for needed in operation["security"]]
            wanted = scope == "all" or ["inference"] in roles
            told = operation["responses"]
            if wanted and not _endless(told) and "308" not in told:
                found.append(operation["operationId"])
    return found


def main() -> None:
    name = "python -m tests.integration.openapi_fuzz"
    parser = argparse.ArgumentParser(prog=name, description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of each run")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "big"))
    parser.add_argument("--scope", choices=get_args(Scope), help="one run only")
    given = parser.parse_args()
    wrong = False
    for scope in [given.scope] if given.scope else get_args(Scope):
        print(f"{scope}, seed {given.seed}, {given.minutes:g} minutes", flush=True)
        plan = Plan(scope=scope, seconds=round(given.minutes * 60), seed=given.seed, examples=20)
        with tempfile.TemporaryDirectory() as folder:
            outcome = fuzzed(plan, Path(folder))
        print(outcome.table(), flush=True)
        wrong = wrong or bool(outcome.problems)
    sys.exit(wrong)


if __name__ == "__main__":
    main()
