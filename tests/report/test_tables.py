"""Tables: the CSV contract, printed values, and LaTeX that compiles for any class name."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.results import analyse
from bench.analysis.run_records import load_run
from bench.report.notes import gradient_accumulation, timing_noise
from bench.report.tables import TABLES, all_tables, columns
from bench.report.tables.ablation import ablation_table
from bench.report.tables.conditions import conditions_table
from bench.report.tables.entries import clearly_higher
from bench.report.tables.environment import environment_table
from bench.report.tables.formats import MISSING, three_digits
from bench.report.tables.per_class import per_class_table
from bench.report.tables.typeset import escape_latex, escape_markdown, latex_text
from tests.analysis.made_run import write_matches
from tests.report.made_run import AXES, CLASSES, matrix, write_run
from tests.report.oracles import recorded_values, written_tables

CONTRACT = (
    "variant,fpn,anchors,unfreezing,seeds,AP,AP50,AP75,AP_small,AP_medium,AP_large,images_per_second,"
    "latency_p50_ms,latency_p99_ms,parameters_M,forward_GFLOP,train_seconds"
)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_no_torch_is_needed() -> None:
    modules = "bench.report, bench.report.plots, bench.report.terminal.ablation, bench.report.page.page"
    code = f"import sys, {modules}; print(sorted({{'torch', 'torchvision', 'timm'}} & set(sys.modules)))"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_csv_keeps_its_contract(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", failed={("fpn", 0): "loss is not finite"}, pending=[("anchors", 0)])
    run = load_run(folder)
    written_tables(run.folder)
    rows = read_csv(folder / "tables/ablation.csv")
    assert ",".join(rows[0]).startswith(f"{CONTRACT},status,")
    assert not [name for name in rows[0] if name.endswith("_std")]
    assert [row["variant"] for row in rows] == list(run.variants)
    by_name = {row["variant"]: row for row in rows}
    both = by_name["fpn+unfreezing"]
    assert (both["fpn"], both["anchors"], both["unfreezing"], both["seeds"]) == ("1", "0", "1", "1")
    # Full precision: the text gives exactly the float of the record.
    assert [float(both["AP"])] == recorded_values(folder, "fpn+unfreezing", "accuracy", "AP")
    assert both["ground_truths_small"] == "118" and both["latency_samples"] == "60"
    assert both["peak_memory_MiB"] == "" and both["AP_large_network"] == ""
    for name, state in (("fpn", "failed"), ("anchors", "pending")):
        assert by_name[name]["status"] == state and by_name[name]["seeds"] == "0"
        assert by_name[name]["AP"] == by_name[name]["images_per_second"] == by_name[name]["parameters_M"] == ""


def test_several_seeds_give_mean_and_sample_deviation_side_by_side(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "run", seeds=(0, 1, 2), controls=("half-data",), failed={("fpn", 1): "x"}, pending=[("anchors", 2)]
    )
    written_tables(folder)
    rows = {row["variant"]: row for row in read_csv(folder / "tables/ablation.csv")}
    names = list(rows["fpn"])
    for name in columns.AP_COLUMNS:
        assert names[names.index(name) + 1] == f"{name}_std"
    assert ",".join(name for name in names if not name.endswith("_std")).startswith(f"{CONTRACT},status,")
    for variant, seeds in (("baseline", 3), ("fpn", 2), ("half-data", 3)):
        values = recorded_values(folder, variant, "accuracy", "AP")
        assert len(values) == seeds == int(rows[variant]["seeds"])
        assert math.isclose(float(rows[variant]["AP"]), statistics.mean(values), rel_tol=1e-12)
        assert math.isclose(float(rows[variant]["AP_std"]), statistics.stdev(values), rel_tol=1e-9)
    assert rows["fpn"]["status"] == rows["anchors"]["status"] == "2 of 3 done"


def test_print_shows_percent_best_and_difference(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", failed={("fpn", 0): "loss is not finite"})
    run = load_run(folder)
    table = ablation_table(analyse(run))
    names = [heading.name for heading in table.headings]
    rows = dict(zip(run.variants, table.rows, strict=True))
    aps = {variant: recorded_values(folder, variant, "accuracy", "AP") for variant in run.variants if variant != "fpn"}
    top = max(aps, key=lambda variant: aps[variant][0])
    at = names.index("AP")
    assert rows[top][at].text == f"{100 * aps[top][0]:.1f}" and not rows[top][at].best  # without interval, no claim
    assert rows["fpn"][at].text == MISSING and rows["fpn"][names.index("AP_difference")].text == MISSING
    difference = 100 * (aps["anchors"][0] - aps["baseline"][0])
    assert rows["anchors"][names.index("AP_difference")].text == f"{difference:+.1f}"
    assert [rows["fpn+anchors"][names.index(axis)].text for axis in AXES] == ["✓", "✓", ""]
    assert "n=118" in table.headings[names.index("AP_small")].text
    assert "48 validation images" in table.caption
    assert table.notes == ("Failed: fpn, seed 0 (loss is not finite)",)


def test_the_difference_is_adjusted_for_missing_seeds(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", seeds=(0, 1, 2), pending=[("fpn", 0), ("baseline", 1)])
    run = load_run(folder)
    table = ablation_table(analyse(run))
    at = [heading.name for heading in table.headings].index("AP_difference")
    # Oracle: least squares of variant + seed, which the other variants' seeds help to separate.
    ap = {(cell.variant, cell.seed): record["accuracy"]["AP"] for cell, record in run.done()}
    design = [
        [*(name == variant for name in run.variants), *(each == seed for each in run.seeds)] for variant, seed in ap
    ]
    solution = np.linalg.lstsq(np.array(design, dtype=float), np.array(list(ap.values())), rcond=None)[0]
    difference = solution[run.variants.index("fpn")] - solution[run.variants.index("baseline")]
    expected = f"{100 * difference:+.1f}".replace("-", "−")
    assert table.rows[run.variants.index("fpn")][at].text == expected


def test_only_what_is_clearly_above_the_baseline_is_bold(tmp_path: Path) -> None:
    folder = write_matches(tmp_path / "run", axes=("fpn", "anchors"), controls=("half-data",))
    analysis = analyse(load_run(folder))
    clear = clearly_higher(analysis.effects, "AP")
    assert "fpn" in clear and not clear & {"baseline", "half-data"}
    table = ablation_table(analysis)
    at = [heading.name for heading in table.headings].index("AP")
    assert {row[0].text for row in table.rows if row[at].best} == clear
    assert "Bold: clearly above the baseline." in table.caption


def test_per_class_has_counts_and_every_variant(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run"))
    written_tables(run.folder)
    rows = read_csv(tmp_path / "run/tables/per_class.csv")
    assert list(rows[0]) == ["class", "ground_truths", *run.variants]
    assert [row["class"] for row in rows] == list(CLASSES)
    assert [row["ground_truths"] for row in rows] == ["0", "11", "12", "13", "14", "15"]
    per_class = recorded_values(tmp_path / "run", "fpn", "accuracy", "per_class")
    assert rows[0]["fpn"] == "" and [float(rows[1]["fpn"])] == [each[CLASSES[1]]["AP"] for each in per_class]


def test_conditions_have_counts_and_are_empty_if_not_annotated(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", pending=[("anchors", 0)])
    run = load_run(folder)
    written_tables(run.folder)
    rows = {row["variant"]: row for row in read_csv(folder / "tables/conditions.csv")}
    assert [float(rows["fpn"]["AP_truncated"])] == recorded_values(folder, "fpn", "accuracy", "AP_truncated")
    assert [float(rows["fpn"]["AR_untruncated"])] == recorded_values(folder, "fpn", "accuracy", "AR_untruncated")
    assert (rows["fpn"]["ground_truths_truncated"], rows["fpn"]["ground_truths_untruncated"]) == ("90", "282")
    assert rows["fpn"]["AP_occluded"] == rows["fpn"]["ground_truths_occluded"] == rows["anchors"]["AP_truncated"] == ""
    table = conditions_table(run)
    headings = {heading.name: heading.text for heading in table.headings}
    assert headings["AP_truncated"] == "AP\ntruncated\nn=90" and headings["AP_occluded"] == "AP\noccluded"
    at = list(headings).index("AP_occluded")
    assert {row[at].text for row in table.rows} == {MISSING}
    assert table.notes == ("The dataset does not annotate occluded objects.", "Pending: anchors (seed 0)")


def test_records_older_than_the_conditions_get_no_note(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    for path in folder.glob("cells/*/record.json"):
        content = json.loads(path.read_text())
        older = {name: value for name, value in content["accuracy"].items() if "truncated" not in name}
        older["ground_truths"] = {"all": 372}
        path.write_text(json.dumps(content | {"accuracy": older}))
    table = conditions_table(load_run(folder))
    assert table.notes == () and {entry.text for row in table.rows for entry in row[1:]} == {MISSING}


def test_voc_has_both_measures_in_two_tables(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", seeds=(0, 1))
    written_tables(folder)
    expected = ["voc_AP_11point", "voc_AP_11point_std", "voc_AP_area", "voc_AP_area_std"]
    for name in ("voc", "ablation"):
        rows = {row["variant"]: row for row in read_csv(folder / f"tables/{name}.csv")}
        names = list(rows["fpn"])
        assert names[names.index(expected[0]) :][:4] == expected
        values = recorded_values(folder, "fpn", "accuracy", "voc_AP_11point")
        assert math.isclose(float(rows["fpn"]["voc_AP_11point"]), statistics.mean(values))
        assert math.isclose(float(rows["fpn"]["voc_AP_11point_std"]), statistics.stdev(values))


def test_throughput_has_a_row_per_batch_and_latency_at_batch_one(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", seeds=(0, 1)))
    written_tables(run.folder)
    rows = read_csv(tmp_path / "run/tables/throughput.csv")
    assert len(rows) == 4 * len(run.variants)
    assert {row["batch"] for row in rows if row["latency_p50_ms"]} == {"1"}
    sweeps = [record["speed"]["sweep"][3]["images_per_second"] for cell, record in run.done() if cell.variant == "fpn"]
    (row,) = [row for row in rows if row["variant"] == "fpn" and row["batch"] == "8"]
    assert math.isclose(float(row["images_per_second"]), statistics.mean(sweeps))
    assert math.isclose(float(row["images_per_second_std"]), statistics.stdev(sweeps))


def test_environment_lists_differing_values(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run"))
    path = run.folder_of(run.cells[1].id) / "record.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"environment": {"torch": "2.16"}}))
    frame = environment_table(load_run(run.folder)).frame
    lines = dict(zip(frame["name"], frame["value"], strict=True))
    assert lines["torch"] == "2.15; 2.16" and lines["cpu.cores"] == "2" and lines["precision"] == "float32"


@pytest.mark.parametrize("count", [0, 1, 12])
def test_tables_work_for_any_number_of_variants(tmp_path: Path, count: int) -> None:
    axes = ("fpn", "anchors", "unfreezing", "giou")
    run = load_run(write_run(tmp_path / "run", factors=matrix(axes)[:count]))
    assert len(written_tables(run.folder)) == 3 * (len(TABLES) - 1)  # all but `lengths`
    lines = (tmp_path / "run/tables/ablation.md").read_text().splitlines()
    header = next(line for line in lines if line.startswith("| variant"))
    body = lines[lines.index(header) + 2 :]
    bars = [len(re.findall(r"(?<!\\)\|", line)) for line in [header, *body]]
    assert len(body) == count and len(set(bars)) == 1


@pytest.mark.parametrize(
    ("value", "text"), [(0.123456, "0.123"), (12.345, "12.3"), (12345.6, "12346"), (0.0, "0"), (5.4, "5.40")]
)
def test_three_digits(value: float, text: str) -> None:
    assert three_digits(value) == text


@given(st.text(st.characters(max_codepoint=0x7F)))
def test_latex_escapes_every_special_character(text: str) -> None:
    escaped = escape_latex(text)
    assert escaped.isascii() and escaped.isprintable()
    bare = re.sub(
        r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar|char96)\{\}", "", escaped
    )
    bare = re.sub(r"\\[{}$&%#_]", "", bare)
    bare = re.sub(r"\{[\[\]*-]\}", "", bare)
    assert not re.search(r"[\\{}$&%#_~^<>|\[\]*\"`-]", bare)


@given(st.text())
def test_markdown_cells_stay_cells(text: str) -> None:
    assert not re.search(r"(?<!\\)(\\\\)*\|", escape_markdown(text).replace("\\|", ""))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles_within_the_text_width(tmp_path: Path) -> None:
    names = ("one", "seeds")
    write_run(tmp_path / "one", factors=[{}])
    write_run(
        tmp_path / "seeds",
        seeds=(0, 1),
        controls=("lateral-only", "half-data"),
        failed={("fpn", 1): "50% of $x_1 & [y] \\undefined ~^ {猫"},
        changes={"data": "voc:/data/my_set #1"},
    )
    parts = []
    for name in names:
        for path in written_tables(tmp_path / name):
            if path.suffix == ".tex":
                # Both runs share one document and need distinct labels.
                path.write_text(path.read_text().replace("tab:", f"tab:{name}-"), encoding="utf-8")
                parts.append(f"\\input{{{name}/tables/{path.stem}}}")
    document = "\\documentclass{article}\\usepackage{booktabs,amssymb}\\begin{document}\n"
    (tmp_path / "all.tex").write_text(document + "\n\\clearpage\n".join(parts) + "\n\\end{document}\n")
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "all.tex"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    said = done.stdout.decode(errors="replace")
    assert done.returncode == 0, said[-2000:]
    assert "Overfull \\hbox" not in said


def test_a_long_class_list_spans_several_pages(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    for path in folder.glob("cells/*/record.json"):
        record = json.loads(path.read_text())
        figures = record["accuracy"]["per_class"]["traffic_light"]
        record["accuracy"]["per_class"] = {f"class {number}": figures for number in range(80)}
        path.write_text(json.dumps(record))
    run = load_run(folder)
    text = latex_text(per_class_table(run, analyse(run).effects))
    assert text.count("\\begin{table}") > 1 and text.count("\\label") == 1
    assert all(len(re.findall(f"^class {number} &", text, re.MULTILINE)) >= 1 for number in range(80))


def test_inconsistent_timings_are_noted(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", factors=matrix(("fpn", "unfreezing")))
    latencies = {"baseline": 40.0, "unfreezing": 48.0, "fpn": 90.0, "fpn+unfreezing": 91.0}
    for slower, noted in ((1.0, False), (2.0, True)):
        for path in folder.glob("cells/*/record.json"):
            record = json.loads(path.read_text())
            size = 5.0 if "fpn" in record["variant"] else 4.0
            record["cost"] |= {"parameters_M": size, "forward_GFLOP": size}
            factor = slower if record["variant"] == "unfreezing" else 1.0
            record["speed"]["latency_p50_ms"] = factor * latencies[record["variant"]]
            path.write_text(json.dumps(record))
        notes = timing_noise(load_run(folder))
        assert bool(notes) == noted
        if noted:
            assert "baseline and unfreezing are networks of equal size but took 40 and 96 ms" in notes[0]


@pytest.mark.parametrize("key", ["micro_batches", "pieces"])
def test_gradient_accumulation_is_noted_for_new_and_old_records(tmp_path: Path, key: str) -> None:
    folder = write_run(tmp_path / "run", factors=matrix(("fpn",)))
    assert gradient_accumulation(load_run(folder)) == ()
    for path in folder.glob("cells/*/record.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"numerics": {key: 4}}))
    (note,) = gradient_accumulation(load_run(folder))
    assert "4 micro-batches" in note


def test_the_registry_names_tables_as_their_files(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", factors=matrix(("fpn",))))
    without = [name for name in TABLES if name != "lengths"]  # the run continues no other
    assert [table.name for table in all_tables(analyse(run))] == without
