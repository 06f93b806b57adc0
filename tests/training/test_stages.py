"""Training in stages: which there are, what each trains, and the same bits whatever interrupts them."""

import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.ops import box_iou

from afrcnn.build import build_adversary, build_detector, initial_spec, load_detector, open_split
from afrcnn.core.errors import UserError
from afrcnn.data.target import DetectionDataset
from afrcnn.detectors.box_coding import offsets
from afrcnn.detectors.jitter import ProposalJitter
from afrcnn.detectors.sampling import RoISampler
from afrcnn.detectors.weights import load_strict
from afrcnn.recipe import (
    AugmentationRecipe,
    DataRecipe,
    DetectorRecipe,
    JitterRecipe,
    JointRecipe,
    PretrainingRecipe,
    Recipe,
    ScheduleRecipe,
    dump_recipe,
)
from afrcnn.run import Run
from afrcnn.training.samples import _order, seed_of
from afrcnn.training.stages import plan_stages
from afrcnn.training.train import train_stages

# Every mask is hard enough to learn from, also for a detector that knows little.
FUSION = {"asdn": {"threshold": -1.0}, "astn": {}}
SGD = {"learning_rate": 0.01, "log_every": 1, "checkpoint_every": 2}


@pytest.fixture(scope="session")
def staged(recipe):
    """Four updates of the detector, three of the adversaries, four of both; checkpoints after 2, 4, 6, 7, 9 and 11."""
    return replace(
        recipe,
        adversaries=FUSION,
        schedule=ScheduleRecipe(iterations=4, **SGD),
        pretraining=PretrainingRecipe(iterations=3, **SGD),
        joint=JointRecipe(iterations=4, **SGD),
    )


@pytest.fixture(scope="session")
def whole(staged, tmp_path_factory):
    """That recipe's run, not interrupted."""
    return train_stages(staged, tmp_path_factory.mktemp("runs") / "whole")


def iteration_of(run):
    return torch.load(run.checkpoint_file)["iteration"]


def rows(run):
    with run.log_file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def repeatable(run):
    """The log without how long it took."""
    return [{name: value for name, value in row.items() if name != "iterations_per_second"} for row in rows(run)]


def tensors(file):
    """The bytes of all tensors of a file by name; its metadata, the recipe, may differ."""
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(file).items()}


def same_files(run, other):
    return [tensors(file) == tensors(there) for file, there in zip(files(run), files(other), strict=True)]


def files(run):
    return run.detector_file, run.weights_file, run.adversary_file


def assert_ends_as(folder, whole):
    """A run has the bits and the log of another, and nothing half-written."""
    run = Run(folder)
    assert all(same_files(run, whole))
    assert repeatable(run) == repeatable(whole)
    assert not list(folder.rglob("*.part"))


def test_a_run_killed_at_random_moments_ends_with_the_same_bits(staged, whole, start, tmp_path):
    seed = time.time_ns()  # other moments each time; printed where the test fails
    print(f"seed {seed}")
    run, rng = Run(tmp_path / "killed"), random.Random(seed)
    for _ in range(4):
        process = start(staged, run.folder)
        # Moments are counted from a sign of life, or on a busy machine all would lie before the first update.
        before = run.log_file.stat().st_mtime_ns if run.log_file.exists() else None
        while process.is_alive() and (run.log_file.stat().st_mtime_ns if run.log_file.exists() else None) == before:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.6))
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
    train_stages(staged, run.folder)
    assert_ends_as(run.folder, whole)


DIE = """
calls = 0
real = {where}

def patched(*args, **kwargs):
    global calls
    found = {file!r} in str({subject})
    calls += found
    if found and calls == {nth} and {before}:
        die()
    result = real(*args, **kwargs)
    if found and calls == {nth}:
        die()
    return result

{where} = patched
"""

WHERE = {
    "written": {"where": "os.fsync", "subject": "os.readlink(f'/proc/self/fd/{args[0]}')", "before": True},
    "in place soon": {"where": "pathlib.Path.replace", "subject": "args[1]", "before": True},
    "in place": {"where": "pathlib.Path.replace", "subject": "args[1]", "before": False},
}

