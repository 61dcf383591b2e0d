"""Files of other programs: which ones are known by their first bytes, and the text of some.

Word documents and e-books are turned into HTML, which `icae.data.documents` reads.
"""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
from typing import Literal
from xml.etree import ElementTree

from icae.errors import InputError

MAX_UNPACKED_BYTES = 500_000_000
"""Most bytes that the parts of a Word document or e-book may have, unpacked."""

_IMAGE = ("an image", "read its text with OCR, for example tesseract, and compress that")
_OFFICE = "save it as PDF or .docx, for example with: libreoffice --convert-to pdf"
_MEDIA = ("sound or video", "compress a transcript of it")
_PACKED = ("an archive", "unpack it and compress the documents in it")
_PROGRAM = ("a program", "name a document")
_FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office file (.doc, .xls, .ppt)", _OFFICE),
    *((magic, *_IMAGE) for magic in (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*")),
    *((magic, *_MEDIA) for magic in (b"ID3", b"OggS", b"fLaC", b"\x1aE\xdf\xa3")),
    *((magic, *_PACKED) for magic in (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"(\xb5/\xfd", b"7z\xbc")),
    *((magic, *_PROGRAM) for magic in (b"\x7fELF", b"MZ\x90", b"\xca\xfe\xba\xbe")),
    (b"SQLite format 3\0", "a SQLite file", "if it is a store, name it with --store"),
)
_ZIPPED: tuple[tuple[str, str, str], ...] = (
    ("xl/workbook.xml", "a spreadsheet (.xlsx)", "save it as CSV or PDF"),
    ("ppt/presentation.xml", "slides (.pptx)", _OFFICE),
    ("META-INF/manifest.xml", "an OpenDocument file (.odt, .ods, .odp)", _OFFICE),
)


def office_kind(data: bytes) -> Literal["docx", "epub", "rtf"] | None:
    """``docx``, ``epub`` or ``rtf``, by the content; None for anything else."""
    if data.startswith(b"{\\rtf"):
        return "rtf"
    names = _parts(data)
    if "word/document.xml" in names:
        return "docx"
    return "epub" if "META-INF/container.xml" in names else None


def refuse_foreign(data: bytes, name: str) -> None:
    """Refuse what is known to be no text.

    Raises:
        InputError: With what it is and the way to its text.
    """
    found: tuple[str, str] | None
    if data[8:10] == b'{"' and b'"icae-memory"' in data[:100_000]:
        found = ("a memory file already", "ask it: icae ask, or open it: icae inspect")
    elif data[4:8] == b"ftyp":
        found = _MEDIA
    elif data[:4] == b"RIFF":
        found = _IMAGE if data[8:12] == b"WEBP" else _MEDIA
    elif data[:4] == b"PK\3\4":
        names = _parts(data)
        found = next(((what, way) for part, what, way in _ZIPPED if part in names), _PACKED)
    else:
        found = next(((what, way) for own, what, way in _FOREIGN if data.startswith(own)), None)
    if found is not None:
        what, way = found
        raise InputError(
            f"The document is {what}, which is not read.",
            got=name,
            expected="text, Markdown, HTML, PDF, .docx, .epub or .rtf",
            fix=way,
        )


def rtf_text(data: bytes) -> str:
    """The text of a Rich Text file; raises a ValueError if it is damaged."""
    from striprtf.striprtf import rtf_to_text

    return str(rtf_to_text(data.decode("latin-1"), errors="replace"))


def docx_html(data: bytes) -> str:
    """A Word document as HTML; raises what its library does if it is damaged."""
    import mammoth

    _require_size(data)
    ignore = mammoth.images.img_element(lambda image: {})
    return str(mammoth.convert_to_html(io.BytesIO(data), convert_image=ignore).value)


def epub_pages(data: bytes) -> list[bytes]:
    """The pages of an e-book in reading order; raises a KeyError or ValueError if damaged."""
    _require_size(data)
    with zipfile.ZipFile(io.BytesIO(data)) as book:
        place = _attributes(book.read("META-INF/container.xml"), "rootfile")[0]["full-path"]
        package, folder = book.read(place), posixpath.dirname(place)
        hrefs = {item["id"]: item["href"] for item in _attributes(package, "item")}
        pages = [hrefs[item["idref"]] for item in _attributes(package, "itemref")]
        return [book.read(posixpath.normpath(posixpath.join(folder, _plain(p)))) for p in pages]


def _attributes(xml: bytes, name: str) -> list[dict[str, str]]:
    """The attributes of the elements of a name, in any namespace."""
    found = ElementTree.fromstring(xml).iter()
    return [one.attrib for one in found if one.tag.rpartition("}")[2] == name]


def _plain(href: str) -> str:
    """An address within a book without its escapes."""
    escape = re.compile(rb"%([0-9A-Fa-f]{2})")
    return escape.sub(lambda hit: bytes.fromhex(hit[1].decode()), href.encode()).decode()


def _parts(data: bytes) -> set[str]:
    """The names of the files in a ZIP archive; none for anything else."""
    if not data.startswith(b"PK\3\4"):
        return set()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return set(archive.namelist())
    except zipfile.BadZipFile:
        return set()


def _require_size(data: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        size = sum(part.file_size for part in archive.infolist())
    if size > MAX_UNPACKED_BYTES:
        raise ValueError(f"{size:,} bytes unpacked")
