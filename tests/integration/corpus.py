"""
What clients may send, and what the router says to it.

Data only: `tests.integration.test_malformed` sends it, over sockets and in memory.
"""

# ruff: noqa: E501 (one case, one line)

from __future__ import annotations

from attrs import frozen

# The router under test takes bodies up to this size (bytes).
MAX_BODY = 200_000


@frozen
class Case:
    """
    One connection.

    Attributes:
        name: Says what is odd about it.
        data: All that the client sends.
        statuses: Of the answers, in order; none means closed without an answer.
        reason: Why that is right.
        worker: ``METHOD target`` of the requests that the worker gets, in order.
    """

    name: str
    data: bytes
    statuses: tuple[int, ...]
    reason: str
    worker: tuple[str, ...] = ()


GET = b"GET /a HTTP/1.1\r\nHost: h\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: h\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
GET_B = b"GET /b HTTP/1.1\r\nHost: h\r\n\r\n"
# A request that must not be found behind a refused one.
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n"


def length(value: bytes, body: bytes = b"hello") -> bytes:
    return POST + b"Content-Length: " + value + b"\r\n\r\n" + body


def line(text: bytes) -> bytes:
    return text + b"\r\nHost: h\r\n\r\n"


def target(text: bytes) -> bytes:
    return line(b"GET " + text + b" HTTP/1.1")


def header(text: bytes) -> bytes:
    return GET + text + b"\r\n\r\n"


def coding(text: bytes) -> bytes:
    return POST + text + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


def chunks(body: bytes) -> bytes:
    return CHUNKED + body


WELL_FORMED = (
    Case("get", GET + b"\r\n", (200,), "RFC 9112 3", ("GET /a",)),
    Case("post", length(b"5"), (200,), "RFC 9112 6.2", ("POST /a",)),
    Case("no body", POST + b"\r\n", (200,), "RFC 9112 6.3 rule 7", ("POST /a",)),
    Case("length zero", length(b"0", b""), (200,), "RFC 9110 8.6", ("POST /a",)),
    Case("length 005", length(b"005"), (200,), "RFC 9110 8.6: 1*DIGIT", ("POST /a",)),
    Case("spaces around length", length(b"  5\t "), (200,), "RFC 9112 5: OWS", ("POST /a",)),
    Case("get with body", GET + b"Content-Length: 2\r\n\r\nhi", (200,), "RFC 9110 9.3.1", ("GET /a",)),
    Case("chunks", chunks(b"5\r\nhello\r\n0\r\n\r\n"), (200,), "RFC 9112 7.1", ("POST /a",)),
    Case("unknown method", line(b"BREW /a HTTP/1.1"), (200,), "RFC 9110 9.1: passed on", ("BREW /a",)),
    Case("lower-case method", line(b"get /a HTTP/1.1"), (200,), "RFC 9110 9.1: another method", ("get /a",)),
    Case("obs-text in value", header(b"X: \xe9\xff"), (200,), "RFC 9110 5.5: obs-text", ("GET /a",)),
    Case("tab in value", header(b"X: a\tb"), (200,), "RFC 9110 5.5", ("GET /a",)),
    Case("empty value", header(b"X:"), (200,), "RFC 9110 5.5", ("GET /a",)),
    Case("upgrade to h2c", header(b"Connection: Upgrade\r\nUpgrade: h2c"), (200,), "RFC 9110 7.8: ignored", ("GET /a",)),
    Case("connection close", header(b"Connection: close"), (200,), "RFC 9112 9.6", ("GET /a",)),
    Case("close in a list", header(b"Connection: x,close"), (200,), "RFC 9112 9.6", ("GET /a",)),
    Case("close in a second header", header(b"Connection: x\r\nConnection: Close"), (200,), "RFC 9110 5.3", ("GET /a",)),
    Case("nothing after close", header(b"Connection: close") + HIDDEN, (200,), "RFC 9112 9.6", ("GET /a",)),
)  # fmt: skip

