"""The command line: parsing only; each command calls one function of the library.

What a command needs is imported when it runs, so that ``--help`` and mistakes answer at once.
"""

# ruff: noqa: PLC0415
from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import re
import shlex
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from afrcnn import __version__
from afrcnn.core.errors import UserError

RECIPE_FIELD = re.compile(
    r"--((data|detector|adversary|schedule|pretraining|joint|engine)(\.[\w.]+)?|init_from|seed)\+?(=.*)?", re.DOTALL
)
"""An option that is a field of a recipe, perhaps with its value."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: its words, without the program's name; those of the process when None.

    Returns:
        The exit status: 0; 2 after a mistake of the user, told in one line on standard error; 130 after Ctrl-C; 141
        where the reader of the output has gone away.
    """
    _quieten_libraries()
    # PyTorch asks the kernel for large pages: on CPUs a tenth of a training step goes into mapping small ones. It
    # reads this once, when it is loaded.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        try:
            arguments = _parse(sys.argv[1:] if argv is None else argv)
            arguments.call(arguments)
        finally:
            sys.stdout.flush()  # here, where a reader that has gone away is noticed; after --help, too
    except UserError as error:
        print(f"afrcnn: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("afrcnn: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Python flushes standard output once more at its end, where nobody would catch the error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command; fields of a recipe go as they are into ``fields``, for ``load_recipe`` to check."""
    parser = _build_parser()
    command = argv[0] if argv else None
    takes_fields = command in ("train", "evaluate", "predict", "masks", "stress", "report")
    words, fields = _split_fields(argv) if takes_fields else (list(argv), [])
    arguments = parser.parse_args(words)
    arguments.fields = fields
    return arguments


def _split_fields(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part fields of a recipe, each with its value, from the other words."""
    words: list[str] = []
    fields: list[str] = []
    rest = iter(argv)
    for word in rest:
        if found := RECIPE_FIELD.fullmatch(word):
            fields.append(word)
            if found[4] is None and (value := next(rest, None)) is not None:
                fields.append(value)
        else:
            words.append(word)
    return words, fields


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are those of the library, and whose help keeps its lines as written."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UserError(message, fix=f"see `{self.prog} --help`")


def _build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="afrcnn",
        usage="afrcnn COMMAND ...",
        description="Train, evaluate and use Fast R-CNN detectors on your own photographs.",
        epilog="""from nothing to a trained detector:
  afrcnn shapes shapes
  afrcnn proposals shapes
  afrcnn train configs/shapes/small_frcn.yaml --data.root shapes --run run
  afrcnn evaluate run
  afrcnn predict run shapes/JPEGImages/test_000000.jpg

`afrcnn COMMAND --help` explains a command.""",
    )
    parser.add_argument("--version", action="version", version=f"afrcnn {__version__}")
    parser.set_defaults(call=lambda _: parser.print_help())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND ...", prog="afrcnn")
    for add in (
        _add_shapes,
        _add_split,
        _add_proposals,
        _add_train,
        _add_evaluate,
        _add_predict,
        _add_masks,
        _add_stress,
        _add_report,
    ):
        add(commands)
    return parser


def _add_shapes(commands: Any) -> None:
    parser = commands.add_parser(
        "shapes",
        help="draw a dataset to try things on",
        description="Draw a dataset of jointed figures on textured grounds, in PASCAL VOC layout,\n"
        "with the hidden fraction and the bend of each object in its annotation.\n"
        "The same numbers draw the same set.",
        epilog="example:\n  afrcnn shapes shapes --trainval 400 --test 100",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder to write")
    parser.add_argument("--trainval", type=int, default=400, metavar="N", help="images to train on (default: 400)")
    parser.add_argument("--test", type=int, default=100, metavar="N", help="images to test on (default: 100)")
    parser.add_argument("--size", type=int, default=256, metavar="PIXELS", help="side of an image (default: 256)")
    parser.add_argument(
        "--occlusion", type=float, default=0.5, metavar="X", help="how much is hidden, from 0 to 1 (default: 0.5)"
    )
    parser.add_argument(
        "--deformation", type=float, default=0.5, metavar="X", help="how far joints bend, from 0 to 1 (default: 0.5)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another seed, another set (default: 0)")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="processes that draw; -1 for all cores (default: 1)"
    )
    parser.set_defaults(call=_shapes)


