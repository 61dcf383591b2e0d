"""Documents that a user hands in: text, Markdown, HTML, PDF, Word, e-books, RTF.

The text is what a reader would see: no markup of a page, no byte-order mark, line ends
as LF. What cannot be read is refused with the reason and the way out; where an encoding
had to be found out, that is said.
"""

from __future__ import annotations

import codecs
import io
import logging
import re
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import pypdf
from bs4 import BeautifulSoup, MarkupResemblesLocatorWarning, XMLParsedAsHTMLWarning
from bs4.dammit import EncodingDetector
from bs4.element import NavigableString
from charset_normalizer import from_bytes
from pypdf.errors import DependencyError, FileNotDecryptedError

from icae.data.formats import docx_html, epub_pages, office_kind, refuse_foreign, rtf_text
from icae.data.pdf_tables import with_rows
from icae.errors import InputError

Kind = Literal["text", "markdown", "html", "pdf", "docx", "epub", "rtf"]

_KIND_OF_SUFFIX: dict[str, Kind] = {
    ".docx": "docx",
    ".epub": "epub",
    ".htm": "html",
    ".html": "html",
    ".markdown": "markdown",
    ".md": "markdown",
    ".pdf": "pdf",
    ".rtf": "rtf",
    ".xhtml": "html",
}
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_ACCEPTED = "text, Markdown, HTML, .docx, .epub, .rtf, or a PDF with a text layer"
_URL = re.compile(r"[a-z][a-z0-9+.-]*:/", re.IGNORECASE)

# Tried in this order: single bytes of the West fit nearly any text, so Central Europe comes last.
_UTF_16 = "utf_16_le utf_16_be"
_ENCODINGS = (
    f"{_UTF_16} cp949 cp932 euc_jp iso2022_jp gb18030 big5 cp1252 cp1251 koi8_r",
    "cp1250",
)
_FEWEST_BYTES = 24
"""Fewer bytes do not tell an encoding."""

log = logging.getLogger(__name__)
# What a page looks like only tells its tables: text that is missing there is in the other reading.
logging.getLogger("pypdf._text_extraction._layout_mode").setLevel(logging.ERROR)

_NOISE = "script, style, noscript, template, nav, svg, iframe, button, select, [hidden]"
_PARAGRAPHS = (
    "address, article, aside, blockquote, body, div, dl, fieldset, figure, footer, form, h1, h2, "
    "h3, h4, h5, h6, header, hr, main, ol, p, pre, section, table, ul"
)
_LINES = "br, caption, dd, dt, figcaption, li, tr"
_CELLS = "td, th"
_KEEP_SPACE = {" ": "\ue000", "\n": "\ue001", "\t": "\ue002"}
_RESTORE_SPACE = str.maketrans({mark: space for space, mark in _KEEP_SPACE.items()})


@dataclass(frozen=True, kw_only=True)
class Document:
    """A document as text.

    Attributes:
        name: File name, or ``stdin``.
        text: What it says; never blank.
        kind: What it was read as.
    """

    name: str
    text: str
    kind: Kind


def read_document(
    path_or_dash: Path | str, *, stdin: BinaryIO | None = None, max_bytes: int = 50_000_000
) -> Document:
    r"""Read one document.

    The kind follows from the suffix (.html, .md, .pdf, .docx, ...), else from the content:
    ``%PDF-``, ``{\rtf``, the parts of an archive, or, where there is no .txt suffix,
    ``<!doctype html`` or ``<html``. The rest is text, in UTF-8 or the encoding it looks like.

    ``-`` is standard input (``stdin``, if not the process's own).

    Raises:
        InputError: If the file is missing, a folder, a URL, not permitted, too large, empty
            or blank, of another format, damaged, encrypted, or a PDF without a text layer.
    """
    require_no_url(str(path_or_dash))
    if str(path_or_dash) == "-":
        name, suffix = "stdin", ""
        data = (stdin or sys.stdin.buffer).read(max_bytes + 1)
    else:
        path = Path(path_or_dash)
        name, suffix = path.name, path.suffix.lower()
        data = _read_file(path, max_bytes)
    return document_of_bytes(data, name=name, suffix=suffix, max_bytes=max_bytes)


def require_no_url(place: str) -> None:
    """Refuse the address of a page in place of a file; an InputError with the way out."""
    if _URL.match(place) and not Path(place).exists():
        raise InputError(
            "A URL is not read.",
            got=place,
            expected="a file, or - for standard input",
            fix=f"Fetch it first, and give the file: curl -L -o page.html {place}",
        )


