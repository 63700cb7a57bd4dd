"""The verdict repeats the tables and claims nothing that an adjusted test does not support."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from bench.analysis.effects import COLUMNS, UNDECIDED
from bench.analysis.lengths import lengths_so_far
from bench.analysis.results import Analysis, analyse
from bench.analysis.run_records import load_run
from bench.analysis.statistics import BOOTSTRAP, JOINT
from bench.report.citations import CitedValue, Command, Sentence
from bench.report.claims import claims_of
from bench.report.tables import all_tables
from bench.report.terminal.verdict import print_verdict
from bench.report.verdict import MOST_SENTENCES, verdict, write_verdict
from tests.analysis.made_run import of_steps, write_matches
from tests.report.made_run import AXES, matrix, name_of, write_run
from tests.report.oracles import REFERENCE_RUNS

NUMBER = re.compile(r"\d+(?:\.\d+)?")
NOT_VALUES = re.compile(r"95% interval|AP50")  # words that contain digits


def said(folder: Path) -> list[Sentence]:
    return verdict(analyse(load_run(folder)))


def has(sentences: list[Sentence], text: str) -> Sentence:
    found = [sentence for sentence in sentences if text in sentence.text]
    assert len(found) == 1, [sentence.text for sentence in sentences]
    return found[0]


def set_ap(folder: Path, ap: Callable[[Mapping[str, bool]], float], *, noise: float = 0.002) -> Path:
    """Replace the AP of every cell by a function of its factors, plus noise."""
    for place, path in enumerate(sorted(folder.glob("cells/*/record.json"))):
        record = json.loads(path.read_text())
        if record["status"] == "done":
            drawn = noise * float(np.random.default_rng(place).normal())
            record["accuracy"]["AP"] = 0.2 + ap(record["factors"]) + drawn
            path.write_text(json.dumps(record))
    return folder


def check_words(sentence: Sentence) -> None:
    """Every number outside names is a cited value."""
    words = " ".join(part for part in sentence.parts if isinstance(part, str))
    assert not NUMBER.findall(NOT_VALUES.sub("", words)), sentence.text
    assert "nan" not in sentence.text
    assert sentence.text[-1] == "." or isinstance(sentence.parts[-1], Command), sentence.text


def frames_of(analysis: Analysis) -> dict[str, pd.DataFrame]:
    return {table.name: table.frame for table in all_tables(analysis)}


def check_cells(analysis: Analysis, sentences: list[Sentence], tables: Mapping[str, pd.DataFrame]) -> None:
    """Each cited value equals its source in the tables."""
    for cited in (cited for sentence in sentences for cited in sentence.citations):
        if cited.table == "effects":
            measure, contrast = cited.row.split(", ", maxsplit=1)
            effects = analysis.effects
            place = (effects["measure"] == measure) & (effects["contrast"] == contrast) & (effects["class"] == "")
            np.testing.assert_equal(cited.value, float(effects[place].iloc[0][cited.column]))
        elif cited.table == "plan":
            assert cited.value == analysis.run.plan.get("worth", 1.0) / 100
        elif cited.row:
            frame = tables[cited.table]
            shown: Any = frame.set_index(frame.columns[0]).loc[cited.row, cited.column]
            assert cited.value == float(shown)
        else:
            assert cited.column in tables[cited.table] and cited.value <= len(analysis.run.cells)


def check_claims(sentence: Sentence, effects: pd.DataFrame) -> None:
    """Where a sentence says that something raises or lowers AP, the effect cited next has a verdict that says so."""
    words = ""
    for part in sentence.parts:
        if isinstance(part, str):
            words += part
        if not isinstance(part, CitedValue) or part.table != "effects":
            continue
        measure, contrast = part.row.split(", ", maxsplit=1)
        place = (effects["measure"] == measure) & (effects["contrast"] == contrast) & (effects["class"] == "")
        said_of_it = str(effects[place]["verdict"].iloc[0])
        for claimed, claim in ((r"\braises? AP (by|only|beside)|raise AP:", "higher"), (r"\blowers? AP by", "lower")):
            assert not re.search(claimed, words) or said_of_it.endswith(claim), sentence.text
        words = ""


def test_there_is_a_reference_run() -> None:
    assert REFERENCE_RUNS


@pytest.mark.parametrize("folder", REFERENCE_RUNS, ids=lambda folder: folder.name)
def test_every_number_about_a_reference_run_has_a_source(folder: Path) -> None:
    analysis = analyse(load_run(folder))
    sentences = verdict(analysis)
    assert 5 <= len(sentences) <= 1 + MOST_SENTENCES
    check_cells(analysis, sentences, frames_of(analysis))
    for sentence in sentences:
        check_words(sentence)
        check_claims(sentence, analysis.effects)
    if "2026-11-25" not in folder.name:
        return
    # No arm of this pair differs clearly from the baseline, but the effect of one axis depends on the other
    assert "fpn raises AP only beside anchors: by 3.2 points" in sentences[0].text
    # The largest effect of that run: fpn on large objects by size at the network, with the number of objects.
    largest = has(sentences, "By object size")
    assert (
        "clear effect is on large objects: fpn, averaged over the other remedies on and off, changes their AP by −18.0"
        in largest.text
    )
    assert "by size at the network's input, 57 objects, and by −0.9 points" in largest.text
    assert largest.text.endswith("by size in the original image, 141 objects.")


def test_a_longer_training_says_what_it_gained_and_which_signs_turned(tmp_path: Path) -> None:
    short = of_steps(write_matches(tmp_path / "short", axes=("fpn",), gains={"fpn": -0.5}), 200)
    long = of_steps(write_matches(tmp_path / "long", axes=("fpn",), gains={"fpn": 0.5}), 600)
    (long / "lengths.json").write_text(json.dumps(lengths_so_far(short)))
    analysis = analyse(load_run(long))
    sentences = verdict(analysis)
    check_cells(analysis, sentences, frames_of(analysis))
    for sentence in sentences:
        check_words(sentence)
    text = has(sentences, "in place of").text
    assert text.startswith("With 600 steps in place of 200, AP of the baseline goes from ")
    assert "; fpn turns from −" in text
    (long / "lengths.json").write_text(json.dumps(lengths_so_far(long)))
    assert has(said(short), "On scenes") and not any("in place of" in sentence.text for sentence in said(short))


def too_short(folder: Path) -> Path:
    """Make the loss of every cell fall to the end, also at the peak rate, and let it fit its training images."""
    of_steps(folder, 120)
    for path in folder.glob("cells/*/record.json"):
        record = json.loads(path.read_text())
        record["training_fit"] = {"images": 20, "ground_truths": 50, "AP": record["accuracy"]["AP"], "AP50": 0.5}
        path.write_text(json.dumps(record))
        noise = np.random.default_rng(0).normal(0, 0.05, 120)
        lines = [
            {"step": step, "steps": 120, "loss": 10 - step / 20 + noise[step - 1], "rate": 0.01 if step < 84 else 0.005}
            for step in range(1, 121)
        ]
        path.with_name("log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder


def test_a_training_that_was_too_short_is_continued_if_its_states_were_kept(tmp_path: Path) -> None:
    options = {"options": {"lr": 0.002, "axis_file": ["some where/axis.py"]}, "source": "voc:DIR"}
    folder = too_short(write_matches(tmp_path / "run", axes=("fpn",), changes=options))
    assert has(said(folder), "Training was too short")
    assert "--controls double-steps --out" in said(folder)[-1].text
    for path in folder.glob("cells/*"):
        (path / "before_decay.pt").touch()
    last = said(folder)[-1].text
    assert "where the learning rate began to fall" in last
    assert f"--lr 0.002 --axis-file 'some where/axis.py' --steps 360 --continue {folder} --axes fpn" in last
    assert last.endswith(f"--out {folder}-360-steps")


def test_the_command_that_finishes_a_continued_run_continues_the_same_run(tmp_path: Path) -> None:
    changes = {"continues": {"run": "results/short", "steps": 200}, "options": {"steps": 600}}
    folder = write_run(tmp_path / "run", factors=matrix(("fpn",)), pending=[("fpn", 0)], changes=changes)
    assert "--steps 600 --continue results/short --axes fpn --out " in said(folder)[-1].text


def test_the_shorter_of_several_lengths_is_preliminary(tmp_path: Path) -> None:
    folder = of_steps(write_matches(tmp_path / "run", axes=("fpn",), changes={"lengths": [200, 600]}), 200)
    assert has(said(folder), "These results are preliminary")
    of_steps(folder, 600)
    assert not any("preliminary" in sentence.text for sentence in said(folder))


def test_sizes_that_agree_are_said_once(tmp_path: Path) -> None:
    """Their AP may differ in a digit that is not shown: detections of another size are ignored."""
    analysis = analyse(load_run(write_matches(tmp_path / "run", axes=("fpn",))))
    effects = analysis.effects[~analysis.effects["measure"].str.startswith("AP_")]
    on_ap = effects[(effects["measure"] == "AP") & (effects["contrast"] == "fpn") & (effects["class"] == "")]
    sizes = [
        on_ap.assign(measure=measure, effect=on_ap["effect"] + more)
        for measure, more in (("AP_medium", 0.0), ("AP_medium_network", 1e-7))
    ]
    sentences = verdict(replace(analysis, effects=pd.concat([effects, *sizes], ignore_index=True)))
    assert has(sentences, "By object size").text.count("changes their AP by ") == 1
    assert ", and by " not in has(sentences, "By object size").text


def test_the_first_sentence_says_which_data_how_long_how_many_images_and_seeds(tmp_path: Path) -> None:
    first, scope, *_ = said(write_matches(tmp_path / "run", axes=("fpn", "anchors"), images=40))
    assert first.text.startswith(
        "On scenes (40 validation images), with efficientnet_lite0, after 120 steps and one seed: fpn raises AP by "
    )
    assert first.text.count("95% interval") == 1
    assert "but not training again: another seed may differ; this training is short" in scope.text
    several = said(write_matches(tmp_path / "several", axes=("fpn",), seeds=(0, 1, 2)))
    assert "and three seeds: fpn raises AP by " in several[0].text
    assert several[1].text.startswith("The intervals cover training again and other images of this kind")


def test_remedies_that_help_are_named_with_what_they_give_together(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", seeds=(0, 1, 2))
    set_ap(folder, lambda on: 0.05 * on["fpn"] + 0.07 * on["anchors"] - 0.04 * on["unfreezing"])
    sentences = said(folder)
    headline = sentences[0].text
    assert re.search(
        r"two remedies raise AP: fpn by [\d.]+ points \(95% interval [\d.]+ to [\d.]+\) and anchors by \d", headline
    )
    assert "; together 1" in headline
    assert re.search(r"unfreezing lowers AP by [34]\.\d points \(3\.\d to 4", has(sentences, "unfreezing lowers").text)


def test_a_remedy_that_another_spoils_is_named_with_all_arms(tmp_path: Path) -> None:
    """Averages would describe no variant here, so the headline names each arm, gains first."""
    folder = write_run(tmp_path / "run", seeds=(0, 1, 2))
    set_ap(folder, lambda on: 0.08 * on["anchors"] - 0.04 * on["fpn"] - 0.06 * on["fpn"] * on["anchors"])
    headline = said(folder)[0].text
    number = r"\d\.\d points \([^)]*\)"
    assert re.search(
        rf"anchors alone raises AP by {number}; fpn alone lowers AP by {number}; both together lower AP by {number}\.$",
        headline,
    )


def test_remedies_that_help_only_together_are_never_recommended_alone(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", seeds=(0, 1, 2))

    def ap(on: Mapping[str, bool]) -> float:
        fpn, anchors = on["fpn"], on["anchors"]
        return 0.047 if fpn and anchors else -0.01 * fpn - 0.069 * anchors

    headline = said(set_ap(folder, ap))[0].text
    assert "fpn and anchors together raise AP by 4." in headline
    assert "; neither clearly does so alone: fpn alone −" in headline and ", anchors alone −" in headline


def test_a_remedy_that_needs_another_says_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", factors=matrix(("fpn", "anchors")), seeds=(0, 1, 2))
    headline = said(set_ap(folder, lambda on: 0.05 * on["anchors"] + 0.05 * (on["fpn"] and on["anchors"])))[0].text
    assert "anchors alone raises AP by 5.0 points" in headline and "both together raise AP by 9.8 points" in headline
    assert "fpn alone changes AP by −0.1 points" in headline


@pytest.mark.parametrize(
    ("ap", "noise", "text"),
    [
        (0.0, 0.001, "no remedy changes AP by as much as 1.0 points: fpn "),
        (0.0, 0.03, "no remedy has a clear effect on AP: fpn "),
        (-0.05, 0.002, "no remedy clearly raises AP; fpn lowers AP by "),
    ],
)
def test_a_run_without_help_says_what_it_knows(tmp_path: Path, ap: float, noise: float, text: str) -> None:
    folder = write_run(tmp_path / "run", seeds=(0, 1, 2))
    headline = said(set_ap(folder, lambda on: ap * on["fpn"], noise=noise))[0]
    assert text in headline.text


def test_a_smoke_test_sounds_like_no_result(tmp_path: Path) -> None:
    folder = write_matches(tmp_path / "run", changes={"profile": "smoke"})
    sentences = [sentence.text for sentence in said(folder)]
    assert len(sentences) == 2 and sentences[0].startswith("This smoke test of 120 steps")
    assert "it is not a result" in sentences[0] and "--profile quick" in sentences[1]
    assert not re.search(r"\b(raises?|higher|lower|best|points)\b", " ".join(sentences))


def test_failed_and_pending_cells_come_second_and_the_next_step_finishes_the_run(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "run",
        failed={("fpn", 0): "the loss is nan at step 12"},
        pending=[("anchors", 0), ("unfreezing", 0)],
    )
    _, second, *rest = said(folder)
    assert second.text == (
        "5 of 8 cells are done, 1 failed (fpn: the loss is nan at step 12); training diverged in 1 of fpn, 2 pending."
    )
    assert rest[-1].text.startswith("Next, finish the run: python run_all.py ")
    assert str(folder) in rest[-1].text


def test_a_run_without_results_has_one_sentence(tmp_path: Path) -> None:
    factors = matrix(("fpn",))
    folder = write_run(tmp_path / "run", factors=factors, pending=[("baseline", 0), ("fpn", 0)])
    assert [sentence.text for sentence in said(folder)] == ["0 of 2 cells are done, 2 pending; no results yet."]


def test_a_run_without_ap_says_why(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", factors=matrix(("fpn",)))
    for path in folder.glob("cells/*/record.json"):
        record = json.loads(path.read_text())
        record["accuracy"] = {"AP": None, "ground_truths": {"all": 0}, "images": 12}
        path.write_text(json.dumps(record))
    images = [{"id": 1, "file_name": "1.jpg", "width": 9, "height": 9}]
    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1, "difficult": 1}]
    (folder / "ground_truth.json").write_text(json.dumps({"images": images, "annotations": boxes}))
    (only,) = said(folder)
    assert only.text == (
        "2 of 2 cells are done, but there is no AP: "
        "the validation images hold no ground truths that count: 1 is difficult."
    )


def test_a_baseline_alone_has_no_comparison(tmp_path: Path) -> None:
    sentences = said(write_run(tmp_path / "run", factors=[{}]))
    assert "there is nothing to compare it with" in sentences[0].text
    assert not any("undecided" in sentence.text for sentence in sentences)


def test_the_best_variant_has_a_chance_and_a_corrected_ap(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", seeds=(0, 1, 2))
    best = has(said(set_ap(folder, lambda on: 0.0, noise=0.02)), " has the highest AP, ")
    assert {cited.table for cited in best.citations} == {"best"} and "(chance to be the best" in best.text
    shown, _, corrected = (cited.value for cited in best.citations[:3])
    assert corrected < shown and "; AP corrected for picking the highest: " in best.text


def test_a_chance_is_never_called_certain(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", factors=matrix(("fpn",)), seeds=(0, 1, 2))
    assert (
        "(chance to be the best: >99%)"
        in has(said(set_ap(folder, lambda on: 0.2 * on["fpn"])), " has the highest AP, ").text
    )


def test_a_control_is_never_the_best_variant(tmp_path: Path) -> None:
    folder = write_matches(
        tmp_path / "run", axes=("fpn",), controls=("double-steps",), gains={"fpn": 0.1, "double-steps": 2.0}
    )
    assert "double-steps" not in has(said(folder), " has the highest AP, ").text


def test_drawn_scenes_lead_to_the_readers_own_data(tmp_path: Path) -> None:
    folder = write_matches(tmp_path / "run", axes=("fpn",), changes={"source": "scenes:shapes=1"})
    assert "run it on your own data: python run_all.py --data voc:DIR" in said(folder)[-1].text


def test_undecided_effects_lead_to_seeds_that_are_enough(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", seeds=(0, 1), changes={"source": "voc:some where"})
    last = said(set_ap(folder, lambda on: 0.012 * on["fpn"], noise=0.012))[-1]
    seeds = int(next(cited.value for cited in last.citations if cited.column.startswith("seeds_needed")))
    assert f"Next, add seeds: {seeds} in all find" in last.text
    assert f"--data 'voc:some where' --backbone efficientnet_lite0 --profile quick --axes {','.join(AXES)}" in last.text
    assert f"--first-seed 2 --seeds {seeds - 2}" in last.text and "python run_all.py report " in last.text


CONTRASTS = (
    *((f"{name_of(row)} vs baseline", "arm") for row in matrix() if any(row.values())),
    *((axis, "main effect") for axis in AXES),
    *(("fpn × anchors", "interaction"), ("fpn × unfreezing", "interaction")),
    *(
        (f"{one} {word} {other}", "simple effect")
        for one in AXES
        for other in AXES
        if one != other
        for word in ("without", "with")
    ),
    ("half-data vs baseline", "control"),
)


def made_up(seed: int) -> pd.DataFrame:
    """Random effects on AP with random verdicts, some without interval."""
    draw = np.random.default_rng(seed)
    frame = pd.DataFrame(CONTRASTS, columns=["contrast", "kind"])
    numbers = np.sort(draw.normal(0, 0.1, (len(frame), 3)) + draw.normal(0, 0.1, (len(frame), 1)), axis=1)
    without = draw.random(len(frame)) < 0.2
    frame["low"], frame["high"] = np.where(without, np.nan, numbers[:, 0]), np.where(without, np.nan, numbers[:, 2])
    frame["effect"] = numbers[:, 1]
    frame["p"] = frame["p_adjusted"] = draw.uniform(0, 0.2, len(frame))
    clear = (frame["low"] > 0) | (frame["high"] < 0)
    scope = draw.choice(["", "these models: "])
    claim = np.where(frame["effect"] > 0, "higher", "lower")
    other = draw.choice([UNDECIDED, "no effect worth having", "a variant diverged"], len(frame))
    said_of = np.where(clear & (draw.random(len(frame)) < 0.8), np.char.add(scope, claim.astype(str)), other)
    frame["verdict"] = np.where(without, "", said_of)
    frame["method"] = np.where(without, "none: missing fpn (seed 0)", BOOTSTRAP if scope else JOINT)
    frame = frame.assign(measure="AP", adjusted_by="Holm", exploratory=False, seeds=2, images=7)
    frame["class"] = ""
    frame["error_training"] = frame["error_images"] = 0.01
    return frame[[*COLUMNS]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    return analyse(load_run(write_run(tmp_path_factory.mktemp("runs") / "run", seeds=(0, 1))))


@pytest.fixture(scope="module")
def finished_frames(finished: Analysis) -> dict[str, pd.DataFrame]:
    return frames_of(finished)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_no_effects_lead_to_an_unsupported_claim_or_a_number_without_source(
    finished: Analysis, finished_frames: dict[str, pd.DataFrame], seed: int
) -> None:
    analysis = replace(finished, effects=made_up(seed))
    sentences = verdict(analysis)
    assert len(sentences) <= 1 + MOST_SENTENCES
    check_cells(analysis, sentences, finished_frames)
    for sentence in sentences:
        check_words(sentence)
        check_claims(sentence, analysis.effects)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_axis_is_judged_once_or_is_part_of_a_pair(finished: Analysis, seed: int) -> None:
    claims = claims_of(finished.run, made_up(seed))
    judged = [remedy.axis for remedy in claims.remedies]
    paired = {axis for pair in claims.pairs for axis in pair.axes}
    assert len(judged) == len(set(judged)) and set(judged) | paired <= set(AXES)
    assert all(str(remedy.row["verdict"]).endswith("higher") for remedy in claims.judged("helps"))


def test_the_file_names_the_source_of_every_number(tmp_path: Path) -> None:
    sentences = said(write_matches(tmp_path / "run", axes=("fpn", "anchors")))
    lines = write_verdict(sentences, tmp_path / "tables").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("1. On scenes")  # no cell is missing
    assert sum(line.startswith("| ") for line in lines) == 2 + sum(len(sentence.citations) for sentence in sentences)
    assert any("effects: AP, fpn, low" in line for line in lines)


def test_the_terminal_shows_every_sentence_with_any_text(tmp_path: Path) -> None:
    sentences = said(write_run(tmp_path / "run", factors=matrix(("fpn",)), failed={("fpn", 0): "[odd] [/red] text"}))
    console = Console(file=StringIO(), width=70)
    print_verdict(sentences, console)
    assert isinstance(console.file, StringIO)
    shown = " ".join(console.file.getvalue().split())
    assert all(sentence.text in shown for sentence in sentences) and "[/red]" in shown