def _shapes(arguments: argparse.Namespace) -> None:
    from afrcnn.core.progress import progress
    from afrcnn.data.shapes import generate

    with progress("drawing", arguments.trainval + arguments.test, "image") as report:
        generate(
            arguments.folder,
            trainval=arguments.trainval,
            test=arguments.test,
            size=arguments.size,
            occlusion=arguments.occlusion,
            deformation=arguments.deformation,
            seed=arguments.seed,
            jobs=arguments.jobs,
            progress=lambda done, _: report(done, ""),
        )
    print(f"dataset: {arguments.folder}")
    print(f"next:    afrcnn proposals {_quoted(arguments.folder)}")


def _add_split(commands: Any) -> None:
    parser = commands.add_parser(
        "split",
        help="part images with hidden objects from those in the open",
        description="Part the images of a split into those whose objects are all in the open, to\n"
        "train on, and the others, to test on: does a detector find hidden objects that\n"
        "its training never showed? Shows how many objects of each class are where.",
        epilog="""example:
  afrcnn split cards trainval
  afrcnn proposals cards --split open_trainval hidden_trainval
  afrcnn train recipe.yaml --data.root cards \\
    --data.train_split open_trainval --data.test_split hidden_trainval

An object is hidden where the box of another one covers more than X of its own.""",
    )
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="folder in PASCAL VOC or COCO layout")
    parser.add_argument("split", metavar="SPLIT", help="split to part")
    parser.add_argument(
        "--names",
        nargs=2,
        metavar=("OPEN", "HIDDEN"),
        help="names of the new splits (default: open_SPLIT hidden_SPLIT)",
    )
    parser.add_argument("--overlap", type=float, default=0.05, metavar="X", help="from 0 to 1 (default: 0.05)")
    parser.add_argument(
        "--layout", choices=("auto", "voc", "coco"), default="auto", help="layout of DATASET (default: what is found)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="folder that gets the new splits and links to DATASET's files (default: DATASET)",
    )
    parser.set_defaults(call=_split)


def _split(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from afrcnn.data.splits import split_open_hidden
    from afrcnn.reporting.split_table import split_table

    parts = split_open_hidden(
        arguments.dataset,
        arguments.split,
        names=arguments.names and tuple(arguments.names),
        overlap=arguments.overlap,
        layout=arguments.layout,
        out=arguments.out,
    )
    Console().print(split_table(parts))
    for part in parts:
        print(f"{part.name}: {part.file}")
    names = " ".join(shlex.quote(part.name) for part in parts)
    print(f"next: afrcnn proposals {_quoted(arguments.out or arguments.dataset)} --split {names}")


def _add_proposals(commands: Any) -> None:
    parser = commands.add_parser(
        "proposals",
        help="propose boxes by selective search, or import published ones",
        description="Propose boxes for the images of a dataset by selective search, and report how\n"
        "many of its objects they cover. Interrupted, the same command goes on with\n"
        "the images that are left.",
        epilog="""examples:
  afrcnn proposals VOCdevkit/VOC2007
  afrcnn proposals photos --split test --mode quality --out proposals
  afrcnn proposals VOCdevkit/VOC2007 --split test --import voc_2007_test.mat

A recipe finds them by data.proposals, the folder given by --out, and
data.proposal_method: the mode, or the name of what was imported.""",
    )
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="folder in PASCAL VOC or COCO layout")
    parser.add_argument(
        "--split", nargs="+", metavar="SPLIT", help="splits to work on (default: all, but no image twice)"
    )
    parser.add_argument(
        "--layout", choices=("auto", "voc", "coco"), default="auto", help="layout of DATASET (default: what is found)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="folder that gets a store for each split (default: DATASET/proposals)",
    )
    search = parser.add_argument_group("selective search")
    search.add_argument(
        "--mode", choices=("fast", "quality"), default="fast", help="quality finds more, more slowly (default: fast)"
    )
    search.add_argument(
        "--jobs", type=int, default=-1, metavar="N", help="images searched at a time (default: one for each core)"
    )
    search.add_argument(
        "--backend",
        choices=("loky", "dask", "ray"),
        default="loky",
        help="this machine (loky), or the cluster of DASK_SCHEDULER_ADDRESS or RAY_ADDRESS (default: loky)",
    )
    published = parser.add_argument_group("published proposals")
    published.add_argument(
        "--import",
        dest="published",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="import selective search's .mat files or DeepMask's JSON files instead of searching",
    )
    published.add_argument(
        "--method", metavar="NAME", help="name for what is imported (default: selective_search or deepmask)"
    )
    published.add_argument("--allow-missing", action="store_true", help="accept that the files lack some of the images")
    parser.set_defaults(call=_proposals)


