"""Recognise how the files of a data set lie, from the names in its folders and the first bytes of its annotations.

`LAYOUTS` has one entry for each arrangement that tools export and the readers accept; `FOREIGN` has those that another
program must convert first. Nothing is parsed here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bench.data.decode import IMAGE_SUFFIXES
from bench.data.readers.parts import SPELLINGS, WHOLE, Part, content_of, list_name
from bench.errors import UserError

SPLIT = "{split}"
FOLDERS_OF_FILES = ("*.xml", "*.txt")  # one file for each image; other patterns name one file for all images
NAME_FILES = ("classes.txt", "obj.names", "classes.names", "predefined_classes.txt")
NOT_ANNOTATIONS = (*NAME_FILES, "notes.json")  # Label Studio writes its classes into notes.json, too
LOOKED_AT = 50  # files of one folder that are opened to see which of them holds all annotations
IGNORED = (".", "__MACOSX")  # beginnings of names that archivers add

_PARTS = re.compile(r"(\{split\}|\*)")
_REGEX = {SPLIT: rf"((?:{'|'.join(word for words in SPELLINGS.values() for word in words)})\d*)", "*": ".*"}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One arrangement of files. Names are matched in any letter case.

    title: what people call it, for messages and docs/data.md. prefix: of the reader, as after --data.
    annotations: the files below the folder. {split} stands for the name of a list in any of its SPELLINGS, and for the
        same word in `images`. A pattern of FOLDERS_OF_FILES matches if some images have the same names.
    images: folders that may hold the images, the likeliest first.
    content: the kind of the files (`parts.content_of`). A file of unknown kind is accepted too, so that the reader says
        what is wrong with it, unless its name is a mere suffix.
    """

    title: str
    prefix: str
    annotations: str
    images: tuple[str, ...]
    content: str | None = None


