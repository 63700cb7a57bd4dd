"""A table and its text as CSV, Markdown and LaTeX.

The LaTeX needs only the packages booktabs and amssymb. It fits the text width of a plain article (345 pt): a table with
too many columns becomes several tabulars below each other, one with too many rows several `table` environments.
"""

from __future__ import annotations

import csv
import io
import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd

CHECK = "✓"
FORMULA = re.compile(r"'*[=+\-@\t\r]")  # how a formula begins, and a text made harmless
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?", re.IGNORECASE)

TEXT_WIDTH = 340.0  # pt; LaTeX's article at 10 pt has 345, but our widths are estimates
FONTS = {"footnotesize": 4.25, "scriptsize": 3.99}  # width of a digit in pt, for cmr8 and cmr7
# Character widths of Computer Modern, relative to a digit, where they differ much from 1.
CHARACTER_WIDTHS = dict.fromkeys("fijlrt.,:;'()[]| ", 0.65) | dict.fromkeys("mwMW+%±×−✓", 1.65)
COLUMN_GAP = 4.0  # pt, twice \tabcolsep
MAX_PADDING = 40  # characters; longer Markdown cells do not widen the whole column
LINES_PER_PAGE = 46  # in \footnotesize, leaving room for the caption


@dataclass(frozen=True, kw_only=True)
class Heading:
    """Heading of a printed column. name: of the CSV column. text: may have several lines. left: left-aligned.

    Adjacent columns of one `group` stay in one tabular if they fit.
    """

    name: str
    text: str
    group: str = ""
    left: bool = False


@dataclass(frozen=True)
class Entry:
    """The text of one cell of a printed table; `best` entries are bold."""

    text: str
    best: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """A table in full precision (`frame`) and in print (`headings`, `rows`).

    keys: number of leading columns that identify a row.
    notes: sentences below the table (what failed, what is pending).
    """

    name: str
    caption: str
    frame: pd.DataFrame
    headings: tuple[Heading, ...]
    rows: tuple[tuple[Entry, ...], ...]
    notes: tuple[str, ...] = ()
    keys: int = 1


def with_integers(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """`frame` for CSV: the columns `names` as integers, and None for missing values."""
    shown = frame.astype(object).where(frame.notna(), None)
    for name in names:
        whole = [None if pd.isna(value) else int(value) for value in shown[name]]
        shown[name] = pd.Series(whole, index=shown.index, dtype=object)  # None would turn integers into floats
    return shown


def csv_text(frame: pd.DataFrame) -> str:
    """CSV with the shortest digits that round-trip each float; missing values are empty.

    A spreadsheet would execute a text that begins like a formula, such as a class named ``=cmd()``. It gets an
    apostrophe in front, and so does a text that begins with apostrophes and a formula: to undo it, remove the first
    apostrophe of those. Numbers stay.
    """
    header = [str(name) for name in frame.columns]
    return "".join(_csv_line(row) for row in (header, *frame.itertuples(index=False)))


def _csv_line(row: Sequence[Any]) -> str:
    out = io.StringIO()
    # This terminator, because the writer then quotes texts with either character
    csv.writer(out, lineterminator="\r\n").writerow([_plain(value) for value in row])
    return out.getvalue().removesuffix("\r\n") + "\n"


def markdown_text(table: Table) -> str:
    """GitHub-flavoured Markdown: caption, table with aligned columns, notes."""
    header = [escape_markdown(heading.text).replace("\n", "<br>") for heading in table.headings]
    body = [
        [f"**{text}**" if entry.best else text for entry in row for text in [escape_markdown(entry.text)]]
        for row in table.rows
    ]
    widths = [min(MAX_PADDING, max(3, *(len(row[place]) for row in [header, *body]))) for place in range(len(header))]
    rules = [
        ":" + "-" * (width - 1) if heading.left else "-" * (width - 1) + ":"
        for heading, width in zip(table.headings, widths, strict=True)
    ]
    lines = [
        "| "
        + " | ".join(
            text.ljust(width) if heading.left else text.rjust(width)
            for heading, text, width in zip(table.headings, row, widths, strict=True)
        )
        + " |"
        for row in [header, rules, *body]
    ]
    notes = [f"- {escape_markdown(note)}" for note in table.notes]
    return "\n".join([escape_markdown(table.caption), "", *lines, *([""] if notes else []), *notes, ""])


def latex_text(table: Table) -> str:
    r"""One or more `table` environments, for ``\input`` in a document that loads booktabs and amssymb."""
    # The larger font, unless the smaller one needs fewer tabulars.
    font = min(FONTS, key=lambda name: len(_column_blocks(table, FONTS[name])))
    pages: list[list[str]] = [[]]
    lines_left = LINES_PER_PAGE
    for rows in _row_blocks(table):
        for columns in _column_blocks(table, FONTS[font]):
            lines = len(rows) + 4
            if pages[-1] and lines > lines_left:
                pages.append([])
                lines_left = LINES_PER_PAGE
            pages[-1].append(_tabular(table, rows, columns, FONTS[font]))
            lines_left -= lines
    notes = "".join(f"\\par\\smallskip {escape_latex(note)}\n" for note in table.notes)
    environments = []
    for page, tabulars in enumerate(pages):
        caption = escape_latex(table.caption) if page == 0 else f"Table~\\ref{{tab:{table.name}}}, continued."
        label = f"\\label{{tab:{table.name}}}\n" if page == 0 else ""
        environments.append(
            "\\begin{table}[htbp]\n\\centering\n"
            f"\\caption{{{caption}}}\n{label}\\vspace{{4pt}}\n"
            f"\\{font}\n\\setlength{{\\tabcolsep}}{{{COLUMN_GAP / 2:g}pt}}\n"
            + "\\par\\medskip\n".join(tabulars)
            + (f"\\begin{{flushleft}}\n{notes}\\end{{flushleft}}\n" if notes and page == len(pages) - 1 else "")
            + "\\end{table}\n"
        )
    return "% \\usepackage{booktabs,amssymb}\n" + "\n".join(environments)


def escape_markdown(text: str) -> str:
    """Escape Markdown syntax in `text`; line feeds are kept."""
    return re.sub(r"([\\`*_\[\]<>|#~$])", r"\\\1", text)


LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",  # \textquotedbl does not exist in LaTeX's default encoding
    "`": r"\char96{}",
    # After the end of a row, LaTeX would read these as its options.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    # Two in a row would become a dash.
    "-": "{-}",
    CHECK: r"\checkmark{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "Δ": r"$\Delta$",
    "−": "$-$",
    "–": "--",
    "≥": r"$\geq$",
    "ß": r"{\ss}",
    "æ": r"{\ae}",
    "Æ": r"{\AE}",
    "ø": r"{\o}",
    "Ø": r"{\O}",
    "ł": r"{\l}",
    "Ł": r"{\L}",
    "œ": r"{\oe}",
    "Œ": r"{\OE}",
}
ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
}


