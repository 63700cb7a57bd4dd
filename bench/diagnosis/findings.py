"""What a diagnosis means: sentences in plain words with their numbers, the most severe first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from bench.diagnosis.diagnose import Diagnosis
from bench.diagnosis.objects import NETWORK_SIDES, SIDE_RANGES
from bench.diagnosis.overlaps import CROWDED
from bench.diagnosis.suspects import KINDS

Severity = Literal["serious", "notable", "minor", "fine"]
SEVERITIES: tuple[Severity, ...] = ("serious", "notable", "minor", "fine")

SERIOUS = 0.2  # share of objects from which a cause dominates the mAP
NOTABLE = 0.05  # share from which its effect exceeds the difference between two seeds
SHOWN = 0.005  # share from which tiny objects are worth a sentence
WELL_MATCHED = 0.95  # share of matched objects above which other priors can gain little
FEW = 10  # objects of a class: with fewer, one object changes its recall by more than ten points
NAMED = 5  # classes named in a sentence
MOSTLY = 0.5  # share of COCO's small objects that are tiny at the network, from which AP_small says little
HARD = 0.25  # share of truncated or occluded objects above that of ordinary photographs


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One reason why the mAP may be low, or may mean little.

    kind: stable name. share: of objects, images or classes affected. severity: follows from `share`.
    template: the sentence without its numbers. numbers: by their names in the template. remedy: what to do.
    """

    kind: str
    severity: Severity
    share: float
    template: str
    numbers: Mapping[str, float | str]
    remedy: str

    @property
    def sentence(self) -> str:
        return self.template.format(**self.numbers)


def findings(diagnosis: Diagnosis) -> list[Finding]:
    """All findings, sorted by severity and share.

    Objects that the detector cannot find, and figures that cannot be trusted, may be serious. Conditions that
    only make objects harder to find are notable at most.
    """
    unsorted = [
        *_anchors(diagnosis),
        *_small(diagnosis),
        *_suppression(diagnosis),
        *_classes(diagnosis),
        *_trust(diagnosis),
        *_difficult_conditions(diagnosis),
    ]
    return sorted(unsorted, key=lambda each: (SEVERITIES.index(each.severity), -each.share))


def _anchors(diagnosis: Diagnosis) -> Iterator[Finding]:
    """What the priors match: in the validation split, not used for fitting, and in augmented training views."""
    given, fitted = diagnosis.matchable["given"], diagnosis.matchable["fitted"]
    objects, views = given["val"]["all"]["objects"], given["views"]["all"]["objects"]
    if not objects or not views:
        return
    numbers = {
        "given": given["val"]["all"]["matched"] / objects,
        "fitted": fitted["val"]["all"]["matched"] / objects,
        "given_views": given["views"]["all"]["matched"] / views,
        "fitted_views": fitted["views"]["all"]["matched"] / views,
        "objects": objects,
        "threshold": diagnosis.matchable["threshold"],
    }
    in_views = " (in augmented training views: {given_views:.1%} and {fitted_views:.1%})"
    missed = 1 - numbers["given"]
    if numbers["given"] >= WELL_MATCHED:
        yield _well_matched(numbers, in_views)
        return
    gain = numbers["fitted"] - numbers["given"]
    better = gain >= NOTABLE / 2
    change = "raise that to" if better else "hardly change that:"
    yield Finding(
        kind="priors-miss",
        severity=_severity(missed),
        share=missed,
        template="Only {given:.1%} of the {objects} validation objects have a prior with IoU ≥ {threshold}; each of "
        f"the others is assigned only one, poorly fitting prior; fitted anchors {change} {{fitted:.1%}}{in_views}",
        numbers=numbers,
        remedy="try the `anchors` axis" if better else "use a larger input or tiles; other anchors would help little",
    )
    lone, fitted_lone = (table["views"]["all"]["lone"] / views for table in (given, fitted))
    if fitted_lone > lone:
        yield Finding(
            kind="tuned-anchors-thin",
            severity="minor",
            share=fitted_lone,
            template="Fitted anchors raise the share of objects with at most one prior from {lone:.1%} to "
            "{fitted_lone:.1%} (augmented training views); the mean number of priors per object goes from "
            "{priors:.1f} to {fitted_priors:.1f}",
            numbers={
                "lone": lone,
                "fitted_lone": fitted_lone,
                "priors": given["views"]["all"]["priors_mean"],
                "fitted_priors": fitted["views"]["all"]["priors_mean"],
            },
            remedy="run the `anchors` axis; the matched share alone does not show whether it helps",
        )