LAYOUTS = (
    Layout(
        title="Roboflow COCO",
        prefix="coco",
        annotations="{split}/_annotations.coco.json",
        images=("{split}", "{split}/images"),
        content="coco",
    ),
    Layout(
        title="COCO, one file in the folder of each list",
        prefix="coco",
        annotations="{split}/*.json",
        images=("{split}", "{split}/images", "{split}/data"),
        content="coco",
    ),
    Layout(
        title="COCO, one file for each list",
        prefix="coco",
        annotations="{split}.json",
        images=("images/{split}", "{split}", "images", "", "data"),
        content="coco",
    ),
    Layout(
        title="COCO, one file for each list",
        prefix="coco",
        annotations="instances_{split}.json",
        images=("images/{split}", "{split}", "images", "", "data"),
        content="coco",
    ),
    Layout(
        title="Label Studio COCO",
        prefix="coco",
        annotations="result.json",
        images=("images", ""),
        content="coco",
    ),
    Layout(
        title="COCO, a single file",
        prefix="coco",
        annotations="*.json",
        images=("images", "data", ""),
        content="coco",
    ),
    Layout(
        title="VOC, images/ with annotations/ (Kaggle)",
        prefix="voc",
        annotations="annotations/*.xml",
        images=("images", "JPEGImages", "data", "annotations"),
        content="voc",
    ),
    Layout(
        title="VOC, images/ or data/ with labels/",
        prefix="voc",
        annotations="labels/*.xml",
        images=("images", "data"),
        content="voc",
    ),
    Layout(
        title="VOC in a folder for each list",
        prefix="voc",
        annotations="{split}/annotations/*.xml",
        images=("{split}/JPEGImages", "{split}/images"),
        content="voc",
    ),
    Layout(
        title="VOC, annotations/ and images/ in a folder for each list",
        prefix="voc",
        annotations="annotations/{split}/*.xml",
        images=("JPEGImages/{split}", "images/{split}"),
        content="voc",
    ),
    Layout(
        title="Roboflow VOC",
        prefix="voc",
        annotations="{split}/*.xml",
        images=("{split}", "{split}/images"),
        content="voc",
    ),
    Layout(
        title="VOC beside the images (LabelImg)",
        prefix="voc",
        annotations="*.xml",
        images=("",),
        content="voc",
    ),
    Layout(
        title="YOLO without data.yaml, labels/ and images/ (Label Studio)",
        prefix="yolo",
        annotations="labels/*.txt",
        images=("images",),
    ),
    Layout(
        title="YOLO without data.yaml, labels/ and images/ in a folder for each list",
        prefix="yolo",
        annotations="labels/{split}/*.txt",
        images=("images/{split}",),
    ),
    Layout(
        title="YOLO without data.yaml, a folder for each list",
        prefix="yolo",
        annotations="{split}/labels/*.txt",
        images=("{split}/images",),
    ),
    Layout(
        title="YOLO beside the images in a folder for each list",
        prefix="yolo",
        annotations="{split}/*.txt",
        images=("{split}",),
    ),
    Layout(
        title="YOLO beside the images (LabelImg)",
        prefix="yolo",
        annotations="*.txt",
        images=("",),
    ),
    Layout(
        title="CSV, one table in the folder of each list",
        prefix="csv",
        annotations="{split}/*.csv",
        images=("{split}", "{split}/images", "images", ""),
        content="table",
    ),
    Layout(
        title="CSV, one table for each list",
        prefix="csv",
        annotations="{split}.csv",
        images=("images/{split}", "{split}", "images", "", "data"),
        content="table",
    ),
    Layout(
        title="CSV, one table for each list (TensorFlow)",
        prefix="csv",
        annotations="{split}_labels.csv",
        images=("images/{split}", "{split}", "images", "", "data"),
        content="table",
    ),
    Layout(
        title="CSV, a single table",
        prefix="csv",
        annotations="*.csv",
        images=("images", "", "data"),
        content="table",
    ),
    Layout(
        title="Hugging Face metadata.jsonl, one for each list",
        prefix="jsonl",
        annotations="{split}/metadata.jsonl",
        images=("{split}", "{split}/images"),
    ),
    Layout(
        title="Hugging Face metadata.jsonl, one for each list in data/",
        prefix="jsonl",
        annotations="data/{split}/metadata.jsonl",
        images=("data/{split}",),
    ),
    Layout(
        title="Hugging Face metadata.jsonl",
        prefix="jsonl",
        annotations="metadata.jsonl",
        images=("", "images"),
    ),
    Layout(
        title="FiftyOne labels.json, one for each list",
        prefix="fiftyone",
        annotations="{split}/labels.json",
        images=("{split}/data", "{split}"),
        content="fiftyone",
    ),
    Layout(
        title="FiftyOne labels.json",
        prefix="fiftyone",
        annotations="labels.json",
        images=("data", "images", ""),
        content="fiftyone",
    ),
    Layout(
        title="CVAT for images",
        prefix="cvat",
        annotations="annotations.xml",
        images=("images", "", "data"),
        content="cvat",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """An arrangement that no reader accepts.

    annotations, content: as in Layout. convert: what to do, with {file} for the first file found, {parent} for its
        folder and {folder} for that of the data set.
    """

    title: str
    annotations: tuple[str, ...]
    convert: str
    content: str | None = None


FOREIGN = (
    Foreign(
        title="LabelMe",
        annotations=("*.json", "annotations/*.json", "labels/*.json", "{split}/*.json"),
        content="labelme",
        convert="Convert it with: pip install labelme2coco && labelme2coco {parent} --export_dir {parent}. Then give "
        "--data coco:{parent}/dataset.json",
    ),
    Foreign(
        title="VGG Image Annotator",
        annotations=("*.json", "{split}/*.json", "annotations/*.json"),
        content="via",
        convert="Open it in that program, choose Annotation > Export Annotations (COCO format), and give the file as "
        "--data coco:FILE",
    ),
    Foreign(
        title="Label Studio's own JSON",
        annotations=("*.json",),
        content="label-studio",
        convert="Convert it with: pip install label-studio-sdk && label-studio-converter export -i {file} "
        "-c config.xml -o {folder}-coco -f COCO. Then give --data {folder}-coco",
    ),
    Foreign(
        title="CreateML",
        annotations=("*.json", "{split}/*.json"),
        content="createml",
        convert="Export the data as COCO in the program that wrote them",
    ),
    Foreign(
        title="detections in COCO's format",
        annotations=("*.json", "annotations/*.json"),
        content="coco-results",
        convert="Give the ground truth as --data. These are what diagnose takes after --detections",
    ),
    Foreign(
        title="KITTI",
        annotations=("label_2/*.txt", "training/label_2/*.txt"),
        convert="Convert it with: pip install labelformat && labelformat convert --task object-detection "
        "--input-format kitti --input-folder {parent} --category-names Car,Pedestrian,Cyclist "
        "--images-rel-path ../image_2 --output-format coco --output-file {parent}/../image_2/annotations.json. "
        "Then give --data coco:{parent}/../image_2",
    ),
    Foreign(
        title="TFRecord",
        annotations=("*.tfrecord*", "{split}/*.tfrecord*"),
        convert="Convert it with: pip install fiftyone tensorflow && fiftyone convert --input-type "
        "fiftyone.types.TFObjectDetectionDataset --input-kwargs tf_records_path={file} images_dir={folder}-images "
        "--output-dir {folder}-coco --output-type fiftyone.types.COCODetectionDataset. Then give --data {folder}-coco",
    ),
    Foreign(
        title="Labelbox",
        annotations=("*.ndjson",),
        convert="Convert it with: pip install labelformat && labelformat convert --task object-detection "
        "--input-format labelbox --input-file {file} --category-names CLASS,CLASS --output-format coco "
        "--output-file {folder}/annotations.json. Then give --data {folder}",
    ),
    Foreign(
        title="Parquet",
        annotations=("*.parquet", "data/*.parquet"),
        convert="docs/data.md has the lines that write its images and a metadata.jsonl",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Found:
    """A layout with its places.

    files: all annotation files. names: the file of class names, for YOLO and metadata.jsonl.
    """

    layout: Layout
    root: Path
    parts: Mapping[str, Part]
    files: frozenset[str]
    names: Path | None

    def __str__(self) -> str:
        places = [
            f"{part.annotations or 'the folder itself'}{'' if name == WHOLE else f' as {name}'}"
            for name, part in self.parts.items()
        ]
        return f"{self.layout.title}: {', '.join(places)}"


class Folder:
    """The names in a folder and below, each folder listed once, when it is asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed: dict[str, tuple[list[str], list[str]]] = {}

    def folders(self, below: str) -> list[str]:
        """Names of the folders in the folder `below`."""
        return self._names(below)[0]

    def files(self, below: str) -> list[str]:
        """Names of the other entries."""
        return self._names(below)[1]

    def _names(self, below: str) -> tuple[list[str], list[str]]:
        if below not in self._listed:
            folders: list[str] = []
            files: list[str] = []
            try:
                with os.scandir(self.root / below) as entries:
                    for entry in entries:
                        if not entry.name.startswith(IGNORED):
                            (folders if entry.is_dir() else files).append(entry.name)
            except OSError:  # a folder that may not be read counts as empty
                pass
            self._listed[below] = sorted(folders), sorted(files)
        return self._listed[below]

    def resolve(self, path: str) -> str | None:
        """The path of a folder as it is spelled here; None if there is none."""
        here = ""
        for word in filter(None, path.split("/")):
            found = next((name for name in self.folders(here) if name.casefold() == word.casefold()), None)
            if found is None:
                return None
            here = _joined(here, found)
        return here

    def match(self, pattern: str) -> Iterator[tuple[str, str, list[str]]]:
        """(word in place of {split} or "", folder, file names) for each word and folder with files of the pattern."""
        above, _, last = pattern.rpartition("/")
        regex = re.compile("".join(_REGEX.get(part, re.escape(part)) for part in _PARTS.split(last)), re.IGNORECASE)
        for word, place in self._places(above):
            by_word: dict[str, list[str]] = {}
            for name in self.files(place):
                found = regex.fullmatch(name)
                if found is not None:
                    by_word.setdefault(word or "".join(found.groups()), []).append(name)
            for each, names in by_word.items():
                yield each, place, names

    def _places(self, pattern: str) -> Iterator[tuple[str, str]]:
        """(word that stands for {split}, folder) for each folder of the pattern."""
        if SPLIT not in pattern:
            found = self.resolve(pattern)
            if found is not None:
                yield "", found
            return
        before, _, after = pattern.partition(SPLIT)
        above = self.resolve(before)
        for name in self.folders(above) if above is not None else []:
            place = self.resolve(_joined(above or "", name) + after)
            if list_name(name) is not None and place is not None:
                yield name, place


def find_layouts(folder: Folder, prefix: str) -> list[Found]:
    """The layouts of one reader in a folder. An annotation file belongs to the first layout that has it.

    Raises UserError if a list, or a set without lists, has several annotation files.
    """
    found: list[Found] = []
    taken: set[str] = set()
    for layout in LAYOUTS:
        if layout.prefix == prefix:
            match = _find(layout, folder, taken)
            if match is not None:
                found.append(match)
                taken |= match.files
    return found


def find_foreign(root: Path) -> str | None:
    """What a folder holds that must be converted first, and how; None if that is unknown."""
    folder = Folder(root)
    for foreign in FOREIGN:
        for pattern in foreign.annotations:
            for _, place, names in folder.match(pattern):
                file = root / place / names[0]
                if foreign.content is None or content_of(file) == foreign.content:
                    convert = foreign.convert.format(folder=root, file=file, parent=file.parent)
                    return f"{foreign.title} ({file}), which is not read. {convert}"
    return None


def _find(layout: Layout, folder: Folder, taken: Set[str]) -> Found | None:
    parts: dict[str, Part] = {}
    files: list[str] = []
    many = layout.annotations.endswith(FOLDERS_OF_FILES)
    for word, place, matched in folder.match(layout.annotations):
        images = _existing(layout, folder, word)
        names = [
            name for name in matched if _joined(place, name) not in taken and name.casefold() not in NOT_ANNOTATIONS
        ]
        if many:
            images = tuple(each for each in images if _share_a_stem(names, folder.files(each)))
            if not images or not _has_content(folder.root / place / names[0], layout):
                continue
        else:
            names = [name for name in names[:LOOKED_AT] if _has_content(folder.root / place / name, layout)]
        if not names:
            continue
        part, files_of_part = list_name(word) or WHOLE, [_joined(place, name) for name in names]
        annotations = place if many else files_of_part[0]
        if part in parts or (len(names) > 1 and not many):
            several = [parts[part].annotations, annotations] if part in parts else files_of_part
            raise UserError(
                f"{folder.root} has several places with annotations of "
                f"{'its images' if part == WHOLE else f'the list {part}'}: {', '.join(several)}. Name one "
                f"(--data {layout.prefix}:PATH), or move the others away."
            )
        parts[part] = Part(annotations=annotations, images=images or ("",))
        files += files_of_part
    if not parts:
        return None
    ordered = {name: parts[name] for name in (WHOLE, *SPELLINGS) if name in parts}
    return Found(
        layout=layout,
        root=folder.root,
        parts=ordered,
        files=frozenset(files),
        names=_name_file(folder, [place for part in ordered.values() for place in (part.annotations, *part.images)]),
    )


def _existing(layout: Layout, folder: Folder, word: str) -> tuple[str, ...]:
    """The folders of images that exist. word: that in place of {split}; images/val may belong to val2017."""
    words = dict.fromkeys((word, word.rstrip("0123456789")))
    candidates = [folder.resolve(each.replace(SPLIT, spelling)) for each in layout.images for spelling in words]
    return tuple(dict.fromkeys(each for each in candidates if each is not None))


def _has_content(file: Path, layout: Layout) -> bool:
    """Whether the file may be of the layout's kind."""
    if layout.content is None:
        return True
    found = content_of(file)
    return found == layout.content or (found is None and not layout.annotations.endswith(("*.json", "*.csv")))


def _share_a_stem(annotations: list[str], others: list[str]) -> bool:
    """Whether an image has the name of an annotation."""
    stems = {PurePosixPath(name).stem for name in annotations}
    images = (PurePosixPath(name) for name in others)
    return any(image.stem in stems for image in images if image.suffix.lower() in IMAGE_SUFFIXES)


def _name_file(folder: Folder, places: list[str]) -> Path | None:
    """The file of class names in the folder itself, or in the first of the places that has one."""
    for place in ("", *places):
        for name in folder.files(place):
            if name.casefold() in NAME_FILES:
                return folder.root / place / name
    return None


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
