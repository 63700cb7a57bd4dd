"""Ground truth and detections as COCO JSON."""

from __future__ import annotations

from typing import Any

from bench.data.index import UNKNOWN, ImageIndex
from bench.evaluation.detections import Detections, check_rows, xywh


def ground_truth_coco(index: ImageIndex) -> dict[str, Any]:
    """The index as COCO JSON, with the source's image and category ids and annotation ids from 1.

    VOC's `difficult` is written as `difficult` and as COCO's `ignore`. Tools that support neither (pycocotools
    overwrites `ignore`) treat such objects as ordinary ones.
    """
    annotations = []
    columns = zip(
        index.image_ids[index.image_of_box].tolist(),
        index.category_ids[index.labels].tolist(),
        xywh(index.boxes).tolist(),
        index.areas.tolist(),
        index.crowd.astype(int).tolist(),
        index.difficult.astype(int).tolist(),
        index.truncated.tolist(),
        index.occluded.tolist(),
        strict=True,
    )
    for row, (image, category, box, area, crowd, difficult, truncated, occluded) in enumerate(columns):
        annotation = {
            "id": row + 1,  # pycocotools treats id 0 as "unmatched"
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "area": area,
            "iscrowd": crowd,
            "ignore": difficult,
            "difficult": difficult,
        }
        conditions = {"truncated": truncated, "occluded": occluded}
        annotations.append(annotation | {name: flag for name, flag in conditions.items() if flag != UNKNOWN})
    images = [
        {"id": image, "file_name": file, "width": width, "height": height}
        for image, file, (width, height) in zip(
            index.image_ids.tolist(), index.files, index.sizes.tolist(), strict=True
        )
    ]
    categories = [
        {"id": category, "name": name, "supercategory": ""}
        for category, name in zip(index.category_ids.tolist(), index.classes, strict=True)
    ]
    return {
        "info": {},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }


def detections_coco(detections: Detections, index: ImageIndex) -> list[dict[str, Any]]:
    """The detections in COCO's results format and in their order; boxes xywh in original pixels.

    Floats keep their full precision, so that reading the file back gives exactly the evaluated numbers.
    """
    check_rows(index, detections)
    return [
        {"image_id": image, "category_id": category, "bbox": box, "score": score}
        for image, category, box, score in zip(
            index.image_ids[detections.image].tolist(),
            index.category_ids[detections.labels].tolist(),
            xywh(detections.boxes).tolist(),
            detections.scores.tolist(),
            strict=True,
        )
    ]