def _proposals(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from afrcnn.commands.proposals import prepare
    from afrcnn.reporting.recall_table import recall_table

    for split, store, recall in prepare(
        arguments.dataset,
        arguments.split,
        layout=arguments.layout,
        out=arguments.out,
        mode=arguments.mode,
        jobs=arguments.jobs,
        backend=arguments.backend,
        published=arguments.published,
        method=arguments.method,
        allow_missing=arguments.allow_missing,
    ):
        Console().print(recall_table(recall))
        print(f"proposals of {split}: {store.folder}", flush=True)


def _add_train(commands: Any) -> None:
    parser = commands.add_parser(
        "train",
        help="train the detector of a recipe",
        usage="afrcnn train RECIPE [--run FOLDER] [--FIELD VALUE ...]",
        description="Train the detector of a recipe: a YAML file that names what differs from the\n"
        "defaults below. Every field can be set on the command line. Interrupted, the\n"
        "same command goes on from the last checkpoint.",
        epilog="""example:
  afrcnn train configs/voc07/vgg16_frcn.yaml --data.root VOCdevkit/VOC2007""",
        add_help=False,
    )
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="YAML file, as configs/*/*.yaml")
    parser.add_argument(
        "--run",
        type=Path,
        metavar="FOLDER",
        help="folder of the run (default: runs/<dataset>/<recipe>-seed<seed>)",
    )
    parser.add_argument("-h", "--help", action=_HelpWithFields, help="show this help, with the fields of a recipe")
    parser.set_defaults(call=_train)


class _HelpWithFields(argparse.Action):
    """Print the help of a command, then the fields of a recipe with their defaults."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(nargs=0, **kwargs)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from afrcnn.recipe import recipe_parser

        parser.print_help()
        print()
        recipe_parser(usage=argparse.SUPPRESS, add_help=False).print_help()
        parser.exit()


def _train(arguments: argparse.Namespace) -> None:
    from lightning_fabric.utilities.rank_zero import rank_zero_only

    from afrcnn.recipe import load_recipe
    from afrcnn.training.train import train

    say = rank_zero_only(print)  # of several processes, the first speaks
    recipe = load_recipe(arguments.recipe, arguments.fields)
    folder = arguments.run or Path(
        "runs", Path(recipe.data.root).resolve().name, f"{arguments.recipe.stem}-seed{recipe.seed}"
    )
    say(f"run:     {folder}", flush=True)
    run = train(recipe, folder)
    say(f"weights: {run.weights_file}")
    say(f"next:    afrcnn evaluate {_quoted(folder)}")


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure the average precision of a run, or of a file of detections",
        usage="afrcnn evaluate RUN [--ensemble RUN [RUN ...]] [--split SPLIT]\n"
        "       afrcnn evaluate --detections FILE --data.root DATASET [--split SPLIT]\n"
        "                       [--svd FC6 FC7] [--iou X] [--subsets] [--lists FILE [FILE ...]]\n"
        "                       [--out FOLDER] [--FIELD VALUE ...]",
        description="Detect objects in a split with the trained detector of a run. Shows VOC's AP\n"
        "by class, by 11 points and by area, and COCO's; writes results.json and the\n"
        "detections, as COCO's JSON and as the files of VOC's server.",
        epilog="""examples:
  afrcnn evaluate runs/VOC2007/vgg16_frcn-seed0
  afrcnn evaluate run --split val --out val --data.root elsewhere/VOC2007
  afrcnn evaluate runs/full --ensemble runs/ohem --out both
  afrcnn evaluate --detections results.json --data.root DATASET --split val

