"""
Result files as answers: whole, in ranges, with etag, as Starlette's FileResponse sends them.
"""

from __future__ import annotations

from collections.abc import Iterator
from email.utils import formatdate
from hashlib import md5
from pathlib import Path

from werkzeug.http import parse_range_header

from sgl_droute.simulator.replies import PLAIN, Reply, WorkerError, detail

CHUNK = 64 * 1024
MEDIA_TYPES = {
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".mp4": "video/mp4",
    ".glb": "model/gltf-binary",
    ".obj": "text/plain; charset=utf-8",
}


def pieces(path: Path, start: int, stop: int) -> Iterator[bytes]:
    """
    Bytes *start* to *stop* of a file, a little at a time.
    """
    with path.open("rb") as file:
        file.seek(start)
        while start < stop:
            piece = file.read(min(CHUNK, stop - start))
            if not piece:
                return
            start += len(piece)
            yield piece


def file_reply(path: Path, wanted: str | None, condition: str | None, *, attached: bool) -> Reply:
    """
    The answer for a GET of *path*.

    Args:
        wanted: The Range header.
        condition: The If-Range header.
        attached: Whether to name the file in content-disposition.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise detail(404, f"File not found: {path}") from None
    size = status.st_size
    etag = f'"{md5(f"{status.st_mtime}-{size}".encode(), usedforsecurity=False).hexdigest()}"'
    modified = formatdate(status.st_mtime, usegmt=True)
    headers = {"accept-ranges": "bytes", "last-modified": modified, "etag": etag}
    if attached:
        headers["content-disposition"] = f'attachment; filename="{path.name}"'
    kind = MEDIA_TYPES[path.suffix]
    if wanted is None or condition not in (None, etag, modified):
        return Reply(200, kind, pieces(path, 0, size), headers, size)
    start, stop = _range(wanted, size)
    headers["content-range"] = f"bytes {start}-{stop - 1}/{size}"
    return Reply(206, kind, pieces(path, start, stop), headers, stop - start)


def _range(wanted: str, size: int) -> tuple[int, int]:
    """
    The one range in *wanted*. Several ranges are answered by the first alone.
    """
    parsed = parse_range_header(wanted)
    if parsed is None or parsed.units != "bytes":
        raise WorkerError(Reply(400, PLAIN, b"Malformed range header."))
    first, last = parsed.ranges[0]
    start = max(0, size + first) if first < 0 else first
    stop = size if last is None else min(last, size)
    if start >= stop:
        raise WorkerError(Reply(416, PLAIN, b"", {"content-range": f"bytes */{size}"}))
    return start, stop
