"""
Requests that front ends and workers were found to read differently, and what the router says.

Data as in `tests.integration.corpus`. The names follow what is written of request smuggling: who
goes by the length (cl), by the chunks (te), or by neither (0); the one in front comes first.
A request hides in each: where it reaches the worker, client and router counted it too.
"""

# ruff: noqa: E501 (one case, one line)

from __future__ import annotations

from tests.integration.corpus import (
    GET,
    GET_B,
    HIDDEN,
    POST,
    Case,
    chunks,
    header,
    length,
    line,
    target,
)

_HIDDEN_CHUNK = b"%x\r\n" % len(HIDDEN) + HIDDEN + b"\r\n0\r\n\r\n"
_BEHIND_CHUNKS = b"0\r\n\r\n" + HIDDEN


def _two_ways(text: bytes) -> bytes:
    """A body that ends early for whoever reads chunks, and late for whoever counts."""
    length = b"Content-Length: %d\r\n\r\n" % len(_BEHIND_CHUNKS)
    return POST + text + b"\r\n" + length + _BEHIND_CHUNKS


def _hiding(text: bytes) -> bytes:
    """A body for whoever understands *text*, and a request for everybody else."""
    return POST + text % len(HIDDEN) + b"\r\n\r\n" + HIDDEN


def _with_body(text: bytes) -> bytes:
    """A request in the body of a request, and one behind it."""
    return (
        text + b" HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN + GET_B
    )


def _with_chunk(text: bytes) -> bytes:
    return (
        text + b" HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + _HIDDEN_CHUNK + GET_B
    )


def _expecting(text: bytes) -> bytes:
    return POST + text + b"\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN + GET_B


def _trailing(trailers: bytes) -> bytes:
    return chunks(b"5\r\nhello\r\n0\r\n" + trailers + b"\r\n") + GET_B


def _then(text: bytes) -> bytes:
    return header(text) + GET_B


_BOTH = ("GET /a", "GET /b")
_POSTED = ("POST /a", "GET /b")
_UNCOVERED = ("POST /a", "GET /hidden")