def _well_matched(numbers: Mapping[str, float], in_views: str) -> Finding:
    """The priors match whole images well, but perhaps not the zoomed-out training views."""
    if numbers["fitted_views"] - numbers["given_views"] >= NOTABLE:
        return Finding(
            kind="priors-miss-views",
            severity="minor",
            share=1 - numbers["given_views"],
            template="The priors fit whole images: {given:.1%} of the {objects} validation objects have a prior with "
            "IoU ≥ {threshold} ({fitted:.1%} with fitted anchors). In augmented training views objects are often "
            "smaller, and only {given_views:.1%} have one; fitted anchors raise that to {fitted_views:.1%}",
            numbers=numbers,
            remedy="run the `anchors` axis to see whether more matched objects in training help",
        )
    return Finding(
        kind="priors-fit",
        severity="fine",
        share=1 - numbers["given"],
        template="The priors are not the problem: {given:.1%} of the {objects} validation objects have one with IoU "
        "≥ {threshold}; with fitted anchors {fitted:.1%}" + in_views,
        numbers=numbers,
        remedy="expect little from the `anchors` axis",
    )


def _small(diagnosis: Diagnosis) -> Iterator[Finding]:
    """Objects that are too small at the network's resolution."""
    sizes = list(diagnosis.sizes.values())
    objects = sum(each["objects"] for each in sizes)
    if not objects:
        return
    size, step = diagnosis.detector["size"], diagnosis.detector["steps"][0]
    tiny = sum(each["network"][SIDE_RANGES[0]] for each in sizes)
    shrunk = sum(each["shrunk"] for each in sizes)
    common = {"objects": objects, "size": size}
    if tiny / objects >= SHOWN:
        small = sum(each["coco"]["small"] for each in sizes)
        lost = sum(each["small_and_tiny"] for each in sizes) / max(1, small)
        yield Finding(
            kind="tiny-objects",
            severity=_severity(tiny / objects),
            share=tiny / objects,
            template="{tiny:.1%} of your {objects} objects are under {limit} pixels at the network's {size} × {size}, "
            "where the finest map has a cell every {step} pixels: expect to miss most of them"
            + (", and AP_small near zero ({lost:.1%} of its objects are this small)" if lost >= MOSTLY else ""),
            numbers=common | {"tiny": tiny / objects, "limit": NETWORK_SIDES[0], "step": step, "lost": lost},
            remedy="cut the photographs into tiles or crop them; the `fpn` and `anchors` axes help only a little",
        )
    if shrunk / objects >= NOTABLE:
        yield Finding(
            kind="shrunk-objects",
            severity=_severity(shrunk / objects, hardest="notable"),
            share=shrunk / objects,
            template="{shrunk:.1%} of your {objects} objects are medium or large in the photographs but small (under "
            "{limit} × {limit} pixels) at the network's {size} × {size}: the network sees small objects, and AP counts "
            "them as medium or large",
            numbers=common | {"shrunk": shrunk / objects, "limit": NETWORK_SIDES[1]},
            remedy="also read AP by size at the network (tables/sizes); use tiles or closer crops; try the `fpn` axis",
        )


def _suppression(diagnosis: Diagnosis) -> Iterator[Finding]:
    """Objects that the detector's post-processing is bound to remove."""
    crowding = diagnosis.crowding["val"]
    objects = crowding["objects"]
    if not objects:
        return
    lost = crowding["suppressed"] / objects
    if crowding["suppressed"]:
        worst = _names(sorted(crowding["suppressed_by_class"], key=crowding["suppressed_by_class"].get, reverse=True))
        yield Finding(
            kind="lost-to-suppression",
            severity=_severity(lost),
            share=lost,
            template="{suppressed} of {objects} validation objects overlap another of their class with an IoU above "
            "{threshold}: non-maximum suppression removes them even if every box is perfect, so recall cannot exceed "
            "about {bound:.1%}; classes: {classes}",
            numbers={
                "suppressed": crowding["suppressed"],
                "objects": objects,
                "threshold": diagnosis.detector["nms_threshold"],
                "bound": 1 - lost,
                "classes": worst,
            },
            remedy="check whether they are drawn twice (annotation suspects); if not, raise the NMS threshold",
        )
    beyond = crowding["beyond_detections"]
    if beyond:
        yield Finding(
            kind="beyond-detections",
            severity=_severity(beyond / objects),
            share=beyond / objects,
            template="{beyond} of {objects} validation objects exceed the limit of {most} detections per image: recall "
            "cannot exceed {bound:.1%}",
            numbers={
                "beyond": beyond,
                "objects": objects,
                "most": diagnosis.detector["detections_per_image"],
                "bound": 1 - beyond / objects,
            },
            remedy="cut the photographs into tiles, or raise `detections_per_image` in an axis of your own",
        )