REQUEST_LINE = (
    Case("http/1.0", b"GET /a HTTP/1.0\r\nHost: h\r\n\r\n", (200,), "RFC 9112 2.3", ("GET /a",)),
    Case("http/1.0 without host", b"GET /a HTTP/1.0\r\n\r\n", (200,), "RFC 9112 3.2", ("GET /a",)),
    Case("http/1.0 twice", b"GET /a HTTP/1.0\r\n\r\n" + HIDDEN, (200,), "RFC 9112 9.3: not persistent", ("GET /a",)),
    Case("http/0.9", b"GET /a\r\n", (400,), "RFC 9112 3"),
    Case("http/0.9 with headers", b"GET /a\r\nHost: h\r\n\r\n", (400,), "RFC 9112 3"),
    Case("http/1.2", line(b"GET /a HTTP/1.2"), (400,), "RFC 9112 2.3: not spoken here"),
    Case("http/2.0", line(b"GET /a HTTP/2.0"), (400,), "RFC 9112 2.3: not spoken here"),
    Case("http/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400,), "RFC 9113 3.4"),
    Case("http/11", line(b"GET /a HTTP/11"), (400,), "RFC 9112 2.3"),
    Case("http/01.1", line(b"GET /a HTTP/01.1"), (400,), "RFC 9112 2.3"),
    Case("lower-case http", line(b"GET /a http/1.1"), (400,), "RFC 9112 2.3: case matters"),
    Case("other protocol", line(b"GET /a RTSP/1.0"), (400,), "RFC 9112 2.3"),
    Case("two spaces", line(b"GET  /a HTTP/1.1"), (400,), "RFC 9112 3"),
    Case("space at the end", line(b"GET /a HTTP/1.1 "), (400,), "RFC 9112 3"),
    Case("space at the start", line(b" GET /a HTTP/1.1"), (400,), "RFC 9112 3"),
    Case("tabs", line(b"GET\t/a\tHTTP/1.1"), (400,), "RFC 9112 3"),
    Case("space in target", line(b"GET /a b HTTP/1.1"), (400,), "RFC 9112 3.2"),
    Case("no target", line(b"GET HTTP/1.1"), (400,), "RFC 9112 3"),
    Case("empty target", line(b"GET  HTTP/1.1"), (400,), "RFC 9112 3.2"),
    Case("no method", line(b" /a HTTP/1.1"), (400,), "RFC 9112 3.1"),
    Case("method no token", line(b"G@T /a HTTP/1.1"), (400,), "RFC 9110 9.1"),
    Case("method in obs-text", line(b"G\xc3\x84T /a HTTP/1.1"), (400,), "RFC 9110 9.1"),
    Case("nul in method", line(b"G\0T /a HTTP/1.1"), (400,), "RFC 9110 9.1"),
    Case("long method", line(b"G" * 300 + b" /a HTTP/1.1"), (200,), "RFC 9112 3", ("G" * 300 + " /a",)),
    Case("empty line first", b"\r\n" + GET + b"\r\n", (200,), "RFC 9112 2.2", ("GET /a",)),
    Case("two empty lines first", b"\r\n\r\n" + GET + b"\r\n", (400,), "RFC 9112 2.2: one is enough"),
    Case("bare LF first", b"\n" + GET + b"\r\n", (400,), "RFC 9112 2.2"),
    Case("garbage", b"\x80\x81garbage\r\n\r\n", (400,), "RFC 9112 3"),
    Case("garbage without a line end", b"\xff\xfe\xfd", (400,), "RFC 9112 3: told at once"),
    Case("words", b"hello router\r\n\r\n", (400,), "RFC 9112 3"),
    Case("tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)), (400,), "RFC 8446 5.1: told at once"),
    Case("ssh", b"SSH-2.0-OpenSSH_9.6\r\n", (400,), "RFC 9112 3"),
    Case("socks", b"\x05\x01\x00", (400,), "RFC 1928: told at once"),
    Case("proxy protocol", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + GET + b"\r\n", (400,), "RFC 9112 3"),
    Case("huge request line", target(b"/" + b"a" * 20_000), (414,), "RFC 9112 3"),
    Case("huge request line without end", b"GET /" + b"a" * 20_000, (414,), "RFC 9112 3"),
    Case("long request line", target(b"/" + b"a" * 8000), (200,), "RFC 9112 3: 8000 octets", ("GET /" + "a" * 8000,)),
)  # fmt: skip

TARGETS = (
    Case("query", target(b"/a?x=%20&y"), (200,), "RFC 9112 3.2.1", ("GET /a?x=%20&y",)),
    Case("empty query", target(b"/a?"), (200,), "RFC 3986 6.2.3: unchanged", ("GET /a?",)),
    Case("percent-encoded slash", target(b"/a%2fb"), (200,), "RFC 3986 2.2: unchanged", ("GET /a%2fb",)),
    Case("bad escape", target(b"/%zz%"), (200,), "the worker judges it", ("GET /%zz%",)),
    Case("characters no url has", target(b"/a|{}\"<>\\^`"), (200,), "the worker judges it", ("GET /a|{}\"<>\\^`",)),
    Case("two slashes", target(b"//evil/x"), (200,), "RFC 9112 3.2.1: a path", ("GET //evil/x",)),
    Case("dots and semicolon", target(b"/..;/x"), (200,), "a path of the worker", ("GET /..;/x",)),
    Case("dots", target(b"/../../x"), (200,), "a path of the worker", ("GET /../../x",)),
    Case("two slashes before a route", target(b"//list_workers"), (200,), "a path of the worker", ("GET //list_workers",)),
    Case("encoded slash before a route", target(b"/%2Flist_workers"), (200,), "a path of the worker", ("GET /%2Flist_workers",)),
    Case("dots before a route", target(b"/x/../list_workers"), (200,), "a path of the worker", ("GET /x/../list_workers",)),
    Case("absolute http", target(b"http://evil/x?y"), (200,), "RFC 9112 3.2.2: cut to its path", ("GET /x?y",)),
    Case("absolute https", target(b"https://evil:443/x"), (200,), "RFC 9112 3.2.2", ("GET /x",)),
    Case("absolute upper case", target(b"HTTP://EVIL/x"), (200,), "RFC 3986 3.1", ("GET /x",)),
    Case("absolute without path", target(b"http://evil"), (200,), "RFC 9112 3.2.1", ("GET /",)),
    Case("absolute with query only", target(b"http://evil?y"), (200,), "RFC 9112 3.2.1", ("GET /?y",)),
    Case("absolute ipv6", target(b"http://[::1]:80/x"), (200,), "RFC 3986 3.2.2", ("GET /x",)),
    Case("absolute with user", target(b"http://user:pw@evil/x"), (400,), "RFC 9110 4.2.4"),
    Case("absolute without authority", target(b"http:///x"), (400,), "RFC 9110 4.2.1"),
    Case("absolute with bad port", target(b"http://evil:1x/x"), (400,), "RFC 3986 3.2.3"),
    Case("absolute with bad ipv6", target(b"http://[::1/x"), (400,), "RFC 3986 3.2.2"),
    Case("absolute ftp", target(b"ftp://evil/x"), (400,), "RFC 9112 3.2.2"),
    Case("absolute file", target(b"file:///etc/passwd"), (400,), "RFC 9112 3.2.2"),
    Case("absolute with one slash", target(b"http:/evil/x"), (400,), "RFC 9112 3.2.2"),
    Case("authority", target(b"evil:80"), (400,), "RFC 9112 3.2.3: CONNECT only"),
    Case("at sign", target(b"@evil:1/x"), (400,), "RFC 9112 3.2: would name a host"),
    Case("colon", target(b":1@evil/x"), (400,), "RFC 9112 3.2: would name a port"),
    Case("relative", target(b"a/b"), (400,), "RFC 9112 3.2.1"),
    Case("query only", target(b"?x"), (400,), "RFC 9112 3.2.1"),
    Case("dot first", target(b".evil/x"), (400,), "RFC 9112 3.2: would name a host"),
    Case("backslash first", target(b"\\evil/x"), (400,), "RFC 9112 3.2.1"),
    Case("fragment", target(b"/a#b"), (400,), "RFC 9112 3.2"),
    Case("fragment in absolute", target(b"http://evil/a#b"), (400,), "RFC 9112 3.2"),
    Case("asterisk", line(b"OPTIONS * HTTP/1.1"), (204,), "RFC 9112 3.2.4"),
    Case("asterisk without host", b"OPTIONS * HTTP/1.1\r\n\r\n", (400,), "RFC 9112 3.2"),
    Case("get asterisk", target(b"*"), (400,), "RFC 9112 3.2.4: OPTIONS only"),
    Case("options of a path", line(b"OPTIONS /a HTTP/1.1"), (204,), "RFC 9110 9.3.7"),
    Case("connect", line(b"CONNECT evil:443 HTTP/1.1"), (405,), "RFC 9110 9.3.6"),
    Case("connect to a path", line(b"CONNECT /a HTTP/1.1"), (405,), "RFC 9110 9.3.6"),
    Case("connect with a tunnel", line(b"CONNECT evil:80 HTTP/1.1") + HIDDEN, (405,), "RFC 9110 9.3.6"),
    Case("nul in target", target(b"/a\0b"), (400,), "RFC 9112 3.2"),
    Case("delete in target", target(b"/a\x7fb"), (400,), "RFC 9112 3.2"),
    Case("obs-text in target", target(b"/\xc3\xa9"), (400,), "RFC 3986 2"),
    Case("path not utf-8", target(b"/%ff%fe"), (400,), "no route can be matched with it"),
    Case("query not utf-8", target(b"/a?%ff"), (200,), "the worker judges it", ("GET /a?%ff",)),
    Case("encoded LF", target(b"/a%0ab"), (400,), "no route can be matched with it"),
    Case("encoded CR LF", target(b"/a%0d%0aX:1"), (400,), "no route can be matched with it"),
    Case("encoded nul", target(b"/a%00b"), (400,), "no route can be matched with it"),
    Case("encoded LF in query", target(b"/a?%0a"), (200,), "the worker judges it", ("GET /a?%0a",)),
    Case("a route's other method", line(b"POST /list_workers HTTP/1.1"), (405,), "RFC 9110 15.5.6"),
)  # fmt: skip

HOST = (
    Case("host with an empty label", b"GET /a HTTP/1.1\r\nHost: a..b\r\n\r\n", (200,), "RFC 3986 3.2.2: never looked up here", ("GET /a",)),
    Case("no host", b"GET /a HTTP/1.1\r\n\r\n", (400,), "RFC 9112 3.2"),
    Case("two hosts", header(b"Host: h"), (400,), "RFC 9112 3.2: also when equal"),
    Case("two hosts in http/1.0", b"GET /a HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", (400,), "RFC 9112 3.2"),
    Case("empty host", b"GET /a HTTP/1.1\r\nHost:\r\n\r\n", (200,), "RFC 9112 3.2: may be", ("GET /a",)),
    Case("host with port", b"GET /a HTTP/1.1\r\nHost: h:1\r\n\r\n", (200,), "RFC 9110 7.2", ("GET /a",)),
    Case("host ipv6", b"GET /a HTTP/1.1\r\nHost: [::1]:1\r\n\r\n", (200,), "RFC 3986 3.2.2", ("GET /a",)),
    Case("host with path", b"GET /a HTTP/1.1\r\nHost: h/x\r\n\r\n", (400,), "RFC 9112 3.2"),
    Case("host with user", b"GET /a HTTP/1.1\r\nHost: u@h\r\n\r\n", (400,), "RFC 9112 3.2"),
    Case("host with bad port", b"GET /a HTTP/1.1\r\nHost: h:x\r\n\r\n", (400,), "RFC 9112 3.2"),
    Case("host with two ports", b"GET /a HTTP/1.1\r\nHost: h:1:2\r\n\r\n", (400,), "RFC 9112 3.2"),
    Case("host list", b"GET /a HTTP/1.1\r\nHost: a, b\r\n\r\n", (400,), "RFC 9112 3.2"),
    Case("host with space", b"GET /a HTTP/1.1\r\nHost: a b\r\n\r\n", (400,), "RFC 9112 3.2"),
    Case("host in obs-text", b"GET /a HTTP/1.1\r\nHost: h\xc3\xa9\r\n\r\n", (400,), "RFC 3986 3.2.2"),
    Case("no host before a body", b"POST /a HTTP/1.1\r\nContent-Length: 9\r\n\r\n", (400,), "told before the body comes"),
    Case("no host but expectation", b"POST /a HTTP/1.1\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n", (400,), "no 100 before it"),
)  # fmt: skip

LENGTHS = (
    Case("two lengths that differ", POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", (400,), "RFC 9112 6.3 rule 5"),
    Case("two lengths that agree", POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", (400,), "RFC 9110 8.6: may be refused"),
    Case("length list", length(b"5, 5"), (400,), "RFC 9110 8.6: may be refused"),
    Case("length list that differs", length(b"5,6"), (400,), "RFC 9112 6.3 rule 5"),
    Case("length +5", length(b"+5"), (400,), "RFC 9110 8.6"),
    Case("length -1", length(b"-1"), (400,), "RFC 9110 8.6"),
    Case("length -0", length(b"-0"), (400,), "RFC 9110 8.6"),
    Case("length 0x5", length(b"0x5"), (400,), "RFC 9110 8.6"),
    Case("length 5.0", length(b"5.0"), (400,), "RFC 9110 8.6"),
    Case("length 5e0", length(b"5e0"), (400,), "RFC 9110 8.6"),
    Case("length 1_0", length(b"1_0"), (400,), "RFC 9110 8.6"),
    Case("length 5 0", length(b"5 0"), (400,), "RFC 9110 8.6"),
    Case("length 5;", length(b"5;"), (400,), "RFC 9110 8.6"),
    Case("length in quotes", length(b'"5"'), (400,), "RFC 9110 8.6"),
    Case("length in obs-text", length(b"\xb2"), (400,), "RFC 9110 8.6"),
    Case("length with vertical tab", length(b"\x0b5"), (400,), "RFC 9110 5.5"),
    Case("length empty", length(b""), (400,), "RFC 9110 8.6"),
    Case("length of 5000 digits", length(b"9" * 5000), (413,), "RFC 9110 8.6: no overflow"),
    Case("length 2^64", length(b"18446744073709551621"), (413,), "RFC 9110 8.6: no overflow"),
    Case("length over the limit", POST + b"Content-Length: %d\r\n\r\n" % (MAX_BODY + 1), (413,), "told before the body comes"),
    Case("length at the limit", length(b"%d" % MAX_BODY, b"x" * MAX_BODY), (200,), "the limit itself is allowed", ("POST /a",)),
    Case("get with a bad length", GET + b"Content-Length: x\r\n\r\n" + HIDDEN, (400,), "RFC 9112 6.3"),
    Case("http/1.0 with a body", b"POST /a HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello", (200,), "RFC 9112 6.3", ("POST /a",)),
)  # fmt: skip

CODINGS = (
    Case("length and chunks", POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN, (400,), "RFC 9112 6.1"),
    Case("chunks and length", POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + HIDDEN, (400,), "RFC 9112 6.1"),
    Case("length zero and chunks", POST + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN, (400,), "RFC 9112 6.1"),
    Case("coding in capitals", coding(b"TRANSFER-ENCODING: CHUNKED"), (200,), "RFC 9112 7: case does not matter", ("POST /a",)),
    Case("coding behind tabs", coding(b"Transfer-Encoding:\t chunked \t"), (200,), "RFC 9112 5: OWS", ("POST /a",)),
    Case("coding without space", coding(b"Transfer-Encoding:chunked"), (200,), "RFC 9112 5: OWS", ("POST /a",)),
    Case("identity", coding(b"Transfer-Encoding: identity"), (400,), "RFC 9112 7: no such coding"),
    Case("identity and a length", POST + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello", (400,), "RFC 9112 7"),
    Case("gzip", coding(b"Transfer-Encoding: gzip"), (400,), "RFC 9112 6.3 rule 4"),
    Case("gzip, chunked", coding(b"Transfer-Encoding: gzip, chunked"), (400,), "RFC 9112 6.1: not decoded here"),
    Case("chunked, gzip", coding(b"Transfer-Encoding: chunked, gzip"), (400,), "RFC 9112 6.3 rule 4"),
    Case("chunked, chunked", coding(b"Transfer-Encoding: chunked, chunked"), (400,), "RFC 9112 6.1"),
    Case("chunked, identity", coding(b"Transfer-Encoding: chunked, identity"), (400,), "RFC 9112 7"),
    Case("comma", coding(b"Transfer-Encoding: ,chunked"), (400,), "RFC 9112 6.1: not worth the risk"),
    Case("xchunked", coding(b"Transfer-Encoding: xchunked"), (400,), "RFC 9112 6.3 rule 4"),
    Case("chunkedx", coding(b"Transfer-Encoding: chunkedx"), (400,), "RFC 9112 6.3 rule 4"),
    Case("chunked;q=1", coding(b"Transfer-Encoding: chunked;q=1"), (400,), "RFC 9112 7.1: no parameters"),
    Case("chunked in quotes", coding(b'Transfer-Encoding: "chunked"'), (400,), "RFC 9112 6.1"),
    Case("chunked behind vertical tab", coding(b"Transfer-Encoding: \x0bchunked"), (400,), "RFC 9110 5.5"),
    Case("chunked behind nul", coding(b"Transfer-Encoding: chunked\0"), (400,), "RFC 9110 5.5"),
    Case("chunked behind obs-text", coding(b"Transfer-Encoding: \xa0chunked"), (400,), "RFC 9112 6.1"),
    Case("chunked behind CR", coding(b"Transfer-Encoding: \rchunked"), (400,), "RFC 9112 2.2"),
    Case("coding empty", coding(b"Transfer-Encoding:"), (400,), "RFC 9112 6.1"),
    Case("coding twice", coding(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), (400,), "RFC 9112 6.1"),
    Case("identity and chunked", coding(b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked"), (400,), "RFC 9112 7"),
    Case("chunked and identity", coding(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"), (400,), "RFC 9112 7"),
    Case("coding folded", coding(b"Transfer-Encoding:\r\n chunked"), (400,), "RFC 9112 5.2"),
    Case("coding behind a space", coding(b"Transfer-Encoding : chunked"), (400,), "RFC 9112 5.1"),
    Case("coding in http/1.0", b"POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (400,), "RFC 9112 6.1"),
    Case("coding named with _", POST + b"Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello", (200,), "RFC 9110 5.1: another header", ("POST /a",)),
    Case("te", header(b"TE: trailers, gzip\r\nConnection: TE"), (200,), "RFC 9110 10.1.4: stops here", ("GET /a",)),
)  # fmt: skip

CHUNKS = (
    Case("extension", chunks(b'5;a=b;c="d e"\r\nhello\r\n0;x\r\n\r\n'), (200,), "RFC 9112 7.1.1: ignored", ("POST /a",)),
    Case("size with zeros", chunks(b"0005\r\nhello\r\n000\r\n\r\n"), (200,), "RFC 9112 7.1", ("POST /a",)),
    Case("size in capitals", chunks(b"A\r\nhellohello\r\n0\r\n\r\n"), (200,), "RFC 9112 7.1", ("POST /a",)),
    Case("trailer", chunks(b"5\r\nhello\r\n0\r\nX: y\r\n\r\n"), (200,), "RFC 9110 6.5.1: dropped", ("POST /a",)),
    Case("forbidden trailer", chunks(b"0\r\nContent-Length: 9\r\nHost: evil\r\nTransfer-Encoding: x\r\n\r\n"), (200,), "RFC 9110 6.5.1: dropped", ("POST /a",)),
    Case("size negative", chunks(b"-5\r\nhello\r\n0\r\n\r\n"), (400,), "RFC 9112 7.1"),
    Case("size +5", chunks(b"+5\r\nhello\r\n0\r\n\r\n"), (400,), "RFC 9112 7.1"),
    Case("size 0x5", chunks(b"0x5\r\nhello\r\n0\r\n\r\n"), (400,), "RFC 9112 7.1"),
    Case("size empty", chunks(b"\r\nhello\r\n0\r\n\r\n"), (400,), "RFC 9112 7.1"),
    Case("size g", chunks(b"g\r\nhello\r\n0\r\n\r\n"), (400,), "RFC 9112 7.1"),
    Case("size 1_0", chunks(b"1_0\r\nhello\r\n0\r\n\r\n"), (400,), "RFC 9112 7.1"),
    Case("size behind a space", chunks(b" 5\r\nhello\r\n0\r\n\r\n"), (400,), "RFC 9112 7.1"),
    Case("size before a space", chunks(b"5 \r\nhello\r\n0\r\n\r\n"), (400,), "RFC 9112 7.1"),
    Case("size before a space and extension", chunks(b"5 ;x\r\nhello\r\n0\r\n\r\n"), (400,), "RFC 9112 7.1.1: not worth the risk"),
    Case("only an extension", chunks(b";x\r\nhello\r\n0\r\n\r\n"), (400,), "RFC 9112 7.1"),
    Case("size too small", chunks(b"3\r\nhello\r\n0\r\n\r\n"), (400,), "RFC 9112 7.1"),
    Case("size too large", chunks(b"6\r\nhello\r\n0\r\n\r\n"), (400,), "RFC 9112 7.1"),
    Case("no CR LF behind a chunk", chunks(b"5\r\nhello0\r\n\r\n"), (400,), "RFC 9112 7.1"),
    Case("bare LF behind a chunk", chunks(b"5\r\nhello\n0\r\n\r\n"), (400,), "RFC 9112 7.1"),
    Case("bare LF behind a size", chunks(b"5\nhello\r\n0\r\n\r\n"), (400,), "RFC 9112 7.1"),
    Case("bare LF behind an extension", chunks(b"5;x\nhello\r\n0\r\n\r\n"), (400,), "RFC 9112 7.1.1"),
    Case("bare CR in an extension", chunks(b"5;x\ry\r\nhello\r\n0\r\n\r\n"), (400,), "RFC 9112 7.1.1"),
    Case("nul in an extension", chunks(b"5;\0\r\nhello\r\n0\r\n\r\n"), (400,), "RFC 9112 7.1.1"),
    Case("bare LF behind the last size", chunks(b"0\n\r\n" + HIDDEN), (400,), "RFC 9112 7.1"),
    Case("bare LF at the end", chunks(b"0\r\n\n" + HIDDEN), (400,), "RFC 9112 7.1"),
    Case("bare LF behind a trailer", chunks(b"0\r\nX: y\n\r\n" + HIDDEN), (400,), "RFC 9112 7.1.2"),
    Case("bare CR in a trailer", chunks(b"0\r\nX: \ry\r\n\r\n"), (400,), "RFC 9112 7.1.2"),
    Case("trailer that is no header", chunks(b"0\r\nGET /hidden HTTP/1.1\r\n\r\n"), (400,), "RFC 9112 7.1.2"),
    Case("trailer folded", chunks(b"0\r\nX: y\r\n z\r\n\r\n"), (400,), "RFC 9112 5.2"),
    Case("oversize extension", chunks(b"5;" + b"x" * 2000 + b"\r\nhello\r\n0\r\n\r\n"), (400,), "RFC 9112 7.1.1: bounded"),
    Case("extension without end", chunks(b"5;" + b"x" * 2000), (400,), "RFC 9112 7.1.1: bounded"),
    Case("huge trailers", chunks(b"0\r\n" + b"X: y\r\n" * 20_000), (400,), "RFC 9112 7.1.2: bounded"),
    Case("huge trailer", chunks(b"0\r\nX: " + b"y" * 100_000), (400,), "RFC 9112 7.1.2: bounded"),
    Case("size over the limit", chunks(b"ffffffff\r\n" + b"x" * (MAX_BODY + 1)), (413,), "RFC 9110 15.5.14"),
    Case("size of 1000 digits", chunks(b"f" * 1000 + b"\r\n" + b"x" * (MAX_BODY + 1)), (413,), "RFC 9112 7.1: no overflow"),
    Case("chunks that grow over the limit", chunks((b"2710\r\n" + b"x" * 10_000 + b"\r\n") * 21 + b"0\r\n\r\n"), (413,), "RFC 9110 15.5.14"),
    Case("chunks up to the limit", chunks((b"2710\r\n" + b"x" * 10_000 + b"\r\n") * 20 + b"0\r\n\r\n"), (200,), "the limit itself is allowed", ("POST /a",)),
)  # fmt: skip

HEADERS = (
    Case("bare LF behind the request line", b"GET /a HTTP/1.1\nHost: h\r\n\r\n", (400,), "RFC 9112 2.2"),
    Case("bare LF behind a header", b"GET /a HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", (400,), "RFC 9112 2.2"),
    Case("bare LF behind the headers", GET + b"\n" + HIDDEN, (400,), "RFC 9112 2.2"),
    Case("bare LF everywhere", b"GET /a HTTP/1.1\nHost: h\n\n", (400,), "RFC 9112 2.2"),
    Case("LF CR", b"GET /a HTTP/1.1\n\rHost: h\n\r\n\r", (400,), "RFC 9112 2.2"),
    Case("CR CR LF", b"GET /a HTTP/1.1\r\r\nHost: h\r\n\r\n", (400,), "RFC 9112 2.2"),
    Case("CR CR LF behind the headers", GET + b"\r\r\n" + HIDDEN, (400,), "RFC 9112 2.2"),
    Case("bare CR in the request line", b"GET /a\r HTTP/1.1\r\nHost: h\r\n\r\n", (400,), "RFC 9112 2.2"),
    Case("bare CR in a value", header(b"X: a\rb"), (400,), "RFC 9112 2.2"),
    Case("bare CR for a line", b"GET /a HTTP/1.1\rHost: h\r\r\n\r\n", (400,), "RFC 9112 2.2"),
    Case("bare CR in a name", header(b"X\rY: a"), (400,), "RFC 9112 5.1"),
    Case("folded", header(b"X: a\r\n b"), (400,), "RFC 9112 5.2"),
    Case("folded with a tab", header(b"X: a\r\n\tb"), (400,), "RFC 9112 5.2"),
    Case("folded to nothing", header(b"X: a\r\n "), (400,), "RFC 9112 5.2"),
    Case("folded first header", b"GET /a HTTP/1.1\r\n Host: h\r\n\r\n", (400,), "RFC 9112 2.2"),
    Case("space before the colon", header(b"X : a"), (400,), "RFC 9112 5.1"),
    Case("tab before the colon", header(b"X\t: a"), (400,), "RFC 9112 5.1"),
    Case("space in a name", header(b"X Y: a"), (400,), "RFC 9110 5.1"),
    Case("empty name", header(b": a"), (400,), "RFC 9110 5.1"),
    Case("no colon", header(b"X"), (400,), "RFC 9112 5"),
    Case("second request line", header(b"GET /hidden HTTP/1.1"), (400,), "RFC 9112 5"),
    Case("nul in a name", header(b"X\0: a"), (400,), "RFC 9110 5.1"),
    Case("nul in a value", header(b"X: a\0b"), (400,), "RFC 9110 5.5"),
    Case("control character in a value", header(b"X: a\x01b"), (400,), "RFC 9110 5.5"),
    Case("escape in a value", header(b"X: \x1b[31m"), (400,), "RFC 9110 5.5"),
    Case("delete in a value", header(b"X: a\x7f"), (400,), "RFC 9110 5.5"),
    Case("form feed in a value", header(b"X: a\x0cb"), (400,), "RFC 9110 5.5"),
    Case("control character in a name", header(b"X\x01: a"), (400,), "RFC 9110 5.1"),
    Case("obs-text in a name", header(b"X\xe9: a"), (400,), "RFC 9110 5.1"),
    Case("brackets in a name", header(b"X(): a"), (400,), "RFC 9110 5.6.2"),
    Case("colon first", header(b":path: /hidden"), (400,), "RFC 9110 5.1"),
    Case("huge header", header(b"X: " + b"a" * 20_000), (431,), "RFC 6585 5"),
    Case("huge header without end", GET + b"X: " + b"a" * 20_000, (431,), "RFC 6585 5"),
    Case("huge headers", GET + b"X: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 400 + b"\r\n", (431,), "RFC 6585 5"),
    Case("too many headers", GET + b"X: a\r\n" * 600 + b"\r\n", (431,), "RFC 6585 5"),
    Case("many headers", GET + b"X: a\r\n" * 499 + b"\r\n", (200,), "RFC 9110 5.4", ("GET /a",)),
    Case("large headers", header(b"X: " + b"a" * 15_000), (200,), "RFC 9110 5.4", ("GET /a",)),
    Case("100-continue", POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello", (100, 200), "RFC 9110 10.1.1", ("POST /a",)),
    Case("100-Continue", POST + b"Content-Length: 5\r\nExpect: 100-Continue\r\n\r\nhello", (100, 200), "RFC 9110 10.1.1", ("POST /a",)),
    Case("100-continue in http/1.0", b"POST /a HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello", (200,), "RFC 9110 10.1.1: ignored", ("POST /a",)),
    Case("100-continue over the limit", POST + b"Content-Length: 999999\r\nExpect: 100-continue\r\n\r\n", (413,), "RFC 9110 10.1.1: no 100 before it"),
    Case("100-continue with a bad target", line(b"POST @evil/ HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue"), (400,), "RFC 9110 10.1.1: no 100 before it"),
    Case("100-continue with both framings", POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n", (400,), "RFC 9112 6.1"),
    Case("other expectation", header(b"Expect: 200-ok"), (200,), "RFC 9110 10.1.1: ignored, stops here", ("GET /a",)),
)  # fmt: skip

PIPELINES = (
    Case("two requests", GET + b"\r\n" + GET_B, (200, 200), "RFC 9112 9.3.2", ("GET /a", "GET /b")),
    Case("many requests", GET_B * 20, (200,) * 20, "RFC 9112 9.3.2", ("GET /b",) * 20),
    Case("worker then router", GET_B + target(b"/liveness"), (200, 200), "RFC 9112 9.3.2: in order", ("GET /b",)),
    Case("router then worker", target(b"/liveness") + GET_B, (200, 200), "RFC 9112 9.3.2", ("GET /b",)),
    Case("body then request", length(b"5") + GET_B, (200, 200), "RFC 9112 9.3.2", ("POST /a", "GET /b")),
    Case("chunks then request", chunks(b"5\r\nhello\r\n0\r\n\r\n") + GET_B, (200, 200), "RFC 9112 9.3.2", ("POST /a", "GET /b")),
    Case("body, empty line, request", length(b"5") + b"\r\n" + GET_B, (200, 200), "RFC 9112 2.2", ("POST /a", "GET /b")),
    Case("good then bad", GET_B + target(b"@evil/x"), (200, 400), "the good one is answered", ("GET /b",)),
    Case("good then garbage", GET_B + b"\x16\x03\x01", (200, 400), "the good one is answered", ("GET /b",)),
    Case("router then garbage", target(b"/liveness") + b"\x16\x03\x01", (200, 400), "the good one is answered"),
    Case("good then huge", GET_B + b"GET /" + b"a" * 20_000, (200, 414), "the good one is answered", ("GET /b",)),
    Case("bad then good", target(b"@evil/x") + HIDDEN, (400,), "nothing behind a refused one is read"),
    Case("length too small", length(b"2", b"hello\r\n"), (200, 400), "the rest is a bad request", ("POST /a",)),
    Case("too large then good", POST + b"Content-Length: 999999\r\n\r\n" + HIDDEN, (413,), "nothing behind a refused one is read"),
    Case("good, other method, good", GET_B + line(b"POST /list_workers HTTP/1.1") + GET_B, (200, 405, 200), "its framing is sound", ("GET /b", "GET /b")),
)  # fmt: skip

CASES = (
    *WELL_FORMED,
    *REQUEST_LINE,
    *TARGETS,
    *HOST,
    *LENGTHS,
    *CODINGS,
    *CHUNKS,
    *HEADERS,
    *PIPELINES,
)
