"""The command line of every command, with hints for misspelt options."""

from __future__ import annotations

import argparse
import math
import tomllib
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_type_hints

from bench.errors import UserError, nearest
from bench.options import BACKENDS, HOME, KERNEL_CHOICES, PROFILES, VAL_FRACTION, WORTH
from bench.storage.reading import read_file, reason_of

PURPOSE = "Train and compare every combination of remedies for a low SSD-300 mAP, on one shared split."
COMMANDS = ("preflight", "diagnose", "compare", "report", "predict", "throughput")

COMPARE_EPILOG = """\
example:
  python run_all.py compare old.json new=runs/7/detections.json --data coco:DIR --fail-below 1

A file is a list of {"image_id": 1, "category_id": 1, "bbox": [left, top, width, height], "score": 0.9}; image_id may be
the id or the file name of an image.

exit status: 0 compared; 3 clearly worse (--fail-below); 2 the request or a file is wrong; 130 interrupted"""

T = TypeVar("T")


def parse_options(kind: type[T], parser: Parser, words: Sequence[str]) -> T:
    """Parse the words of a command line into `kind`, a dataclass of `bench.options`.

    Raises UserError for a wrong option or value.
    """
    return _filled(kind, parse(parser, words))


class Parser(argparse.ArgumentParser):
    """argparse that raises UserError and suggests the nearest option for a misspelt one."""

    def __init__(self, program: str, description: str) -> None:
        super().__init__(prog=program, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        known = [option for action in self._actions for option in action.option_strings]
        if message.startswith("unrecognized"):
            for word in message.partition(":")[2].split():
                message += nearest(word.split("=")[0], known if word.startswith("-") else COMMANDS)
        raise UserError(f"{message}\nSee python {self.prog} --help")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            there = ", ".join(action.choices)
            raise argparse.ArgumentError(
                action, f"invalid choice: {value!r}{nearest(value, action.choices)}; there are {there}"
            )


def run_parser() -> Parser:
    """The parser of the main job."""
    parser = Parser("run_all.py", f"{PURPOSE} Other commands: {', '.join(COMMANDS)}.")
    _add_data_options(parser)
    add = parser.add_argument
    add("--profile", choices=PROFILES, default="quick", help="length of training (default: quick)")
    add(
        "--backbone",
        metavar="NAME",
        help="vgg16, efficientnet_lite0 or a timm network (default: vgg16 on a GPU, else efficientnet_lite0)",
    )
    add("--weights", default="pretrained", metavar="PATH|pretrained|none", help="weights of the backbone")
    add("--axes", metavar="A,B|none", help="axes to cross (default: fpn,anchors,unfreezing)")
    add(
        "--variants",
        metavar="A,B+C",
        help="run only these variants, named as in the tables; the baseline is always one (default: all combinations)",
    )
    add(
        "--axis-file",
        dest="axis_files",
        type=resolved,
        action="append",
        default=[],
        metavar="FILE.py",
        help="an axis of your own; may be repeated",
    )
    add(
        "--controls",
        default="none",
        metavar="A,B|none",
        help="controls to add: lateral-only, half-data, double-steps, discriminative-rates, plain-augmentation",
    )
    add("--priors", metavar="coco|voc|FILE", help="prior boxes to start from (default: coco; voc in profile paper)")
    add("--seeds", type=positive, default=1, metavar="N", help="trainings per variant (default: 1)")
    add("--first-seed", type=natural, default=0, metavar="K", help="use the seeds K, K + 1, ... (default: 0)")
    add("--steps", type=positive, help="training steps (default: set by the profile)")
    add("--batch", type=positive, help="images per step (default: set by the profile)")
    add("--lr", dest="rate", type=positive_number, help="peak learning rate (default: set by the profile)")
    add("--out", type=Path, metavar="DIR", help="results folder (default: results/<data>-<backbone>-<profile>)")
    _add_device_options(parser, auto_kernels="if a cell trains long enough to repay their compilation")
    add("--jobs", type=positive, default=1, metavar="N", help="cells to run in parallel (default: 1)")
    add("--backend", default="loky", metavar="|".join(BACKENDS), help="scheduler of the cells (default: loky)")
    add(
        "--retry",
        dest="retries",
        type=natural,
        default=0,
        metavar="N",
        help="retry a failed cell up to N times (default: 0)",
    )
    add(
        "--hung-after",
        type=positive_number,
        default=30.0,
        metavar="MINUTES",
        help="stop a cell, and mark it as failed, after this long without progress (default: 30)",
    )
    add("--mix-versions", action="store_true", help="resume despite version differences")
    add("--no-images", dest="images", action="store_false", help="keep no thumbnails of validation images for the page")
    add(
        "--worth",
        type=positive_number,
        default=WORTH,
        metavar="POINTS",
        help=f"smallest difference in AP worth having, in points (default: {WORTH:g})",
    )
    add(
        "--plan",
        action="store_true",
        help="print the cells, the expected cost and the differences that would be found; run nothing",
    )
    add(
        "--continue",
        dest="continued",
        type=Path,
        metavar="RUN",
        help="continue the trainings of an earlier run with more steps (--steps): its results stay as they are",
    )
    add(
        "--lengths",
        type=lengths,
        default=(),
        metavar="N,M",
        help="train N steps, report, continue to M steps, report: the results of the longest are in --out, those of "
        "the others beside it",
    )
    add("--like", type=Path, metavar="RUN", help="with --plan: take the variances from this earlier run, results/NAME")
    return parser


def preflight_parser() -> Parser:
    """The parser of ``preflight``."""
    parser = Parser("run_all.py preflight", "Read all data once and list every problem.")
    _add_data_options(parser)
    add = parser.add_argument
    add("--out", type=Path, metavar="DIR", help="folder for preflight.json (default: results/<data>-preflight)")
    add("--sheet", action="store_true", help="also draw 20 images and 20 training views with their boxes")
    return parser


def diagnose_parser() -> Parser:
    """The parser of ``diagnose``."""
    parser = Parser("run_all.py diagnose", "Look for causes of a low mAP in the data, without training.")
    _add_data_options(parser)
    add = parser.add_argument
    add("--priors", default="coco", metavar="coco|voc|FILE", help="priors to match the objects with (default: coco)")
    add(
        "--detections",
        type=Path,
        metavar="FILE",
        help="also score these detections of any detector on the validation split (COCO results format)",
    )
    add(
        "--weights",
        default="none",
        metavar="FILE",
        help="also score this state dict of torchvision's ssd300_vgg16 (its classes are matched to yours by name)",
    )
    add("--out", type=Path, metavar="DIR", help="results folder (default: results/<data>-diagnosis)")
    parser.set_defaults(backbone="vgg16", profile="quick")
    return parser


def compare_parser() -> Parser:
    """The parser of ``compare``."""
    parser = Parser(
        "run_all.py compare",
        "Compare the detections of two or more detectors, of any kind, on one ground truth.\n"
        "Every detector is compared with the first.",
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = COMPARE_EPILOG
    add = parser.add_argument
    add(
        "files",
        nargs="+",
        metavar="FILE",
        help="detections in COCO's results format, as FILE, named by its stem, or as NAME=FILE",
    )
    _add_data_options(parser)
    add("--all-images", action="store_true", help="evaluate on all images of the data, not on their validation split")
    add(
        "--worth",
        type=positive_number,
        default=WORTH,
        metavar="POINTS",
        help=f"smallest difference in AP worth having, in points (default: {WORTH:g})",
    )
    add(
        "--fail-below",
        type=number_from_zero,
        metavar="POINTS",
        help="exit with status 3 if a detector is clearly worse than the first by more than this: if the upper end of "
        "the 95%% interval of its difference in AP lies below -POINTS",
    )
    add("--json", action="store_true", help="print the result as JSON, and everything else on the standard error")
    add("--out", type=Path, metavar="DIR", help="results folder (default: results/<data>-comparison)")
    return parser


def report_parser() -> Parser:
    """The parser of ``report``."""
    parser = Parser(
        "run_all.py report", "Rebuild the tables, plots and page of a run from its records, or merge several runs."
    )
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="folder of a run, results/NAME; several are merged")
    add("--out", type=Path, metavar="DIR", help="folder of the merged run (default: results/merged-NAME-NAME...)")
    add(
        "--worth",
        type=positive_number,
        metavar="POINTS",
        help="smallest difference in AP worth having, in points (default: that of the run)",
    )
    add("--cache", type=Path, default=HOME / ".cache", help=argparse.SUPPRESS)
    return parser


def predict_parser() -> Parser:
    """The parser of ``predict``."""
    parser = Parser("run_all.py predict", "Draw the detections of a trained variant on images.")
    add = parser.add_argument
    add("run", type=Path, help="folder of the run, results/NAME")
    add("images", type=Path, nargs="+", metavar="IMAGE")
    add("--variant", help="row of the table (default: the one with the highest AP)")
    add("--threshold", type=float, default=0.4, help="lowest score to draw (default: 0.4)")
    add("--out", type=Path, metavar="DIR", help="folder for the drawings (default: results/NAME/predictions)")
    add("--cache", type=Path, default=HOME / ".cache", help=argparse.SUPPRESS)
    return parser


def throughput_parser() -> Parser:
    """The parser of ``throughput``."""
    parser = Parser("run_all.py throughput", "Measure each stage of inference, and training steps.")
    _add_data_options(parser)
    add = parser.add_argument
    add("--backbone", default="efficientnet_lite0", metavar="NAME", help="vgg16, efficientnet_lite0 or a timm network")
    add("--weights", default="pretrained", metavar="PATH|pretrained|none", help="weights of the backbone")
    add("--priors", metavar="coco|voc|FILE", help="prior boxes (default: coco)")
    add("--run", type=Path, metavar="DIR", help="use the trained weights, data and split of this run, results/NAME")
    add("--variant", help="row of that run's table (default: the one with the highest AP)")
    _add_device_options(parser, auto_kernels="always")
    add(
        "--batches",
        type=batch_sizes,
        default=(1, 8, 32),
        metavar="1,8,32",
        help="batch sizes of inference (default: 1,8,32)",
    )
    add("--batch", type=positive, default=8, help="images per training step (default: 8)")
    add(
        "--precision",
        choices=("float32", "bfloat16", "both"),
        help="precision of inference (default: both if the device computes in bfloat16, else float32)",
    )
    add("--compare", choices=("torchvision",), help="measure torchvision's SSD too")
    add(
        "--seconds",
        type=positive_number,
        default=60.0,
        metavar="S",
        help="time limit for the stages, for the steps, and for each part of the comparison; ratios stop earlier once "
        "their intervals are within 5%%, and every part has at least five rounds (default: 60)",
    )
    add("--out", type=Path, metavar="DIR", help="results folder (default: results/<data>-throughput)")
    parser.set_defaults(source="", profile="quick")
    return parser


def source(text: str) -> str:
    """The value of --data as it is compared and recorded: its prefix in small letters."""
    from bench.data.sources import canonical  # noqa: PLC0415  # numpy would delay --help

    return canonical(text)


def _add_data_options(parser: Parser) -> None:
    add = parser.add_argument
    add(
        "--data",
        dest="source",
        type=source,
        default="scenes",
        metavar="SOURCE",
        help="a folder or .zip file of a data set, whose form is found out; or scenes[:knob=value,...], voc:DIR, "
        "coco:DIR, yolo:DATA.yaml, csv:, jsonl:, fiftyone:, cvat:, voc2007 or voc0712 (default: scenes)",
    )
    add("--eval-list", metavar="NAME", help="evaluate on this split list (for example test) instead of val")
    add(
        "--val-fraction",
        type=fraction,
        default=VAL_FRACTION,
        metavar="F",
        help=f"share of images used for validation if the data have no split lists (default: {VAL_FRACTION})",
    )
    add("--skip-invalid", action="store_true", help="leave out images and boxes with fatal problems")
    add(
        "--cache",
        type=Path,
        default=HOME / ".cache",
        metavar="DIR",
        help="folder for cached files (default: .cache in the clone)",
    )
    add("--config", type=Path, metavar="FILE.toml", help="read options from a file; the command line takes precedence")


def _add_device_options(parser: Parser, *, auto_kernels: str) -> None:
    add = parser.add_argument
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="device to run on (default: auto)")
    add(
        "--cpu-kernels",
        choices=KERNEL_CHOICES,
        default="auto",
        help=f"compiled kernels on a CPU; auto: {auto_kernels} (default: auto)",
    )


