"""What a diagnosis means, in plain words, each sentence bound to its numbers and the worst first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from bench.diagnosis import Diagnosis
from bench.diagnosis.objects import SIDES, SIZE_NAMES
from bench.diagnosis.overlaps import CROWDED
from bench.diagnosis.suspects import KINDS

Severity = Literal["serious", "notable", "minor", "fine"]
SEVERITIES: tuple[Severity, ...] = ("serious", "notable", "minor", "fine")

SERIOUS = 0.2  # share from which a cause is seen in the mAP before anything else is
NOTABLE = 0.05  # share from which it is larger than the difference between two seeds
SHOWN = 0.005  # share below which a common trait of data is not worth a sentence
WELL_MATCHED = 0.95  # share of objects from which other priors can gain little
FEW = 10  # objects of a class: fewer, and one of them moves its recall by more than ten points
NAMED = 5  # classes that a sentence names
MOSTLY = 0.5  # share of COCO's small objects from which AP_small is about objects that are hardly seen
HARD = 0.25  # share of truncated or overlapped objects that is more than ordinary photographs have


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One cause of a low mAP, or of one that means little.

    kind: stable name. severity: by `share`, that of the objects, images or classes concerned. template: the
    sentence without its figures; numbers: the figures, by their names in the template. remedy: what to do.
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
    """Everything worth saying, by severity and share.

    Objects that the detector cannot find, and figures that cannot be trusted, may be serious; what merely
    makes objects harder is notable at most.
    """
    found = [
        *_anchors(diagnosis),
        *_small(diagnosis),
        *_suppression(diagnosis),
        *_classes(diagnosis),
        *_trust(diagnosis),
        *_hardship(diagnosis),
    ]
    return sorted(found, key=lambda each: (SEVERITIES.index(each.severity), -each.share))


def _anchors(diagnosis: Diagnosis) -> Iterator[Finding]:
    """What the priors match: on validation, to which nothing is fitted, and on what training shows."""
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
    seen = " (in training's augmented views {given_views:.1%} and {fitted_views:.1%})"
    missed = 1 - numbers["given"]
    if numbers["given"] >= WELL_MATCHED:
        yield _well_matched(numbers, seen)
        return
    gain = numbers["fitted"] - numbers["given"]
    better = gain >= NOTABLE / 2
    says = "tuned anchors raise that to {fitted:.1%}" if better else "tuned anchors hardly change that: {fitted:.1%}"
    yield Finding(
        kind="priors-miss",
        severity=_severity(missed),
        share=missed,
        template="Only {given:.1%} of the {objects} validation objects have a prior of IoU ≥ {threshold}, so the "
        f"others are learnt from one badly placed prior each; {says}{seen}",
        numbers=numbers,
        remedy="try the axis anchors" if better else "larger inputs or tiles; other anchors cannot mend it",
    )
    lone, fitted_lone = (table["views"]["all"]["lone"] / views for table in (given, fitted))
    if fitted_lone > lone:
        yield Finding(
            kind="tuned-anchors-thin",
            severity="minor",
            share=fitted_lone,
            template="Tuned anchors spread thin: in training's views {fitted_lone:.1%} of objects then have one prior "
            "at most, {lone:.1%} now; on average {fitted_priors:.1f} priors answer for an object, {priors:.1f} now",
            numbers={
                "lone": lone,
                "fitted_lone": fitted_lone,
                "priors": given["views"]["all"]["priors_mean"],
                "fitted_priors": fitted["views"]["all"]["priors_mean"],
            },
            remedy="do not judge the axis anchors by the matched share alone: run it",
        )


def _well_matched(numbers: Mapping[str, float], seen: str) -> Finding:
    """Whole images have the priors that they need; training's zoomed-out views may not."""
    if numbers["fitted_views"] - numbers["given_views"] >= NOTABLE:
        return Finding(
            kind="priors-miss-views",
            severity="minor",
            share=1 - numbers["given_views"],
            template="The priors fit whole images: {given:.1%} of the {objects} validation objects have one of IoU ≥ "
            "{threshold}, {fitted:.1%} with tuned anchors. But of what training's augmented views show, much of it "
            "smaller, only {given_views:.1%} have one; tuned anchors raise that to {fitted_views:.1%}",
            numbers=numbers,
            remedy="the axis anchors would give training more to learn from; whether that helps, a run tells",
        )
    return Finding(
        kind="priors-fit",
        severity="fine",
        share=1 - numbers["given"],
        template="The priors are not the problem: {given:.1%} of the {objects} validation objects have one of IoU "
        "≥ {threshold}; tuned anchors would make that {fitted:.1%}" + seen,
        numbers=numbers,
        remedy="expect little of the axis anchors",
    )


