"""The options of the commands: what can be asked for, in which form, and the right option for a wrong one."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from bench.errors import UserError, nearest

HOME = Path(__file__).resolve().parent.parent
PURPOSE = "Train and compare every combination of remedies for a low SSD-300 mAP, on one shared split."
COMMANDS = ("preflight", "diagnose", "report", "predict", "throughput")
VAL_FRACTION = 0.2
PROFILES = ("smoke", "quick", "standard", "paper")


class Parser(argparse.ArgumentParser):
    """argparse that names the nearest right option for a wrong one."""

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
    """Options of the main job."""
    parser = Parser("run_all.py", f"{PURPOSE} Other commands: {', '.join(COMMANDS)}.")
    add_data_options(parser)
    add = parser.add_argument
    add("--profile", choices=PROFILES, default="quick", help="how much training (default: quick)")
    add(
        "--backbone",
        default=None,
        metavar="NAME",
        help="vgg16, efficientnet_lite0 or a timm network (default: vgg16 on a GPU, else efficientnet_lite0)",
    )
    add("--weights", default="pretrained", metavar="PATH|pretrained|none", help="weights of the backbone")
    add("--axes", default=None, metavar="A,B|none", help="axes to cross (default: fpn,anchors,unfreezing)")
    add("--axis-file", type=resolved, action="append", default=[], metavar="FILE.py", help="an axis of your own")
    add("--controls", default="none", metavar="A,B|none", help="lateral-only, half-data, double-steps")
    add("--priors", default=None, metavar="coco|voc|FILE", help="default: coco; voc in profile paper")
    add("--seeds", type=positive, default=1, metavar="N", help="trainings of each variant (default: 1)")
    add("--first-seed", type=natural, default=0, metavar="K", help="seeds K, K + 1, ...: others than another run's")
    add("--steps", type=positive, help="training steps, instead of the profile's")
    add("--batch", type=positive, help="images a step, instead of the profile's")
    add("--lr", type=positive_number, help="peak learning rate, instead of the profile's")
    add("--out", type=Path, metavar="DIR", help="default: results/<data>-<backbone>-<profile>")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--jobs", type=positive, default=1, metavar="N", help="cells at a time (default: 1)")
    add("--backend", default="loky", metavar="loky|dask|ray", help="what schedules the cells (default: loky)")
    add(
        "--retry",
        type=natural,
        default=0,
        metavar="N",
        help="times that a failed cell is tried again at once",
    )
    add(
        "--hung-after",
        type=positive_number,
        default=30.0,
        metavar="MINUTES",
        help="without progress, after which a cell has failed (default: 30)",
    )
    add("--mix-versions", action="store_true", help="go on with a run that other software has begun")
    add("--no-images", action="store_true", help="keep no thumbnails of validation images for the page")
    add("--plan", action="store_true", help="print the cells and the expected cost, run nothing")
    return parser


def preflight_parser() -> Parser:
    """Options of the command that reads the data and no more."""
    parser = Parser("run_all.py preflight", "Read all of the data once and list every problem.")
    add_data_options(parser)
    add = parser.add_argument
    add("--out", type=Path, help="folder for preflight.json (default: results/<data>-preflight)")
    add("--sheet", action="store_true", help="also draw 20 images, and 20 training views, with boxes")
    return parser


def diagnose_parser() -> Parser:
    """Options of the command that says what the data alone say."""
    parser = Parser("run_all.py diagnose", "What the data alone say about a low mAP, before anything is trained.")
    add_data_options(parser)
    add = parser.add_argument
    add("--priors", default="coco", metavar="coco|voc|FILE", help="what the objects are matched with (default: coco)")
    add(
        "--detections",
        type=Path,
        metavar="FILE",
        help="also score these: COCO's results format, on the validation side, of any detector",
    )
    add(
        "--weights",
        default="none",
        metavar="FILE",
        help="also score this state dict of torchvision's ssd300_vgg16 (classes by name, COCO's or VOC's)",
    )
    add("--out", type=Path, metavar="DIR", help="default: results/<data>-diagnosis")
    # The rest of what a baseline is made from
    parser.set_defaults(backbone="vgg16", profile="quick", steps=None, batch=None, lr=None)
    return parser


def report_parser() -> Parser:
    """Options of the command that writes tables and plots again."""
    parser = Parser(
        "run_all.py report", "Rebuild tables, plots and page of a run from its records; several become one."
    )
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="folder of a run, results/NAME; several are merged")
    add("--out", type=Path, metavar="DIR", help="of a merged run (default: results/merged-NAME-NAME...)")
    add("--cache", type=Path, default=HOME / ".cache", help=argparse.SUPPRESS)
    return parser


def predict_parser() -> Parser:
    """Options of the command that draws detections."""
    parser = Parser("run_all.py predict", "Draw the detections of a trained variant on images.")
    add = parser.add_argument
    add("run", type=Path, help="folder of the run, results/NAME")
    add("images", type=Path, nargs="+", metavar="IMAGE")
    add("--variant", default=None, help="row of the table (default: that of the highest AP)")
    add("--threshold", type=float, default=0.4, help="lowest score that is drawn (default: 0.4)")
    add("--out", type=Path, help="folder for the drawings (default: results/NAME/predictions)")
    add("--cache", type=Path, default=HOME / ".cache", help=argparse.SUPPRESS)
    return parser


def throughput_parser() -> Parser:
    """Options of the command that measures speed alone."""
    parser = Parser("run_all.py throughput", "Measure inference stage by stage, and steps of training.")
    add_data_options(parser)
    add = parser.add_argument
    add("--backbone", default="efficientnet_lite0", metavar="NAME", help="vgg16, efficientnet_lite0 or a timm network")
    add("--weights", default="pretrained", metavar="PATH|pretrained|none", help="weights of the backbone")
    add("--priors", default=None, metavar="coco|voc|FILE", help="default: coco")
    add("--run", type=Path, metavar="DIR", help="trained weights, data and split of this run, results/NAME")
    add("--variant", default=None, help="row of that run's table (default: that of the highest AP)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--batches", type=batch_sizes, metavar="1,8,32", help="images at once in inference (default: 1,8,32)")
    add("--batch", type=positive, default=8, help="images of a training step (default: 8)")
    add(
        "--precision",
        choices=("float32", "bfloat16", "both"),
        default=None,
        help="default: both where the device computes in bfloat16, else float32",
    )
    add("--compare", choices=("torchvision",), default=None, help="set its SSD beside ours")
    add(
        "--seconds",
        type=positive_number,
        default=60.0,
        metavar="S",
        help="for stages, steps and each part of the comparison; at least three rounds are made (default: 60)",
    )
    add("--out", type=Path, metavar="DIR", help="default: results/<data>-throughput")
    # The rest of what a baseline is made from; the number of steps only scales the schedule
    parser.set_defaults(data=None, profile="quick", steps=None, lr=None)
    return parser


def add_data_options(parser: Parser) -> None:
    """Options that say which data, shared by the commands that read them."""
    add = parser.add_argument
    add("--data", default="scenes", metavar="SOURCE", help="scenes[:knob=value,...], voc:DIR, coco:DIR, "
        "yolo:DATA.yaml, voc2007 or voc0712 (default: scenes)")  # fmt: skip
    add("--eval-list", default=None, metavar="NAME", help="score on this list of the data, e.g. test")
    add(
        "--val-fraction",
        type=fraction,
        default=VAL_FRACTION,
        metavar="F",
        help=f"where the data have no lists (default: {VAL_FRACTION})",
    )
    add("--skip-invalid", action="store_true", help="leave out what has fatal problems")
    add("--cache", type=Path, default=HOME / ".cache", metavar="DIR", help="default: .cache in the clone")
    add("--config", type=Path, metavar="FILE.toml", help="options from a file; the command line comes first")


def parse(parser: Parser, words: Sequence[str]) -> argparse.Namespace:
    """Options from the words, with those of --config beneath them."""
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
    """A value of a file as on the command line: a list is parted by commas, or the option is given for each."""
    values = [str(each) for each in value] if isinstance(value, list) else [str(value)]
    return [word for each in values for word in (option, each)] if repeated else [option, ",".join(values)]


def read_config(path: Path) -> dict[str, Any]:
    """The options in a TOML file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path}: {error}") from error


def resolved(text: str) -> Path:
    """An absolute path: cells run in processes of their own."""
    return Path(text).resolve()


def positive(text: str) -> int:
    """A whole number above zero."""
    value = natural(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def natural(text: str) -> int:
    """A whole number, zero included."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def batch_sizes(text: str) -> tuple[int, ...]:
    """Rising whole numbers above zero, divided by commas."""
    return tuple(sorted({positive(part.strip()) for part in text.split(",")}))


def positive_number(text: str) -> float:
    """A finite number above zero."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def fraction(text: str) -> float:
    """A number between 0 and 1."""
    value = positive_number(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value