def _classes(diagnosis: Diagnosis) -> Iterator[Finding]:
    """Classes too rare to learn or to measure; share: of all classes, since mAP is their mean."""
    rows = [row for row in diagnosis.classes if row["val"] or row["train"]]
    absent = [row["class"] for row in rows if row["val"] and not row["train"]]
    unmeasured = [row["class"] for row in rows if not row["val"]]
    rare = [row["class"] for row in rows if 0 < row["val"] < FEW]
    untaught = [row["class"] for row in rows if 0 < row["train"] < FEW]
    more = "add images of them, or merge classes; trust the mean over the other classes more"
    for kind, names, template, remedy in (
        (
            "classes-without-training",
            absent,
            "{count} of {all} classes have validation objects but no training object: their AP is zero",
            "move some of their images to training",
        ),
        ("classes-rare-in-training", untaught, "{count} of {all} classes have fewer than {few} training objects", more),
        (
            "classes-rare-in-validation",
            rare,
            "{count} of {all} classes have fewer than {few} validation objects: one object changes the recall of such "
            "a class by more than {points:.0f} points, so its AP is mostly luck",
            more.replace("add images of them", "use more validation images (--val-fraction)"),
        ),
        (
            "classes-without-validation",
            unmeasured,
            "{count} of {all} classes have no scored validation object: they have no AP",
            "use more validation images (--val-fraction)",
        ),
    ):
        if names:
            share = len(names) / len(rows)
            yield Finding(
                kind=kind,
                severity=_severity(share),
                share=share,
                template=template + " ({classes})",
                numbers={
                    "count": len(names),
                    "all": len(rows),
                    "few": FEW,
                    "points": 100 / FEW,
                    "classes": _names(names),
                },
                remedy=remedy,
            )


def _trust(diagnosis: Diagnosis) -> Iterator[Finding]:
    """Why the AP may mean little: near-duplicates across the split, suspicious annotations."""
    images = diagnosis.sides["val"]["images"]
    if diagnosis.leaking:
        share = len(diagnosis.leaking) / images
        yield Finding(
            kind="near-duplicates",
            severity=_severity(share),
            share=share,
            template="{count} of {images} validation images ({share:.1%}) are near-duplicates of training images: AP "
            "on them measures memorisation",
            numbers={"count": len(diagnosis.leaking), "images": images, "share": share},
            remedy="remove them from one side, or remove the split lists: the built-in split keeps near-duplicates "
            "together",
        )
    boxes = sum(side["boxes"] for side in diagnosis.sides.values())
    suspicious = sum(side["boxes"] for side in diagnosis.suspects.values())
    if suspicious:
        counts = {
            kind.replace("-", "_"): sum(side["kinds"][kind]["count"] for side in diagnosis.suspects.values())
            for kind in KINDS
        }
        details = ", ".join(f"{{{key}}} {_SUSPECT[key]}" for key, count in counts.items() if count)
        yield Finding(
            kind="annotation-suspects",
            severity=_severity(suspicious / boxes),
            share=suspicious / boxes,
            template=f"{{count}} of {{boxes}} boxes ({{share:.1%}}) look suspicious: {details}",
            numbers={"count": suspicious, "boxes": boxes, "share": suspicious / boxes, **counts},
            remedy="check them: diagnosis.json lists file, class and box of each",
        )
    if diagnosis.alike_names:
        similar = {name for group in diagnosis.alike_names for name in group}
        share = len(similar) / len(diagnosis.classes)
        yield Finding(
            kind="alike-class-names",
            severity=_severity(share),
            share=share,
            template="{count} class names differ from another only in case, plural or punctuation: {classes}",
            numbers={
                "count": len(similar),
                "classes": "; ".join(" and ".join(group) for group in diagnosis.alike_names[:NAMED]),
            },
            remedy="merge them if they mean the same: a correct box with the other spelling counts as wrong",
        )


def _difficult_conditions(diagnosis: Diagnosis) -> Iterator[Finding]:
    """Conditions that make objects harder to find, by an unknown amount."""
    truncated, occluded, stated_truncated, stated_occluded = (
        sum(side[key] for side in diagnosis.conditions.values())
        for key in ("truncated", "occluded", "truncated_stated", "occluded_stated")
    )
    for kind, count, stated in (("truncated", truncated, stated_truncated), ("occluded", occluded, stated_occluded)):
        if stated and count / stated >= HARD:
            yield Finding(
                kind=kind,
                severity=_severity(count / stated, hardest="notable"),
                share=count / stated,
                template=f"{{share:.1%}} of {{stated}} objects are annotated as {kind}",
                numbers={"share": count / stated, "stated": stated},
                remedy="compare their recall with that of other objects in tables/conditions",
            )
    objects, crowded = (sum(side[key] for side in diagnosis.crowding.values()) for key in ("objects", "crowded"))
    if objects and crowded / objects >= NOTABLE:
        yield Finding(
            kind="crowded",
            severity=_severity(crowded / objects, hardest="notable"),
            share=crowded / objects,
            template="{crowded:.1%} of {objects} objects overlap another of any class with an IoU above {overlap}; the "
            "fullest image has {most}",
            numbers={
                "crowded": crowded / objects,
                "objects": objects,
                "overlap": CROWDED,
                "most": max(side["objects_an_image"]["most"] for side in diagnosis.crowding.values()),
            },
            remedy="inspect such images with predict after a run; if neighbours are merged, finer maps may help",
        )


_SUSPECT = {
    "annotated_twice": "perhaps drawn twice",
    "two_classes": "of two classes at once",
    "covers_image": "as large as their image",
    "unseen": "with a side under one pixel at the network's resolution",
    "very_long": "very long",
}


def _severity(share: float, *, hardest: Severity = "serious") -> Severity:
    by_share: Severity = "serious" if share >= SERIOUS else "notable" if share >= NOTABLE else "minor"
    return max(by_share, hardest, key=SEVERITIES.index)


def _names(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