def escape_latex(text: str) -> str:
    """Escape any text for LaTeX, as ASCII where possible.

    A character that pdfLaTeX does not support prints as itself in XeLaTeX and LuaLaTeX, and as its code point, such as
    ``[U+732B]``, in pdfLaTeX. A name in another script therefore never breaks the document.
    """
    return "".join(_latex_character(character) for character in unicodedata.normalize("NFC", text))


def _latex_character(character: str) -> str:
    if character in LATEX:
        return LATEX[character]
    if character.isascii():
        return character if character.isprintable() else " "
    parts = unicodedata.normalize("NFD", character)
    base, mark = parts[0], parts[1:]
    if mark in ACCENTS and base.isascii() and base.isalpha():
        return f"\\{ACCENTS[mark]}{{{base}}}"
    if not character.isprintable():
        return " "
    # Only XeTeX and LuaTeX define \Umathchar.
    return f"{{\\ifdefined\\Umathchar {character}\\else{{[}}U+{ord(character):04X}{{]}}\\fi}}"


def _row_blocks(table: Table) -> Iterator[Sequence[Sequence[Entry]]]:
    rows_at_once = LINES_PER_PAGE - 4
    for start in range(0, max(1, len(table.rows)), rows_at_once):
        yield table.rows[start : start + rows_at_once]


def _widths(table: Table, digit: float) -> list[float]:
    """Estimated column widths in pt; left-aligned text wraps at half the text width."""
    widths = []
    for place, heading in enumerate(table.headings):
        lines = [_width_in_digits(line) for line in heading.text.split("\n")]
        # Bold is 15% wider in Computer Modern.
        lines += [_width_in_digits(row[place].text) * (1.15 if row[place].best else 1) for row in table.rows]
        widths.append(digit * max(lines) + COLUMN_GAP)
    longest = TEXT_WIDTH / 2
    return [
        min(width, longest) if heading.left else width for width, heading in zip(widths, table.headings, strict=True)
    ]


def _width_in_digits(text: str) -> float:
    return sum(CHARACTER_WIDTHS.get(character, 1.3 if character.isupper() else 1.0) for character in text)


def _column_blocks(table: Table, digit: float) -> list[list[int]]:
    """Column indices of each tabular: the keys in every tabular, groups together if they fit."""
    widths = _widths(table, digit)
    keys = list(range(table.keys))
    room = TEXT_WIDTH + COLUMN_GAP - sum(widths[: table.keys])
    blocks: list[list[int]] = [[]]
    others = range(table.keys, len(table.headings))
    for _, members in groupby(others, key=lambda place: table.headings[place].group):
        group = list(members)
        if blocks[-1] and sum(widths[place] for place in blocks[-1] + group) > room:
            blocks.append([])
        for place in group:
            if blocks[-1] and sum(widths[other] for other in [*blocks[-1], place]) > room:
                blocks.append([])
            blocks[-1].append(place)
    return [keys + block for block in blocks]


def _tabular(table: Table, rows: Sequence[Sequence[Entry]], columns: Sequence[int], digit: float) -> str:
    headings = [table.headings[place] for place in columns]
    height = max(heading.text.count("\n") + 1 for heading in headings)
    header = []
    for line in range(height):
        texts = [([""] * height + heading.text.split("\n"))[-height:][line] for heading in headings]
        header.append([escape_latex(text) for text in texts])
    body = [
        [
            f"\\textbf{{{escape_latex(entry.text)}}}" if entry.best else escape_latex(entry.text)
            for entry in (row[place] for place in columns)
        ]
        for row in rows
    ]
    widths = _widths(table, digit)
    alignment = ""
    for place, heading in zip(columns, headings, strict=True):
        broken = heading.left and widths[place] == TEXT_WIDTH / 2
        check = rows and all(row[place].text in ("", CHECK) for row in rows)
        alignment += f"p{{{widths[place]:g}pt}}" if broken else "l" if heading.left else "c" if check else "r"
    return "\n".join(
        [
            f"\\begin{{tabular}}{{@{{}}{alignment}@{{}}}}",
            "\\toprule",
            *(" & ".join(row) + r" \\" for row in header),
            "\\midrule",
            *(" & ".join(row) + r" \\" for row in body),
            "\\bottomrule",
            "\\end{tabular}\n",
        ]
    )


def _plain(value: Any) -> Any:
    """A value as CSV shows it. Counts are already int here."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return _no_formula(value)
    return repr(float(value)) if isinstance(value, float) else value


def _no_formula(text: str) -> str:
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text
