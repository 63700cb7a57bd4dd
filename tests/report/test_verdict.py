"""The verdict repeats the tables and claims nothing that an interval does not support."""

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
from bench.report.citations import Name, Sentence
from bench.report.tables.ablation import ablation_table
from bench.report.terminal.verdict import print_verdict
from bench.report.verdict import verdict, write_verdict
from tests.analysis.made_run import write_matches
from tests.report.made_run import matrix, write_run
from tests.report.oracles import REFERENCE_RUNS

CLAIMS = re.compile(r"\b(higher|lower|helps?|hurts?|better|worse|faster|slower|gains?|loss|improves?|raises?)\b")
NUMBER = re.compile(r"\d+(?:\.\d+)?")
NOT_VALUES = re.compile(r"95% interval|AP50")  # words that contain digits


def said(folder: Path) -> list[Sentence]:
    run = load_run(folder)
    return verdict(analyse(run))


def has(sentences: list[Sentence], text: str) -> Sentence:
    found = [sentence for sentence in sentences if text in sentence.text]
    assert len(found) == 1, [sentence.text for sentence in sentences]
    return found[0]


def check_words(sentence: Sentence) -> None:
    """Every number outside names is a cited value."""
    words = " ".join(part for part in sentence.parts if isinstance(part, str))
    assert not NUMBER.findall(NOT_VALUES.sub("", words)), sentence.text
    named = [part.text for part in sentence.parts if isinstance(part, Name)]
    rest = NOT_VALUES.sub("", sentence.text)
    for name in sorted(named, key=len, reverse=True):
        rest = rest.replace(name, "")
    cited = {number for figure in sentence.citations for number in NUMBER.findall(figure.text)}
    assert set(NUMBER.findall(rest)) <= cited, sentence.text
    assert sentence.text[-1] == "." and "nan" not in rest


def check_claims(sentence: Sentence, effects: pd.DataFrame) -> None:
    """Words of gain and loss describe only effects whose interval excludes zero, in the right direction."""
    names = [part.text for part in sentence.parts if isinstance(part, Name)]
    words = sentence.text
    for name in names:
        words = words.replace(name, "")
    claims = CLAIMS.findall(words)
    if not claims:
        return
    cells = {figure.row for figure in sentence.citations if figure.table == "effects"}
    assert len(cells) == len(claims), sentence.text
    for claim, cell in zip(claims, dict.fromkeys(f.row for f in sentence.citations), strict=True):
        measure, contrast = cell.split(", ", maxsplit=1)
        row = effects[
            (effects["measure"] == measure) & (effects["contrast"] == contrast) & (effects["class"] == "")
        ].iloc[0]
        assert (row["low"] > 0 and claim == "higher") or (row["high"] < 0 and claim == "lower"), sentence.text


def check_cells(analysis: Analysis, sentences: list[Sentence]) -> None:
    """Each cited value equals its source."""
    run, effects = analysis.run, analysis.effects
    errors = analysis.errors[analysis.errors["scope"] == "all"].set_index(["variant", "kind"])
    table = ablation_table(run).frame.set_index("variant")
    for figure in (figure for sentence in sentences for figure in sentence.citations):
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


def test_there_is_a_reference_run() -> None:
    assert REFERENCE_RUNS


@pytest.mark.parametrize("folder", REFERENCE_RUNS, ids=lambda folder: folder.name)
def test_every_number_about_a_reference_run_has_a_source(folder: Path) -> None:
    run = load_run(folder)
    analysis = analyse(run)
    effects = analysis.effects
    sentences = verdict(analysis)
    assert 5 <= len(sentences) <= 10
    check_cells(analysis, sentences)
    for sentence in sentences:
        check_words(sentence)
        check_claims(sentence, effects)


def test_one_seed_claims_cover_these_models_only(tmp_path: Path) -> None:
    sentences = said(write_matches(tmp_path / "run", axes=("fpn", "anchors"), controls=("half-data",)))
    clear = has(sentences, "In these trained models, AP is higher with fpn")
    assert {"effect", "low", "high", "n", "p_holm"} == {figure.column for figure in clear.citations}
    assert "images" in clear.text
    assert "anchors" in has(sentences, "Inconclusive").text
    assert "lower with half-data" in has(sentences, "in these controls").text
    has(sentences, "One seed cannot show")
    has(sentences, "times were measured once")
    assert not any("On this dataset" in sentence.text for sentence in sentences)