def _small(diagnosis: Diagnosis) -> Iterator[Finding]:
    """Objects that are hardly there at the network's resolution."""
    sizes = list(diagnosis.sizes.values())
    objects = sum(each["objects"] for each in sizes)
    if not objects:
        return
    size, step = diagnosis.detector["size"], diagnosis.detector["steps"][0]
    tiny = sum(each["network"][SIZE_NAMES[0]] for each in sizes)
    shrunk = sum(each["shrunk"] for each in sizes)
    known = {"objects": objects, "size": size}
    if tiny / objects >= SHOWN:
        small = sum(each["coco"]["small"] for each in sizes)
        lost = sum(each["small_and_tiny"] for each in sizes) / max(1, small)
        yield Finding(
            kind="tiny-objects",
            severity=_severity(tiny / objects),
            share=tiny / objects,
            template="{tiny:.1%} of your {objects} objects are under {limit} pixels at the network's {size} × {size}, "
            "where the finest map has a cell every {step} pixels: expect to miss most of them"
            + (
                ", and AP_small near zero ({lost:.1%} of the objects that it counts are such)" if lost >= MOSTLY else ""
            ),
            numbers=known | {"tiny": tiny / objects, "limit": SIDES[0], "step": step, "lost": lost},
            remedy="cut the photographs into tiles or crop to what matters; fpn and anchors can only ease it",
        )
    if shrunk / objects >= NOTABLE:
        yield Finding(
            kind="shrunk-objects",
            severity=_severity(shrunk / objects, hardest="notable"),
            share=shrunk / objects,
            template="{shrunk:.1%} of your {objects} objects are medium or large in the photographs and small (under "
            "{limit} × {limit} pixels) at the network's {size} × {size}: they are scored as medium or large ones "
            "and seen as small ones",
            numbers=known | {"shrunk": shrunk / objects, "limit": SIDES[1]},
            remedy="read AP by size at the network too (tables/sizes); tiles or closer crops; fpn is meant for these",
        )


def _suppression(diagnosis: Diagnosis) -> Iterator[Finding]:
    """What the last steps of the detector must lose."""
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
            template="{suppressed} of {objects} validation objects overlap another of their class by more than "
            "{threshold}: non-maximum suppression removes them even from perfect boxes, so recall ends at about "
            "{bound:.1%}; classes: {classes}",
            numbers={
                "suppressed": crowding["suppressed"],
                "objects": objects,
                "threshold": diagnosis.detector["nms_threshold"],
                "bound": 1 - lost,
                "classes": worst,
            },
            remedy="look whether they are drawn twice (annotation suspects); else suppress at a higher overlap",
        )
    beyond = crowding["beyond_detections"]
    if beyond:
        yield Finding(
            kind="beyond-detections",
            severity=_severity(beyond / objects),
            share=beyond / objects,
            template="{beyond} of {objects} validation objects are more than the {most} detections that an image may "
            "have: recall ends at {bound:.1%}",
            numbers={
                "beyond": beyond,
                "objects": objects,
                "most": diagnosis.detector["detections_per_image"],
                "bound": 1 - beyond / objects,
            },
            remedy="cut the photographs into tiles, or raise `detections_per_image` in an axis of your own",
        )


