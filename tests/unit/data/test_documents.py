import io
import zipfile

import pypdf
import pytest
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from icae.data.documents import read_document
from icae.data.pdf_tables import with_rows
from icae.errors import InputError
from icae.memory import memory_bytes
from word_memories import word_memory

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


def placed(*texts):
    """What to put into parentheses for `pdf`: texts at places (x, y)."""
    return ") Tj ET BT (".join(f") Tj ET BT /F1 12 Tf {x} {y} Td ({text}" for x, y, text in texts)


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


def zipped(name):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, "x")
    return out.getvalue()


W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def docx(*paragraphs, cells=()):
    def paragraph(text):
        return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"

    row = "".join(f"<w:tc>{paragraph(text)}</w:tc>" for text in cells)
    table = f"<w:tbl><w:tr>{row}</w:tr></w:tbl>" if cells else ""
    body = "".join(map(paragraph, paragraphs)) + table
    kinds = "http://schemas.openxmlformats.org/package/2006/content-types"
    relations = "http://schemas.openxmlformats.org/package/2006/relationships"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("[Content_Types].xml", f'<Types xmlns="{kinds}"/>')
        archive.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{relations}"><Relationship Id="r1" Type="{office}"'
            ' Target="word/document.xml"/></Relationships>',
        )
        archive.writestr(
            "word/document.xml", f"<w:document {W}><w:body>{body}</w:body></w:document>"
        )
    return out.getvalue()


def epub(**pages):
    items = "".join(f'<item id="{n}" href="{n}%20x.xhtml"/>' for n in pages)
    order = "".join(f'<itemref idref="{n}"/>' for n in reversed(pages))
    package = f'<package xmlns="http://www.idpf.org/2007/opf">{items}{order}</package>'
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        archive.writestr(
            "META-INF/container.xml",
            '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
            '<rootfile full-path="OPS/book.opf"/></rootfiles></container>',
        )
        archive.writestr("OPS/book.opf", package)
        for name, text in pages.items():
            archive.writestr(f"OPS/{name} x.xhtml", page(text))
    return out.getvalue()


RTF = rb"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0 Arial;}}\f0 Gr\'fc\'dfe an\par \b alle\b0 .}"
BOOK = epub(second="<p>Then the end.</p>", first="<p>In the beginning.</p>")
BOOK_TEXT = "In the beginning.\n\nThen the end."

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
        (page(CELLS).encode(), None, "a | b\nc", "html"),
        *(
            (docx("Grüße", "an alle", cells=("1", "2")), n, "Grüße\n\nan alle\n\n1 | 2", "docx")
            for n in ("a.docx", None, "a.txt")
        ),
        *((BOOK, n, BOOK_TEXT, "epub") for n in ("a.epub", None)),
        *((RTF, n, "Grüße an\nalle.", "rtf") for n in ("a.rtf", None, "a.txt")),
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


ENCODED = {
    "utf-16-le": "Für die Überprüfung der Größe müssen Sie Rechte haben.",
    "utf-16-be": "プログラムをインストールするには管理者権限が必要です。",
    "cp949": "프로그램을 설치하려면 관리자 권한이 필요합니다.",
    "shift-jis": "プログラムをインストールするには管理者権限が必要です。",
    "euc-jp": "プログラムをインストールするには管理者権限が必要です。",
    "gb18030": "安装此程序需要管理员权限。有关详细信息，请参阅手册。",
    "big5": "安裝此程式需要系統管理員權限。有關詳細資訊，請參閱手冊。",
    "cp1252": "Été à la plage, où l’on déjeune. Les élèves étaient très contents.",
    "cp1250": "Zażółć gęślą jaźń. Proszę przeczytać instrukcję przed użyciem.",
    "cp1251": "Для установки программы требуются права администратора.",
}


@pytest.mark.parametrize("encoding", ENCODED)
def test_text_in_another_encoding_is_read_and_that_is_said(tmp_path, caplog, encoding):
    text = ENCODED[encoding]
    assert read(text.encode(encoding), "a.txt", tmp_path).text == text
    assert "a.txt is not UTF-8; it is read as" in caplog.text