MOMENTS = [
    # The file, the how-manieth of the process, the moment; then what the folder holds: the checkpoint's iteration, and
    # whether the files that stages end with are there.
    ("checkpoint", 2, "written", 2, [False, False, False]),
    ("checkpoint", 1, "in place", 4, [False, False, False]),  # between the detector's last update and its file
    ("detector", 1, "in place soon", 4, [False, False, False]),
    ("detector", 1, "in place", 4, [True, False, False]),  # between the stages
    ("checkpoint", 2, "in place soon", 6, [True, False, False]),
    ("checkpoint", 1, "in place", 7, [True, False, False]),  # between the stages
    ("checkpoint", 2, "written", 9, [True, False, False]),
    ("checkpoint", 1, "in place", 11, [True, False, False]),
    ("adversary", 1, "in place soon", 11, [True, False, False]),
    ("adversary", 1, "in place", 11, [True, False, True]),
    ("weights", 1, "in place soon", 11, [True, False, True]),
]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="names of open files are read from Linux's /proc")
def test_a_run_killed_around_the_writing_of_its_files_ends_with_the_same_bits(staged, whole, start, tmp_path):
    run = Run(tmp_path / "killed")
    for file, nth, moment, iteration, there in MOMENTS:
        process = start(staged, run.folder, DIE.format(file=file, nth=nth, **WHERE[moment]))
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert len(list(run.folder.glob(f".{file}*.part"))) == (moment != "in place")
        assert iteration_of(run) == iteration
        assert [file.exists() for file in files(run)] == there
    train_stages(staged, run.folder)
    assert_ends_as(run.folder, whole)


def test_loaders_of_their_own_processes_change_nothing(staged, whole, tmp_path):
    train_stages(replace(staged, data=replace(staged.data, workers=2)), tmp_path / "workers")
    assert_ends_as(tmp_path / "workers", whole)


def test_a_finished_run_keeps_its_bits_and_a_removed_first_stage_is_not_made_up(staged, whole, tmp_path):
    shutil.copytree(whole.folder, tmp_path / "again")
    run = Run(tmp_path / "again")
    train_stages(staged, run.folder)
    assert all(same_files(run, whole)) and rows(run) == rows(whole)
    run.detector_file.unlink()
    train_stages(staged, run.folder)
    assert not run.detector_file.exists() and tensors(run.weights_file) == tensors(whole.weights_file)


@pytest.fixture(scope="session")
def plain(staged, tmp_path_factory):
    """The detector's stage by itself."""
    alone = replace(staged, adversaries={}, pretraining=PretrainingRecipe(), joint=JointRecipe())
    return train_stages(alone, tmp_path_factory.mktemp("runs") / "plain")


@pytest.mark.parametrize("source", ["staged run", "plain run", "file"])
def test_a_run_from_anothers_detector_ends_with_the_bits_of_one_that_made_it(source, staged, whole, plain, tmp_path):
    assert not plain.detector_file.exists() and not plain.adversary_file.exists()
    assert tensors(plain.weights_file) == tensors(whole.detector_file)
    shutil.copy(whole.detector_file, tmp_path / "detector.safetensors")
    sources = {"staged run": whole.folder, "plain run": plain.folder, "file": tmp_path / "detector.safetensors"}
    run = train_stages(replace(staged, init_from=str(sources[source])), tmp_path / "run")
    assert not run.detector_file.exists()
    assert tensors(run.weights_file) == tensors(whole.weights_file)
    assert run.adversary_file.read_bytes() == whole.adversary_file.read_bytes()
    timed = {"iteration", "iterations_per_second"}
    for row, expected in zip(rows(run), rows(whole)[4:], strict=True):
        assert int(row["iteration"]) == int(expected["iteration"]) - 4
        assert all(value == expected[name] for name, value in row.items() if name not in timed)


