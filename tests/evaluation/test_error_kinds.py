"""Kinds of false positives, against plain loops over their definition, and by hand."""

import numpy as np
import pytest
import torch

from afrcnn.core.errors import UserError
from afrcnn.evaluation.error_kinds import KINDS, class_groups, error_kinds
from afrcnn.evaluation.matching import match
from reference import found, plain_error_kinds, random_errors, truth

CLASSES = ["cat", "dog", "car", "owl"]
SIMILAR = [("cat", "dog"), ("owl", "dog")]
VOC = "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant "
VOC += "sheep sofa train tvmonitor"


def kinds_of(detections, targets, similar=SIMILAR):
    """The kind of each detection in the order given, image by image; None for what is no false positive."""
    kinds = error_kinds(match(detections, targets, CLASSES), similar)
    order = np.argsort(-torch.cat([image["scores"] for image in detections]).numpy(), kind="stable")
    named = dict(zip(order.tolist(), (KINDS[kind] if kind >= 0 else None for kind in kinds), strict=True))
    return [named[index] for index in range(len(order))]


@pytest.mark.parametrize("seed", range(30))
def test_kinds_are_those_of_a_plain_loop_over_the_definition(seed):
    detections, targets = random_errors(np.random.default_rng(seed), len(CLASSES))
    similar = {(1, 2), (2, 1), (2, 4), (4, 2)}
    plain = plain_error_kinds(detections, targets, len(CLASSES), similar)
    kinds = [plain[image, index] for image, boxes in enumerate(detections) for index in range(len(boxes["labels"]))]
    assert kinds_of(detections, targets) == kinds
    assert {None, *KINDS} == set(kinds)


OBJECT = [100, 100, 200, 200]


@pytest.mark.parametrize(
    ("boxes", "labels", "kinds"),
    [
        pytest.param([OBJECT], [1], [None], id="hit"),
        pytest.param([OBJECT, [100, 100, 200, 190]], [1, 1], [None, "localisation"], id="duplicate"),
        pytest.param([[100, 100, 200, 150]], [1], ["localisation"], id="IoU of exactly 0.5"),
        pytest.param([[100, 100, 200, 110]], [1], ["localisation"], id="IoU of exactly 0.1"),
        pytest.param([[100, 100, 200, 109]], [1], ["background"], id="IoU below 0.1"),
        pytest.param([OBJECT], [2], ["similar"], id="similar class"),
        pytest.param([[100, 100, 200, 110]], [2], ["similar"], id="similar class, IoU of exactly 0.1"),
        pytest.param([OBJECT], [3], ["other"], id="other class"),
        pytest.param([[300, 300, 400, 400]], [1], ["background"], id="nothing there"),
        pytest.param([OBJECT, OBJECT, OBJECT], [1, 2, 4], [None, "similar", "other"], id="one box, three classes"),
    ],
)
def test_one_image_of_each_kind(boxes, labels, kinds):
    scores = np.linspace(0.9, 0.5, len(boxes)).tolist()
    assert kinds_of([found(boxes, scores, labels)], [truth([OBJECT])]) == kinds


def test_the_first_kind_counts_where_several_would_do():
    beside = [100, 100, 200, 140]  # IoU of 0.4 with the object
    target = truth([OBJECT, beside, beside], [1, 2, 3])
    assert kinds_of([found([beside], [0.5], [1])], [target]) == ["localisation"]
    assert kinds_of([found([beside], [0.5], [4])], [target]) == ["similar"]
    assert kinds_of([found([beside], [0.5], [4])], [target], []) == ["other"]


@pytest.mark.parametrize("flag", ["difficult", "iscrowd"])
def test_an_ignored_object_is_no_background_and_what_matches_it_no_error(flag):
    target = truth([OBJECT], [1], **{flag: [True]})
    detections = found([OBJECT, OBJECT, [100, 100, 200, 140], OBJECT], [0.9, 0.8, 0.7, 0.6], [1, 1, 1, 2])
    assert kinds_of([detections], [target]) == [None, None, "localisation", "similar"]


def test_without_any_detection_or_object_there_is_no_kind():
    assert kinds_of([found([], [])], [truth([OBJECT])]) == []
    assert kinds_of([found([OBJECT], [0.5])], [truth([])]) == ["background"]


def test_groups_of_voc_are_those_of_hoiem():
    groups = class_groups(VOC.split())
    pairs = {frozenset((a, b)) for group in groups.similar for a in group for b in group if a != b}
    assert {frozenset(pair) for pair in (("person", "dog"), ("aeroplane", "bird"), ("sofa", "chair"))} <= pairs
    assert frozenset(("tvmonitor", "sofa")) not in pairs
    assert len(pairs) == 21 + 21 + 3 + 1
    assert {name: len(group) for name, group in groups.summaries.items()} == {
        "animals": 6,
        "vehicles": 7,
        "furniture": 3,
    }


def test_groups_are_voc_s_where_all_classes_are_and_else_as_given():
    assert class_groups(["cat", "dog", "person", "sofa"]).summaries == {"animals": ("cat", "dog")}
    assert class_groups(["cat", "dog", "person", "sofa"]).similar == (("cat", "dog", "person"),)
    assert class_groups(["cat", "dog", "king"]).similar == ()
    groups = class_groups(["cat", "dog", "person"], ["cat, person"])
    assert groups.similar == (("cat", "person"),)
    assert groups.summaries == {"cat, person": ("cat", "person")}


@pytest.mark.parametrize(("given", "named"), [("cat,dogs", "did you mean dog?"), ("cat,cat", "is one class")])
def test_a_group_of_unknown_or_too_few_classes_is_refused(given, named):
    with pytest.raises(UserError, match="similar") as caught:
        class_groups(["cat", "dog"], [given])
    assert named in str(caught.value)
