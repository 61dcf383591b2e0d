import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from icae.data.cleaning import clean, repair

PROSE = "The old bridge was closed in spring, when the river rose above its third arch. "
STORY = (
    "A carpenter from the next valley came to look at the damage and shook his head. Nobody "
    "knew how long the oak beams had been under water, or who had paid for them. In autumn the "
    "village voted: eleven for stone, nine for wood, and one old woman for no bridge at all.\n"
)


def cleaned(text):
    return clean(text).text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a\r\nb\rc\u2028d\x0ce", "a\nb\nc\nd\ne"),
        ("son\ufeff—the so\u00adft zero\u200bwidth \x14bell\x07", "son—the soft zerowidth bell"),
        ("e\u0301", "é"),
        ("trailing  \t\n  leading", "trailing\n  leading"),
        ("tab\there", "tab\there"),
    ],
)
def test_characters_are_repaired(before, after):
    assert repair(before) == after


def test_at_most_two_blank_lines_stay():
    assert cleaned("\n\na\n\n\n\n\n\nb\n\nc\n\n\n") == "a\n\n\nb\n\nc"


@pytest.mark.parametrize(
    "line",
    [
        "thumb",
        "thumb|A view of the town",
        "right|200px|A view",
        "|thumb|left|caption",
        "Inici_acte_final_campanya_1O.jpg",
        "one.jpg two.PNG",
        "File:AcropolisatathensSitePlan.png%7Cright%7C500px",
        "- File:gold medal icon.svg QLD Blades",
        "- Athletics_pictogram.svg Athletics",
        "{{ Infobox person | name = Anaïs Nin | image = a.jpg",
        "{{#invoke:Sports table|main|style=WDL",
        "Kenya | matches = 14 | total goals = 56 | league topscorer = A. Player | biggest",
        "|- !colspan=9 style=| Regular season |- x",
        "}}",
        "|}",
        "|-",
        "!INCLUDE[product-lifecycle-status]",
        '   :::image type="content" source="./media/x.png" alt-text="A dialog":::',
        "&nbsp;",
    ],
)
def test_leftover_markup_is_dropped_and_counted(line):
    found = clean(f"before\n{line}\nafter")
    assert (found.text, found.lines_dropped) == ("before\nafter", 1)


@pytest.mark.parametrize(
    "text",
    [
        "namespace a { namespace b {\n  int x;\n}}",
        "| left | right |\n|---|---|\n|-|-|\n| a = 1 | b = 2 | c = 3 |",
        "dwStyle = WS_CHILD | WS_VISIBLE | style=WS_BORDER |",
        "std::vector<std::array<int, 2>> v{{1, 2}, {3, 4}};",
        "Use {{ value | upper }} in a template.",
        "Save the picture as report.png and open it.",
        "|F_(h)| = m|A_(n)|sin_θ and |x| = y where |z| = 1",
        "A rule of thumb: left | right",
        "+---+---+\n| a | b |\n+---+---+",
        "Women's_March.jpg On November 9, the day after the vote, people all over the country "
        "met in reaction to it, and they did so again in the next year.",
    ],
)
def test_code_tables_and_prose_survive(text):
    assert cleaned(text) == text


@settings(max_examples=60, deadline=None)
@example("|-")
@given(st.text(alphabet="ab|=-{}\n .jpg_", max_size=80))
def test_every_kept_line_was_a_line_and_cleaning_twice_changes_nothing(text):
    once = cleaned(text)
    assert set(once.splitlines()) <= {line.rstrip() for line in text.split("\n")}
    assert cleaned(once) == once


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE, "short"),
        ("12 345.6 78 + 90 = 11 | " * 30 + "total", "letters"),
        (PROSE * 60, "repetitive"),
        (PROSE + STORY, None),
        ("int add(int a, int b) {\n    return a + b;\n}\n\n" + STORY, None),
    ],
)
def test_useless_documents_are_dropped_for_a_reason(text, reason):
    result = clean(text)
    assert result.reason == reason


def test_long_lines_of_pipes_and_images_take_no_time():
    for line in ("a | b " * 20_000, "x.jpg" * 5_000 + "!", "| k = " * 5_000 + "|"):
        cleaned(f"before\n{line}\nafter")