FIELD is any field of the run's recipe; `afrcnn train --help` lists them.""",
    )
    parser.add_argument("run", nargs="?", type=Path, metavar="RUN", help="folder that `afrcnn train` made")
    parser.add_argument(
        "--detections",
        type=Path,
        metavar="FILE",
        help="instead of RUN, detections of any detector: a file in COCO's results format, or a folder of the VOC "
        "server's text files",
    )
    parser.add_argument(
        "--iou", type=float, default=0.5, metavar="X", help="IoU that a hit of VOC's AP exceeds (default: 0.5)"
    )
    parser.add_argument(
        "--ensemble",
        nargs="+",
        type=Path,
        default=[],
        metavar="RUN",
        help="runs whose detectors answer together with RUN's, by the mean over each proposal; asks for --out",
    )
    parser.add_argument("--split", metavar="SPLIT", help="split to detect in (default: the recipe's data.test_split)")
    parser.add_argument(
        "--svd",
        nargs=2,
        type=int,
        metavar=("FC6", "FC7"),
        help="truncate fc6 and fc7 to these ranks, for speed (in Fast R-CNN 1024 256)",
    )
    parser.add_argument(
        "--subsets",
        action="store_true",
        help="AP and recall by subset, too: overlapped objects and unoccluded ones, by size, by VOC's flags, "
        "separated and occluded by COCO's masks",
    )
    parser.add_argument(
        "--lists",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="on COCO's val2017, subsets of Zhan et al. 2022, too: separated_coco.pkl, occluded_coco.pkl",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder to write to (default: RUN)")
    parser.set_defaults(call=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from afrcnn.commands.evaluate import evaluate
    from afrcnn.reporting.subset_table import subset_table
    from afrcnn.reporting.table import ap_table
    from afrcnn.run import Run

    svd = None if arguments.svd is None else (arguments.svd[0], arguments.svd[1])
    results = evaluate(
        arguments.run,
        split=arguments.split,
        ensemble=arguments.ensemble,
        svd=svd,
        out=arguments.out,
        subsets=arguments.subsets,
        lists=arguments.lists,
        detections=arguments.detections,
        iou=arguments.iou,
        overrides=arguments.fields,
    )
    Console().print(ap_table(results))
    if results.subsets:
        Console().print(subset_table(results.subsets))
    if folder := arguments.out or arguments.run:
        print(f"results:    {Run(folder).results_file}")
        if arguments.run:
            print(f"detections: {Run(folder).detections}")


def _add_predict(commands: Any) -> None:
    parser = commands.add_parser(
        "predict",
        help="detect objects in images, as pictures and JSON",
        usage="afrcnn predict RUN IMAGE [IMAGE ...] [--out FOLDER] [--score SCORE]\n"
        "                      [--FIELD VALUE ...]",
        description="Detect objects in photographs with the trained detector of a run. Writes a\n"
        "picture of each with its boxes, and predictions.json with classes, scores and\n"
        "boxes in pixels.",
        epilog="""examples:
  afrcnn predict run photo.jpg
  afrcnn predict run photos --score 0.7 --out found

FIELD is any field of the run's recipe; `afrcnn train --help` lists them.""",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that `afrcnn train` made")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image, or folder of images")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder to write to (default: RUN/predictions)")
    parser.add_argument(
        "--score", type=float, default=0.5, help="lowest score that is shown and written (default: 0.5)"
    )
    parser.set_defaults(call=_predict)


def _predict(arguments: argparse.Namespace) -> None:
    from afrcnn.commands.predict import predict

    predictions = predict(
        arguments.run, arguments.images, arguments.out, score=arguments.score, overrides=arguments.fields
    )
    for prediction in predictions:
        counts = Counter(item.name for item in prediction.objects)
        found = ", ".join(f"{count} {name}" for name, count in counts.items())
        print(f"{prediction.picture}: {found or 'nothing'}")
    print(f"predictions: {(arguments.out or arguments.run / 'predictions') / 'predictions.json'}")


def _add_masks(commands: Any) -> None:
    parser = commands.add_parser(
        "masks",
        help="show what adversaries hide and bend in images",
        usage="afrcnn masks RUN IMAGE [IMAGE ...] [--out FOLDER] [--boxes N]\n"
        "                    [--score SCORE] [--box X1 Y1 X2 Y2 CLASS] [--seed N]\n"
        "                    [--FIELD VALUE ...]",
        description="Show what the adversaries of a run do to the objects of photographs. Draws a\n"
        "figure of each: for each detected object ASDN's heatmap and mask, ASTN's angles,\n"
        "and the score of the object's class before and after. Writes masks.json with\n"
        "all of it.",
        epilog="""examples:
  afrcnn masks run photo.jpg
  afrcnn masks run photos --boxes 3 --seed 1 --out figures
  afrcnn masks run photo.jpg --box 40 12 180 300 person --box 200 9 250 80 dog
  afrcnn masks run photo.jpg --adversary.chain '[hard_dropout]'

Masks are drawn at random: the same seed draws the same ones (default: the
run's). The last example works for any run, also one trained without
adversaries. Scores are of the box as it is drawn, classified anew.

FIELD is any field of the run's recipe; `afrcnn train --help` lists them.""",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that `afrcnn train` made")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image, or folder of images")
    parser.add_argument(
        "--box",
        nargs=5,
        action="append",
        default=[],
        metavar=("X1", "Y1", "X2", "Y2", "CLASS"),
        help="an object to show instead of detections, in pixels of the only IMAGE; once for each object",
    )
    parser.add_argument(
        "--boxes", type=int, default=6, metavar="N", help="how many detections an image shows at most (default: 6)"
    )
    parser.add_argument(
        "--score", type=float, default=0.5, help="lowest score of detections that are shown (default: 0.5)"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder to write to (default: RUN/masks)")
    parser.set_defaults(call=_masks)


def _masks(arguments: argparse.Namespace) -> None:
    from afrcnn.commands.masks import masks

    drawn = masks(
        arguments.run,
        arguments.images,
        arguments.out,
        boxes=[_box(words) for words in arguments.box],
        limit=arguments.boxes,
        score=arguments.score,
        overrides=arguments.fields,
    )
    for image in drawn:
        counts = Counter(item.name for item in image.objects)
        found = ", ".join(f"{count} {name}" for name, count in counts.items())
        print(f"{image.picture}: {found or 'nothing'}" + (f"; {image.left_out} left out" if image.left_out else ""))
    print(f"masks: {(arguments.out or arguments.run / 'masks') / 'masks.json'}")


def _add_stress(commands: Any) -> None:
    parser = commands.add_parser(
        "stress",
        help="measure what a run finds of hidden and bent objects",
        usage="afrcnn stress RUN [--occluder KIND ...] [--placement PLACE]\n"
        "                     [--levels X ...] [--bend KIND ...] [--degrees X ...]\n"
        "                     [--warps X ...]\n"
        "                     [--split SPLIT] [--stress-seed N] [--out FOLDER]\n"
        "                     [--FIELD VALUE ...]",
        description="Measure AP and recall of a run on its test photographs while their objects are\n"
        "hidden, ever more of each box, and while their content is bent. Writes\n"
        "stress.json and the curves, stress.png.",
        epilog="""examples:
  afrcnn stress run
  afrcnn stress run --occluder grey noise photo --bend rotation elastic
  afrcnn stress run --placement worst --levels 0.3 --out worst

The same --stress-seed changes the photographs alike for every run. Proposals
and boxes are those of the photographs as they are. FIELD is any field of the
run's recipe; `afrcnn train --help` lists them.""",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that `afrcnn train` made")
    hiding = parser.add_argument_group("hiding")
    hiding.add_argument(
        "--occluder",
        nargs="+",
        default=[],
        metavar="KIND",
        help="grey, noise, or photo: pieces of other photographs without the object's class (default: photo, or "
        "none where --bend is given)",
    )
    hiding.add_argument(
        "--placement",
        default="random",
        metavar="PLACE",
        help="random, or worst: where the run gives the object the lowest score, of 9 places; 10 times as long "
        "(default: random)",
    )
    hiding.add_argument(
        "--levels",
        nargs="+",
        type=float,
        default=[],
        metavar="X",
        help="shares of each box to hide (default: 0 0.1 ... 0.6)",
    )
    bending = parser.add_argument_group("bending")
    bending.add_argument(
        "--bend",
        nargs="+",
        default=[],
        metavar="KIND",
        help="rotation: parts turn; elastic: all of the object is warped (default: none)",
    )
    bending.add_argument(
        "--degrees", nargs="+", type=float, default=[], metavar="X", help="angles of parts (default: 0 15 30 45 60)"
    )
    bending.add_argument(
        "--warps",
        nargs="+",
        type=float,
        default=[],
        metavar="X",
        help="largest displacements, as shares of a box's shorter side (default: 0 0.03 0.06 0.09 0.12)",
    )
    parser.add_argument("--split", metavar="SPLIT", help="split to test on (default: the recipe's data.test_split)")
    parser.add_argument(
        "--stress-seed", type=int, default=0, metavar="N", help="of places, pieces, noise and bends (default: 0)"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder to write to (default: RUN)")
    parser.set_defaults(call=_stress)


def _stress(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from afrcnn.commands.stress import stress
    from afrcnn.visualize.robustness import stress_table

    results = stress(
        arguments.run,
        occluder=arguments.occluder,
        placement=arguments.placement,
        levels=arguments.levels,
        bend=arguments.bend,
        degrees=arguments.degrees,
        warps=arguments.warps,
        split=arguments.split,
        stress_seed=arguments.stress_seed,
        out=arguments.out,
        overrides=arguments.fields,
    )
    for curve in results.curves:
        Console().print(stress_table(curve))
    written = arguments.out or arguments.run
    print(f"results: {written / 'stress.json'}")
    print(f"curves:  {written / 'stress.png'}")


def _add_report(commands: Any) -> None:
    parser = commands.add_parser(
        "report",
        help="compare runs on one HTML page",
        usage="afrcnn report RUN [RUN ...] [--baseline RUN] [--out FILE]\n                     [--FIELD VALUE ...]",
        description="Write one HTML file that needs no other and no network: AP of all runs and by\n"
        "class beside the paper's, what changes by class, stress tests, what adversaries\n"
        "hide and bend, new false positives, training curves, and recipes. Runs whose\n"
        "recipes differ in the seed alone are shown as one method, with mean and spread.\n"
        "What a run has not got is left out, and the page says what makes it.",
        epilog="""examples:
  afrcnn report runs/VOC2007/vgg16_*-seed0
  afrcnn report runs/photos/* --baseline runs/photos/frcn-seed0 --out photos.html

FIELD is any field of the runs' recipes; `afrcnn train --help` lists them.""",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder that `afrcnn train` made")
    parser.add_argument(
        "--baseline", type=Path, metavar="RUN", help="run that the others are compared with (default: the first)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("report.html"), metavar="FILE", help="file to write (default: report.html)"
    )
    parser.set_defaults(call=_report)


def _report(arguments: argparse.Namespace) -> None:
    from afrcnn.reporting.page import report

    file = report(arguments.runs, arguments.out, baseline=arguments.baseline, overrides=arguments.fields)
    print(f"report: {file}")


def _box(words: Sequence[str]) -> tuple[tuple[float, float, float, float], str]:
    """Return the box and the class of a ``--box``."""
    try:
        x1, y1, x2, y2 = map(float, words[:4])
    except ValueError as error:
        raise UserError(f"{' '.join(words)} is no box", field="--box", fix="give X1 Y1 X2 Y2 CLASS") from error
    return (x1, y1, x2, y2), words[4]


def _quoted(path: Path) -> str:
    """Return a path as a shell takes it."""
    return shlex.quote(str(path))


def _quieten_libraries() -> None:
    """Keep hints of libraries to their programmers off the screen; PYTHONWARNINGS brings the warnings back."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    sys.excepthook = _report_exception


def _report_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Show an exception that nobody caught, but for what a DataLoader's worker says when Ctrl-C ends its parent."""
    if multiprocessing.parent_process() is None or not isinstance(error, EOFError | ConnectionError):
        sys.__excepthook__(kind, error, trace)


if __name__ == "__main__":
    sys.exit(main())
