"""The page: complete, escaped, without network access, and without errors in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from bench.analysis.run_records import load_run
from tests.report.made_run import CLASSES, matrix, write_run
from tests.report.oracles import written_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
EVIL = "<script>alert(1)</script> \"quoted\" & 'more'"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="700" height="300"><rect width="700" height="300"/></svg>'
MEASURE = """<style>html { width: 390px; }</style><script>
const wide = [...document.querySelectorAll("body *")].filter(
  part => !part.closest(".wide") && part.getBoundingClientRect().right > 391).map(part => part.tagName);
const table = document.querySelector("#ablation table");
const place = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent.trim() === "AP");
const button = table.tHead.rows[0].cells[place].querySelector("button");
const column = () => [...table.tBodies[0].rows].map(row => row.cells[place].textContent.trim()).join(" ");
button.click();
const falling = column();
button.click();
document.body.dataset.found = `wide:${wide}|falling:${falling}|rising:${column()}|`;
</script>"""


class Outline(HTMLParser):
    """Headings, images, ids and addresses of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.levels: list[int] = []
        self.alts: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if tag == "img":
            self.alts.append(given.get("alt") or "")
        self.ids += [given["id"] or ""] if "id" in given else []
        self.addresses += [given[name] or "" for name in ("src", "href") if name in given]


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    return parser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a failed and a pending cell, a cause with markup, and a plot."""
    folder = write_run(
        tmp_path_factory.mktemp("runs") / "run",
        factors=matrix(("fpn", "anchors")),
        failed={("fpn", 0): EVIL},
        pending=[("anchors", 0)],
        changes={"source": "voc:some where/data", "data": EVIL},
    )
    (folder / "plots").mkdir()
    (folder / "plots/ap_by_variant.svg").write_text(SVG)
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return written_page(folder)


def test_user_text_is_escaped(page: str) -> None:
    assert "<script>alert(1)" not in page and page.count("&lt;script&gt;alert(1)") > 2
    assert outline(page).tags.count("script") == 1


def test_every_address_stays_within_the_page(page: str) -> None:
    parsed = outline(page)
    assert all(address.startswith(("#", "data:")) for address in parsed.addresses)
    assert "url(" not in page and "@import" not in page and "default-src 'none'" in page
    targets = {unquote(address[1:]) for address in parsed.addresses if address.startswith("#")}
    assert targets <= set(parsed.ids) and len(set(parsed.ids)) == len(parsed.ids)


def test_heading_levels_do_not_skip_and_images_have_alternative_text(page: str) -> None:
    parsed = outline(page)
    assert parsed.levels[0] == 1 and parsed.levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(parsed.levels, parsed.levels[1:], strict=False))
    assert len(parsed.alts) == 1 and len(parsed.alts[0]) > 20


def test_the_verdict_comes_first_and_each_value_names_its_source(page: str) -> None:
    assert (
        page.index('id="verdict"') < page.index('id="ablation"') < page.index('id="effects"') < page.index('id="made"')
    )
    linked = re.search(r'<a href="#best/baseline/AP" title="best: baseline, AP"><b>(\d[\d.]+)%</b>', page)
    assert linked and f'<td id="best/baseline/AP">{linked[1]}</td>' in page


def test_tables_failures_and_provenance_are_present(folder: Path, page: str) -> None:
    run = load_run(folder)
    assert page.count("✓") == 4 and "Pending: anchors, seed 0." in page
    assert all(cell.id in page for cell in run.cells) and "Traceback (most recent call last):" in page
    assert "--axes fpn,anchors" in page and "--seeds" not in page and "&#39;voc:some where/data&#39;" in page
    assert CLASSES[-1] in page


def test_a_run_without_finished_cells_has_a_page(tmp_path: Path) -> None:
    factors = matrix(("fpn",))
    page = written_page(write_run(tmp_path / "run", factors=factors, pending=[("baseline", 0), ("fpn", 0)]))
    assert "no results yet" in page and "n/a" in page and ">nan<" not in page


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_shows_no_error_sorts_and_fits_the_width_of_a_phone(folder: Path, page: str, tmp_path: Path) -> None:
    assert CHROMIUM is not None
    measured = tmp_path / "measured.html"
    measured.write_text(page.replace("</body>", f"{MEASURE}</body>"), encoding="utf-8")
    options = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    options += " --disable-component-update --disable-sync --enable-logging=stderr --dump-dom"
    done = subprocess.run(
        [CHROMIUM, *options.split(), f"--user-data-dir={tmp_path / 'profile'}", measured.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r'data-found="wide:(.*?)\|falling:(.*?)\|rising:(.*?)\|"', done.stdout)
    assert found is not None and found[1] == ""
    falling, rising = found[2].split(" "), found[3].split(" ")
    figures = [text for text in falling if text != "n/a"]
    assert figures == sorted(figures, key=float, reverse=True) and len(set(figures)) > 1
    assert rising == [*figures[::-1], "n/a", "n/a"] and falling[-2:] == ["n/a", "n/a"]
