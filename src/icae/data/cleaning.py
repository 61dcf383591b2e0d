"""Cleaning of training text: repair characters, drop leftover markup, drop useless documents.

A line is either kept with its wording or dropped as a whole. Case, tables, code and
indentation survive. What goes is in three lists: characters that cannot be seen, lines that
are leftovers of wiki or documentation markup, and documents that are too short, hardly
letters, or the same thing over and over.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from icae.data.words import LETTER, SPACE, character_kinds, code_points

DropReason = Literal["short", "letters", "repetitive"]

# Line and paragraph separators, form feeds and vertical tabs end a line; other control
# characters, byte-order marks, zero-width spaces, word joiners and soft hyphens are removed.
_LINE_END_MARKS = "\r\v\f\u2028\u2029"
_LINE_ENDS = re.compile("\r\n|[\r\v\f\u2028\u2029]")
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\u200b\u2060\ufeff]")
_BLANK_LINES = re.compile(r"\n{4,}")

# Cheap signs of leftover markup; only lines with one of them are looked at closely.
_IMAGE_MARKS = (".jp", ".JP", ".png", ".PNG", ".svg", ".SVG", ".gif", ".GIF", ".tif", ".TIF")
_MARKS = (
    *(*_IMAGE_MARKS, "thumb", "px|", "{{", "}}", "|-", "|}"),
    *("!code", "!INCLUDE", ":::", "&nbsp;", "| "),
)
_IMAGE = r"[^\s|]*\.(?:jpe?g|png|svg|gif|tiff?)\b"
_IMAGE_START = re.compile(
    rf"(?:[-*|•]\s*)?(?:(?:File|Image):[^|\n]*?\.(?:jpe?g|png|svg|gif|tiff?)\b|(?=\S*_){_IMAGE})+",
    re.IGNORECASE,
)
_IMAGE_SHARE = 0.25
_OPTION = r"(?:right|left|center|none|upright(?:=[\d.]+)?|frame(?:less)?|alt=[^|]*)"
_LEFTOVERS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # nothing but image names
        rf"(?:[-*|•]\s*)?(?:{_IMAGE}(?:[\s|]+|$))+$",
        # image options: "thumb", "thumb|A caption", "right|200px|..."
        rf"\|?(?:{_OPTION}\|)*(?:thumb(?:nail)?|\d+px)(?:\||$)",
        # the start of a template: "{{ Infobox ... | name = ...", "{{#invoke:..."
        r"\{\{\s*#\w+:|\{\{[^}|]*\|\s*[\w -]+=",
        # wiki tables: a row break and cell attributes in one line
        r"(?=.*(?:\|-\s|\|\|)).*\b(?:align|colspan|rowspan|scope|bgcolor)=",
        # directives of Microsoft's documentation
        r"\s*!(?:INCLUDE|code-[\w+]+)\s*\[[^\]]*\]\s*$",
        r"\s*:::(?:image|code|image-end|zone|moniker|row|column)\b.*$",
        r"\s*(?:&nbsp;\s*)+$",
    )
)
# Further lines of a template: "... | born = | died = 1901 | house = ..."; a table ends in "|".
_PARAMETER = re.compile(r"(?:^|\s)\|\s*[A-Za-z]\w*(?:[ -]\w+){0,5}\s*=(?=\s|$)")
_LEAST_PARAMETERS = 3
_CLOSERS = ("}}", "|}")

_PACK_SAMPLE = 1 << 18

SHORTEST = 200
"""Characters of the shortest document."""
FEWEST_LETTERS = 0.4
"""Least share of letters among the characters that are not spaces (0..1).

Prose has about .95, code .7, tables of numbers less than .4.
"""
LEAST_COMPRESSED = 0.1
"""Least size after zlib (level 1), as a share of the UTF-8 size (0..1).

Prose has about .4, code and tables .15 to .3, one line over and over .01.
"""


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """What cleaning made of a document.

    Attributes:
        text: The clean text.
        reason: Why it is not worth keeping, or None if it is.
        lines_dropped: Lines of leftover markup that were taken out.
    """

    text: str
    reason: DropReason | None
    lines_dropped: int


def clean(text: str, *, shortest: int = SHORTEST) -> Cleaned:
    """Clean one document of at least so many characters."""
    text = repair(text)
    lines = text.split("\n")
    kept = _without_leftovers(lines) if any(mark in text for mark in _MARKS) else lines
    body = "\n".join(kept).strip("\n")
    if "\n\n\n\n" in body:
        body = _BLANK_LINES.sub("\n\n\n", body)
    reason = drop_reason(body, shortest)
    return Cleaned(text=body, reason=reason, lines_dropped=len(lines) - len(kept))


def repair(text: str) -> str:
    """Bring characters and line ends into one form; no visible character changes.

    Unicode NFC, line ends as LF, no control or zero-width characters (tabs stay), no spaces
    at the ends of lines.
    """
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    if any(mark in text for mark in _LINE_END_MARKS):
        text = _LINE_ENDS.sub("\n", text)
    text = _INVISIBLE.sub("", text)
    return "\n".join([line.rstrip() for line in text.split("\n")])


def drop_reason(text: str, shortest: int) -> DropReason | None:
    """Why a clean text is not worth keeping, or None if it is."""
    if len(text) < shortest:
        return "short"
    if letter_share(text) < FEWEST_LETTERS:
        return "letters"
    if compressed_share(text) < LEAST_COMPRESSED:
        return "repetitive"
    return None


def letter_share(text: str) -> float:
    """Share of letters of any script among the characters that are not white space, 0..1."""
    kinds = character_kinds()[code_points(text)]
    visible = np.count_nonzero(kinds & SPACE == 0)
    return float(np.count_nonzero(kinds & LETTER) / visible) if visible else 0.0


def compressed_share(text: str) -> float:
    """Size of the first 256 KiB under zlib level 1, as a share of its size; 1.0 if empty."""
    packed = text[:_PACK_SAMPLE].encode("utf-8", "surrogatepass")[:_PACK_SAMPLE]
    return len(zlib.compress(packed, 1)) / len(packed) if packed else 1.0


def _without_leftovers(lines: list[str]) -> list[str]:
    kept: list[str] = []
    depth = 0
    for line in lines:
        marked = any(mark in line for mark in _MARKS)
        if marked and _is_leftover(line):
            continue
        # "}}" alone ends a template whose start is gone; in code its braces are open here.
        if line == "|-" or (line in _CLOSERS and depth < line.count("}")):
            continue
        depth = max(0, depth + line.count("{") - line.count("}"))
        kept.append(line)
    return kept


def _is_leftover(line: str) -> bool:
    if any(pattern.match(line) for pattern in _LEFTOVERS):
        return True
    parameters = _PARAMETER.findall(line) if line[-1] != "|" else ()
    if len(parameters) >= _LEAST_PARAMETERS:
        return True
    # A caption stays out with its image name; a paragraph that starts with one stays in.
    image = _IMAGE_START.match(line)
    return image is not None and image.end() >= _IMAGE_SHARE * len(line)
