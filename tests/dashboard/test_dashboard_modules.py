"""
The page's modules by themselves, in the browser that they are for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.dashboard.browser import Watched
from tests.dashboard.mock_router import MockRouter

Mock = Callable[..., MockRouter]
OpenPage = Callable[..., Watched]

# What a Reader makes of a text that comes in two pieces, for every place where it may be cut.
_READ = """
async (text) => {
  const { Reader } = await import("/dashboard/stream.js");
  const outcomes = new Set();
  for (let at = 0; at <= text.length; at += 1) {
    const events = [];
    const reader = new Reader((name, data) => events.push([name, data]));
    reader.feed(text.slice(0, at));
    reader.feed(text.slice(at));
    outcomes.add(JSON.stringify(events));
  }
  return [...outcomes].map(JSON.parse);
}
"""

_SAY = """
async ([name, values]) => {
  const words = await import("/dashboard/words.js");
  return values.map((value) => words[name](value));
}
"""

_TAKE = """
async (messages) => {
  const { Store } = await import("/dashboard/store.js");
  const store = new Store();
  for (const message of messages) {
    if (message.version) store.greet(message);
    else store.take(message);
  }
  return {
    workers: [...store.workers.keys()], sparks: Object.fromEntries(store.sparks),
    requests: store.requests.map(({ n }) => n), points: store.charts.points,
    queue: store.queue, fleet: store.fleet,
  };
}
"""


def _ask(mock: Mock, open_page: OpenPage, script: str, argument: Any) -> Any:
    return open_page(mock(0).url).page.evaluate(script, argument)


def test_events_in_pieces(mock: Mock, open_page: OpenPage) -> None:
    """
    Events are read the same wherever the network cuts them; comments and unfinished ones are none.
    """
    text = (
        ': \n\nevent: state\nid: 4\ndata: {"a":\ndata: 1}\n\ndata:x\r\n\r\nevent: none\n\ndata: cut'
    )
    read = _ask(mock, open_page, _READ, text)
    assert read == [[["state", '{"a":\n1}'], ["message", "x"]]]


def test_durations(mock: Mock, open_page: OpenPage) -> None:
    """
    Durations have three digits and the unit that fits; what is not known is a dash.
    """
    seconds = [None, 0, 0.0003, 0.0421, 0.99949, 0.9996, 9.994, 9.996, 99.94, 99.96, 3599, 3600]
    said = ["\u2013", "0 ms", "0.3 ms", "42 ms", "999 ms", "1.00 s", "9.99 s", "10.0 s", "99.9 s"]
    said += ["1:40 min", "59:59 min", "1:00 h"]
    assert _ask(mock, open_page, _SAY, ["duration", seconds]) == said


def test_bytes(mock: Mock, open_page: OpenPage) -> None:
    """
    Sizes have two or three digits and the unit that fits.
    """
    said = ["0 B", "999 B", "1.0 kB", "10 kB", "999 kB", "1.0 MB", "2.5 GB"]
    values = [0, 999, 1000, 9999, 999_499, 999_500, 2_500_000_000]
    assert _ask(mock, open_page, _SAY, ["bytes", values]) == said


def test_messages_put_together(mock: Mock, open_page: OpenPage) -> None:
    """
    The first message after a greeting replaces what was known, later ones change it; what they do
    not name stays.
    """
    hello = {"version": "1", "now": 0, "started": 0, "interval": 1}
    whole = {
        "now": 1,
        "fleet": {"workers": 2},
        "workers": {"a": {"url": "a"}, "b": {"url": "b"}},
        "sparks": {"step": 10, "end": 1, "points": {"a": [1] * 90, "b": []}},
        "requests": [{"n": 1}, {"n": 2}],
        "charts": {"step": 5, "points": [[1], [2]]},
    }
    change = {
        "now": 2,
        "workers": {"c": {"url": "c"}},
        "gone": ["b"],
        "sparks": {"step": 10, "end": 2, "points": {"a": [7], "c": [8]}},
        "requests": [{"n": 3}],
        "charts": {"step": 5, "points": [[3]]},
    }
    stale = {"now": 0, "workers": {"old": {"url": "old"}}, "requests": [{"n": 9}]}
    found = _ask(mock, open_page, _TAKE, [hello, stale, hello, whole, change])
    assert found["workers"] == ["a", "c"]
    assert found["sparks"] == {"a": [1] * 89 + [7], "c": [8]}
    assert found["requests"] == [3, 2, 1]
    assert found["points"] == [[1], [2], [3]]
    assert found["queue"] == {"waiting_count": 0, "running_count": 0, "waiting": []}
    assert found["fleet"] == {"workers": 2}
