import io
import os

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


def test_standard_input_is_read_as_text():
    document = read("Grüße\n".encode())
    assert (document.name, document.text, document.kind) == ("stdin", "Grüße\n", "text")


def test_markdown_is_kept_as_it_is(tmp_path):
    document = read(b"# A\n\n- *b*  \n", "notes.md", tmp_path)
    assert (document.name, document.text, document.kind) == (
        "notes.md",
        "# A\n\n- *b*  \n",
        "markdown",
    )


def test_byte_order_mark_and_carriage_returns_go():
    assert read(b"\xef\xbb\xbfone\r\ntwo\r\n").text == "one\ntwo\n"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_with_a_byte_order_mark_is_accepted(encoding):
    assert read("\ufeffÄpfel €".encode(encoding)).text == "Äpfel €"


def test_html_becomes_its_visible_text(tmp_path):
    document = read(PAGE.encode(), "rivers.html", tmp_path)
    assert (document.text, document.kind) == (PAGE_TEXT, "html")


def test_title_comes_first_unless_the_text_begins_with_it():
    page = b"<html><title>Name</title><body><p>Text.</p></body></html>"
    assert read(page).text == "Name\n\nText."


@pytest.mark.parametrize("prefix", ["", "\n  ", "\ufeff"])
def test_html_is_known_by_its_content(prefix):
    assert read((prefix + PAGE).encode()).kind == "html"


def test_html_source_in_a_txt_file_stays_source(tmp_path):
    document = read(PAGE.encode(), "page.txt", tmp_path)
    assert (document.text, document.kind) == (PAGE, "text")


def test_declared_encoding_of_a_page_is_used():
    page = '<html><head><meta charset="iso-8859-1"></head><p>café</p></html>'
    assert read(page.encode("iso-8859-1")).text == "café"


@pytest.mark.parametrize("declared", ["utf-16", "no-such", "hex"])
def test_impossible_declared_encoding_is_read_as_utf8(declared):
    page = f'<html><head><meta charset="{declared}"></head><p>café</p></html>'
    assert read(page.encode()).text == "café"


def test_page_of_cells_keeps_them_apart():
    page = b"<html><table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table></html>"
    assert read(page).text == "a b\nc"


def test_page_without_visible_text_is_refused():
    with pytest.raises(InputError, match="bytes of html without any visible text"):
        read(b"<html><script>x()</script></html>")


@pytest.mark.parametrize("name", ["a.pdf", "a.bin", "a.txt"])
def test_pdf_is_read_page_by_page(tmp_path, name):
    document = read(pdf("First page.", "", "Third page."), name, tmp_path)
    assert (document.text, document.kind) == ("First page.\n\nThird page.", "pdf")


def test_pdf_without_a_text_layer_is_refused():
    with pytest.raises(InputError, match=r"no text layer(.|\n)*2 pages(.|\n)*OCR"):
        read(pdf("", ""))


def test_encrypted_pdf_is_refused():
    with pytest.raises(InputError, match="encrypted"):
        read(pdf("Secret.", password="p"))


@pytest.mark.parametrize("data", [b"%PDF-1.7\nrubbish", b"not a PDF at all", b""])
def test_damaged_pdf_is_refused(tmp_path, data):
    with pytest.raises(InputError, match="PDF cannot be read"):
        read(data, "a.pdf", tmp_path)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"missing(.|\n)*nowhere\.txt"):
        read_document(tmp_path / "nowhere.txt")


def test_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        read_document(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_file_without_permission_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "a.txt").chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        read_document(tmp_path / "a.txt")


def test_refusal_of_the_system_is_reported(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(InputError, match=r"cannot be read(.|\n)*Permission denied"):
        read_document(tmp_path / "a.txt")


@pytest.mark.parametrize("data", [b"", b" \r\n\t", b"\xef\xbb\xbf"])
def test_empty_or_blank_document_is_refused(data):
    with pytest.raises(InputError, match="is empty"):
        read(data)


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"abc\xff", "byte 3 is not utf-8"),
        (b"\xef\xbb\xbfabc\xff", "byte 6 is not utf-8"),
        ("é\0".encode(), "NUL at byte 2"),
        (b"\xff\xfea\0\0\0", "NUL at byte 4"),
        (b"\xff\xfea\0b", "byte 4 is not utf-16-le"),
    ],
)
def test_binary_document_is_refused_with_the_place(data, place):
    with pytest.raises(InputError, match=place):
        read(data)


@pytest.mark.parametrize("name", [None, "a.txt"])
def test_too_large_document_is_refused_at_the_first_byte_over(tmp_path, name):
    assert read(b"12345", name, tmp_path, max_bytes=5).text == "12345"
    with pytest.raises(InputError, match="more than 5 bytes"):
        read(b"123456", name, tmp_path, max_bytes=5)
