"""Weights from files and from a server, whole and damaged, friendly and hostile."""

import dataclasses
import hashlib
import pickle
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import SqueezeNet1_0_Weights, squeezenet1_0

from afrcnn.core.errors import UserError
from afrcnn.detectors.weights import RENAMED, load_strict, load_weights, read_state_dict, require_normalisation


def load(model, weights, ignore=("classifier.",)):
    load_weights(model, weights, SqueezeNet1_0_Weights, ignore=ignore)


def assert_same(state, expected):
    assert state.keys() == expected.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)


def write(state, file: Path) -> Path:
    save_file(state, file) if file.suffix == ".safetensors" else torch.save(state, file)
    return file


@pytest.fixture(scope="module")
def state():
    return squeezenet1_0().state_dict()


@pytest.fixture
def model():
    return squeezenet1_0()


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "a.pt"])
def test_every_tensor_of_a_file_is_loaded(name, state, model, tmp_path):
    load(model, write(state, tmp_path / name), ignore=())
    assert_same(model.state_dict(), state)


def test_a_file_in_the_format_of_old_pytorch_is_loaded(state, model, tmp_path):
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    load(model, str(tmp_path / "old.pth"), ignore=())
    assert_same(model.state_dict(), state)


def test_float16_is_cast(state, model, tmp_path):
    halves = {name: tensor.half() for name, tensor in state.items()}
    load(model, write(halves, tmp_path / "half.safetensors"), ignore=())
    assert_same(model.state_dict(), {name: tensor.float() for name, tensor in halves.items()})


@pytest.mark.parametrize("classifier", ["absent", "of 20 classes"])
def test_what_is_ignored_may_be_absent_or_of_another_shape(classifier, state, model, tmp_path):
    before = model.classifier[1].weight.clone()
    changed = {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}
    if classifier == "of 20 classes":
        changed["classifier.1.weight"] = torch.zeros(20, 512, 1, 1)
    load(model, write(changed, tmp_path / "a.safetensors"))
    torch.testing.assert_close(model.features[0].weight, state["features.0.weight"])
    torch.testing.assert_close(model.classifier[1].weight, before)


def without(state):
    return {name: tensor for name, tensor in state.items() if name != "features.3.squeeze.bias"}


CHANGES = {
    "features.3.squeeze.bias is missing": without,
    "features.99.weight is not expected": lambda state: state | {"features.99.weight": torch.zeros(1)},
    "features.0.weight is 64x3x3x3, expected 96x3x7x7": lambda state: (
        state | {"features.0.weight": torch.zeros(64, 3, 3, 3)}
    ),
    "features.0.bias is a scalar, expected 96": lambda state: state | {"features.0.bias": torch.tensor(1.0)},
    "features.0.bias holds values that are not finite": lambda state: (
        state | {"features.0.bias": torch.full((96,), torch.nan)}
    ),
    "is missing and 47 more": lambda state: {"classifier.1.bias": state["classifier.1.bias"]},  # of 25 x 2
}


@pytest.mark.parametrize(("difference", "change"), CHANGES.items(), ids=list(CHANGES))
def test_weights_of_another_model_are_refused_by_file_and_tensor(difference, change, state, model, tmp_path):
    file = write(change(state), tmp_path / "other.safetensors")
    with pytest.raises(UserError) as caught:
        load(model, file)
    message = str(caught.value)
    assert message.startswith(str(file))
    assert difference in message
    assert "\n" not in message
    assert len(message) - len(str(file)) < 400


def test_an_unknown_name_is_answered_with_the_known_ones(model):
    with pytest.raises(UserError, match=r"IMAGENET1K_V9.*IMAGENET1K_V1, DEFAULT"):
        load(model, "IMAGENET1K_V9")