DISGUISED_CODINGS = (
    Case("te.cl: length inside the first chunk", POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + _HIDDEN_CHUNK, (400,), "RFC 9112 6.1"),
    Case("te.te: x, then chunked", _two_ways(b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked"), (400,), "RFC 9112 6.1"),
    Case("te.te: chunked, then x", _two_ways(b"Transfer-Encoding: chunked\r\nTransfer-encoding: x"), (400,), "RFC 9112 6.1"),
    Case("te.te: chunked, then empty", _two_ways(b"Transfer-Encoding: chunked\r\nTransfer-Encoding:"), (400,), "RFC 9112 6.1"),
    Case("te.te: empty, then chunked", _two_ways(b"Transfer-Encoding:\r\nTransfer-Encoding: chunked"), (400,), "RFC 9112 6.1"),
    Case("te.te: chunked, comma", _two_ways(b"Transfer-Encoding: chunked,"), (400,), "RFC 9112 6.1"),
    Case("te.te: x chunked", _two_ways(b"Transfer-Encoding: x chunked"), (400,), "RFC 9112 6.1"),
    Case("te.te: chunked chunked", _two_ways(b"Transfer-Encoding: chunked chunked"), (400,), "RFC 9112 6.1"),
    Case("te.te: identity, chunked", _two_ways(b"Transfer-Encoding: identity, chunked"), (400,), "RFC 9112 6.1"),
    Case("te.te: chunked, identity;q=0", _two_ways(b"Transfer-Encoding: chunked, identity;q=0"), (400,), "RFC 9112 6.1"),
    Case("te.te: in brackets", _two_ways(b"Transfer-Encoding: [chunked]"), (400,), "RFC 9112 6.1"),
    Case("te.te: in single quotes", _two_ways(b"Transfer-Encoding: 'chunked'"), (400,), "RFC 9112 6.1"),
    Case("te.te: kelvin sign", _two_ways("Transfer-Encoding: chun\u212aed".encode()), (400,), "RFC 9112 6.1: no Unicode case"),
    Case("te.te: obs-text behind", _two_ways(b"Transfer-Encoding: chunked\xff"), (400,), "RFC 9112 6.1"),
    Case("te.te: nul before the value", _two_ways(b"Transfer-Encoding:\0chunked"), (400,), "RFC 9110 5.5"),
    Case("te.te: vertical tab behind", _two_ways(b"Transfer-Encoding: chunked\x0b"), (400,), "RFC 9110 5.5"),
    Case("te.te: form feed behind", _two_ways(b"Transfer-Encoding: chunked\x0c"), (400,), "RFC 9110 5.5"),
    Case("te.te: CR behind", _two_ways(b"Transfer-Encoding: chunked\r"), (400,), "RFC 9112 2.2"),
    Case("te.te: space first", _two_ways(b" Transfer-Encoding: chunked"), (400,), "RFC 9112 5.2"),
    Case("te.te: tab first", _two_ways(b"\tTransfer-Encoding: chunked"), (400,), "RFC 9112 5.2"),
    Case("te.te: folded into another", _two_ways(b"X: y\r\n Transfer-Encoding: chunked"), (400,), "RFC 9112 5.2"),
    Case("te.te: behind LF", _two_ways(b"X: y\nTransfer-Encoding: chunked"), (400,), "RFC 9112 2.2"),
    Case("te.te: behind CR", _two_ways(b"X: y\rTransfer-Encoding: chunked"), (400,), "RFC 9112 2.2"),
    Case("te.te: behind CR LF CR", _two_ways(b"X: y\r\n\rTransfer-Encoding: chunked"), (400,), "RFC 9112 2.2"),
    Case("te.te: LF before the colon", _two_ways(b"Transfer-Encoding\n: chunked"), (400,), "RFC 9112 5.1"),
    Case("te.te: CR LF before the colon", _two_ways(b"Transfer-Encoding\r\n: chunked"), (400,), "RFC 9112 5.1"),
    Case("te.te: tab before the colon", _two_ways(b"Transfer-Encoding\t: chunked"), (400,), "RFC 9112 5.1"),
    Case("te.te: vertical tab before the colon", _two_ways(b"Transfer-Encoding\x0b: chunked"), (400,), "RFC 9112 5.1"),
    Case("te.te: nul before the colon", _two_ways(b"Transfer-Encoding\0: chunked"), (400,), "RFC 9110 5.1"),
    Case("te.te: no-break space before the colon", _two_ways(b"Transfer-Encoding\xa0: chunked"), (400,), "RFC 9110 5.1"),
    Case("te.te: nul first", _two_ways(b"\0Transfer-Encoding: chunked"), (400,), "RFC 9110 5.1"),
    Case("te.te: no colon", _two_ways(b"Transfer-Encoding chunked"), (400,), "RFC 9112 5"),
    Case("te.te: semicolon for the colon", _two_ways(b"Transfer-Encoding; chunked"), (400,), "RFC 9112 5"),
    Case("te.te: two colons", _two_ways(b"Transfer-Encoding:: chunked"), (400,), "RFC 9112 6.1"),
    Case("te.te: space in the name", _two_ways(b"Transfer Encoding: chunked"), (400,), "RFC 9110 5.1"),
    Case("te.te: underscore", _two_ways(b"Transfer_Encoding: chunked") + GET_B, (200, 200), "RFC 9110 5.1: another header", _POSTED),
    Case("te.te: another name", _two_ways(b"X-Transfer-Encoding: chunked") + GET_B, (200, 200), "RFC 9110 5.1: another header", _POSTED),
    Case("te.te: as content coding", _two_ways(b"Content-Encoding: chunked") + GET_B, (200, 200), "RFC 9110 8.4: says nothing of framing", _POSTED),
    Case("te.te: as te", _two_ways(b"TE: chunked") + GET_B, (200, 200), "RFC 9110 10.1.4: says nothing of framing", _POSTED),
    Case("te.te: named by connection", _two_ways(b"Connection: transfer-encoding") + GET_B, (200, 200), "RFC 9110 7.6.1: there is none", _POSTED),
    Case("chunks named by connection", POST + b"Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n" + _BEHIND_CHUNKS, (200, 200), "RFC 9110 7.6.1: it framed this hop", _UNCOVERED),
    Case("http/1.0 kept alive, coded", b"POST /a HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n" + _BEHIND_CHUNKS, (400,), "RFC 9112 6.1"),
    Case("http/1.0 kept alive, both framings", b"POST /a HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + _BEHIND_CHUNKS, (400,), "RFC 9112 6.1"),
    Case("http/1.0 kept alive", b"POST /a HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello" + HIDDEN, (200,), "RFC 9112 9.3: may be closed", ("POST /a",)),
    Case("http/1.0 without a length", b"POST /a HTTP/1.0\r\n\r\n" + HIDDEN, (200,), "RFC 9112 6.3 rule 7: no body", ("POST /a",)),
)  # fmt: skip

DISGUISED_LENGTHS = (
    Case("cl.cl: agree in other case", _hiding(b"Content-Length: %d\r\ncontent-length: 33"), (400,), "RFC 9110 8.6: may be refused"),
    Case("cl.cl: zero first", _hiding(b"Content-Length: 0\r\nContent-Length: %d"), (400,), "RFC 9112 6.3 rule 5"),
    Case("cl.cl: zero last", _hiding(b"Content-Length: %d\r\nContent-Length: 0"), (400,), "RFC 9112 6.3 rule 5"),
    Case("0.cl: folded", _hiding(b"Content-Length:\r\n %d"), (400,), "RFC 9112 5.2"),
    Case("0.cl: continued", _hiding(b"Content-Length: 0\r\n %d"), (400,), "RFC 9112 5.2"),
    Case("0.cl: comma behind", _hiding(b"Content-Length: %d,"), (400,), "RFC 9110 8.6"),
    Case("0.cl: comma before", _hiding(b"Content-Length: ,%d"), (400,), "RFC 9110 8.6"),
    Case("0.cl: twice in a line", _hiding(b"Content-Length: %d 33"), (400,), "RFC 9110 8.6"),
    Case("0.cl: nul behind", _hiding(b"Content-Length: %d\0"), (400,), "RFC 9110 5.5"),
    Case("0.cl: CR behind", _hiding(b"Content-Length: %d\r"), (400,), "RFC 9112 2.2"),
    Case("0.cl: LF behind", _hiding(b"Content-Length: %d\nX: y"), (400,), "RFC 9112 2.2"),
    Case("0.cl: form feed behind", _hiding(b"Content-Length: %d\x0c"), (400,), "RFC 9110 5.5"),
    Case("0.cl: no-break space before", _hiding(b"Content-Length: \xa0%d"), (400,), "RFC 9110 8.6"),
    Case("0.cl: arabic digits", POST + "Content-Length: \u0663\u0663\r\n\r\n".encode() + HIDDEN, (400,), "RFC 9110 8.6: DIGIT is ASCII"),
    Case("0.cl: with a parameter", _hiding(b"Content-Length: %d;x"), (400,), "RFC 9110 8.6"),
    Case("0.cl: plus", _hiding(b"Content-Length: +%d"), (400,), "RFC 9110 8.6"),
    Case("0.cl: minus", _hiding(b"Content-Length: -%d"), (400,), "RFC 9110 8.6"),
    Case("0.cl: nul in the name", _hiding(b"Content-Length\0: %d"), (400,), "RFC 9110 5.1"),
    Case("0.cl: space before the colon", _hiding(b"Content-Length : %d"), (400,), "RFC 9112 5.1"),
    Case("0.cl: tab before the colon", _hiding(b"Content-Length\t: %d"), (400,), "RFC 9112 5.1"),
    Case("0.cl: space in the name", _hiding(b"Content Length: %d"), (400,), "RFC 9110 5.1"),
    Case("0.cl: space first", _hiding(b" Content-Length: %d"), (400,), "RFC 9112 5.2"),
    Case("0.cl: empty coding", _hiding(b"Content-Length: %d\r\nTransfer-Encoding:"), (400,), "RFC 9112 6.1"),
    Case("0.cl: underscore", _hiding(b"Content_Length: %d"), (200, 200), "RFC 9110 5.1: another header", _UNCOVERED),
    Case("0.cl: another name", _hiding(b"X-Content-Length: %d"), (200, 200), "RFC 9110 5.1: another header", _UNCOVERED),
    Case("length zero named by connection", POST + b"Content-Length: 0\r\nConnection: content-length\r\n\r\n" + HIDDEN, (200, 200), "RFC 9110 7.6.1: it framed this hop", _UNCOVERED),
    Case("length named by connection", _hiding(b"Connection: close, content-length\r\nContent-Length: %d"), (200,), "RFC 9110 7.6.1: it framed this hop", ("POST /a",)),
    Case("length 033", _hiding(b"Content-Length: 0%d"), (200,), "RFC 9110 8.6: decimal, never octal", ("POST /a",)),
    Case("length 2^32 + 5", length(b"4294967301"), (413,), "RFC 9110 8.6: no overflow"),
    Case("length 2^63 + 5", length(b"9223372036854775813"), (413,), "RFC 9110 8.6: no overflow"),
)  # fmt: skip

BODIES = (
    *(Case(f"cl.0: {method}", _with_body(f"{method} /a".encode()), (200, 200), "RFC 9110 9: framing is not the method's", (f"{method} /a", "GET /b")) for method in ("GET", "DELETE", "PUT", "PATCH", "TRACE", "PROPFIND")),
    *(Case(f"te.0: {method}", _with_chunk(f"{method} /a".encode()), (200, 200), "RFC 9110 9: framing is not the method's", (f"{method} /a", "GET /b")) for method in ("GET", "DELETE", "TRACE")),
    Case("cl.0: route of the router", _with_body(b"GET /liveness"), (200, 200), "its body is read", ("GET /b",)),
    Case("te.0: route of the router", _with_chunk(b"GET /liveness"), (200, 200), "its body is read", ("GET /b",)),
    Case("cl.0: other method", _with_body(b"POST /list_workers"), (405, 200), "its body is read", ("GET /b",)),
    Case("te.0: other method", _with_chunk(b"POST /list_workers"), (405, 200), "its body is read", ("GET /b",)),
    Case("cl.0: OPTIONS", _with_body(b"OPTIONS /a"), (204, 200), "its body is read", ("GET /b",)),
    Case("te.0: OPTIONS", _with_chunk(b"OPTIONS /a"), (204, 200), "its body is read", ("GET /b",)),
    Case("cl.0: asterisk", _with_body(b"OPTIONS *"), (204, 200), "its body is read", ("GET /b",)),
    Case("te.0: asterisk", _with_chunk(b"OPTIONS *"), (204, 200), "its body is read", ("GET /b",)),
    Case("cl.0: connect", _with_body(b"CONNECT h:1"), (405,), "nothing behind a refused one is read"),
    Case("te.0: connect", _with_chunk(b"CONNECT h:1"), (405,), "nothing behind a refused one is read"),
    Case("cl.0: path not utf-8", _with_body(b"POST /%ff"), (400,), "nothing behind a refused one is read"),
    Case("te.0: bad target", _with_chunk(b"POST @evil/"), (400,), "nothing behind a refused one is read"),
    Case("other method, bad chunks", b"POST /list_workers HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + HIDDEN, (400,), "RFC 9112 7.1"),
    Case("other method, more than announced", b"POST /list_workers HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi, all\r\n" + HIDDEN, (405, 400), "the rest is a bad request"),
    Case("huge header, then a request", header(b"X: " + b"a" * 20_000) + HIDDEN, (431,), "nothing behind a refused one is read"),
    Case("huge target, then a request", target(b"/" + b"a" * 20_000) + HIDDEN, (414,), "nothing behind a refused one is read"),
    Case("chunk that holds an end and a request", chunks(b"%x\r\n" % len(_BEHIND_CHUNKS) + _BEHIND_CHUNKS + b"\r\n0\r\n\r\n") + GET_B, (200, 200), "RFC 9112 7.1: data", _POSTED),
)  # fmt: skip

EXPECTATIONS = (
    Case("expectation then request", _expecting(b"Expect: 100-continue"), (100, 200, 200), "RFC 9110 10.1.1", _POSTED),
    Case("expectation in capitals", _expecting(b"EXPECT: 100-CONTINUE"), (100, 200, 200), "RFC 9110 10.1.1", _POSTED),
    Case("expectation twice", _expecting(b"Expect: 100-continue\r\nExpect: 100-continue"), (100, 200, 200), "one 100", _POSTED),
    Case("0.cl: expectation disguised", _expecting(b"Expect: y 100-continue"), (200, 200), "RFC 9110 10.1.1: another one, stops here", _POSTED),
    Case("0.cl: expectation empty", _expecting(b"Expect:"), (200, 200), "stops here", _POSTED),
    Case("0.cl: expectation folded", _expecting(b"Expect:\r\n 100-continue"), (400,), "RFC 9112 5.2"),
    Case("expectation and chunks", POST + b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n" + _HIDDEN_CHUNK + GET_B, (100, 200, 200), "RFC 9110 10.1.1", _POSTED),
    Case("expectation behind a request", GET_B + _expecting(b"Expect: 100-continue"), (200, 100, 200, 200), "RFC 9110 10.1.1: in order", ("GET /b", *_POSTED)),
    Case("expectation over the limit, then a request", POST + b"Content-Length: 999999\r\nExpect: 100-continue\r\n\r\n" + HIDDEN, (413,), "nothing behind a refused one is read"),
    Case("expectation and bad coding, then a request", POST + b"Transfer-Encoding: x\r\nExpect: 100-continue\r\n\r\n" + HIDDEN, (400,), "nothing behind a refused one is read"),
)  # fmt: skip

CHUNK_ENDS = (
    Case("extension in quotes", chunks(b'5;a="b;c"\r\nhello\r\n0\r\n\r\n') + GET_B, (200, 200), "RFC 9112 7.1.1", _POSTED),
    Case("extension with a quote never closed", chunks(b'5;a="\r\nhello\r\n0\r\n\r\n') + GET_B, (200, 200), "ignored up to its CR LF, whatever it is", _POSTED),
    Case("extension without a name", chunks(b"5;\r\nhello\r\n0\r\n\r\n") + GET_B, (200, 200), "ignored up to its CR LF, whatever it is", _POSTED),
    Case("term.ext: LF", chunks(b"2;\nxx\r\n%x\r\n" % len(_BEHIND_CHUNKS) + _BEHIND_CHUNKS), (400,), "RFC 9112 7.1.1"),
    Case("ext.term: LF", chunks(b"2;\n00\r\nxx\r\n0\r\n\r\n" + HIDDEN), (400,), "RFC 9112 7.1.1"),
    Case("term.ext: CR", chunks(b"5;a\rhello\r\n" + _BEHIND_CHUNKS), (400,), "RFC 9112 7.1.1"),
    Case("last chunk, LF in the extension", chunks(b"0;x\n\r\n" + HIDDEN), (400,), "RFC 9112 7.1.1"),
    Case("term.spill: two bytes for CR LF", chunks(b"5\r\nhelloXX" + _BEHIND_CHUNKS), (400,), "RFC 9112 7.1"),
    Case("spill.term: CR CR", chunks(b"5\r\nhello\r\r" + _BEHIND_CHUNKS), (400,), "RFC 9112 7.1"),
    Case("spill.term: LF CR", chunks(b"5\r\nhello\n\r" + _BEHIND_CHUNKS), (400,), "RFC 9112 7.1"),
    Case("spill.term: LF LF", chunks(b"5\r\nhello\n\n" + _BEHIND_CHUNKS), (400,), "RFC 9112 7.1"),
    Case("one.two: two line ends", chunks(b"5\r\nhello\r\n\r\n" + _BEHIND_CHUNKS), (400,), "RFC 9112 7.1"),
    Case("zero.two: no line end behind the last", chunks(b"5\r\nhello\r\n0" + HIDDEN), (400,), "RFC 9112 7.1"),
    Case("last chunk missing", chunks(b"5\r\nhello\r\n" + HIDDEN), (400,), "RFC 9112 7.1"),
    Case("line end before the first", chunks(b"\r\n5\r\nhello\r\n" + _BEHIND_CHUNKS), (400,), "RFC 9112 7.1"),
    Case("size behind CR CR LF", chunks(b"5\r\r\nhello\r\n" + _BEHIND_CHUNKS), (400,), "RFC 9112 7.1"),
    Case("size behind CR", chunks(b"5\rhello\r\n" + _BEHIND_CHUNKS), (400,), "RFC 9112 7.1"),
    Case("size behind LF LF", chunks(b"5\n\nhello\r\n" + _BEHIND_CHUNKS), (400,), "RFC 9112 7.1"),
    Case("size before a tab", chunks(b"5\t\r\nhello\r\n" + _BEHIND_CHUNKS), (400,), "RFC 9112 7.1"),
    Case("size before a nul", chunks(b"5\0\r\nhello\r\n" + _BEHIND_CHUNKS), (400,), "RFC 9112 7.1"),
    Case("size before a comma", chunks(b"5,a\r\nhello\r\n" + _BEHIND_CHUNKS), (400,), "RFC 9112 7.1"),
    Case("size 5.0", chunks(b"5.0\r\nhello\r\n" + _BEHIND_CHUNKS), (400,), "RFC 9112 7.1"),
    Case("size 5h", chunks(b"5h\r\nhello\r\n" + _BEHIND_CHUNKS), (400,), "RFC 9112 7.1"),
    Case("size in arabic digits", chunks("\u0665\r\nhello\r\n".encode() + _BEHIND_CHUNKS), (400,), "RFC 9112 7.1"),
    Case("last size -0", chunks(b"-0\r\n\r\n" + HIDDEN), (400,), "RFC 9112 7.1"),
    Case("last size 0x0", chunks(b"0x0\r\n\r\n" + HIDDEN), (400,), "RFC 9112 7.1"),
    Case("last size before a space", chunks(b"0 \r\n\r\n" + HIDDEN), (400,), "RFC 9112 7.1"),
    Case("last size behind CR CR LF", chunks(b"0\r\r\n\r\n" + HIDDEN), (400,), "RFC 9112 7.1"),
    Case("end with CR CR LF", chunks(b"0\r\n\r\r\n" + HIDDEN), (400,), "RFC 9112 7.1.2"),
    Case("end with CR and more", chunks(b"0\r\n\rX\r\n\r\n" + HIDDEN), (400,), "RFC 9112 7.1.2"),
    Case("size of 20 digits that is 5", chunks(b"0" * 19 + b"5\r\nhello\r\n0\r\n\r\n") + GET_B, (200, 200), "RFC 9112 7.1", _POSTED),
    Case("trailer with a length", _trailing(b"Content-Length: 33\r\n"), (200, 200), "RFC 9110 6.5.1: dropped", _POSTED),
    Case("trailer with a coding", _trailing(b"Transfer-Encoding: chunked\r\n"), (200, 200), "RFC 9110 6.5.1: dropped", _POSTED),
    Case("trailer with close", _trailing(b"Connection: close\r\n"), (200, 200), "RFC 9110 6.5.1: dropped", _POSTED),
    Case("trailer with an upgrade", _trailing(b"Connection: upgrade\r\nUpgrade: websocket\r\n"), (200, 200), "RFC 9110 6.5.1: dropped", _POSTED),
    Case("trailer with an expectation", _trailing(b"Expect: 100-continue\r\n"), (200, 200), "RFC 9110 6.5.1: dropped", _POSTED),
    Case("trailer twice", _trailing(b"X: y\r\nX: y\r\n"), (200, 200), "RFC 9110 6.5.1: dropped", _POSTED),
    Case("trailer with space before the colon", _trailing(b"X : y\r\n"), (400,), "RFC 9112 5.1"),
    Case("trailer without a name", _trailing(b": y\r\n"), (400,), "RFC 9112 5.1"),
    Case("trailer without a colon", _trailing(b"X\r\n"), (400,), "RFC 9112 5"),
    Case("trailer with a nul", _trailing(b"X: y\0\r\n"), (400,), "RFC 9110 5.5"),
    Case("trailer in obs-text", _trailing(b"X\xe9: y\r\n"), (400,), "RFC 9110 5.1"),
    Case("trailer behind a space", _trailing(b" X: y\r\n"), (400,), "RFC 9112 5.2"),
    Case("trailers that are a request", _trailing(b"GET /hidden HTTP/1.1\r\nHost: h\r\n"), (400,), "RFC 9112 7.1.2"),
    Case("trailer that is a request to a url", _trailing(b"GET http://h/hidden HTTP/1.1\r\n"), (400,), "RFC 9112 7.1.2"),
)  # fmt: skip

SPLITTING = (
    Case("host in other case twice", b"GET /a HTTP/1.1\r\nHOST: h\r\nhost: h\r\n\r\n" + HIDDEN, (400,), "RFC 9112 3.2"),
    Case("host and host before a space", GET + b"Host : evil\r\n\r\n" + HIDDEN, (400,), "RFC 9112 5.1"),
    Case("host and host with a nul", GET + b"Host\0: evil\r\n\r\n" + HIDDEN, (400,), "RFC 9110 5.1"),
    Case("host folded", GET + b" evil\r\n\r\n" + HIDDEN, (400,), "RFC 9112 5.2"),
    Case("host with a tab", b"GET /a HTTP/1.1\r\nHost: h\tx\r\n\r\n" + HIDDEN, (400,), "RFC 9112 3.2"),
    Case("host with a nul", b"GET /a HTTP/1.1\r\nHost: h\0x\r\n\r\n" + HIDDEN, (400,), "RFC 9110 5.5"),
    Case("host with a fragment", b"GET /a HTTP/1.1\r\nHost: h#x\r\n\r\n" + HIDDEN, (400,), "RFC 9112 3.2"),
    Case("host under other names", _then(b"X-Host: evil\r\nX_Host: evil"), (200, 200), "other headers", _BOTH),
    Case("host named by connection", _then(b"Connection: host"), (200, 200), "RFC 9110 7.6.1: the worker's is made anew", _BOTH),
    Case("absolute without host", b"GET http://evil/a HTTP/1.1\r\n\r\n" + HIDDEN, (400,), "RFC 9112 3.2"),
    Case("absolute with two hosts", b"GET http://evil/a HTTP/1.1\r\nHost: h\r\nHost: evil\r\n\r\n" + HIDDEN, (400,), "RFC 9112 3.2"),
    Case("absolute and another host", target(b"http://evil/a") + GET_B, (200, 200), "RFC 9112 3.2.2: the worker's host is made anew", _BOTH),
    Case("absolute in http/1.0 without host", b"GET http://evil/a HTTP/1.0\r\n\r\n" + HIDDEN, (200,), "RFC 9112 3.2", ("GET /a",)),
    Case("absolute with a backslash", target(b"http://h\\@evil/a") + HIDDEN, (400,), "RFC 3986 3.2.2"),
    Case("absolute with a list", target(b"http://h,evil:1/a") + HIDDEN, (400,), "RFC 3986 3.2.2"),
    Case("absolute with encoded CR LF", target(b"http://h/%0d%0aa") + HIDDEN, (400,), "no route can be matched with it"),
    Case("user behind two slashes", target(b"//@evil/a") + GET_B, (200, 200), "RFC 9112 3.2.1: a path", ("GET //@evil/a", "GET /b")),
    Case("content type twice", _then(b"Content-Type: a/b\r\nContent-Type: c/d"), (200, 200), "the worker judges it", _BOTH),
    Case("names with underscores", _then(b"X_Forwarded_For: a\r\nContent_Type: b\r\n__proto__: c"), (200, 200), "RFC 9110 5.1: other headers", _BOTH),
    Case("name of odd characters", _then(b"!#$%&'*+.^_`|~: a"), (200, 200), "RFC 9110 5.6.2", _BOTH),
    Case("request id twice", _then(b"X-Request-Id: a\r\nX-Request-Id: b"), (200, 200), "one is passed on", _BOTH),
    Case("request id in obs-text", _then(b"X-Request-Id: \xff\t\x80"), (200, 200), "RFC 9110 5.5", _BOTH),
    Case("connection empty", _then(b"Connection:"), (200, 200), "RFC 9110 7.6.1", _BOTH),
    Case("connection of commas", _then(b"Connection: ,,"), (200, 200), "RFC 9110 5.6.1", _BOTH),
    Case("keep-alive and close", header(b"Connection: keep-alive, close") + HIDDEN, (200,), "RFC 9112 9.3: close wins", ("GET /a",)),
    Case("closed", _then(b"Connection: closed"), (200, 200), "RFC 9110 7.6.1: another option", _BOTH),
    Case("proxy-connection", _then(b"Proxy-Connection: close"), (200, 200), "RFC 9112 C.2.2: ignored", _BOTH),
    Case("keep-alive header", _then(b"Keep-Alive: timeout=0, max=0"), (200, 200), "RFC 9110 7.6.1: stops here", _BOTH),
    Case("trailer header", _then(b"Trailer: content-length"), (200, 200), "RFC 9110 6.6.2: stops here", _BOTH),
    Case("upgrade to h2c with settings", _then(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__"), (200, 200), "RFC 9110 7.8: ignored", _BOTH),
    Case("upgrade to h2c, then a preface", header(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__") + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), (200, 400), "RFC 9113 3.4: not spoken here", ("GET /a",)),
    Case("upgrade to tls", _then(b"Connection: Upgrade\r\nUpgrade: TLS/1.0"), (200, 200), "RFC 9110 7.8: ignored", _BOTH),
    Case("upgrade without connection", _then(b"Upgrade: websocket"), (200, 200), "RFC 9110 7.8: ignored", _BOTH),
    Case("connection upgrade without upgrade", _then(b"Connection: upgrade"), (200, 200), "RFC 9110 7.8: ignored", _BOTH),
    Case("websocket to the router", line(b"GET /liveness HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket") + GET_B, (200, 200), "RFC 9110 7.8: ignored", ("GET /b",)),
    Case("websocket in http/1.0", b"GET /a HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + HIDDEN, (200,), "RFC 9110 7.8: ignored", ("GET /a",)),
    Case("two versions", line(b"GET /a HTTP/1.1 HTTP/1.0") + HIDDEN, (400,), "RFC 9112 3"),
    Case("http/1.10", line(b"GET /a HTTP/1.10") + HIDDEN, (400,), "RFC 9112 2.3"),
    Case("http/+1.1", line(b"GET /a HTTP/+1.1") + HIDDEN, (400,), "RFC 9112 2.3"),
    Case("nul behind the version", line(b"GET /a HTTP/1.1\0") + HIDDEN, (400,), "RFC 9112 3"),
    Case("space in the version", line(b"GET /a HTTP/ 1.1") + HIDDEN, (400,), "RFC 9112 2.3"),
    Case("vertical tabs for spaces", line(b"GET\x0b/a\x0bHTTP/1.1") + HIDDEN, (400,), "RFC 9112 3"),
    Case("no-break space", line(b"GET\xa0/a HTTP/1.1") + HIDDEN, (400,), "RFC 9112 3"),
    Case("byte order mark", b"\xef\xbb\xbf" + GET + b"\r\n" + HIDDEN, (400,), "RFC 9112 3"),
    Case("nul first", b"\0" + GET + b"\r\n" + HIDDEN, (400,), "RFC 9112 3"),
    Case("colon behind the method", line(b"GET: /a HTTP/1.1") + HIDDEN, (400,), "RFC 9110 9.1"),
    Case("CR in the query", line(b"GET /a?\rGET HTTP/1.1") + HIDDEN, (400,), "RFC 9112 2.2"),
    Case("an answer", line(b"HTTP/1.1 200 OK") + HIDDEN, (400,), "RFC 9112 3"),
    Case("asterisk of another method", line(b"M-SEARCH * HTTP/1.1") + HIDDEN, (400,), "RFC 9112 3.2.4"),
    *(Case(f"{name} between requests", length(b"5") + odd + GET_B, (200, 400), "RFC 9112 2.2", ("POST /a",)) for name, odd in (("LF", b"\n"), ("space", b" "), ("CR", b"\r"), ("nul", b"\0"), ("two empty lines", b"\r\n\r\n"), ("tab and empty line", b"\t\r\n"))),
    Case("letter between requests", length(b"5") + b"X" + GET_B, (200, 200), "RFC 9110 9.1: another method", ("POST /a", "XGET /b")),
    Case("CR CR LF behind a header", b"GET /a HTTP/1.1\r\nHost: h\r\r\n\r\n" + HIDDEN, (400,), "RFC 9112 2.2"),
    Case("CR only", b"GET /a HTTP/1.1\r\rHost: h\r\r" + HIDDEN, (400,), "RFC 9112 2.2"),
    Case("line of a space", b"GET /a HTTP/1.1\r\nHost: h\r\n \r\n" + HIDDEN, (400,), "RFC 9112 5.2"),
    Case("line of a nul", GET + b"\0\r\n\r\n" + HIDDEN, (400,), "RFC 9112 5"),
    Case("LF in a value", header(b"X: \n y") + HIDDEN, (400,), "RFC 9112 2.2"),
)  # fmt: skip

SMUGGLED = (
    *DISGUISED_CODINGS,
    *DISGUISED_LENGTHS,
    *BODIES,
    *EXPECTATIONS,
    *CHUNK_ENDS,
    *SPLITTING,
)
