"""Model files: good ones load, bad ones give one clear error, and nothing in a file is ever run."""

import contextlib
import io
import json
import os
import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from edgec.errors import FrontendError
from edgec.frontends import load, shipped
from edgec.frontends.pytorch import archive
from edgec.ir.evaluate import evaluate

CONFIG = {"n_mels": 4, "dim": 8, "order": 4, "theta": 4, "classes": 3}


class Payload:
    """Pickles to a call of os.system; `marker` exists afterwards if anything ran it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def checkpoint(**changes):
    torch.manual_seed(0)
    module = shipped.package("lmuformer").build(CONFIG)
    data = {"format": "edgec-checkpoint-1", "model": "lmuformer", "config": CONFIG, "state_dict": module.state_dict()}
    return module.eval(), {**data, **changes}


def save(path: Path, data) -> Path:
    torch.save(data, path)
    return path


def refused(path, *parts: str) -> str:
    with pytest.raises(FrontendError) as caught:
        load(path)
    text = str(caught.value)
    for part in parts:
        assert part in text, text
    return text


def test_a_checkpoint_gives_the_graph_of_its_network(tmp_path):
    module, data = checkpoint()
    graph = load(save(tmp_path / "small.pt", data))
    assert graph.name == "small"
    assert graph.inputs[0].type.shape == (1, 16000)
    pcm = torch.randn(1, 16000) * 0.1
    with torch.no_grad():
        torch.testing.assert_close(evaluate(graph, {"pcm": pcm})[0], module(pcm), rtol=1e-5, atol=1e-5)


def test_example_inputs_may_be_given(tmp_path):
    _, data = checkpoint()
    graph = load(save(tmp_path / "small.pt", data), (torch.zeros(1, 320),))
    assert graph.inputs[0].type.shape == (1, 320)


def test_a_shipped_model_is_known_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "lmuformer" in shipped.names()
    assert load("lmuformer").name == "lmuformer"
    refused("nosuchmodel", "no such file, and no shipped model", f"shipped models: {', '.join(shipped.names())}")


def test_shipped_models_are_the_checkpoints_that_lie_there(tmp_path, monkeypatch):
    for name in ("some_net", "untrained", "no_package"):
        (tmp_path / name).mkdir()
    for name in ("some_net", "untrained"):
        (tmp_path / name / "__init__.py").touch()
    for file in ("some_net/some_net.pt", "some_net/some_net_small.pt", "no_package/no_package.pt"):
        (tmp_path / file).touch()
    monkeypatch.setattr(shipped, "folder", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)  # a folder of a model's name is not the model
    assert shipped.names() == ("some_net", "some_net_small")
    assert shipped.file_of("some-net-small") == tmp_path / "some_net" / "some_net_small.pt"
    assert shipped.file_of("some_net") == tmp_path / "some_net" / "some_net.pt"
    assert shipped.find("untrained") is None
    refused("un-trained", "no shipped model of this name\n", "shipped models: some_net, some_net_small")
    refused("untrained", "found a directory")
    monkeypatch.chdir(tmp_path / "some_net")
    refused("untrained", "no shipped model of this name has trained weights", "python -m models.untrained.train")


@pytest.fixture
def exported(tmp_path):
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU()).eval()
    module.register_buffer("spare", torch.ones(2))
    path = tmp_path / "net.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(module, (torch.randn(1, 3),)), path)
    return module, path


def test_an_export_archive_gives_the_graph(exported):
    module, path = exported
    graph, x = load(path), torch.randn(1, 3)
    torch.testing.assert_close(evaluate(graph, {"input": x})[0], module(x).detach())


def test_an_archive_with_edgec_operators(tmp_path):
    module, _ = checkpoint()
    path = tmp_path / "lmu.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(module, (torch.zeros(1, 480),)), path)
    graph = load(path)
    assert graph.inputs[0].type.time_axis == 1
    assert any("model.py:" in s for n in graph.nodes for s in n.source)


def rewrite(path: Path, changes: dict[str, bytes | None], drop: str | None = None) -> Path:
    """The archive with members replaced, added or (None) removed; names without the leading folder."""
    with zipfile.ZipFile(path) as old:
        members = {n.split("/", 1)[1]: old.read(n) for n in old.namelist()}
    members.update({k: v for k, v in changes.items() if v is not None})
    for k, v in changes.items():
        if v is None:
            del members[k]
    with zipfile.ZipFile(path, "w") as new:
        for name, data in members.items():
            new.writestr(f"net/{name}", data)
    return path


def pickled(marker: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Payload(marker), buffer)
    return buffer.getvalue()


def member(path: Path, name: str):
    with zipfile.ZipFile(path) as z:
        return json.loads(z.read(next(n for n in z.namelist() if n.endswith(name))))


def test_payloads_really_run_when_unpickled(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("where", ["whole file", "in the dictionary", "old format", "bare pickle", "named pt2"])
def test_a_pickle_in_a_checkpoint_never_runs(tmp_path, where):
    marker, path = tmp_path / "ran", tmp_path / ("x.pt2" if where == "named pt2" else "x.pt")
    _, data = checkpoint()
    payload = Payload(marker)
    if where == "bare pickle":
        path.write_bytes(pickle.dumps(payload))
    elif where == "old format":
        torch.save(payload, path, _use_new_zipfile_serialization=False)
    else:
        torch.save({**data, "config": {**CONFIG, "dim": payload}} if where == "in the dictionary" else payload, path)
    refused(path)
    assert not marker.exists()


def test_a_weight_pickled_in_an_archive_never_runs(exported, tmp_path):
    path, marker = exported[1], tmp_path / "ran"
    config = member(path, "model_weights_config.json")
    config["config"]["0.weight"]["use_pickle"] = True
    rewrite(
        path,
        {
            "data/weights/weight_0": pickled(marker),
            "data/weights/model_weights_config.json": json.dumps(config).encode(),
        },
    )
    refused(path, "weight 0.weight is a pickled object")
    assert not marker.exists()


@pytest.mark.parametrize("prefix", ["custom_obj_0", "opaque_obj_0", "../../x", "tensor_0"])
def test_a_constant_pickled_in_an_archive_never_runs(exported, tmp_path, prefix):
    path, marker = exported[1], tmp_path / "ran"
    entry = {"path_name": prefix, "is_param": False, "use_pickle": True, "tensor_meta": None}
    config = {"config": {"secret": entry}}
    payload = pickle.dumps(Payload(marker)) if prefix.startswith("opaque") else pickled(marker)
    rewrite(
        path,
        {
            f"data/constants/{prefix}": payload,
            "data/constants/model_constants_config.json": json.dumps(config).encode(),
        },
    )
    refused(path)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["data/weights/model.pt", "data/constants/model.pt", "data/sample_inputs/model.pt"])
def test_other_pickles_in_an_archive_are_never_read(exported, tmp_path, name):
    _module, path = exported
    marker = tmp_path / "ran"
    rewrite(path, {name: pickled(marker)})
    assert load(path).nodes
    assert not marker.exists()


PROGRAMS = {
    "a foreign call": (lambda p: node(p).update(target="torch.load"), "the call 'torch.load'"),
    "os by way of torch": (lambda p: node(p).update(target="torch.os.system"), "torch.os.system"),
    "an expression": (
        lambda p: node(p)["inputs"][0].update(arg={"as_expr": {"expr_str": "__import__('os').system('touch ran')"}}),
        "a symbolic size",
    ),
    "a tree that imports": (
        lambda p: tree(p, '[1, {"type": "collections.defaultdict", "context": {"default_factory_module": "this"}}]'),
        "collections.defaultdict",
    ),
    "damage": (lambda p: p.pop("graph_module"), "is damaged"),
}


def node(program):
    return program["graph_module"]["graph"]["nodes"][0]


def tree(program, text):
    program["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = text


@pytest.mark.parametrize("kind", PROGRAMS)
def test_programs_that_could_run_code_are_refused(exported, kind):
    change, message = PROGRAMS[kind]
    program = member(exported[1], "models/model.json")
    change(program)
    refused(rewrite(exported[1], {"models/model.json": json.dumps(program).encode()}), message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models/model.json": None}, "expected a torch.export archive"),
        ({"models/model.json": b"{"}, "models/model.json is not JSON"),
        ({"models/model.json": b"[" * 100_000}, "models/model.json is not JSON"),
        ({"data/weights/weight_0": None}, "lacks data/weights/weight_0, the values of 0.weight"),
        ({"data/weights/weight_0": b"1234"}, "torch cannot read the archive"),
        ({"data/aotinductor/model/x.so": b"1"}, "compiled code"),
        ({"code/__torch__.py": b"1"}, "TorchScript"),
        ({"byteorder": b"big"}, "little-endian"),
    ],
)
def test_damaged_archives(exported, changes, message):
    refused(rewrite(exported[1], changes), message)


def test_a_weight_larger_than_the_archive(exported):
    config = member(exported[1], "model_weights_config.json")
    config["config"]["0.weight"]["tensor_meta"]["sizes"][0]["as_int"] = 1 << 40
    payload = json.dumps(config).encode()
    refused(rewrite(exported[1], {"data/weights/model_weights_config.json": payload}), "more than the limit")


def test_weights_without_numbers_in_an_archive(exported):
    refused(rewrite(exported[1], {"data/weights/weight_1": b"\xff" * 16}), "0.bias: 4 of 4 values are not finite")


def test_files_that_are_no_models(tmp_path):
    refused(tmp_path / "nothing.pt", "no such file")
    (tmp_path / "folder.pt").mkdir()
    refused(tmp_path / "folder.pt", "found a directory")
    (tmp_path / "empty.pt").touch()
    refused(tmp_path / "empty.pt", "the file is empty")
    (tmp_path / "noise.pt").write_bytes(os.urandom(5000))
    refused(tmp_path / "noise.pt", "not a model file of torch")
    (tmp_path / "noise.pt2").write_bytes(os.urandom(5000))
    refused(tmp_path / "noise.pt2", "not a model file of torch")
    (tmp_path / "x.h5").write_bytes(b"123")
    refused(tmp_path / "x.h5", "unknown kind of model file '.h5'")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short(tmp_path, keep):
    data = save(tmp_path / "whole.pt", checkpoint()[1]).read_bytes()
    path = tmp_path / "cut.pt"
    path.write_bytes(data[: int(len(data) * keep)])
    refused(path, "cut.pt")


@pytest.mark.parametrize("seed", range(30))
def test_a_file_with_random_damage_never_escapes(tmp_path, seed):
    rng = torch.Generator().manual_seed(seed)
    data = bytearray(save(tmp_path / "x.pt", checkpoint()[1]).read_bytes())
    for position in torch.randint(len(data), (20,), generator=rng).tolist():
        data[position] ^= 0x55
    path = tmp_path / "x.pt"
    path.write_bytes(bytes(data))
    with contextlib.suppress(FrontendError):
        load(path, (torch.zeros(1, 320),))


def test_zip_bombs(tmp_path, monkeypatch):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("x/data.pkl", b"\0" * (8 << 20))
    refused(path, "as a zip bomb does")
    monkeypatch.setattr(archive, "MAX_BYTES", 1000)
    refused(path, "more than the limit of 1000")
    path = tmp_path / "many.pt2"
    with zipfile.ZipFile(path, "w") as z, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        z.writestr("x/a", b"1")
        z.writestr("x/a", b"2")
    refused(path, "two members of the same name")
    path = tmp_path / "out.pt2"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("../a", b"1")
    refused(path, "would lie outside")


def test_what_else_people_save(tmp_path):
    module, data = checkpoint()
    hint = "torch.export.save(torch.export.export("
    refused(save(tmp_path / "state.pt", module.state_dict()), "a state_dict alone", hint)
    refused(save(tmp_path / "module.pt", nn.Linear(2, 2)), "pickled Python objects, such as a whole module", hint)
    refused(save(tmp_path / "list.pt", [1, 2]), "found a list")
    refused(save(tmp_path / "other.pt", {"epoch": 3}), "found the keys ['epoch']")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), str(tmp_path / "script.pt"))
    refused(tmp_path / "script.pt", "TorchScript", hint)
    refused(save(tmp_path / "old.pt", {**data, "format": "edgec-checkpoint-9"}), "found 'edgec-checkpoint-9'")
    refused(
        save(tmp_path / "part.pt", {"format": "edgec-checkpoint-1", "model": 3}),
        "model: expected str, found int",
        "config: ",
    )


def test_an_archive_under_the_name_of_a_checkpoint(exported):
    path = exported[1].rename(exported[1].with_suffix(".pt"))
    refused(path, "rename it to net.pt2")


def test_a_checkpoint_names_only_shipped_models(tmp_path):
    for name in ("../../x", "os", "lmuformer.model", ""):
        refused(save(tmp_path / "x.pt", checkpoint(model=name)[1]), "expected one of the shipped models", repr(name))


def test_config_and_weights_that_disagree(tmp_path):
    _, data = checkpoint(config={**CONFIG, "classes": 5})
    refused(
        save(tmp_path / "x.pt", data),
        "config and state_dict disagree",
        "head.linear.weight: the config builds shape (5, 8), the state_dict has (3, 8)",
    )
    weights = dict(data["state_dict"])
    del weights["head.norm.bias"]
    weights["extra"] = torch.zeros(1)
    text = refused(save(tmp_path / "y.pt", checkpoint(state_dict=weights)[1]), "head.norm.bias: the config needs it")
    assert "extra: in the state_dict, but the config's network has no such weight" in text
    refused(
        save(tmp_path / "z.pt", checkpoint(config={**CONFIG, "width": 3})[1]),
        "cannot be built from the config",
        "width",
    )
    refused(save(tmp_path / "s.pt", checkpoint(config={**CONFIG, "dim": "wide"})[1]), "cannot be built from the config")
    weights["extra"] = 3
    refused(save(tmp_path / "t.pt", checkpoint(state_dict=weights)[1]), "extra")


def test_weights_that_are_no_numbers(tmp_path):
    _, data = checkpoint()
    data["state_dict"]["mixer.h.bias"][2] = float("inf")
    refused(save(tmp_path / "x.pt", data), "mixer.h.bias: 1 of 8 values are not finite", "use an earlier checkpoint")
