import io

import pypdf
import pytest
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from icae.data.documents import read_document
from icae.errors import InputError

PAGE = """<!DOCTYPE html><html><head><title>On  Rivers</title><style>p {}</style></head>
<body><nav><a href="/">Home</a></nav><h1>On Rivers</h1><p>Water <b>runs</b>
down&nbsp;hill.<br>Always.</p><p>Second.</p><!-- remark --><script>track()</script>
<ul><li>Rhine</li><li>Rhone</li></ul><p hidden>secret</p>
<pre>
def f():
    return  1
</pre></body></html>"""
PAGE_TEXT = """On Rivers

Water runs down hill.
Always.

Second.

Rhine
Rhone

def f():
    return  1"""


def read(data, name=None, tmp_path=None, **options):
    """Read bytes through standard input, or through a file where a name is given."""
    if name is None:
        return read_document("-", stdin=io.BytesIO(data), **options)
    (tmp_path / name).write_bytes(data)
    return read_document(tmp_path / name, **options)


def pdf(*pages, password=None):
    writer = pypdf.PdfWriter()
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        }
    )
    for text in pages:
        page = writer.add_blank_page(300, 300)
        if text:
            fonts = DictionaryObject({NameObject("/F1"): font})
            page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
            content = DecodedStreamObject()
            content.set_data(f"BT /F1 12 Tf 20 200 Td ({text}) Tj ET".encode())
            page[NameObject("/Contents")] = writer._add_object(content)
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def page(body, *, head=""):
    return f"<html><head>{head}</head><body>{body}</body></html>"


LATIN = '<meta charset="iso-8859-1">'
CELLS = "<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>"


@pytest.mark.parametrize(
    ("data", "name", "text", "kind"),
    [
        ("Grüße\n".encode(), None, "Grüße\n", "text"),
        (b"# A\n\n- *b*  \n", "notes.md", "# A\n\n- *b*  \n", "markdown"),
        (b"\xef\xbb\xbfone\r\ntwo\r\n", None, "one\ntwo\n", "text"),
        ("\ufeffÄpfel €".encode("utf-16-le"), None, "Äpfel €", "text"),
        ("\ufeffÄpfel €".encode("utf-16-be"), None, "Äpfel €", "text"),
        (PAGE.encode(), "rivers.html", PAGE_TEXT, "html"),
        *((f"{start}{PAGE}".encode(), None, PAGE_TEXT, "html") for start in ("", "\n  ", "\ufeff")),
        (PAGE.encode(), "page.txt", PAGE, "text"),
        (page("<p>Text.</p>", head="<title>Name</title>").encode(), None, "Name\n\nText.", "html"),
        (page("café", head=LATIN).encode("iso-8859-1"), None, "café", "html"),
        *(
            (page("café", head=f'<meta charset="{impossible}">').encode(), None, "café", "html")
            for impossible in ("utf-16", "no-such", "hex")
        ),
        (page(CELLS).encode(), None, "a b\nc", "html"),
        *(
            (pdf("First page.", "", "Third page."), name, "First page.\n\nThird page.", "pdf")
            for name in ("a.pdf", "a.bin", "a.txt")
        ),
        (b"12345", None, "12345", "text"),
    ],
)
def test_document_is_read_as_what_it_is(tmp_path, data, name, text, kind):
    document = read(data, name, tmp_path)
    assert (document.name, document.text, document.kind) == (name or "stdin", text, kind)


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (page("<script>x()</script>").encode(), None, "html without any visible text"),
        (pdf("", ""), None, r"no text layer(.|\n)*2 pages(.|\n)*OCR"),
        (pdf("Secret.", password="p"), None, "encrypted"),
        *(
            (data, "a.pdf", "PDF cannot be read")
            for data in (b"%PDF-1.7\nrubbish", b"not a PDF at all", b"")
        ),
        *((data, None, "is empty") for data in (b"", b" \r\n\t", b"\xef\xbb\xbf")),
        (b"abc\xff", None, "byte 3 is not utf-8"),
        (b"\xef\xbb\xbfabc\xff", None, "byte 6 is not utf-8"),
        ("é\0".encode(), None, "NUL at byte 2"),
        (b"\xff\xfea\0\0\0", None, "NUL at byte 4"),
        (b"\xff\xfea\0b", None, "byte 4 is not utf-16-le"),
        (b"x" * 100_001, None, "more than 100,000 bytes"),
        (b"x" * 100_001, "a.txt", "more than 100,000 bytes"),
    ],
)
def test_document_that_cannot_be_used_is_refused_with_the_reason(tmp_path, data, name, message):
    with pytest.raises(InputError, match=message):
        read(data, name, tmp_path, max_bytes=100_000)


def test_file_that_cannot_be_opened_is_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"missing(.|\n)*nowhere\.txt"):
        read_document(tmp_path / "nowhere.txt")
    with pytest.raises(InputError, match="is a folder"):
        read_document(tmp_path)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(InputError, match=r"cannot be read(.|\n)*Permission denied"):
        read_document(tmp_path / "a.txt")