def test_weights_of_which_the_normalisation_is_known_need_it(tmp_path):
    tensor = {"w": torch.ones(1)}
    for stated in ("imagenet", "caffe", "somebody's", None):
        metadata = {"format": "pt"} | ({} if stated is None else {"normalisation": stated})
        save_file(tensor, tmp_path / f"{stated}.safetensors", metadata=metadata)
    torch.save(tensor, tmp_path / "a.pth")
    caffe, imagenet = tmp_path / "caffe.safetensors", tmp_path / "imagenet.safetensors"
    with pytest.raises(UserError, match=r"caffe\.safetensors: detector\.normalisation: is imagenet, .*set it to caffe"):
        require_normalisation(caffe, "imagenet")
    for weights in (imagenet, "IMAGENET1K_V1", "DEFAULT"):
        with pytest.raises(UserError, match=r"detector\.normalisation: is caffe, .* as imagenet; set it to imagenet"):
            require_normalisation(weights, "caffe")
        require_normalisation(weights, "imagenet")
    require_normalisation(str(caffe), "caffe")
    (tmp_path / "cut.safetensors").write_bytes(caffe.read_bytes()[:20])
    for name in ("somebody's.safetensors", "None.safetensors", "a.pth", "absent.safetensors", "cut.safetensors"):
        for normalisation in ("imagenet", "caffe"):
            require_normalisation(tmp_path / name, normalisation)


class Hostile:
    """An object whose unpickling makes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("write_pickle", ["pickle", "zip", "old"])
def test_a_hostile_pickle_runs_no_code(write_pickle, tmp_path):
    trace, file = tmp_path / "trace", tmp_path / "hostile.pth"
    payload = {"features.0.weight": Hostile(trace)}
    if write_pickle == "pickle":
        file.write_bytes(pickle.dumps(payload, protocol=2))
        pickle.loads(file.read_bytes())
    else:
        torch.save(payload, file, _use_new_zipfile_serialization=write_pickle == "zip")
        torch.load(file, weights_only=False)
    assert trace.exists()  # the pickle is hostile indeed
    trace.unlink()
    with pytest.raises(UserError, match=r"hostile\.pth"):
        read_state_dict(file)
    assert not trace.exists()


def test_a_pickle_under_the_name_of_safetensors_runs_no_code(tmp_path):
    trace, file = tmp_path / "trace", tmp_path / "hostile.safetensors"
    file.write_bytes(pickle.dumps(Hostile(trace)))
    with pytest.raises(UserError, match=r"hostile\.safetensors"):
        read_state_dict(file)
    assert not trace.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_truncated_file_is_named(suffix, state, tmp_path):
    file = write(state, tmp_path / f"short{suffix}")
    whole = file.read_bytes()
    for fraction in (0.0, 0.001, 0.5, 0.999):
        file.write_bytes(whole[: int(fraction * len(whole))])
        with pytest.raises(UserError, match="short"):
            read_state_dict(file)


def test_random_bytes_are_refused(tmp_path):
    file = tmp_path / "noise.pth"
    for _ in range(20):
        file.write_bytes(torch.randint(256, (200,)).byte().numpy())
        with pytest.raises(UserError, match=r"noise\.pth"):
            read_state_dict(file)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_missing_file_and_a_folder_are_named(suffix, tmp_path):
    with pytest.raises(UserError, match="absent"):
        read_state_dict(tmp_path / f"absent{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(UserError, match="folder"):
        read_state_dict(tmp_path / f"folder{suffix}")


@pytest.mark.parametrize("content", [{"state_dict": {"w": torch.ones(1)}}, [torch.ones(1)], {1: torch.ones(1)}])
def test_a_file_of_anything_but_named_tensors_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "checkpoint.pth")
    with pytest.raises(UserError, match=r"checkpoint\.pth.*not a state dict"):
        read_state_dict(tmp_path / "checkpoint.pth")


def test_a_detector_takes_its_own_tensors_and_no_others(tiny):
    detector, other = tiny.fast_rcnn(), tiny.fast_rcnn()
    load_strict(detector, other.state_dict(), "weights.safetensors")
    assert_same(detector.state_dict(), other.state_dict())

    given, name = other.state_dict(), "roi_heads.predictor.cls_score.bias"
    cases = {
        f"{name} is missing (1 differences)": {key: tensor for key, tensor in given.items() if key != name},
        "new is not expected (1 differences)": given | {"new": torch.zeros(1)},
        f"{name} is 5, expected 4 (1 differences)": given | {name: torch.zeros(5)},
        f"{name} is a scalar, expected 4 (2 differences)": given | {name: torch.tensor(0.0), "new": torch.zeros(1)},
    }
    before = {key: tensor.clone() for key, tensor in detector.state_dict().items()}
    for problem, tensors in cases.items():
        with pytest.raises(UserError) as caught:
            load_strict(detector, tensors, "run/weights.safetensors")
        assert str(caught.value).startswith("run/weights.safetensors")
        assert f"holds another model than the recipe's: {problem}" in str(caught.value)
    assert_same(detector.state_dict(), before)


def old_name(name):
    """The name that a detector's tensor had in the first files."""
    new = max((new for new in RENAMED.values() if name.startswith(new)), key=len)
    return next(old for old in RENAMED if RENAMED[old] == new) + name.removeprefix(new)