def _classes(diagnosis: Diagnosis) -> Iterator[Finding]:
    """Classes too rare to be learnt or measured; mAP is a mean over classes, so their share of it is theirs."""
    rows = [row for row in diagnosis.classes if row["val"] or row["train"]]
    absent = [row["class"] for row in rows if row["val"] and not row["train"]]
    unmeasured = [row["class"] for row in rows if not row["val"]]
    rare = [row["class"] for row in rows if 0 < row["val"] < FEW]
    untaught = [row["class"] for row in rows if 0 < row["train"] < FEW]
    more = "more pictures of them, or merge classes; believe the mean over the other classes first"
    for kind, names, template, remedy in (
        (
            "classes-without-training",
            absent,
            "{count} of {all} classes are in validation and have no training object: their AP is zero",
            "move some of their images to training",
        ),
        ("classes-rare-in-training", untaught, "{count} of {all} classes have fewer than {few} training objects", more),
        (
            "classes-rare-in-validation",
            rare,
            "{count} of {all} classes have fewer than {few} validation objects: one object moves the recall of such a "
            "class by more than {points:.0f} points, so its AP is mostly luck",
            more.replace("more pictures of them", "more validation pictures (--val-fraction)"),
        ),
        (
            "classes-without-validation",
            unmeasured,
            "{count} of {all} classes have no validation object that is scored: they have no AP",
            "more validation pictures (--val-fraction)",
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
    """Why an AP may mean little: copies across the split, suspicious annotations."""
    images = diagnosis.sides["val"]["images"]
    if diagnosis.leaking:
        share = len(diagnosis.leaking) / images
        yield Finding(
            kind="near-duplicates",
            severity=_severity(share),
            share=share,
            template="{count} of {images} validation images ({share:.1%}) are near-duplicates of training images: on "
            "them AP measures memory",
            numbers={"count": len(diagnosis.leaking), "images": images, "share": share},
            remedy="leave them out of one side, or give no lists: a split made here keeps together what is alike",
        )
    boxes = sum(side["boxes"] for side in diagnosis.sides.values())
    doubtful = sum(side["boxes"] for side in diagnosis.suspects.values())
    if doubtful:
        counts = {
            kind.replace("-", "_"): sum(side["kinds"][kind]["count"] for side in diagnosis.suspects.values())
            for kind in KINDS
        }
        told = ", ".join(f"{{{key}}} {_SUSPECT[key]}" for key, count in counts.items() if count)
        yield Finding(
            kind="annotation-suspects",
            severity=_severity(doubtful / boxes),
            share=doubtful / boxes,
            template=f"{{count}} of {{boxes}} boxes ({{share:.1%}}) look suspicious: {told}",
            numbers={"count": doubtful, "boxes": boxes, "share": doubtful / boxes, **counts},
            remedy="look at them: diagnosis.json names file, class and box of each",
        )
    if diagnosis.alike_names:
        concerned = {name for group in diagnosis.alike_names for name in group}
        share = len(concerned) / len(diagnosis.classes)
        yield Finding(
            kind="alike-class-names",
            severity=_severity(share),
            share=share,
            template="{count} class names differ from another in case, plural or punctuation alone: {classes}",
            numbers={
                "count": len(concerned),
                "classes": "; ".join(" and ".join(group) for group in diagnosis.alike_names[:NAMED]),
            },
            remedy="if they mean the same, give them one name: a right box of the other spelling counts as wrong",
        )


def _hardship(diagnosis: Diagnosis) -> Iterator[Finding]:
    """What makes objects harder to find, without a bound that could be stated."""
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
                template=f"{{share:.1%}} of {{stated}} objects are marked as {kind}",
                numbers={"share": count / stated, "stated": stated},
                remedy="compare their recall with that of the others in tables/conditions",
            )
    objects, crowded = (sum(side[key] for side in diagnosis.crowding.values()) for key in ("objects", "crowded"))
    if objects and crowded / objects >= NOTABLE:
        yield Finding(
            kind="crowded",
            severity=_severity(crowded / objects, hardest="notable"),
            share=crowded / objects,
            template="{crowded:.1%} of {objects} objects are overlapped by another one, of whatever class, by more "
            "than {overlap}; the fullest image has {most}",
            numbers={
                "crowded": crowded / objects,
                "objects": objects,
                "overlap": CROWDED,
                "most": max(side["objects_an_image"]["most"] for side in diagnosis.crowding.values()),
            },
            remedy="look at such images with predict after a run: neighbours that are merged need finer maps",
        )


_SUSPECT = {
    "annotated_twice": "perhaps drawn twice",
    "two_classes": "of two classes at once",
    "covers_image": "as large as their image",
    "unseen": "under a pixel at the network",
    "very_long": "very long",
}


def _severity(share: float, *, hardest: Severity = "serious") -> Severity:
    by_share: Severity = "serious" if share >= SERIOUS else "notable" if share >= NOTABLE else "minor"
    return max(by_share, hardest, key=SEVERITIES.index)


def _names(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