def document_of_bytes(
    data: bytes, *, name: str, suffix: str = "", max_bytes: int = 50_000_000
) -> Document:
    """Read one document from its bytes; kinds and errors as for `read_document`.

    The suffix is that of its file name, as ``.html``, or nothing to go by the content.
    """
    if len(data) > max_bytes:
        raise InputError(
            "The document is too large.",
            got=f"{name}: more than {max_bytes:,} bytes",
            expected=f"at most {max_bytes:,} bytes",
            fix="cut it into parts and compress each",
        )
    kind = _kind(data, suffix)
    if kind == "pdf":
        text = _pdf_text(data, name)
    elif kind == "html":
        text = _html_text(_decode(data, name, encoding=_declared_encoding(data)))
    elif kind in ("text", "markdown"):
        refuse_foreign(data, name)
        text = _decode(data, name, encoding="utf-8")
    else:
        text = _office_text(data, kind, name)
    text = text.replace("\r\n", "\n")
    if not text.strip():
        what = "0 bytes" if not data else f"{len(data):,} bytes of {kind} without any visible text"
        raise InputError("The document is empty.", got=f"{name}: {what}", expected=_ACCEPTED)
    return Document(name=name, text=text, kind=kind)


def _read_file(path: Path, max_bytes: int) -> bytes:
    def refused(problem: str, got: str, expected: str, fix: str) -> InputError:
        return InputError(f"The document {problem}.", got=got, expected=expected, fix=fix)

    try:
        with path.open("rb") as stream:
            return stream.read(max_bytes + 1)
    except IsADirectoryError as error:
        expected = "one file, or - for standard input"
        raise refused("is a folder", str(path), expected, "name a file in it") from error
    except FileNotFoundError as error:
        expected = "a file that exists, or - for standard input"
        raise refused("is missing", str(path), expected, "check the path") from error
    except OSError as error:
        got, expected = f"{path}: {error.strerror or error}", "a file that may be read"
        raise refused("cannot be read", got, expected, "check its permissions") from error


def _kind(data: bytes, suffix: str) -> Kind:
    if suffix in _KIND_OF_SUFFIX:
        return _KIND_OF_SUFFIX[suffix]
    if data.startswith(b"%PDF-"):
        return "pdf"
    found = office_kind(data)
    if found is not None:
        return found
    if suffix == ".txt":
        return "text"
    skipped, encoding = _byte_order_mark(data) or (0, "utf-8")
    head = data[skipped:1024].decode(encoding, errors="replace").lstrip().lower()
    return "html" if head.startswith(("<!doctype html", "<html")) else "text"


def _byte_order_mark(data: bytes) -> tuple[int, str] | None:
    """Length of the byte-order mark that some data starts with, and its encoding."""
    return next(((len(bom), name) for bom, name in _BOMS if data.startswith(bom)), None)


def _declared_encoding(data: bytes) -> str:
    """Encoding that an HTML page names in its head, if Python knows it."""
    declared = EncodingDetector.find_declared_encoding(data, is_html=True)
    if declared is None or declared.lower().startswith("utf-16"):
        return "utf-8"  # a page whose declaration can be read as ASCII is not UTF-16
    try:
        b" ".decode(declared)
    except (LookupError, UnicodeError):
        return "utf-8"
    return declared


def _decode(data: bytes, name: str, *, encoding: str) -> str:
    """Decode text; a byte-order mark decides over ``encoding`` and is dropped."""
    skipped, encoding = _byte_order_mark(data) or (0, encoding)
    try:
        text = data[skipped:].decode(encoding)
    except UnicodeDecodeError as error:
        guessed = None if skipped else _guessed(data, name, _ENCODINGS)
        if guessed is None:
            raise _binary(f"{name}: byte {skipped + error.start} is not {encoding}") from error
        return guessed
    if "\0" in text and not skipped:
        text = _guessed(data, name, [_UTF_16]) or text
    if "\0" in text:
        at = skipped + len(text[: text.index("\0")].encode(encoding))
        raise _binary(f"{name}: a NUL at byte {at}")
    return text


def _guessed(data: bytes, name: str, tried: Sequence[str]) -> str | None:
    """Text in the encoding that it looks like, which is said; None where it looks like none."""
    for encodings in tried if len(data) >= _FEWEST_BYTES else ():
        found = from_bytes(data, cp_isolation=encodings.split()).best()
        if found is not None:
            log.warning("%s is not UTF-8; it is read as %s.", name, found.encoding)
            return str(found)
    return None