def test_detectors_are_read_from_files_with_the_tensors_under_their_first_names(tiny):
    detector, other = tiny.fast_rcnn(), tiny.fast_rcnn()
    old = {old_name(name): tensor for name, tensor in other.state_dict().items()}
    assert {
        "trunk.conv1.0.weight",
        "head.fc6.weight",
        "predictor.cls_score.bias",
        "predictor.bbox_pred.weight",
        "box_coder.mean",
        "box_coder.std",
    } <= set(old)
    assert not set(old) & set(other.state_dict())
    load_strict(detector, old, "weights.safetensors")
    assert_same(detector.state_dict(), other.state_dict())
    with pytest.raises(UserError, match=r"roi_heads\.box_head\.fc6\.weight is missing"):
        load_strict(detector, {name: old[name] for name in old if name != "head.fc6.weight"}, "weights.safetensors")


def test_adversaries_tensors_keep_their_names_whatever_they_begin_with(tiny):
    chain, other = tiny.chain("asdn fc", "astn"), tiny.chain("asdn fc", "astn")
    load_strict(chain, other.state_dict(), "adversary.safetensors")
    assert_same(chain.state_dict(), other.state_dict())
    inner = torch.nn.ModuleDict({"head": torch.nn.Linear(2, 2), "predictor": torch.nn.Linear(2, 2)})
    load_strict(inner, {name: tensor + 1 for name, tensor in inner.state_dict().items()}, "own.safetensors")


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """A web server on this machine; the function makes torchvision's enum point to a file there."""
    served = tmp_path / "served"
    served.mkdir()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=served))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()

    def point(name: str, content: bytes | None) -> None:
        if content is not None:
            (served / name).write_bytes(content)
        member = SqueezeNet1_0_Weights.IMAGENET1K_V1
        url = f"http://127.0.0.1:{server.server_port}/{name}"
        monkeypatch.setattr(member, "_value_", dataclasses.replace(member.value, url=url))

    yield point
    server.shutdown()
    server.server_close()
    thread.join()


def serialised(state, tmp_path) -> bytes:
    return write(state, tmp_path / "origin.pth").read_bytes()


@pytest.mark.parametrize("name", ["IMAGENET1K_V1", "DEFAULT"])
def test_published_weights_are_downloaded_once_and_loaded(name, publish, state, model, tmp_path):
    content = serialised(state, tmp_path)
    file = f"squeezenet-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    publish(file, content)
    load(model, name, ignore=())
    assert_same(model.state_dict(), state)
    (tmp_path / "served" / file).unlink()
    load(squeezenet1_0(), name)


def test_a_download_with_another_hash_is_refused_and_not_kept(publish, state, model, tmp_path):
    publish("squeezenet-01234567.pth", serialised(state, tmp_path))
    with pytest.raises(UserError, match=r"squeezenet-01234567\.pth.*hash"):
        load(model, "IMAGENET1K_V1")
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]


def test_a_hostile_download_runs_no_code(publish, model, tmp_path):
    trace = tmp_path / "trace"
    content = pickle.dumps({"features.0.weight": Hostile(trace)}, protocol=2)
    publish(f"squeezenet-{hashlib.sha256(content).hexdigest()[:8]}.pth", content)
    with pytest.raises(UserError, match="squeezenet-"):
        load(model, "IMAGENET1K_V1")
    assert not trace.exists()


def test_a_download_that_is_not_there_names_its_address(publish, model):
    publish("squeezenet-01234567.pth", None)
    with pytest.raises(
        UserError, match=r"http://127\.0\.0\.1.*404.*put it into .*checkpoints, or set detector\.weights"
    ):
        load(model, "IMAGENET1K_V1")