def test_several_seeds_claims_cover_the_dataset_with_seeds_needed(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", factors=matrix(("fpn", "anchors")), seeds=(0, 1, 2))
    for path in folder.glob("cells/*/record.json"):
        record = json.loads(path.read_text())
        fpn, anchors = record["factors"]["fpn"], record["factors"]["anchors"]
        noise = {0: 0.0, 1: 0.01, 2: 0.02}[record["seed"]]
        record["accuracy"]["AP"] = 0.2 + noise / 50 + (0.05 + noise / 20 if fpn else 0) + (noise if anchors else 0)
        path.write_text(json.dumps(record))
    sentences = said(folder)
    assert "higher with fpn than without it" in has(sentences, "On this dataset, AP is").text
    # For a difference of one standard deviation, the t test needs 10.
    needed = has(sentences, "Seeds needed to detect")
    assert "anchors 10 (trained: 3)" in needed.text
    assert not any("One seed" in sentence.text for sentence in sentences)


def test_the_pareto_front_matches_brute_force(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    rows = ablation_table(load_run(folder)).frame.set_index("variant")[["AP", "latency_p50_ms"]].astype(float)
    kept = {
        name
        for name, row in rows.iterrows()
        if not ((rows["AP"] >= row["AP"]) & (rows["latency_p50_ms"] <= row["latency_p50_ms"])).drop(name).any()
    }
    listed = has(said(folder), "No variant beats these")
    assert {figure.row for figure in listed.citations} == kept
    times = [figure.value for figure in listed.citations if figure.column == "latency_p50_ms"]
    assert times == sorted(times)


def test_failed_and_pending_cells_come_first(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "run",
        failed={("fpn", 0): "loss is not finite at step 12"},
        pending=[("anchors", 0), ("unfreezing", 0)],
    )
    first, *rest = said(folder)
    assert first.text == "5 of 8 cells are done, 1 failed (fpn: loss is not finite at step 12), 2 pending."
    unclear = has(rest, "Inconclusive").text
    assert unclear.startswith("Inconclusive: fpn, anchors, unfreezing (missing ")
    assert "fpn (seed 0)" in unclear
    assert not any(CLAIMS.search(sentence.text) for sentence in rest)


def test_a_run_without_results_has_one_sentence(tmp_path: Path) -> None:
    factors = matrix(("fpn",))
    folder = write_run(tmp_path / "run", factors=factors, pending=[("baseline", 0), ("fpn", 0)])
    assert [sentence.text for sentence in said(folder)] == ["0 of 2 cells are done, 2 pending; no results yet."]


def test_a_baseline_alone_has_no_comparison(tmp_path: Path) -> None:
    sentences = said(write_run(tmp_path / "run", factors=[{}]))
    has(sentences, "baseline has an AP of")
    assert not any("Inconclusive" in sentence.text or "budget" in sentence.text for sentence in sentences)


def test_a_size_with_few_objects_gets_no_hint(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", factors=matrix(("fpn",)))
    assert "tiles" in has(said(folder), "lowest AP on small objects").text
    for path in folder.glob("cells/*/record.json"):
        record = json.loads(path.read_text())
        record["accuracy"]["ground_truths"]["small"] = 9
        path.write_text(json.dumps(record))
    sentence = has(said(folder), "lowest AP on small objects")
    assert "on 9 ground truths" in sentence.text and "too few objects" in sentence.text


CONTRASTS = (
    *((axis, "main effect") for axis in ("fpn", "anchors", "unfreezing")),
    ("fpn × anchors", "interaction"),
    ("half-data", "control"),
)


def made_up(seed: int) -> pd.DataFrame:
    """Random effects; half of the time with verdicts that contradict their intervals."""
    draw = np.random.default_rng(seed)
    kinds = pd.DataFrame(CONTRASTS, columns=["contrast", "kind"])
    measures = pd.DataFrame(
        [("AP", "fraction of 1"), ("images_per_second", "images/s"), ("train_seconds", "s")],
        columns=["measure", "unit"],
    )
    frame = kinds.merge(measures, how="cross")
    numbers = np.sort(draw.normal(0, 0.1, (len(frame), 3)) + draw.normal(0, 0.1, (len(frame), 1)), axis=1)
    method = draw.choice([BOOTSTRAP, STUDENT, "none: missing fpn (seed 0)", "none: timed with one seed"], len(frame))
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
def test_no_effects_lead_to_an_unsupported_claim_or_a_number_without_source(finished: Analysis, seed: int) -> None:
    effects = made_up(seed)
    analysis = replace(finished, effects=effects)
    sentences = verdict(analysis)
    check_cells(analysis, sentences)
    for sentence in sentences:
        check_words(sentence)
        check_claims(sentence, effects)


def test_the_file_names_the_source_of_every_number(tmp_path: Path) -> None:
    sentences = said(write_matches(tmp_path / "run", axes=("fpn", "anchors")))
    lines = write_verdict(sentences, tmp_path / "tables").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("1. The highest measured AP is that of ")  # no cell is missing
    assert sum(line.startswith("| ") for line in lines) == 2 + sum(len(sentence.citations) for sentence in sentences)
    assert any("effects: AP, fpn, low" in line for line in lines)


def test_the_terminal_shows_every_sentence_with_any_text(tmp_path: Path) -> None:
    sentences = said(write_run(tmp_path / "run", factors=matrix(("fpn",)), failed={("fpn", 0): "[odd] [/red] text"}))
    console = Console(file=StringIO(), width=70)
    print_verdict(sentences, console)
    assert isinstance(console.file, StringIO)
    shown = " ".join(console.file.getvalue().split())
    assert all(sentence.text in shown for sentence in sentences) and "[/red]" in shown
