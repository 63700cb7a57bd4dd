"""The page: whole, escaped, without the network, and without a fault in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bench.analysis.results import analyse
from bench.analysis.run_records import load_run
from bench.report.page.page import request_command, write_page
from bench.report.tables.ablation import all_tables
from bench.report.verdict import verdict
from tests.report.made_run import CLASSES, matrix, write_run

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
    """Headings, images, identities, and every address that the page names."""

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


def written(folder: Path) -> str:
    run = load_run(folder)
    analysis = analyse(run)
    path = write_page(run, verdict(analysis), all_tables(analysis))
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    return parser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a failed and a pending cell, a hostile cause, and plots."""
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
    return written(folder)


def test_nothing_of_the_user_becomes_markup(page: str) -> None:
    assert "<script>alert(1)" not in page and page.count("&lt;script&gt;alert(1)") > 2
    assert outline(page).tags.count("script") == 1


def test_every_address_is_within_the_page(page: str) -> None:
    parsed = outline(page)
    assert all(address.startswith(("#", "data:")) for address in parsed.addresses)
    assert "url(" not in page and "@import" not in page and "default-src 'none'" in page
    targets = {address[1:] for address in parsed.addresses if address.startswith("#")}
    assert targets <= set(parsed.ids) and len(set(parsed.ids)) == len(parsed.ids)


def test_headings_go_down_one_level_at_a_time_and_pictures_have_words(page: str) -> None:
    parsed = outline(page)
    assert parsed.levels[0] == 1 and parsed.levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(parsed.levels, parsed.levels[1:], strict=False))
    assert len(parsed.alts) == 1 and len(parsed.alts[0]) > 20


def test_the_verdict_comes_first_and_each_figure_names_its_cell(page: str) -> None:
    assert (
        page.index('id="verdict"') < page.index('id="ablation"') < page.index('id="effects"') < page.index('id="made"')
    )
    assert re.search(r'<b title="ablation: baseline, AP">\d', page)


def test_table_failures_and_origin_are_all_there(folder: Path, page: str) -> None:
    run = load_run(folder)
    assert page.count("✓") == 4 and "<strong>" in page and "Pending: anchors, seed 0." in page
    assert all(cell.id in page for cell in run.cells) and "Traceback (most recent call last):" in page
    assert "--axes fpn,anchors --seeds 1" in request_command(run) and "'voc:some where/data'" in request_command(run)
    assert CLASSES[-1] in page


def test_a_run_of_nothing_has_a_page_too(tmp_path: Path) -> None:
    factors = matrix(("fpn",))
    page = written(write_run(tmp_path / "run", factors=factors, pending=[("baseline", 0), ("fpn", 0)]))
    assert "nothing can be said yet" in page and "n/a" in page and ">nan<" not in page


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open the page in")
def test_a_browser_finds_no_fault_sorts_and_holds_the_width_of_a_phone(folder: Path, page: str, tmp_path: Path) -> None:
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