def test_what_is_no_detector_to_start_from_is_refused_before_a_folder_is_made(staged, tmp_path):
    (tmp_path / "empty").mkdir()
    save_file({"other": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    for source, named in [
        ("empty", "init_from: has no trained weights yet"),
        ("other.safetensors", "other.safetensors: holds another model"),
        ("broken.safetensors", "broken.safetensors"),
        ("none.safetensors", "none.safetensors"),
    ]:
        with pytest.raises(UserError, match=named) as caught:
            train_stages(replace(staged, init_from=str(tmp_path / source)), tmp_path / "run")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()


def test_a_resumed_run_reads_neither_its_source_nor_imagenet_s_weights_again(staged, whole, tmp_path, monkeypatch):
    source = shutil.copy(whole.detector_file, tmp_path / "source.safetensors")
    recipe, seen = replace(staged, init_from=str(source)), []

    def interrupt(image, target):
        seen.append(target["image_id"])
        if len(seen) == 11:  # after six samples of pre-training, in the third update of the joint stage
            raise KeyboardInterrupt
        return image, target

    with pytest.raises(KeyboardInterrupt):
        train_stages(recipe, tmp_path / "run", transform=interrupt)
    source.unlink()
    monkeypatch.setattr("afrcnn.detectors.backbones.load_weights", None)
    run = train_stages(recipe, tmp_path / "run")
    assert tensors(run.weights_file) == tensors(whole.weights_file)
    assert run.adversary_file.read_bytes() == whole.adversary_file.read_bytes()


JITTER = JitterRecipe(degrees=5.0)
FROZEN = {"asdn": {"frozen": True}}
PRETRAINING, JOINT = PretrainingRecipe(iterations=2), JointRecipe(iterations=3)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [("detector", 0, 80_000)]),
        ({"adversaries": FUSION, "joint": JOINT}, [("detector", 0, 80_000), ("joint", 80_000, 80_003)]),
        ({"joint": JOINT, "init_from": "run"}, [("joint", 0, 3)]),
        ({"joint": JointRecipe(iterations=3, jitter=JITTER), "init_from": "run"}, [("joint", 0, 3)]),
        ({"adversaries": FUSION, "pretraining": PRETRAINING, "init_from": "run"}, [("pretraining", 0, 2)]),
        (
            {"adversaries": FROZEN, "pretraining": PRETRAINING, "joint": JOINT},
            [("detector", 0, 80_000), ("pretraining", 80_000, 80_002), ("joint", 80_002, 80_005)],
        ),
        (
            {"adversaries": FUSION, "pretraining": PRETRAINING, "joint": JOINT, "init_from": "run"},
            [("pretraining", 0, 2), ("joint", 2, 5)],
        ),
    ],
)
def test_there_are_the_stages_that_have_iterations(fields, expected):
    planned = plan_stages(Recipe(**fields))
    assert [(stage.name, stage.first, stage.last) for stage in planned] == expected


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"joint": JointRecipe(jitter=JITTER)}, "joint.iterations"),
        ({"joint": JointRecipe(jitter=JITTER), "pretraining": PRETRAINING}, "joint.iterations"),
        ({"adversaries": FUSION}, "joint.iterations"),
        ({"data": DataRecipe(augmentation=AugmentationRecipe(copy_paste=0.5))}, "joint.iterations"),
        ({"detector": DetectorRecipe(ohem=["detector", "joint"])}, "joint.iterations"),
        ({"pretraining": PRETRAINING}, "pretraining.iterations"),
        ({"pretraining": PRETRAINING, "joint": JOINT}, "pretraining.iterations"),
        ({"adversaries": FROZEN, "joint": JOINT}, "adversaries.asdn.frozen"),
        ({"init_from": "run"}, "init_from"),
        ({"joint": JointRecipe(iterations=3, clean_iterations=4)}, "joint.clean_iterations"),
    ],
)
def test_stages_that_lack_what_they_are_for_are_refused(fields, field):
    with pytest.raises(UserError) as caught:
        plan_stages(Recipe(**fields))
    message = str(caught.value)
    assert message.startswith(f"{field}: ") and ";" in message and "\n" not in message


def moved(now, before):
    """The names of tensors that are not what they were."""
    assert now.keys() == before.keys()
    return {name for name, value in now.items() if not torch.equal(value, before[name])}


def beginning(recipe, detector_file):
    """The adversaries that a run began with, by its seed and the detector that it had until then."""
    detector = build_detector(recipe.detector, 2)
    load_strict(detector, load_file(detector_file), detector_file)
    torch.manual_seed(seed_of(recipe.seed, 2 if recipe.pretraining.iterations else 3))
    return dict(build_adversary(recipe, initial_spec(recipe, detector, resumed=False), "all").state_dict())


def of(name, tensors):
    return {key for key in tensors if key.startswith(f"{name}.")}