@pytest.mark.parametrize(
    "data",
    [bytes(range(1, 256)) * 4, b"A text with a \0 in it. " * 9, b"\x80\x04\x95\xff\x81" * 40],
)
def test_what_looks_like_no_encoding_is_refused_and_none_is_said(caplog, data):
    with pytest.raises(InputError, match="binary"):
        read(data)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("data", "name", "what", "way"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 99, "a.doc", "old Office", "libreoffice"),
        (b"\x89PNG\r\n\x1a\n\0\0", "a.png", "an image", "OCR"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", None, "an image", "OCR"),
        (b"RIFF\0\0\0\0WEBPVP8 ", None, "an image", "OCR"),
        (b"\0\0\0\x18ftypmp42", "a.mp4", "sound or video", "transcript"),
        (b"\x7fELF\2\1\1", "a.bin", "a program", "name a document"),
        (zipped("notes.txt"), "a.zip", "an archive", "unpack"),
        (zipped("xl/workbook.xml"), "a.xlsx", "spreadsheet", "CSV"),
        (zipped("META-INF/manifest.xml"), "a.odt", "OpenDocument", "libreoffice"),
        (memory_bytes(word_memory("one two")), "a.txt", "a memory file", "icae ask"),
        (zipped("x"), "a.docx", ".docx file cannot be read", "save it anew"),
        (b"no archive", "a.epub", ".epub file cannot be read", "save it anew"),
    ],
)
def test_file_of_another_format_is_named_with_the_way_out(tmp_path, data, name, what, way):
    with pytest.raises(InputError) as caught:
        read(data, name, tmp_path)
    assert what in caught.value.message
    assert way in caught.value.fix


def test_archive_that_unpacks_to_too_much_is_refused(monkeypatch):
    monkeypatch.setattr("icae.data.formats.MAX_UNPACKED_BYTES", 100)
    with pytest.raises(InputError, match="bytes unpacked"):
        read(BOOK)


@pytest.mark.parametrize("url", ["https://example.org/a.html", "http:/example.org", "ftp://x"])
def test_url_is_refused_with_the_way_out(url):
    with pytest.raises(InputError, match="URL is not read") as caught:
        read_document(url)
    assert "curl" in caught.value.fix


def test_pages_without_text_beside_others_are_said(caplog):
    assert read(pdf("First.", "", "")).text == "First."
    assert "2 of 3 pages of stdin have no text" in caplog.text


RULE = "The board met in March and"
ROWS = [["Quarter", "Boats sold", "Revenue"], ["First", "12", "1,200"], ["Last", "", "900"]]
XS = (20, 100, 200)


def test_rows_of_a_table_in_a_pdf_are_lines_whose_cells_are_apart():
    cells = [
        (x, 180 - 20 * y, text)
        for y, row in enumerate(ROWS)
        for x, text in zip(XS, row, strict=True)
        if text
    ]
    document = pdf(placed((20, 200, RULE), *cells, (20, 100, "approved all of it.")))
    assert read(document).text.splitlines() == [
        RULE,
        "Quarter | Boats sold | Revenue",
        "First | 12 | 1,200",
        "Last |  | 900",
        "approved all of it.",
    ]


def test_words_that_stand_below_others_by_chance_are_no_row():
    looks = [
        "asn1    number        of   elements",
        "int  asn1_number_of_elements   (asn1                node    const",
    ]
    read_so = "\n".join(" ".join(line.split()) for line in looks)
    assert with_rows(read_so, "\n".join(looks)) == read_so


def test_rotated_text_of_a_pdf_is_read_and_no_warning_says_it_is_not(caplog):
    turned = (
        ") Tj ET BT /F1 12 Tf 0 1 -1 0 50 50 Tm (arXiv:1) Tj ET BT /F1 12 Tf 1 0 0 1 20 100 Tm ("
    )
    assert read(pdf(f"Hello.{turned}The end.")).text.split() == ["Hello.", "arXiv:1", "The", "end."]
    assert caplog.text == ""


def test_prose_in_two_columns_and_lists_of_a_pdf_stay_in_reading_order():
    left = ["The left column", "is read first and", "to its end."]
    right = ["Then the right one", "is read in the", "same way."]
    items = [("-", "One thing"), ("-", "Other things")]
    places = [
        *((20, 200 - 15 * i, line) for i, line in enumerate(left)),
        *((180, 200 - 15 * i, line) for i, line in enumerate(right)),
        *(
            (x, 120 - 15 * i, t)
            for i, item in enumerate(items)
            for x, t in zip((20, 60), item, strict=True)
        ),
    ]
    text = read(pdf(placed(*places))).text
    assert text.split() == " ".join([*left, *right, "- One thing - Other things"]).split()


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
