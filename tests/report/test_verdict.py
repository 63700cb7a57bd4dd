"""The verdict says what the tables hold, and claims nothing that an interval does not bear out."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from bench.analysis.effects import COLUMNS
from bench.analysis.results import Analysis, analyse
from bench.analysis.run_records import load_run
from bench.analysis.statistics import BOOTSTRAP, STUDENT
from bench.report.tables.ablation import ablation
from bench.report.terminal.display import print_verdict
from bench.report.verdict import Name, Sentence, verdict, write_verdict
from tests.analysis.made_run import write_matches
from tests.report.made_run import matrix, write_run

REFERENCE = sorted(Path(__file__).parents[2].glob("results/reference/*/plan.json"))
CLAIMS = re.compile(r"\b(higher|lower|helps?|hurts?|better|worse|faster|slower|gains?|loss|improves?|raises?)\b")
NUMBER = re.compile(r"\d+(?:\.\d+)?")
NO_FIGURES = re.compile(r"95% interval|AP50")  # names that have digits in them


def said(folder: Path) -> list[Sentence]:
    run = load_run(folder)
    return verdict(analyse(run))


def has(sentences: list[Sentence], text: str) -> Sentence:
    found = [sentence for sentence in sentences if text in sentence.text]
    assert len(found) == 1, [sentence.text for sentence in sentences]
    return found[0]


def check_words(sentence: Sentence) -> None:
    """Outside names, every number of the text is a cited figure."""
    words = " ".join(part for part in sentence.parts if isinstance(part, str))
    assert not NUMBER.findall(NO_FIGURES.sub("", words)), sentence.text
    named = [part.text for part in sentence.parts if isinstance(part, Name)]
    rest = NO_FIGURES.sub("", sentence.text)
    for name in sorted(named, key=len, reverse=True):
        rest = rest.replace(name, "")
    cited = {number for figure in sentence.figures for number in NUMBER.findall(figure.text)}
    assert set(NUMBER.findall(rest)) <= cited, sentence.text
    assert sentence.text[-1] == "." and "nan" not in rest


def check_claims(sentence: Sentence, effects: pd.DataFrame) -> None:
    """Words of gain and loss stand beside effects alone whose interval leaves zero out, each on the right side."""
    names = [part.text for part in sentence.parts if isinstance(part, Name)]
    words = sentence.text
    for name in names:
        words = words.replace(name, "")
    claims = CLAIMS.findall(words)
    if not claims:
        return
    cells = {figure.row for figure in sentence.figures if figure.table == "effects"}
    assert len(cells) == len(claims), sentence.text
    for claim, cell in zip(claims, dict.fromkeys(f.row for f in sentence.figures), strict=True):
        measure, contrast = cell.split(", ", maxsplit=1)
        row = effects[
            (effects["measure"] == measure) & (effects["contrast"] == contrast) & (effects["class"] == "")
        ].iloc[0]
        assert (row["low"] > 0 and claim == "higher") or (row["high"] < 0 and claim == "lower"), sentence.text


def check_cells(analysis: Analysis, sentences: list[Sentence]) -> None:
    """Each cited value is the one that stands in its cell."""
    run, effects = analysis.run, analysis.effects
    errors = analysis.errors[analysis.errors["scope"] == "all"].set_index(["variant", "kind"])
    table = ablation(run).frame.set_index("variant")
    for figure in (figure for sentence in sentences for figure in sentence.figures):
        if figure.table == "effects":
            measure, contrast = figure.row.split(", ", maxsplit=1)
            place = (effects["measure"] == measure) & (effects["contrast"] == contrast) & (effects["class"] == "")
            np.testing.assert_equal(figure.value, float(effects[place].iloc[0][figure.column]))
        elif figure.table == "errors":
            variant, kind = figure.row.split(", ")
            assert figure.value == errors.loc[(variant, kind), figure.column]
        elif figure.row:
            assert figure.value == table[figure.column].astype(float)[figure.row]
        else:
            assert figure.column in table and figure.value <= len(run.cells)


@pytest.mark.parametrize("plan", REFERENCE, ids=lambda path: path.parent.name)
def test_every_figure_of_a_reference_run_stands_in_its_cell(plan: Path) -> None:
    run = load_run(plan.parent)
    analysis = analyse(run)
    effects = analysis.effects
    sentences = verdict(analysis)
    assert 5 <= len(sentences) <= 10
    check_cells(analysis, sentences)
    for sentence in sentences:
        check_words(sentence)
        check_claims(sentence, effects)


def test_one_seed_speaks_of_these_models_and_never_of_help(tmp_path: Path) -> None:
    sentences = said(write_matches(tmp_path / "run", axes=("fpn", "anchors"), controls=("half-data",)))
    clear = has(sentences, "These trained models have a higher AP with fpn")
    assert {"effect", "low", "high", "n", "p_holm"} == {figure.column for figure in clear.figures}
    assert "images" in clear.text
    assert "anchors" in has(sentences, "Not clear").text
    assert "lower with half-data" in has(sentences, "controls differ").text
    has(sentences, "One seed says nothing about other trainings")
    has(sentences, "times were taken once")
    assert not any("On this data" in sentence.text for sentence in sentences)


def test_several_seeds_speak_of_the_data_and_say_how_many_would_tell(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", factors=matrix(("fpn", "anchors")), seeds=(0, 1, 2))
    for path in folder.glob("cells/*/record.json"):
        record = json.loads(path.read_text())
        fpn, anchors = record["factors"]["fpn"], record["factors"]["anchors"]
        noise = {0: 0.0, 1: 0.01, 2: 0.02}[record["seed"]]
        record["accuracy"]["AP"] = 0.2 + noise / 50 + (0.05 + noise / 20 if fpn else 0) + (noise if anchors else 0)
        path.write_text(json.dumps(record))
    sentences = said(folder)
    assert "higher with fpn than without it" in has(sentences, "On this data AP is").text
    # A mean of one deviation: the t test needs 10 (tests/analysis/test_statistics.py)
    needed = has(sentences, "Seeds that would show")
    assert "anchors 10 (trained: 3)" in needed.text
    assert not any("seed says nothing" in sentence.text for sentence in sentences)


def test_the_pareto_set_is_that_of_a_search_over_all_pairs(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    rows = ablation(load_run(folder)).frame.set_index("variant")[["AP", "latency_p50_ms"]].astype(float)
    kept = {
        name
        for name, row in rows.iterrows()
        if not ((rows["AP"] >= row["AP"]) & (rows["latency_p50_ms"] <= row["latency_p50_ms"])).drop(name).any()
    }
    listed = has(said(folder), "no row surpasses them")
    assert {figure.row for figure in listed.figures} == kept
    times = [figure.value for figure in listed.figures if figure.column == "latency_p50_ms"]
    assert times == sorted(times)


def test_what_failed_or_has_not_run_is_said_first(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "run",
        failed={("fpn", 0): "loss is not finite at step 12"},
        pending=[("anchors", 0), ("unfreezing", 0)],
    )
    first, *rest = said(folder)
    assert first.text == "5 of 8 cells are done, 1 failed (fpn: loss is not finite at step 12), 2 pending."
    unclear = has(rest, "Not clear").text
    assert (
        unclear.startswith("Not clear, so no claim: fpn, anchors, unfreezing (missing ") and "fpn (seed 0)" in unclear
    )
    assert not any(CLAIMS.search(sentence.text) for sentence in rest)


def test_nothing_is_made_of_nothing(tmp_path: Path) -> None:
    factors = matrix(("fpn",))
    folder = write_run(tmp_path / "run", factors=factors, pending=[("baseline", 0), ("fpn", 0)])
    assert [sentence.text for sentence in said(folder)] == [
        "0 of 2 cells are done, 2 pending; nothing can be said yet."
    ]


def test_a_baseline_alone_is_compared_with_nothing(tmp_path: Path) -> None:
    sentences = said(write_run(tmp_path / "run", factors=[{}]))
    has(sentences, "baseline has an AP of")
    assert not any("Not clear" in sentence.text or "budget" in sentence.text for sentence in sentences)


def test_a_size_of_few_objects_is_not_built_on(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", factors=matrix(("fpn",)))
    assert "tiles" in has(said(folder), "lowest AP is that of small objects").text
    for path in folder.glob("cells/*/record.json"):
        record = json.loads(path.read_text())
        record["accuracy"]["ground_truths"]["small"] = 9
        path.write_text(json.dumps(record))
    sentence = has(said(folder), "lowest AP is that of small objects")
    assert "on 9 ground truths" in sentence.text and "say little" in sentence.text


CONTRASTS = (
    *((axis, "main effect") for axis in ("fpn", "anchors", "unfreezing")),
    ("fpn × anchors", "interaction"),
    ("half-data", "control"),
)


def made_up(seed: int) -> pd.DataFrame:
    """Effects of any size, sign and state, half of the time with verdicts that their intervals do not bear out."""
    draw = np.random.default_rng(seed)
    kinds = pd.DataFrame(CONTRASTS, columns=["contrast", "kind"])
    measures = pd.DataFrame(
        [("AP", "fraction of 1"), ("images_per_second", "images/s"), ("train_seconds", "s")],
        columns=["measure", "unit"],
    )
    frame = kinds.merge(measures, how="cross")
    numbers = np.sort(draw.normal(0, 0.1, (len(frame), 3)) + draw.normal(0, 0.1, (len(frame), 1)), axis=1)
    method = draw.choice([BOOTSTRAP, STUDENT, "none: missing fpn (seed 0)", "none: by the clock"], len(frame))
    without = np.char.startswith(method.astype(str), "none")
    missing = method == "none: missing fpn (seed 0)"
    frame["low"], frame["high"] = np.where(without, np.nan, numbers[:, 0]), np.where(without, np.nan, numbers[:, 2])
    frame["effect"] = np.where(missing, np.nan, numbers[:, 1])
    frame["p"] = draw.uniform(0, 0.2, len(frame))
    main = (frame["kind"] == "main effect") & (frame["measure"] == "AP")
    frame["p_holm"] = np.where(main, draw.uniform(0, 0.2, len(frame)), np.nan)
    frame["seeds_needed"] = np.where(draw.random(len(frame)) < 0.5, np.nan, 12.0)
    frame["verdict"] = draw.choice(["", "no claim", "higher", "lower", "these models: higher"], len(frame))
    if seed % 2:
        tells = (frame["low"] > 0) | (frame["high"] < 0)
        frame["verdict"] = np.where(tells, np.where(frame["effect"] > 0, "higher", "lower"), "no claim")
    frame["class"], frame["method"], frame["exploratory"] = "", method, ~main
    return frame.assign(n=7, n_of="seeds")[[*COLUMNS]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    folder = write_run(tmp_path_factory.mktemp("runs") / "run", factors=matrix(("fpn",)), seeds=(0, 1))
    return analyse(load_run(folder))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_no_effects_whatever_bring_an_unborne_claim_or_an_untraced_number(finished: Analysis, seed: int) -> None:
    effects = made_up(seed)
    analysis = replace(finished, effects=effects)
    sentences = verdict(analysis)
    check_cells(analysis, sentences)
    for sentence in sentences:
        check_words(sentence)
        check_claims(sentence, effects)


def test_the_file_names_the_cell_of_every_figure(tmp_path: Path) -> None:
    sentences = said(write_matches(tmp_path / "run", axes=("fpn", "anchors")))
    lines = write_verdict(sentences, tmp_path / "tables").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("1. The highest AP measured is that of ")  # nothing is missing
    assert sum(line.startswith("| ") for line in lines) == 2 + sum(len(sentence.figures) for sentence in sentences)
    assert any("effects: AP, fpn, low" in line for line in lines)


def test_the_terminal_shows_every_sentence_whatever_stands_in_it(tmp_path: Path) -> None:
    sentences = said(write_run(tmp_path / "run", factors=matrix(("fpn",)), failed={("fpn", 0): "[odd] [/red] text"}))
    console = Console(file=StringIO(), width=70)
    print_verdict(sentences, console)
    assert isinstance(console.file, StringIO)
    shown = " ".join(console.file.getvalue().split())
    assert all(sentence.text in shown for sentence in sentences) and "[/red]" in shown