def test_pretraining_moves_asdn_and_not_a_bit_of_the_detector(staged, plain, tmp_path):
    alone = replace(staged, joint=JointRecipe(), init_from=str(plain.folder))
    run = train_stages(alone, tmp_path / "run")
    assert tensors(run.weights_file) == tensors(plain.weights_file)
    trained = load_file(run.adversary_file)
    assert moved(trained, beginning(alone, plain.weights_file)) == of("asdn", trained)


def test_joint_training_moves_detector_and_adversaries_and_leaves_a_fixed_asdn(staged, whole, plain, tmp_path):
    alone = train_stages(replace(staged, joint=JointRecipe(), init_from=str(plain.folder)), tmp_path / "alone")
    pretrained, trained = load_file(alone.adversary_file), load_file(whole.adversary_file)
    assert moved(trained, pretrained) == trained.keys()
    detector = load_file(whole.weights_file)
    assert moved(detector, load_file(whole.detector_file)) == {name for name in detector if "box_coder" not in name}

    frozen = {"asdn": {"threshold": -1.0, "frozen": True}, "astn": {}}
    run = train_stages(replace(staged, adversaries=frozen, init_from=str(plain.folder)), tmp_path / "frozen")
    trained = load_file(run.adversary_file)
    assert moved(trained, pretrained) == of("astn", trained)
    assert tensors(run.weights_file) != tensors(whole.weights_file)