def parse(parser: Parser, words: Sequence[str]) -> argparse.Namespace:
    """Parse the words of a command line; options in a ``--config`` file serve as defaults."""
    first, _ = parser.parse_known_args(words) if "--config" in " ".join(words) else (None, None)
    config = getattr(first, "config", None)
    file_words: list[str] = []
    if config is not None:
        known = [option for action in parser._actions for option in action.option_strings]
        repeated = [
            option
            for action in parser._actions
            if isinstance(action, argparse._AppendAction)
            for option in action.option_strings
        ]
        for name, value in read_config(config).items():
            option = f"--{name.replace('_', '-')}"
            if option not in known:
                raise UserError(f"--config {config}: there is no option {name!r}{nearest(option, known)}")
            if value is True:
                file_words.append(option)
            elif value is not False:
                file_words += _in_words(option, value, repeated=option in repeated)
    return parser.parse_args([*file_words, *words])


def _in_words(option: str, value: Any, *, repeated: bool) -> list[str]:
    """An option of a file as words of a command line: a list is joined by commas, or the option is repeated."""
    values = [str(each) for each in value] if isinstance(value, list) else [str(value)]
    return [word for each in values for word in (option, each)] if repeated else [option, ",".join(values)]


def _filled(kind: type[T], values: argparse.Namespace) -> T:
    """Fill a dataclass from parsed values of the same names; nested dataclasses too."""
    types, content = get_type_hints(kind), {}
    for name in (field.name for field in fields(kind)):  # type: ignore[arg-type]
        if is_dataclass(types[name]):
            content[name] = _filled(types[name], values)
        elif hasattr(values, name):
            value = getattr(values, name)
            content[name] = tuple(value) if isinstance(value, list) else value
    return kind(**content)


def read_config(path: Path) -> dict[str, Any]:
    """The options in a TOML file, by name."""
    try:
        return tomllib.loads(read_file(path).decode())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"--config {path}: {reason_of(error)}. Give a file in TOML") from error


def resolved(text: str) -> Path:
    """An absolute path: cells run in other processes, maybe in another folder."""
    return Path(text).resolve()


def positive(text: str) -> int:
    """An integer above 0."""
    value = natural(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def natural(text: str) -> int:
    """An integer, 0 or above."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def batch_sizes(text: str) -> tuple[int, ...]:
    """Integers above 0, separated by commas, in rising order, each once."""
    return tuple(sorted({positive(part.strip()) for part in text.split(",")}))


def lengths(text: str) -> tuple[int, ...]:
    """At least two integers above 0, separated by commas, in rising order."""
    values = batch_sizes(text)
    if len(values) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is one length; for one, give --steps")
    return values


def positive_number(text: str) -> float:
    """A finite number above zero."""
    value = number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def number(text: str) -> float:
    """Any number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def number_from_zero(text: str) -> float:
    """A finite number, 0 or above."""
    value = number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not 0 or above")
    return value


def fraction(text: str) -> float:
    """A number between 0 and 1."""
    value = positive_number(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value
