"""Every arrangement of files that docs/data.md names: recognised, and read as the data that it was made from."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.data.archive import SUFFIX
from bench.data.layouts import FOREIGN, LAYOUTS
from bench.data.preflight import Report, summary, write_report
from bench.data.readers.parts import CONTENTS
from bench.data.sources import FORMATS, check_source, data_name, read_source
from bench.data.split import make_split
from bench.errors import UserError
from tests.conftest import REPOSITORY
from tests.data.builders import kinds
from tests.data.layout_samples import (
    EVERY,
    LISTS,
    SAMPLES,
    Sample,
    coco,
    described,
    expected,
    listed,
    names,
    save,
    voc,
    write,
    yolo,
)

SAMPLE_OF = {sample.name: sample for sample in SAMPLES}


def test_there_are_enough_samples() -> None:
    assert len(SAMPLE_OF) == len(SAMPLES) >= 28


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_a_layout_gives_the_index_of_its_source(sample: Sample, tmp_path: Path) -> None:
    place = sample.make(tmp_path / "animals")
    for source in (f"{sample.prefix}:{place}", str(place)):
        check_source(source)
        reading = read_source(source, cache=tmp_path / "cache")
        assert described(reading) == expected(crowds=sample.crowds)
        assert reading.index.classes == ("cat", "dog", "emu")
        assert listed(reading) == ({name: list(images) for name, images in LISTS.items()} if sample.splits else {})
        assert {each.kind for each in reading.problems} <= {"placeholder-class", "image-ids-renumbered"}
        assert f"({sample.prefix}:" in reading.recognised
    assert data_name(str(place)) in ("animals", "boxes", "boxes-of-animals", "all")


def test_every_layout_is_recognised_in_some_sample(tmp_path: Path) -> None:
    said = [
        read_source(str(sample.make(tmp_path / str(number))), cache=tmp_path).recognised
        for number, sample in enumerate(SAMPLES)
    ]
    assert not [each.title for each in LAYOUTS if not any(text.startswith(each.title) for text in said)]


@pytest.mark.parametrize("name", ["Roboflow COCO", "VOC with lists", "CVAT YOLO 1.1", "FiftyOne"])
@pytest.mark.parametrize("nested", [False, True])
def test_an_archive_is_read_like_its_folder(name: str, nested: bool, tmp_path: Path) -> None:
    sample = SAMPLE_OF[name]
    folder = tmp_path / "packed"
    sample.make(folder / "animals.v1" if nested else folder)
    archive = packed(folder, tmp_path / "animals.zip")
    check_source(str(archive))
    for source in (str(archive), f"{sample.prefix}:{archive}"):
        reading = read_source(source, cache=tmp_path / "cache")
        assert described(reading) == expected(crowds=sample.crowds)
    assert data_name(str(archive)) == "animals"


def packed(folder: Path, archive: Path) -> Path:
    assert archive.suffix == SUFFIX
    shutil.make_archive(str(archive.with_suffix("")), "zip", folder)
    return archive


def test_lists_of_a_layout_are_used_as_such(tmp_path: Path) -> None:
    SAMPLE_OF["Roboflow COCO"].make(tmp_path)
    reading = read_source(str(tmp_path), cache=tmp_path)
    for eval_list, name in ((None, "val"), ("test", "test")):
        split = make_split(reading, eval_list=eval_list)
        files = [[Path(reading.index.files[row]).name for row in rows] for rows in (split.train, split.val)]
        assert files == [list(LISTS["train"]), list(LISTS[name])]


def test_without_a_validation_list_the_test_images_stay_out_of_the_split(tmp_path: Path) -> None:
    for name in ("train", "test"):
        coco(tmp_path / name / "_annotations.coco.json", LISTS[name])
        save(tmp_path / name, LISTS[name])
    reading = read_source(str(tmp_path), cache=tmp_path)
    split = make_split(reading, val_fraction=0.34)
    assert sorted(reading.index.files[row] for row in (*split.train, *split.val)) == [
        f"train/{f}" for f in LISTS["train"]
    ]


def test_the_category_of_roboflow_above_the_classes_is_left_out_and_said(tmp_path: Path) -> None:
    SAMPLE_OF["Roboflow COCO"].make(tmp_path)
    reading = read_source(f"coco:{tmp_path}", cache=tmp_path)
    assert reading.index.category_ids.tolist() == [1, 2, 3]
    (said,) = [each for each in reading.problems if each.kind == "placeholder-class"]
    assert said.what == "'animals' stands above all classes and has no box"


@pytest.mark.parametrize("spoil", ["a box", "another name", "not above all"])
def test_a_class_of_number_0_stays(spoil: str, tmp_path: Path) -> None:
    path = tmp_path / "train" / ("labels.json" if spoil == "another name" else "_annotations.coco.json")
    coco(path, EVERY, roboflow=True)
    save(tmp_path / "train", EVERY)
    document = json.loads(path.read_text())
    if spoil == "a box":
        document["annotations"][0]["category_id"] = 0
    if spoil == "not above all":
        document["categories"][1]["supercategory"] = "none"
    path.write_text(json.dumps(document))
    reading = read_source(f"coco:{tmp_path}", cache=tmp_path)
    assert reading.index.classes == ("animals", "cat", "dog", "emu")
    assert not kinds(reading.problems)["placeholder-class"]


def test_what_was_recognised_is_said_by_the_preflight(tmp_path: Path) -> None:
    SAMPLE_OF["Roboflow COCO"].make(tmp_path)
    reading = read_source(str(tmp_path), cache=tmp_path)
    report = Report(reading=reading, images_checked=6)
    files = [f"{folder}/_annotations.coco.json" for folder in ("train", "valid", "test")]
    said = f"Roboflow COCO: {files[0]} as train, {files[1]} as val, {files[2]} as test (coco:{tmp_path})"
    assert summary(report)[0] == f"recognised: {said}"
    write_report(report, tmp_path / "preflight.json")
    assert json.loads((tmp_path / "preflight.json").read_text())["recognised"] == said


def foreign(kind: str) -> Callable[[Path], object]:
    """Write a set that must be converted, by its title in `FOREIGN`."""
    shapes = {"version": "5.0", "flags": {}, "shapes": [{"label": "cat", "points": [[1, 2], [3, 4]]}]}
    coordinates = {"label": "cat", "coordinates": {"x": 1, "y": 2, "width": 3, "height": 4}}
    documents: dict[str, tuple[str, object]] = {
        "LabelMe": ("a.json", shapes),
        "VGG Image Annotator": ("via.json", {"_via_settings": {}, "_via_img_metadata": {}}),
        "Label Studio's own JSON": ("project-1.json", [{"id": 1, "annotations": [], "data": {}}]),
        "CreateML": ("train/_annotations.createml.json", [{"image": "a.jpg", "annotations": [coordinates]}]),
        "detections in COCO's format": ("detections.json", [{"image_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]),
    }
    texts = {
        "KITTI": ("training/label_2/000001.txt", "Car 0 0 0 1 2 3 4\n"),
        "TFRecord": ("train/animals.tfrecord", "\0"),
        "Labelbox": ("export.ndjson", "{}\n"),
        "Parquet": ("data/train-00000.parquet", "PAR1"),
    }
    name, text = texts.get(kind) or (documents[kind][0], json.dumps(documents[kind][1]))
    return lambda root: write(root / name, text)


@pytest.mark.parametrize("title", [each.title for each in FOREIGN])
def test_what_is_not_read_is_refused_with_its_conversion(title: str, tmp_path: Path) -> None:
    foreign(title)(tmp_path)
    (entry,) = (each for each in FOREIGN if each.title == title)
    for source in (str(tmp_path), f"coco:{tmp_path}"):
        for ask in (check_source, lambda text: read_source(text, cache=tmp_path)):
            with pytest.raises(UserError, match=re.escape(f"It holds {title}")) as refused:
                ask(source)
            assert entry.convert.split("{")[0] in str(refused.value)
            assert "{" not in str(refused.value)


def test_labels_without_names_of_classes_are_refused_with_the_file_to_write(tmp_path: Path) -> None:
    yolo(tmp_path / "labels", EVERY)
    save(tmp_path / "images", EVERY)
    for source in (str(tmp_path), f"yolo:{tmp_path}"):
        with pytest.raises(UserError, match=rf"no classes\.txt.*printf .* > {tmp_path}/classes\.txt"):
            check_source(source)
    names(tmp_path / "classes.txt")
    assert described(read_source(str(tmp_path), cache=tmp_path)) == expected(crowds=False)


def test_two_data_sets_in_one_folder_are_named(tmp_path: Path) -> None:
    SAMPLE_OF["VOC with lists"].make(tmp_path)
    SAMPLE_OF["annotations.json"].make(tmp_path)
    with pytest.raises(UserError, match=rf"more than one.*VOC \(voc:{tmp_path}\); COCO \(coco:{tmp_path}\)") as refused:
        check_source(str(tmp_path))
    assert "Give one of these after --data." in str(refused.value)
    assert read_source(f"voc:{tmp_path}", cache=tmp_path).recognised == f"VOC (voc:{tmp_path})"


def test_two_arrangements_of_one_format_are_named(tmp_path: Path) -> None:
    SAMPLE_OF["Roboflow COCO"].make(tmp_path)
    coco(tmp_path / "result.json", EVERY)
    with pytest.raises(UserError, match=r"Roboflow COCO.*Label Studio COCO: result\.json.*Move one of them away"):
        check_source(f"coco:{tmp_path}")
    assert read_source(f"coco:{tmp_path / 'result.json'}", cache=tmp_path).lists == {}


def test_two_spellings_of_one_list_are_named(tmp_path: Path) -> None:
    for folder in ("train", "val", "valid"):
        voc(tmp_path / folder, EVERY)
        save(tmp_path / folder, EVERY)
    with pytest.raises(UserError, match=r"several places with annotations of the list val: val, valid"):
        check_source(str(tmp_path))


def test_several_files_without_lists_are_named(tmp_path: Path) -> None:
    for name in ("old", "new"):
        coco(tmp_path / f"{name}.json", EVERY)
    with pytest.raises(UserError, match=r"new\.json, old\.json.*coco:PATH"):
        check_source(str(tmp_path))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "empty", f"csv:{tmp_path / 'empty'}"):
        with pytest.raises(UserError, match="It holds nothing"):
            check_source(str(source))


def test_a_folder_of_images_alone_is_refused(tmp_path: Path) -> None:
    save(tmp_path, EVERY)
    with pytest.raises(UserError, match=r"recognised\. It holds .*train-0\.jpg.*docs/data\.md"):
        check_source(str(tmp_path))


def test_damaged_annotations_are_problems_and_not_unknown(tmp_path: Path) -> None:
    SAMPLE_OF["Roboflow VOC"].make(tmp_path)
    (tmp_path / "train/train-0.xml").write_text("no XML")
    reading = read_source(str(tmp_path), cache=tmp_path)
    assert kinds(reading.problems) == {"unreadable-annotation": 1}
    assert set(described(reading)) == EVERY.keys() - {"train-0.jpg"}


@pytest.mark.parametrize("prefix", ["VOC", "Voc"])
def test_the_letter_case_of_a_prefix_does_not_matter(prefix: str, tmp_path: Path) -> None:
    SAMPLE_OF["VOC with lists"].make(tmp_path / "animals")
    source = f"{prefix}:{tmp_path / 'animals'}"
    check_source(source)
    assert data_name(source) == "animals"
    assert len(read_source(source, cache=tmp_path).index) == len(EVERY)
    check_source("Scenes")
    assert data_name("VOC2007") == "voc2007"


def test_the_page_on_data_names_every_layout() -> None:
    page = (REPOSITORY / "docs/data.md").read_text(encoding="utf-8")
    assert not [each.title for each in (*LAYOUTS, *FOREIGN) if f"| {each.title} |" not in page]
    assert not [prefix for prefix in FORMATS if f"`{prefix}:" not in page]


def test_content_is_told_by_the_first_bytes_in_linear_time() -> None:
    """Heads that almost match; a pattern that backtracks would need minutes."""
    for head in ("<?" * 2000, "<!--" * 1000, "<!---->" * 500, "[{" * 2000, '{"a":' * 800, " " * 4096):
        assert [kind for kind, pattern in CONTENTS if pattern.match(head)] == []