def test_astn_alone_is_pretrained_where_it_is_named_and_refused_where_not(staged, plain, tmp_path):
    lone = replace(staged, adversaries={"astn": {}}, joint=JointRecipe(), init_from=str(plain.folder))
    with pytest.raises(UserError, match=r"pretraining\.iterations: .*astn; set it .* pretrain: true"):
        train_stages(lone, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run = train_stages(replace(lone, adversaries={"astn": {"pretrain": True}}), tmp_path / "run")
    trained = load_file(run.adversary_file)
    assert moved(trained, beginning(lone, plain.weights_file)) == trained.keys()
    assert tensors(run.weights_file) == tensors(plain.weights_file)


def test_jitter_is_used_in_the_joint_stage_alone_and_leaves_no_trace_in_the_weights(
    staged, plain, tmp_path, monkeypatch
):
    calls = []
    forward = ProposalJitter.forward

    def counted(self, rois, sizes):
        calls.append(len(sizes))
        return forward(self, rois, sizes)

    monkeypatch.setattr(ProposalJitter, "forward", counted)
    jittered = replace(staged.joint, jitter=JitterRecipe(scale=0.1, aspect_ratio=0.1, degrees=5.0))
    run = train_stages(replace(staged, joint=jittered), tmp_path / "both")
    assert calls == [2] * staged.joint.iterations
    assert tensors(run.detector_file) == tensors(plain.weights_file)
    assert load_file(run.weights_file).keys() == load_file(plain.weights_file).keys()
    load_detector(run)

    only = replace(staged, adversaries={}, pretraining=PretrainingRecipe(), init_from=str(plain.folder))
    only = replace(only, joint=replace(only.joint, jitter=JITTER))
    run = train_stages(only, tmp_path / "jitter")
    assert load_file(run.weights_file).keys() == load_file(plain.weights_file).keys()
    assert not run.adversary_file.exists()
    assert moved(load_file(run.weights_file), load_file(plain.weights_file))


def test_a_joint_stage_that_ends_clean_ends_as_one_against_nobody(staged, plain, tmp_path):
    # Two runs that meet at the fourth update cannot agree after it unless nothing is made harder any more; one that is
    # clean throughout is the baseline's, bit for bit, and neither jitter nor augmentation leave a trace.
    hard = replace(
        staged,
        init_from=str(plain.folder),
        pretraining=PretrainingRecipe(),
        data=replace(staged.data, augmentation=AugmentationRecipe(random_erasing=1.0, cutout=1.0)),
        joint=replace(staged.joint, clean_iterations=4, clean_fraction=0.0, jitter=JitterRecipe(0.3, 0.3, 10.0)),
    )
    easy = replace(
        hard,
        adversaries={},
        data=replace(staged.data, augmentation=AugmentationRecipe()),
        joint=replace(staged.joint, clean_iterations=0),
    )
    clean, baseline = train_stages(hard, tmp_path / "clean"), train_stages(easy, tmp_path / "baseline")
    assert tensors(clean.weights_file) == tensors(baseline.weights_file)
    some = train_stages(replace(hard, joint=replace(hard.joint, clean_iterations=2)), tmp_path / "some")
    assert tensors(some.weights_file) != tensors(baseline.weights_file)
    dropped = [bool(row["asdn/score_drop"]) for row in rows(some)]
    assert dropped == [True, True, False, False]


def test_a_run_that_ends_clean_goes_on_with_the_same_bits(staged, plain, start, tmp_path):
    recipe = replace(
        staged,
        init_from=str(plain.folder),
        pretraining=PretrainingRecipe(),
        data=replace(staged.data, augmentation=AugmentationRecipe(cutout=1.0)),
        joint=replace(staged.joint, clean_iterations=1),
    )
    whole = train_stages(recipe, tmp_path / "whole")
    process = start(recipe, tmp_path / "killed")
    while process.is_alive() and not Run(tmp_path / "killed").checkpoint_file.is_file():
        time.sleep(0.001)
    process.kill()
    process.join()
    run = train_stages(recipe, tmp_path / "killed")
    assert tensors(run.weights_file) == tensors(whole.weights_file)
    assert run.adversary_file.read_bytes() == whole.adversary_file.read_bytes()


def test_the_log_goes_on_over_the_stages_and_says_how_hard_the_adversaries_are(whole):
    logged = rows(whole)
    assert [int(row["iteration"]) for row in logged] == list(range(1, 12))
    assert [row["stage"] for row in logged] == ["detector"] * 4 + ["pretraining"] * 3 + ["joint"] * 4
    joint = [
        "adversary",
        "asdn/score_drop",
        "asdn/hard_masks",
        "astn/score_drop",
        "astn/absolute_angle",
        "astn/angles_at_limit",
    ]
    columns = {
        "detector": ["classification", "box_regression"],
        "pretraining": ["adversary/asdn", "asdn/hardest_window_loss"],
        "joint": ["classification", "box_regression", *joint],
    }
    everywhere = ["iteration", "stage", "loss", "learning_rate", "iterations_per_second"]
    assert set(logged[0]) == {*everywhere, *(name for names in columns.values() for name in names)}
    for row in logged:
        assert {name for name, value in row.items() if value} == {*everywhere, *columns[row["stage"]]}
        losses = [row[name] for name in ("classification", "box_regression", "adversary", "adversary/asdn")]
        assert float(row["loss"]) == pytest.approx(sum(float(value) for value in losses if value), rel=1e-4)
    for row in logged[7:]:
        assert 0 <= float(row["asdn/hard_masks"]) <= 1 and 0 <= float(row["astn/angles_at_limit"]) <= 1
        assert -1 <= float(row["asdn/score_drop"]) <= 1 and 0 <= float(row["astn/absolute_angle"]) <= 10.001


def test_each_stage_begins_its_schedule_anew(staged, whole):
    decaying = replace(staged.joint, learning_rate=0.004, decay_at=[2], warmup_iterations=1)
    pretraining = replace(staged.pretraining, learning_rate=0.002, decay_at=[1], decay_factor=0.5)
    run = train_stages(replace(staged, pretraining=pretraining, joint=decaying), whole.folder.parent / "schedules")
    rates = [float(row["learning_rate"]) for row in rows(run)]
    assert rates == pytest.approx([0.01] * 4 + [0.002, 0.001, 0.001] + [0.002, 0.004, 0.0004, 0.0004])


def test_a_loss_that_is_not_finite_names_the_stage_s_learning_rate(staged, whole, tmp_path):
    high = replace(staged, joint=replace(staged.joint, learning_rate=3e38), init_from=str(whole.folder))
    with pytest.raises(UserError, match=r"^joint\.learning_rate: .* not finite .*joint\.warmup_iterations"):
        train_stages(high, tmp_path / "run")


def certain(recipe, **fields):
    """A recipe that leaves nothing to chance but the order of sums: all RoIs, no dropout, one size, whole masks."""
    detector = replace(
        recipe.detector, dropout=0.0, short_side=[64], rois_per_image=1000, foreground_fraction=1.0, **fields
    )
    # A mask of all that may be hidden is no draw; and a score drop on the threshold would be decided by rounding.
    masks = {"top": 1 / 3, "fraction": 1 / 3, "threshold": -1.0}
    return replace(
        recipe,
        detector=detector,
        adversaries={name: masks if name == "asdn" else fields for name, fields in recipe.adversaries.items()},
        pretraining=replace(recipe.pretraining, foreground_per_image=1000),
    )


def assert_same_change(tensors, others, before, tolerance=1e-5):
    """Updates are the same to a tolerance relative to them, but for the rounding of the weights that they made."""
    for name, value in before.items():
        rounding = 2 * torch.finfo(value.dtype).eps * value.abs().max()
        change = (tensors[name] - value).abs().max()
        assert (others[name] - tensors[name]).abs().max() <= tolerance * change + rounding, name


@pytest.mark.parametrize("images", [2, 3])
def test_one_image_at_a_time_trains_as_all_at_once(images, staged, plain, tmp_path):
    joint = replace(staged.joint, images_per_iteration=images, iterations=1, learning_rate=1.0)
    one = certain(replace(staged, pretraining=PretrainingRecipe(), joint=joint, init_from=str(plain.folder)))
    two = replace(one, joint=replace(one.joint, images_at_once=1))
    together, apart = train_stages(one, tmp_path / "together"), train_stages(two, tmp_path / "apart")
    start = load_file(plain.weights_file)
    assert_same_change(load_file(together.weights_file), load_file(apart.weights_file), start)
    if images == 2:  # of three, two can be adversarial, with unequal numbers of objects
        adversaries = load_file(together.adversary_file), load_file(apart.adversary_file)
        assert_same_change(*adversaries, beginning(one, plain.weights_file))
    for row, other in zip(rows(together), rows(apart), strict=True):
        assert row.keys() == other.keys() and float(row["loss"]) == pytest.approx(float(other["loss"]), rel=1e-3)


SCRIPT = """
import sys
import torch
from afrcnn.recipe import load_recipe
from afrcnn.training.train import train_stages

torch.set_num_threads(1)
train_stages(load_recipe(sys.argv[1]), sys.argv[2])
"""


def in_two_processes(recipe, folder):
    """The command that trains a recipe in two processes, and its environment."""
    script, file = folder.with_suffix(".py"), folder.with_suffix(".yaml")
    script.write_text(SCRIPT)
    file.write_text(dump_recipe(replace(recipe, engine=replace(recipe.engine, devices=2))))
    return [sys.executable, script, file, folder], {**os.environ, "OMP_NUM_THREADS": "1"}


def foreground(dataset: DetectionDataset, sampler, index):
    target = dataset.target(index)
    return int((sampler([target["proposals"]], [target]).labels > 0).sum())


def test_two_processes_train_what_one_does_in_every_stage_and_go_on_after_a_kill(staged, tmp_path):
    # The two images of a process, one of them clean, are half of an update; the adversarial ones differ in objects.
    # One large update of each later stage shows its gradients, which would else drown in the rounding of the weights.
    update = {"images_per_iteration": 4, "iterations": 1}
    recipe = certain(
        replace(
            staged,
            schedule=replace(staged.schedule, images_per_iteration=4, iterations=2, checkpoint_every=1),
            pretraining=replace(staged.pretraining, **update, learning_rate=0.1),
            joint=replace(staged.joint, **update, learning_rate=1.0),
        ),
        foreground_iou=0.8,
    )
    dataset, sampler = open_split(recipe, "trainval"), build_detector(recipe.detector, 2).roi_heads.sampler
    for number in (2, 3):
        update = _order(seed_of(recipe.seed, number), 0, len(dataset))[:4]
        assert foreground(dataset, sampler, update[1]) != foreground(dataset, sampler, update[3])

    one, two = train_stages(recipe, tmp_path / "one"), Run(tmp_path / "two")
    command, environment = in_two_processes(recipe, two.folder)
    process = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
    while process.poll() is None and not two.checkpoint_file.exists():
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(torch.load(two.checkpoint_file)["randomness"]) == 2
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    torch.manual_seed(recipe.seed)
    untrained = build_detector(recipe.detector, 2).state_dict()
    assert_same_change(load_file(one.detector_file), load_file(two.detector_file), untrained)
    assert_same_change(load_file(one.weights_file), load_file(two.weights_file), load_file(one.detector_file))
    begun = beginning(recipe, one.detector_file)
    assert_same_change(load_file(one.adversary_file), load_file(two.adversary_file), begun)
    for row, other in zip(rows(one), rows(two), strict=True):
        assert row["stage"] == other["stage"] and row.keys() == other.keys()
        for name in ("loss", "classification", "box_regression", "adversary", "adversary/asdn"):
            assert (row[name] == other[name] == "") or float(row[name]) == pytest.approx(float(other[name]), rel=1e-4)
        assert all(bool(row[name]) == bool(other[name]) for name in row)  # how hard it is, whichever process knows


def test_two_processes_train_what_one_does_against_adversaries_without_parameters(staged, plain, tmp_path):
    # One image for each process: the first is clean, and its process has nothing to harden.
    # The first hides no cell, which is no draw.
    adversaries = {"random_dropout": {"fraction": 0.0}, "hard_dropout": {"window": 3, "stride": 2}}
    recipe = replace(staged, adversaries=adversaries, pretraining=PretrainingRecipe(), init_from=str(plain.folder))
    recipe = replace(recipe, joint=replace(recipe.joint, iterations=1, learning_rate=1.0))
    recipe = certain(recipe)
    one, two = train_stages(recipe, tmp_path / "one"), Run(tmp_path / "two")
    command, environment = in_two_processes(recipe, two.folder)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not one.adversary_file.exists() and not two.adversary_file.exists()
    assert_same_change(load_file(one.weights_file), load_file(two.weights_file), load_file(plain.weights_file))
    for row, other in zip(rows(one), rows(two), strict=True):
        drop = "hard_dropout/score_drop"
        assert float(row[drop]) == pytest.approx(float(other[drop]), rel=1e-3, abs=1e-6)


def test_the_box_layer_begins_anew_in_the_joint_stage_where_it_is_told_to(recipe, tmp_path):
    nearly_still = {"iterations": 1, "learning_rate": 1e-12}
    stages = replace(recipe, schedule=ScheduleRecipe(iterations=4, **SGD), joint=JointRecipe(**nearly_still))
    renewed = replace(stages, joint=JointRecipe(**nearly_still, new_box_layer=True))
    layers = []
    for name, one in (("kept", stages), ("renewed", renewed)):
        run = train_stages(one, tmp_path / name)
        before, after = load_file(run.detector_file), load_file(run.weights_file)
        layers.append([tensors["roi_heads.predictor.bbox_pred.weight"] for tensors in (before, after)])
        assert torch.equal(before["roi_heads.box_head.fc7.weight"], after["roi_heads.box_head.fc7.weight"])
    torch.testing.assert_close(*layers[0])
    assert not torch.allclose(*layers[1])
    assert layers[1][1].std().item() == pytest.approx(0.001, rel=0.1)  # Fast R-CNN, section 2.3


def test_targets_by_class_are_measured_over_all_images_as_they_are_and_mirrored(recipe, tmp_path):
    by_class = replace(recipe.detector, box_targets="by_class")
    run = train_stages(replace(recipe, detector=by_class, schedule=ScheduleRecipe(iterations=1)), tmp_path / "run")
    dataset = open_split(run.recipe, "trainval")
    samples = {1: [], 2: []}
    for index in range(len(dataset)):
        target = dataset.target(index)
        for box in torch.cat([target["boxes"], target["proposals"]]):
            iou = box_iou(box[None], target["boxes"])[0]
            if iou.max() >= 0.5:
                sample = offsets(target["boxes"][iou.argmax()][None], box[None])[0]
                samples[int(target["labels"][iou.argmax()])] += [sample, sample * torch.tensor([-1, 1, 1, 1])]
    coder = load_detector(run).roi_heads.box_coder
    for label, of_label in samples.items():
        values = torch.stack(of_label).double()
        torch.testing.assert_close(coder.mean[label].double(), values.mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(coder.std[label].double(), values.std(0, correction=0), rtol=1e-4, atol=1e-5)
    assert coder.mean[1:, 0].abs().max() < 1e-6


def test_images_without_both_kinds_are_drawn_again_where_the_recipe_says_so(recipe, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(RoISampler, "has_both_kinds", lambda self, target: seen.append(target["image_id"]) or True)
    train_stages(replace(recipe, schedule=ScheduleRecipe(iterations=2)), tmp_path / "plain")
    assert not seen
    redrawn = replace(recipe, data=replace(recipe.data, redraw=True), schedule=ScheduleRecipe(iterations=2))
    train_stages(redrawn, tmp_path / "redrawn")
    assert len(seen) == 4