def _office_text(data: bytes, kind: Kind, name: str) -> str:
    """Text of a Word document, e-book or Rich Text file."""
    try:
        if kind == "rtf":
            return rtf_text(data)
        if kind == "docx":
            return _html_text(docx_html(data))
        pages = [
            _html_text(_decode(page, name, encoding=_declared_encoding(page)))
            for page in epub_pages(data)
        ]
    except InputError:
        raise
    except Exception as error:  # as with PDFs, damage shows in many ways
        raise InputError(
            f"The .{kind} file cannot be read.",
            got=f"{name}: {type(error).__name__}: {error}",
            expected=f"an undamaged .{kind} file",
            fix="open it in its program and save it anew, or as PDF",
        ) from error
    return "\n\n".join(page for page in pages if page)


def _binary(got: str) -> InputError:
    return InputError(
        "The document is binary, or text in another encoding.",
        got=got,
        expected=_ACCEPTED,
        fix="convert it to UTF-8 text first, for example with iconv or pandoc",
    )


def _html_text(markup: str) -> str:
    """Visible text of a page: title first, paragraphs apart by a blank line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MarkupResemblesLocatorWarning)
        warnings.simplefilter("ignore", XMLParsedAsHTMLWarning)
        soup = BeautifulSoup(markup, "html.parser")
    for tag in soup.select(_NOISE):
        tag.decompose()
    found = soup.find("title")
    title = " ".join(found.extract().get_text().split()) if found else ""
    _lay_out(soup)
    text = re.sub(r" *\n *", "\n", re.sub(r" {2,}", " ", soup.get_text()))
    text = re.sub(r"\n{3,}", "\n\n", text).strip().translate(_RESTORE_SPACE)
    if text.split("\n", 1)[0].strip() == title:
        return text
    return f"{title}\n\n{text}".strip()


def _lay_out(soup: BeautifulSoup) -> None:
    """Put the white space that a browser would show into the text of the tree."""
    preformatted = {id(text) for tag in soup.find_all("pre") for text in tag.find_all(string=True)}
    keep = str.maketrans(_KEEP_SPACE)
    for text in soup.find_all(string=True):
        if type(text) is not NavigableString:
            continue
        if id(text) in preformatted:
            text.replace_with(str(text).strip("\n").translate(keep))
        else:
            text.replace_with(re.sub(r"\s+", " ", str(text)))
    for cell in soup.select(_CELLS):
        blocks = cell.select(_PARAGRAPHS)
        if len(blocks) == 1 and blocks[0].name == "p":
            blocks[0].unwrap()  # as Word has it; several stay paragraphs
        if cell.find_previous_sibling(["td", "th"]):
            cell.insert_before(" | ")
    for tags, space in ((_PARAGRAPHS, "\n\n"), (_LINES, "\n")):
        for tag in soup.select(tags):
            tag.insert_before(space)
    for tag in soup.select(_PARAGRAPHS):
        tag.insert_after("\n\n")


def _page_text(page: pypdf.PageObject) -> str:
    read = page.extract_text()
    try:
        looks = page.extract_text(extraction_mode="layout", layout_mode_space_vertically=False)
    except Exception as error:  # as below; a page that can be read needs no table
        log.debug("How a page looks cannot be told: %s", error)
        return read
    return with_rows(read, looks)


def _pdf_text(data: bytes, name: str) -> str:
    """Text layer of a PDF, pages apart by a blank line."""
    try:
        pages = [_page_text(page) for page in pypdf.PdfReader(io.BytesIO(data)).pages]
    except (FileNotDecryptedError, DependencyError) as error:
        raise InputError(
            "The PDF is encrypted.",
            got=name,
            expected="a PDF that opens without a password",
            fix="save an unprotected copy, for example with qpdf --decrypt",
        ) from error
    except Exception as error:  # pypdf lets many kinds of error out of a damaged file
        raise InputError(
            "The PDF cannot be read.",
            got=f"{name}: {type(error).__name__}: {error}",
            expected="an undamaged PDF",
            fix="open it in a viewer and print it to a new PDF",
        ) from error
    text = "\n\n".join(page.strip() for page in pages if page.strip())
    if not text:
        raise InputError(
            "The PDF has no text layer.",
            got=f"{name}: {len(pages)} pages, no text in any",
            expected="a PDF with a text layer",
            fix="run OCR on it first, for example with ocrmypdf",
        )
    blank = sum(not page.strip() for page in pages)
    if blank:
        log.warning(
            "%d of %d pages of %s have no text; if they are scans, run OCR on it first.",
            blank,
            len(pages),
            name,
        )
    # Broken font tables yield NULs and lone surrogates, which no tokenizer takes.
    return text.replace("\0", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
