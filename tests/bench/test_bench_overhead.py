"""
What the overhead benchmark reads, decides and writes, without starting anything.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.harness.overhead.configs import backend_config, haproxy_config, nginx_config
from bench.harness.overhead.figures import Hold, Outcome, Result, Sample, figures
from bench.harness.overhead.layers import Stats, layer_of, layers, profile_table
from bench.harness.overhead.options import Settings, read_settings
from bench.harness.overhead.procfs import descendants, read_memory, read_stat, usage
from bench.harness.overhead.proxies import ROUTER, loopback, proxies
from bench.harness.overhead.report import document, report
from bench.harness.overhead.scenarios import KB, MB, Scenario, chosen, most_waiting, scenarios
from bench.harness.overhead.targets import most_memory, verdicts
from bench.harness.overhead.wrk import Counted, read_counted, wrk_script

COUNTED = {
    "requests": 200,
    "bytes": 240_000,
    "duration": 2_000_000,
    "p50": 1500,
    "p99": 9000,
    **dict.fromkeys(("connect", "read", "write", "status", "timeout"), 0),
}
KNOWN = scenarios(20_000)


def named(name: str) -> Scenario:
    return next(each for each in KNOWN if each.name == name)


def read(*words: str) -> Settings:
    return read_settings("bench.py", words, KNOWN)


def sample(cpu: float, *, answers: float = 1000.0, peak: int = 60 * MB) -> Sample:
    return Sample(
        seconds=2.0,
        answers=answers,
        rate=answers / 2.0,
        p50=0.001,
        p99=0.002,
        cpu=cpu,
        resident=peak,
        peak=peak,
    )


def result(name: str, proxy: str, *cpu: float, **facts: Any) -> Result:
    answers = facts.pop("answers", 1000.0)
    peak = facts.pop("peak", 60 * MB)
    samples = tuple(sample(each, answers=answers, peak=peak) for each in cpu)
    return Result(scenario=named(name), proxy=proxy, samples=samples, **facts)


def verdict(outcome: Outcome, start: str) -> tuple[str, bool | None]:
    """
    The figure and the verdict of the target that begins with *start*.
    """
    found = next(each for each in verdicts(outcome, "router") if each.target.startswith(start))
    return found.measured, found.met


# What to measure.


def test_names_and_groups_choose_scenarios() -> None:
    """
    Each scenario has a name of its own; a group stands for its members; nothing stands for all.
    """
    names = [each.name for each in KNOWN]
    assert len(set(names)) == len(names)
    assert chosen(KNOWN, ()) == KNOWN
    assert [each.name for each in chosen(KNOWN, ["large", "1k-1"])] == ["1k-1", "2m-4", "64m-4"]
    with pytest.raises(ValueError, match="no scenario is called 3k"):
        chosen(KNOWN, ["3k"])


@given(st.integers(min_value=1, max_value=100_000))
def test_waiting_requests_fit_into_the_open_files(limit: int) -> None:
    """
    Two descriptors for each waiting request leave some over, and 9000 are enough; each number of
    them is measured once, in ascending order.
    """
    most = most_waiting(limit)
    assert 1 <= most <= 9000
    assert most == 1 or 2 * most < limit
    counts = [each.waiting for each in scenarios(limit) if each.group == "waiting"]
    assert counts == sorted(set(counts))
    assert counts[-1] == most


def test_options() -> None:
    """
    Without options three rounds of everything with this checkout's router; quick is shorter; a
    number given holds in both.
    """
    whole, quick = read(), read("--quick", "--rounds", "2", "--only", "fleet")
    assert (whole.scenarios, whole.rounds, whole.hold, whole.routers) == (KNOWN, 3, 60, (ROUTER,))
    assert whole.profile is None
    assert (quick.rounds, quick.hold) == (2, 10)
    assert quick.seconds < whole.seconds
    assert {each.group for each in quick.scenarios} == {"fleet"}
    assert read("--profile").profile == named("1k-32")
    assert read("--profile", "2m-4").profile == named("2m-4")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--seconds", "0"], "whole number above 0"),
        (["--only", "nothing"], "no scenario is called nothing"),
        (["--profile", "large"], "one scenario"),
        (["--profile", "hold"], "one scenario"),
        (["--router-command", "'"], "No closing quotation"),
        (["--router-command", " "], "no command"),
        (["--json", "/no/such/folder/x.json"], "there is no folder"),
    ],
)
def test_wrong_options(words: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    """
    A wrong option ends the program with status 2 and its reason before anything is measured.
    """
    with pytest.raises(SystemExit) as ended:
        read(*words)
    assert ended.value.code == 2
    assert reason in capsys.readouterr().err


# What is measured.


def test_absent_peers_are_left_out() -> None:
    """
    A peer that is not installed is told and not measured; several routers get numbers.
    """
    here: Callable[[str], str | None] = {"haproxy": "/x/haproxy"}.get
    measured, absent = proxies([ROUTER], here)
    assert [each.name for each in measured] == ["router", "haproxy"]
    assert absent == ["nginx"]
    measured, absent = proxies([ROUTER, ["old"]], lambda program: None)
    assert [each.name for each in measured] == ["router 1", "router 2"]
    assert all(each.is_router for each in measured)
    assert absent == ["nginx", "haproxy"]


def test_every_worker_has_an_address() -> None:
    """
    A thousand workers have a thousand addresses of loopback, none ending in 0 or 255.
    """
    addresses = [loopback(number) for number in range(1000)]
    assert addresses[0] == "127.0.0.1"
    assert len(set(addresses)) == 1000
    parts = [[int(part) for part in address.split(".")] for address in addresses]
    assert all(part[:2] == [127, 0] and part[2] <= 255 and 0 < part[3] < 255 for part in parts)


def test_proxies_are_set_up_alike(tmp_path: Path) -> None:
    """
    Each peer has one process or thread, every worker, connections kept on both sides and no access
    log.
    """
    workers = ["127.0.0.1:1", "127.0.0.2:1"]
    nginx = nginx_config(tmp_path, 8080, workers, open_files=1024)
    for line in (
        *("worker_processes 1;", "access_log off;", "proxy_http_version 1.1;"),
        *('proxy_set_header Connection "";', "listen 127.0.0.1:8080 backlog=4096;"),
        *(f"server {worker};" for worker in workers),
    ):
        assert line in nginx
    assert nginx.count("{") == nginx.count("}")
    haproxy = haproxy_config(8080, workers, connections=77)
    for line in ("nbthread 1", "maxconn 77", "http-reuse always", "bind 127.0.0.1:8080"):
        assert line in haproxy
    assert haproxy.count(" check ") == 2
    assert " log " not in haproxy


def test_backend_is_closed_to_other_machines(tmp_path: Path) -> None:
    """
    The backend listens on the addresses it is given and one more of loopback, and on no other.
    """
    text = backend_config(
        tmp_path, ["127.0.0.1:1", "127.0.0.2:1"], "127.0.0.1:9", port=5, open_files=9
    )
    listening = [line.split()[1] for line in text.splitlines() if "listen " in line]
    assert [each.rstrip(";") for each in listening] == ["127.0.0.1:1", "127.0.0.2:1", "127.0.0.1:5"]


# What it cost.


def test_stat_with_a_strange_name() -> None:
    """
    A program's name may hold brackets and blanks.
    """
    fields = ["S", "42", *["0"] * 9, "150", "50", *["0"] * 30]
    stat = read_stat(f"7 (a) b (c)) {' '.join(fields)}\n", ticks=100)
    assert (stat.parent, stat.cpu) == (42, 2.0)


def test_memory() -> None:
    """
    Resident memory now and at most, in bytes; a process that has ended shows none.
    """
    text = "Name:\tx\nVmPeak:\t 900 kB\nVmHWM:\t  20 kB\nVmRSS:\t  10 kB\nThreads:\t1\n"
    assert read_memory(text) == (10 * KB, 20 * KB)
    assert read_memory("Name:\tx\nState:\tZ (zombie)\n") == (0, 0)


def test_all_descendants_count() -> None:
    """
    Children of children belong to a program, its parent and its siblings do not.
    """
    parents = {1: 0, 10: 1, 11: 10, 12: 10, 13: 12, 20: 1}
    assert sorted(descendants(parents, 10)) == [11, 12, 13]
    assert descendants(parents, 13) == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_usage_of_this_process() -> None:
    """
    This process has used time and memory; one that is gone adds nothing.
    """
    used = usage([os.getpid(), 2**30])
    assert used.cpu > 0
    assert 0 < used.resident <= used.peak


# What wrk counts.


def test_what_wrk_counts() -> None:
    """
    The last line of the script's output, in seconds and bytes; what is around it does not matter.
    """
    output = f"Running 2s test\n  2 threads\ncounted: {json.dumps(COUNTED)}\nbye\n"
    counted = read_counted(output)
    assert (counted.requests, counted.bytes, counted.duration) == (200, 240_000, 2.0)
    assert (counted.p50, counted.p99) == (0.0015, 0.009)
    assert counted.problem == ""
    with pytest.raises(ValueError, match="unable to connect"):
        read_counted("unable to connect to 127.0.0.1:1\n")


@given(st.sampled_from(["connect", "read", "write", "status", "timeout"]), st.integers(1, 10**6))
def test_any_error_spoils_a_measurement(kind: str, count: int) -> None:
    """
    One failed request of any kind is named, however many went well.
    """
    counted = read_counted(f"counted: {json.dumps({**COUNTED, kind: count})}")
    assert counted.problem == f"errors: {kind} {count}, of 200 requests"


def test_no_answer_is_a_problem() -> None:
    """
    A load of which nothing came to its end is no measurement.
    """
    counted = read_counted(f"counted: {json.dumps({**COUNTED, 'requests': 0})}")
    assert counted.problem


def test_large_answers_count_in_part() -> None:
    """
    Of large answers the part that came counts too; of small ones and uploads only whole ones.
    """
    counted = Counted(requests=3, bytes=224 * MB, duration=1.0, p50=0.1, p99=0.1, errors={})
    assert counted.answers(named("64m-4")) == 3.5
    assert counted.answers(named("1k-1")) == 3.0
    assert counted.answers(named("upload-4")) == 3.0


def test_only_uploads_have_a_body() -> None:
    """
    The script of an upload posts its size, the others get.
    """
    assert f'string.rep("x", {MB})' in wrk_script(named("upload-4"))
    assert "POST" not in wrk_script(named("1k-1"))


# What is made of it.


def test_figures_are_medians() -> None:
    """
    One slow round of three does not move the cost of a request; memory is the most of all rounds.
    """
    made = figures(result("1k-32", "router", 0.2, 9.0, 0.1))
    assert made is not None
    assert made.cpu == pytest.approx(200.0)
    assert made.net_cpu == pytest.approx(200.0)
    assert made.rate == 500.0
    assert made.per_waiting is None
    assert made.resident == 60 * MB


def test_idle_cost_is_taken_off() -> None:
    """
    What a proxy takes without requests is not the cost of requests, and the rest is never negative.
    """
    made = figures(result("fleet-1000", "router", 0.2, idle=0.05))
    assert made is not None
    assert made.cpu == pytest.approx(200.0)
    assert made.net_cpu == pytest.approx(100.0)
    busy = figures(result("fleet-1000", "router", 0.2, idle=1.0))
    assert busy is not None
    assert busy.net_cpu == 0.0


def test_memory_of_a_waiting_request() -> None:
    """
    The growth since the start, divided by the requests that wait.
    """
    made = figures(result("waiting-1000", "router", 0.1, at_rest=60 * MB - 1000 * KB))
    assert made is not None
    assert made.per_waiting == KB


def test_a_problem_leaves_no_figures() -> None:
    """
    One bad round spoils a result, and it is listed.
    """
    bad = result("1k-1", "nginx", 0.1, problem="errors: status 1")
    assert figures(bad) is None
    assert Outcome(results=(bad,)).problems() == ["1k-1 nginx: errors: status 1"]


@pytest.mark.parametrize(
    ("start", "scenario", "peer", "bound"),
    [
        ("1k-32:", "1k-32", "nginx", 16),
        ("1k-1:", "1k-1", "nginx", 9),
        ("2m-4:", "2m-4", "haproxy", 2),
    ],
)
def test_ratio_to_a_peer(start: str, scenario: str, peer: str, bound: int) -> None:
    """
    CPU per request up to the bound times the peer's is met, above it missed, without the peer
    neither.
    """
    other = result(scenario, peer, 0.01)
    for cpu, met in ((0.0099 * bound, True), (0.0101 * bound, False)):
        outcome = Outcome(results=(result(scenario, "router", cpu), other))
        assert verdict(outcome, start) == (f"{cpu / 0.01:.2f} x", met)
    alone = Outcome(results=(result(scenario, "router", 0.01),))
    assert verdict(alone, start) == ("not measured", None)


def test_throughput_of_large_answers() -> None:
    """
    60 % of HAProxy's MB/s is met, less is missed.
    """
    other = result("64m-4", "haproxy", 0.1, answers=100.0)
    for answers, met in ((60.0, True), (59.0, False)):
        outcome = Outcome(results=(result("64m-4", "router", 0.1, answers=answers), other))
        assert verdict(outcome, "64m-4:") == (f"{answers:.2f} %", met)


def test_cost_of_a_large_fleet() -> None:
    """
    The cost at 1000 workers is set against that at 1, both without the health checks.
    """
    small = result("fleet-1", "router", 0.1)
    for cpu, met in ((0.249, True), (0.251, False)):
        large = result("fleet-1000", "router", cpu, idle=0.06)
        assert verdict(Outcome(results=(small, large)), "fleet-1000:")[1] is met


def test_memory_target_is_judged_where_it_is_nearest() -> None:
    """
    The scenario nearest to its bound decides, not the one with the most memory.
    """
    near = result("1k-1", "router", 0.1, peak=79 * MB)
    far = result("waiting-9000", "router", 0.1, peak=100 * MB)
    outcome = Outcome(results=(far, near))
    assert verdict(outcome, "peak memory") == ("79 of 80 MB (1k-1)", True)
    over = Hold(proxy="router", asked=9000, peak=most_memory(9000) + MB)
    assert verdict(Outcome(results=(far, near), holds=(over,)), "peak memory")[1] is False


@pytest.mark.parametrize(
    ("facts", "met"),
    [
        ({}, True),
        ({"seconds": 59.0}, None),
        ({"seconds": 59.0, "failures": 1}, False),
        ({"answered": 8999}, False),
        ({"failures": 1}, False),
        ({"unanswered": 1}, False),
        ({"looks": 0}, False),
        ({"problem": "router ended"}, False),
    ],
)
def test_hold_target(facts: dict[str, Any], met: bool | None) -> None:
    """
    One request without an answer, one failed health check or one look without an answer misses it;
    less than a minute decides only that.
    """
    fine: dict[str, Any] = {"asked": 9000, "answered": 9000, "seconds": 60.0, "looks": 120}
    hold = Hold(proxy="router", **{**fine, **facts})
    assert verdict(Outcome(holds=(hold,)), "hold:")[1] is met


def test_nothing_measured_is_no_verdict() -> None:
    """
    Without results no target is met or missed.
    """
    assert {each.met for each in verdicts(Outcome(), "router")} == {None}


def test_report_and_document() -> None:
    """
    Every scenario and proxy has its row, every target its line, every problem its own; the document
    is JSON.
    """
    outcome = Outcome(
        results=(
            result("1k-32", "router", 0.7),
            result("1k-32", "nginx", 0.02),
            result("fleet-1", "router", 0.1),
            result("fleet-1000", "router", 0.12, idle=0.01),
            result("waiting-9000", "router", 0.1),
            result("2m-4", "haproxy", problem="broken"),
        ),
        holds=(Hold(proxy="router", asked=9000, answered=9000, seconds=60.0, looks=9),),
    )
    text = report(outcome, ["router"])
    row = next(
        line for line in text.splitlines() if line.startswith("| 1k-32 ") and "router" in line
    )
    assert [cell.strip() for cell in row.split("|")[3:6]] == ["700", "35.00", "-"]
    assert text.count("MISSED") == 1
    assert "INVALID 2m-4 haproxy: broken" in text
    whole = json.loads(json.dumps(document(outcome, ["router"], {"bench": "x"})))
    assert whole["results"][0]["ratios"]["nginx"] == pytest.approx(35.0)
    assert len(whole["targets"]["router"]) == 7
    assert whole["problems"] == ["2m-4 haproxy: broken"]


# Where the time goes.


@pytest.mark.parametrize(
    ("file", "name", "layer"),
    [
        ("/v/lib/twisted/internet/tcp.py", "doRead", "Twisted: reactor, transports, Deferreds"),
        ("/v/lib/twisted/web/http.py", "write", "Twisted: web"),
        ("/v/lib/klein/_app.py", "execute", "Klein, werkzeug"),
        ("/v/lib/hyperlink/_url.py", "parse", "treq, hyperlink, idna"),
        ("/sgl_droute/workers/client.py", "call", "sgl_droute.workers"),
        ("<attrs generated init sgl_droute.fleet.worker.Worker>", "__init__", "sgl_droute.fleet"),
        ("/sgl_droute/service.py", "x", "sgl_droute, other"),
        ("/usr/lib/python3/contextlib.py", "__exit__", "other"),
        ("~", "<method 'send' of '_socket.socket' objects>", "kernel: sockets"),
        ("~", "<method 'poll' of 'select.epoll' objects>", "kernel: waiting for events"),
        ("~", "<method 'feed_data' of 'httptools.parser.parser.HttpParser' objects>", "httptools"),
        ("~", "<built-in method builtins.len>", None),
    ],
)
def test_layers(file: str, name: str, layer: str | None) -> None:
    """
    A function belongs to the package it is in, a system call to the kernel, and any other C
    function to whoever calls it.
    """
    assert layer_of((file, 1, name)) == layer


def test_time_of_c_functions_goes_to_their_callers() -> None:
    """
    The layers add up to the whole time, and a C function's part follows its callers.
    """
    web = ("/x/twisted/web/http.py", 1, "write")
    api = ("/x/sgl_droute/api/http/site.py", 1, "read")
    stats: Stats = {
        web: (10, 10, 1.0, 2.0, {}),
        api: (10, 10, 2.0, 3.0, {}),
        ("~", 0, "<built-in method builtins.len>"): (
            *(20, 20, 1.0, 1.0),
            {web: (5, 5, 0.25, 0.25), api: (15, 15, 0.75, 0.75)},
        ),
    }
    profile = layers(stats, 10)
    assert profile.seconds == {"sgl_droute.api": 2.75, "Twisted: web": 1.25}
    assert profile.calls == 40
    lines = profile_table(profile).splitlines()
    assert lines[0] == "10 requests, 4 function calls each"
    assert [line.split("|")[2].strip() for line in lines[4:]] == ["68.8", "31.2"]
