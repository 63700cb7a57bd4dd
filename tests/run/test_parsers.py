"""Options from the command line and from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import UserError
from bench.options import (
    VAL_FRACTION,
    DiagnoseOptions,
    PredictOptions,
    ReportOptions,
    RunOptions,
    ThroughputOptions,
)
from bench.run.parsers import (
    diagnose_parser,
    parse_options,
    predict_parser,
    report_parser,
    run_parser,
    throughput_parser,
)

pytestmark = pytest.mark.fast


def run_options(*words: str) -> RunOptions:
    return parse_options(RunOptions, run_parser(), words)


def test_defaults_of_the_main_job() -> None:
    options = run_options()
    assert (options.data.source, options.data.val_fraction) == ("scenes", VAL_FRACTION)
    assert (options.baseline.profile, options.baseline.weights) == ("quick", "pretrained")
    assert [options.baseline.backbone, options.baseline.steps, options.axes, options.out] == [None] * 4
    assert (options.seeds, options.first_seed, options.jobs, options.backend) == (1, 0, 1, "loky")
    assert (options.device, options.cpu_kernels, options.images, options.plan) == ("auto", "auto", True, False)
    assert (options.variants, options.worth, options.like) == (None, 1.0, None)


def test_every_option_of_the_main_job_arrives(tmp_path: Path) -> None:
    options = run_options(
        *("--data", "voc:photos", "--eval-list", "test", "--val-fraction", "0.5", "--skip-invalid"),
        *("--profile", "smoke", "--backbone", "vgg16", "--weights", "none", "--priors", "voc"),
        *("--steps", "3", "--batch", "2", "--lr", "0.5", "--axes", "fpn", "--controls", "half-data"),
        *("--axis-file", str(tmp_path / "a.py"), "--axis-file", str(tmp_path / "b.py"), "--seeds", "2"),
        *("--first-seed", "7", "--device", "cpu", "--cpu-kernels", "off", "--jobs", "4", "--backend", "ray"),
        *("--retry", "1", "--hung-after", "5", "--mix-versions", "--no-images", "--plan", "--out", "there"),
        *("--variants", "baseline,fpn", "--worth", "0.5", "--like", "earlier"),
    )
    assert (options.data.source, options.data.eval_list, options.data.val_fraction) == ("voc:photos", "test", 0.5)
    assert options.data.skip_invalid
    baseline = options.baseline
    assert (baseline.profile, baseline.backbone, baseline.weights, baseline.priors) == ("smoke", "vgg16", "none", "voc")
    assert (baseline.steps, baseline.batch, baseline.rate) == (3, 2, 0.5)
    assert (options.axes, options.controls) == ("fpn", "half-data")
    assert options.axis_files == (tmp_path.resolve() / "a.py", tmp_path.resolve() / "b.py")
    assert (options.seeds, options.first_seed, options.retries, options.hung_after) == (2, 7, 1, 5.0)
    assert (options.device, options.cpu_kernels, options.jobs, options.backend) == ("cpu", "off", 4, "ray")
    assert (options.mix_versions, options.images, options.plan, options.out) == (True, False, True, Path("there"))
    assert (options.variants, options.worth, options.like) == ("baseline,fpn", 0.5, Path("earlier"))


def test_options_of_the_other_commands() -> None:
    diagnose = parse_options(DiagnoseOptions, diagnose_parser(), [])
    assert (diagnose.baseline.backbone, diagnose.baseline.weights, diagnose.baseline.priors) == (
        "vgg16",
        "none",
        "coco",
    )
    report = parse_options(ReportOptions, report_parser(), ["one", "two"])
    assert (report.runs, report.out, report.worth) == ((Path("one"), Path("two")), None, None)
    assert parse_options(ReportOptions, report_parser(), ["one", "--worth", "2"]).worth == 2.0
    predict = parse_options(PredictOptions, predict_parser(), ["run", "a.jpg", "--threshold", "0.2"])
    assert (predict.run, predict.images, predict.threshold) == (Path("run"), (Path("a.jpg"),), 0.2)
    throughput = parse_options(ThroughputOptions, throughput_parser(), ["--batches", "8,1,8"])
    assert (throughput.batches, throughput.data.source, throughput.baseline.batch) == ((1, 8), "", 8)
    assert (throughput.cpu_kernels, throughput.precision) == ("auto", None)


def test_a_file_gives_defaults_and_the_command_line_takes_precedence(tmp_path: Path) -> None:
    config = tmp_path / "options.toml"
    config.write_text('axes = ["fpn", "anchors"]\naxis_file = ["one.py", "two.py"]\nsteps = 3\nno_images = true\n')
    options = run_options("--config", str(config), "--steps", "4")
    assert options.axes == "fpn,anchors"
    assert [path.name for path in options.axis_files] == ["one.py", "two.py"]
    assert (options.baseline.steps, options.images) == (4, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("setps = 3\n", "there is no option 'setps' \\(did you mean --steps\\?\\)"),
        ("steps = \n", "options.toml"),
        ("cpu_kernels = 'of'\n", "invalid choice: 'of' \\(did you mean off\\?\\)"),
    ],
)
def test_a_wrong_file_is_reported(text: str, message: str, tmp_path: Path) -> None:
    config = tmp_path / "options.toml"
    config.write_text(text)
    with pytest.raises(UserError, match=message):
        run_options("--config", str(config))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "0"], "0 is not above 0"),
        (["--retry", "-1"], "'-1' is not a whole number"),
        (["--lr", "inf"], "inf is not above 0"),
        (["--worth", "0"], "0 is not above 0"),
        (["--val-fraction", "1"], "1 is not between 0 and 1"),
        (["--cpu-kernels", "yes"], "invalid choice: 'yes'; there are auto, on, off"),
        (["--precision", "float32"], "unrecognized arguments: --precision"),
    ],
)
def test_a_wrong_value_is_reported(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_options(*words)
