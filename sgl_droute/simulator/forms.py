"""
Form bodies, read the way Starlette reads them.
"""

from __future__ import annotations

from io import BytesIO
from urllib.parse import parse_qsl

from attrs import Factory, define, frozen
from multipart import (  # type: ignore[import-untyped]
    MultipartError,
    MultipartParser,
    parse_options_header,
)

from sgl_droute.simulator.replies import detail

LONGEST_TEXT = 1024 * 1024
MOST_PARTS = 1000


@frozen
class Upload:
    """
    One uploaded file.
    """

    filename: str
    content_type: str
    content: bytes


@define
class Form:
    """
    The text fields and files of a form, in order, several to a name.
    """

    fields: dict[str, list[str]] = Factory(dict)
    files: dict[str, list[Upload]] = Factory(dict)

    def texts(self) -> dict[str, object]:
        """
        The last value of every text field.
        """
        return {name: values[-1] for name, values in self.fields.items()}

    def uploads(self, *names: str) -> list[Upload]:
        return [upload for name in names for upload in self.files.get(name, [])]

    def values(self, *names: str) -> list[str]:
        return [value for name in names for value in self.fields.get(name, [])]


def parse_form(body: bytes, content_type: str | None) -> Form:
    """
    The form in *body*; an empty one when it is no form at all.

    Raises:
        WorkerError: 400 for a broken body or a text part over 1 MiB.
    """
    kind, options = parse_options_header(content_type or "")
    if kind == "application/x-www-form-urlencoded":
        form = Form()
        for name, value in parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True):
            form.fields.setdefault(name, []).append(value)
        return form
    if kind != "multipart/form-data":
        return Form()
    if not options.get("boundary"):
        raise detail(400, "Missing boundary in multipart.")
    try:
        return _parse_multipart(body, options["boundary"])
    except MultipartError as error:
        raise detail(400, "There was an error parsing the body") from error


def _parse_multipart(body: bytes, boundary: str) -> Form:
    form = Form()
    parser = MultipartParser(
        BytesIO(body),
        boundary,
        part_limit=MOST_PARTS,
        spool_limit=len(body) + 1,
        memory_limit=len(body) + 1,
    )
    for part in parser:
        if part.filename:
            upload = Upload(part.filename, part.content_type, part.raw)
            form.files.setdefault(part.name, []).append(upload)
        elif part.size > LONGEST_TEXT:
            raise detail(400, f"Part exceeded maximum size of {LONGEST_TEXT // 1024}KB.")
        else:
            form.fields.setdefault(part.name, []).append(part.value)
    return form
