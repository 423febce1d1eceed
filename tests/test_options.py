"""The record of all choices: one name for each in Python, on the command line, in edgec.toml and in the manifest."""

from __future__ import annotations

import dataclasses
import filecmp
import inspect
import json
import re
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import edgec
from edgec.bits import PRECISIONS
from edgec.cli import main, parser
from edgec.compiled import CompiledModel
from edgec.config import PLACES, Config, Effective, effective, read_config, to_toml
from edgec.errors import InputError, for_shell, option
from edgec.options import FIELDS, GROUP_OF, GROUPS, Budget, Choices, Code, Form, Options, Precision, parse_axis
from edgec.schema import checked

ROOT = Path(edgec.__file__).parent


# ---- one declaration ----


def test_a_type_checker_sees_the_fields() -> None:
    fields = {name: kind for group in (Precision, Form, Code) for name, kind in get_type_hints(group).items()}
    assert get_type_hints(Choices) == {**fields, "budget": Budget | None}


def test_compile_names_every_choice() -> None:
    """What help() and a call with a wrong keyword see."""
    parameters = inspect.signature(edgec.compile).parameters
    leaves = {name for name, group in GROUP_OF.items() if group != "budget"}
    own = {"model", "target", "out", "calibration", "example_inputs", "options", "dump_ir", "progress"}
    assert set(parameters) == own | leaves | {"budget"}
    assert all(parameters[name].default == FIELDS[name].default for name in leaves)


def test_every_choice_is_an_option_of_the_command_line() -> None:
    compiling = next(a for a in parser()._actions if a.dest == "command").choices["compile"]
    made = {action.dest for action in compiling._actions}
    assert made == {*FIELDS, *PLACES, "config", "show_options", "dump_ir", "help"}
    for name, f in FIELDS.items():
        actions = [a for a in compiling._actions if a.dest == name]
        assert all(a.default is None for a in actions), "what is not given must not win over a file"
        assert len(actions) == 1 + ("off" in f.metadata)


def test_errors_name_options_that_there_are() -> None:
    known = set()
    for command in next(a for a in parser()._actions if a.dest == "command").choices.values():
        known |= {flag for action in command._actions for flag in action.option_strings}
    for path in ROOT.rglob("*.py"):
        for name in re.findall(r'\boption\("(\w+)"', path.read_text(encoding="utf-8")):
            assert for_shell(option(name)) in known, f"{path.name}: {name}"


# ---- the record ----


def test_choices_by_name() -> None:
    base = Options.of(goal="size", budget=Budget(ram=1024), hop=2, sliding=True)
    assert base == Options(form=Form(hop=2, sliding=True), budget=Budget(ram=1024), code=Code(goal="size"))
    found = Options.of(base, goal="latency", flash=99)
    assert (found.code.goal, found.form.hop, found.budget) == ("latency", 2, Budget(flash=99, ram=1024))
    assert Options.of(base, budget=None).budget == Budget()
    with pytest.raises(TypeError, match="unexpected keyword argument 'presicion'"):
        Options.of(presicion="int8")
    with pytest.raises(dataclasses.FrozenInstanceError):
        base.code.goal = "latency"  # type: ignore[misc]


def test_the_nearer_of_two_choices_that_exclude_each_other_counts() -> None:
    slides = Options.of(sliding=True, hop=2)
    assert Options.of(slides, streaming=False) == Options.of(streaming=False)
    assert Options.of(slides, sliding=False) == Options.of(sliding=False)
    assert Options.of(slides, hop=3) == Options.of(sliding=True, hop=3)
    assert Options.of(Options.of(streaming=False), sliding=True) == Options.of(sliding=True)
    with pytest.raises(InputError, match="exclude each other"):
        Options.of(slides, streaming=False, sliding=True)
    with pytest.raises(InputError, match="a hop is for a window that slides"):
        Options.of(slides, sliding=False, hop=2)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"goal": "speed"}, "unknown goal 'speed'\n  hint: one of latency, size"),
        ({"emit_kind": "elf"}, "unknown output kind 'elf'\n  hint: one of c, image"),
        ({"weights": 3}, "unknown weights 3\n  hint: one of 8, 4, 2"),
        ({"bits": {"a": "w3a3"}}, "layer a: unknown precision 'w3a3'"),
        ({"hop": 1.5}, r"hop: expected int \| None, found float"),
        ({"hop": 0, "sliding": True}, "expected a hop of at least 1 frame, found 0"),
        ({"hop": 2, "sliding": False}, "a hop is for a window that slides"),
        ({"streaming": False, "sliding": True}, "exclude each other\n  hint: leave out streaming=False"),
        ({"time_axis": "first"}, "time_axis: expected an axis, None or 'guess', found 'first'"),
        ({"latency_ms": float("inf")}, "budget latency_ms: expected milliseconds above 0, found inf"),
        ({"budget": {"flash": 1}}, "budget: expected Budget, found dict"),
        ({"tune": 1}, r"tune: expected bool \| str \| Path \| None, found int"),
    ],
)
def test_a_record_that_exists_is_valid(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Options.of(**choices)


def test_values_are_plain() -> None:
    """As JSON, TOML and == want them, whatever number or sequence was given."""
    found = Options.of(hop=np.int64(3), sliding=np.bool_(True), outputs=["a"], time_axis=[0, None], tune=Path("t.json"))
    assert found == Options.of(hop=3, sliding=True, outputs=("a",), time_axis=(0, None), tune="t.json")
    assert json.loads(json.dumps(found.record()))["form"]["hop"] == 3
    assert found.record()["code"]["tune"] is True
    assert Options.of(tune=None) == Options()


@pytest.mark.parametrize(
    ("text", "value"),
    [("guess", "guess"), ("none", None), ("1", 1), ("-2", -2), ("1, none", (1, None)), ("none,", (None,))],
)
def test_axes(text: str, value: Any) -> None:
    assert parse_axis(text) == value
    with pytest.raises(InputError, match="is no axis"):
        parse_axis(text + "x")


# ---- files ----

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda text: text not in (".", "..")
)
PATHS = NAMES.map("/data/{}".format)
SIZES = st.none() | st.integers(1, 1 << 62)
AXES = st.integers(-9, 9)
CHOICES: dict[str, st.SearchStrategy[Any]] = {
    "bits": st.none() | st.dictionaries(st.text(), st.sampled_from(sorted(PRECISIONS))),
    "time_axis": st.sampled_from(["guess", None]) | AXES | st.lists(st.none() | AXES, min_size=1, max_size=3),
    "hop": st.none() | st.integers(1, 1 << 40),
    "sliding": st.none() | st.booleans(),
    "outputs": st.none() | st.lists(st.text(), max_size=3),
    "latency_ms": st.none() | st.floats(1e-9, 1e9) | st.integers(1, 1000),
    **dict.fromkeys(("flash", "ram", "ram_with_io"), SIZES),
    **dict.fromkeys(("streaming", "drop_constant_channels"), st.booleans()),
    "tune": st.booleans() | PATHS,
    "profile": st.none() | st.just("dwt"),
    **{
        name: st.sampled_from(FIELDS[name].metadata["allowed"])
        for name in ("precision", "weights", "emit_kind", "toolchain", "goal", "place")
    },
}
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def options_of(choices: dict[str, Any]) -> Options:
    assume(choices["streaming"] or not choices["sliding"])
    assume(choices["hop"] is None or choices["sliding"] is not False)
    return Options.of(**choices)


@QUICK
@given(
    choices=st.fixed_dictionaries(CHOICES),
    places=st.fixed_dictionaries({"out": st.none() | PATHS, "calibration": st.none() | PATHS}),
)
def test_a_file_says_what_was_printed(choices: dict[str, Any], places: dict[str, Any], tmp_path: Path) -> None:
    config = Config(model="lmuformer", target="cortex-m4", **places, **vars(options_of(choices)))
    (tmp_path / "edgec.toml").write_text(to_toml(Effective(config, {})), encoding="utf-8")
    assert read_config(tmp_path / "edgec.toml")[0] == config


@QUICK
@given(choices=st.fixed_dictionaries(CHOICES))
def test_a_manifest_keeps_every_choice(choices: dict[str, Any]) -> None:
    options = options_of(choices)
    data = json.loads(json.dumps(options.record(), allow_nan=False))
    assert {(group, key) for group in data for key in data[group]} == {(GROUP_OF[key], key) for key in FIELDS}
    assert checked(Options, data, "manifest") == Options.of(options, tune=bool(options.code.tune))


def test_the_command_line_wins_over_a_file_and_a_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "edgec.toml"
    file.write_text(
        'target = "cortex-m4"\nmodel = "lmuformer"\n[precision]\nweights = 4\nbits = {"a.b" = "w4a4"}\n'
        '[form]\nstreaming = false\ntime_axis = "none"\n[budget]\nram = "128K"\nlatency_ms = "500us"\n'
    )
    found = effective(str(file), {"weights": 2, "flash": 5, "streaming": True, "target": "host"})
    wanted = Options.of(weights=2, bits={"a.b": "w4a4"}, time_axis=None, flash=5, ram=128 << 10, latency_ms=0.5)
    assert (found.config.options, found.config.model, found.config.target) == (wanted, "lmuformer", "host")
    lines = to_toml(found).splitlines()
    for line in (
        "weights = 2  # command line; one of 8, 4, 2",
        'time_axis = "none"  # file',
        "flash = 5  # command line",
        "ram = 131072  # file",
        'goal = "latency"  # default; one of latency, size',
        "# hop: not set",
    ):
        assert line in lines
    assert effective(None, {}) == Effective(Config(), {})
    file.write_text("[form]\nsliding = true\nhop = 2\n")
    printed = to_toml(effective(str(file), {"streaming": False}))
    assert "streaming = false  # command line\n# sliding: not set\n# hop: not set\n" in printed


def test_paths_in_a_file_start_at_its_folder(tmp_path: Path) -> None:
    (tmp_path / "edgec.toml").write_text(
        'model = "net.pt2"\ntarget = "mine.toml"\nout = "build"\ncalibration = "/data/x.npz"\n[code]\ntune = "t.json"\n'
    )
    config, _ = read_config(tmp_path / "edgec.toml")
    assert config.model == str(tmp_path / "net.pt2")
    assert (config.target, config.out) == (str(tmp_path / "mine.toml"), str(tmp_path / "build"))
    assert (config.calibration, config.code.tune) == ("/data/x.npz", str(tmp_path / "t.json"))
    (tmp_path / "edgec.toml").write_text('model = "nets/conv"\n[code]\ntune = "~/t.json"\n')
    config, _ = read_config(tmp_path / "edgec.toml")
    assert (config.model, config.code.tune) == (str(tmp_path / "nets" / "conv"), "~/t.json")


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("goal = 'size'", ["unknown key 'goal'; allowed keys: model, target,", "goal: did you mean code.goal?"]),
        ("precision = 'int8'", ["key 'precision': expected table, found string", "did you mean precision.precision?"]),
        ("[code]\ngaol = 'size'", ["unknown key 'code.gaol'; allowed keys: emit_kind,", "did you mean code.goal?"]),
        ("[codes]\ngoal = 'size'", ["unknown key 'codes'", "codes: did you mean [code]?"]),
        ("[form]\ntime-axis = 1", ["unknown key 'form.time-axis'", "did you mean form.time_axis?"]),
        ("[code]\ngoal = 'fast'", ["key 'code.goal': 'fast' is not one of latency, size"]),
        ("[precision]\nweights = 3", ["key 'precision.weights': 3 is not one of 8, 4, 2"]),
        ("[precision]\nweights = '4'", ["key 'precision.weights': expected int, found string, one of 8, 4, 2"]),
        (
            "[precision.bits]\na.b = 'w4a4'",
            ["key 'precision.bits.a': expected string, found table", "a layer's name with dots stands in quotes"],
        ),
        ("[precision.bits]\n'a.b' = 'w4'", ["key 'precision.bits.a.b': 'w4' is not one of w8a8, w4a8,"]),
        ("[budget]\nram = 'lots'", ["key 'budget.ram': 'lots' is not a size; write bytes, or"]),
        ("[budget]\nflash = 0", ["budget flash: expected bytes above 0, found 0"]),
        ("[form]\noutputs = 'y'", ["key 'form.outputs': expected strings, found string"]),
        ("[form]\ntime_axis = 'first'", ["key 'form.time_axis': 'first' is no axis; a number, none, guess,"]),
        ("[form]\nsliding = true\nstreaming = false", ["exclude each other; leave out streaming=False"]),
        ("[code]\ntune = 3", ["key 'code.tune': expected bool or string, found int"]),
        ("out = \n", ["cannot be read as options of a compile (TOML): Invalid value (at line 1, column 7)"]),
        ("a = 1\na = 2", ["(TOML): Cannot overwrite a value"]),
    ],
)
def test_a_file_that_is_wrong(text: str, messages: list[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.conf"
    path.write_text(text)
    with pytest.raises(InputError) as info:
        read_config(path)
    for message in [str(path), *messages]:
        assert message in str(info.value)


# ---- a compile ----


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(6, 8), torch.nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


CHOSEN = {"precision": "float32", "time_axis": 1, "sliding": False, "goal": "size", "budget": Budget(flash=1 << 30)}


def compiled(out: Path, **choices: Any) -> CompiledModel:
    torch.manual_seed(0)
    return edgec.compile(Net().eval(), "host", out, example_inputs=torch.zeros(1, 5, 6), **choices)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> CompiledModel:
    return compiled(tmp_path_factory.mktemp("options") / "net", **CHOSEN)


def test_the_options_of_a_folder_give_the_same_bytes_again(model: CompiledModel, tmp_path: Path) -> None:
    assert model.options == Options.of(**CHOSEN)
    again = compiled(tmp_path / "again", options=model.options)
    files = sorted(p.relative_to(model.folder) for p in model.folder.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(again.folder) for p in again.folder.rglob("*") if p.is_file())
    assert filecmp.cmpfiles(model.folder, again.folder, files, shallow=False)[1:] == ([], [])


def test_statistics_of_the_outputs_that_are_compiled(tmp_path: Path) -> None:
    """`edgec calibrate` takes the same form as `edgec compile`: by option, or from the same file."""

    class Heads(Net):
        def forward(self, x: torch.Tensor) -> Any:
            y = torch.relu(self.first(x))
            return {"hidden": y, "scores": self.second(y)}

    torch.manual_seed(0)
    torch.export.save(torch.export.export(Heads().eval(), (torch.zeros(1, 6),)), tmp_path / "net.pt2")
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32))
    (tmp_path / "edgec.toml").write_text('target = "host"\nmodel = "net.pt2"\n[form]\noutputs = ["hidden"]\n')
    calibrate = ["calibrate", str(tmp_path / "net.pt2"), "--calibration", str(tmp_path / "data.npz")]
    assert main([*calibrate, "--config", str(tmp_path / "edgec.toml")]) == 0
    assert main(["compile", "--config", str(tmp_path / "edgec.toml"), "-o", str(tmp_path / "o")]) == 0
    model = edgec.open(str(tmp_path / "o"))
    assert [spec.shape for spec in model.manifest.outputs] == [(1, 8)]
    assert json.loads((tmp_path / "o" / "manifest.json").read_text())["made_of"]["calibration"] == "net.ranges.npz"


def test_a_manifest_names_what_was_read_and_no_folder(model: CompiledModel) -> None:
    data = json.loads((model.folder / "manifest.json").read_text())
    assert data["made_of"] == {"model": "Net", "calibration": None}
    assert data["options"]["code"]["goal"] == "size"
    assert set(data["options"]) == set(GROUPS)
    assert str(model.folder.parent) not in (model.folder / "manifest.json").read_text()


def test_a_folder_without_options_says_so(model: CompiledModel, tmp_path: Path) -> None:
    data = json.loads((model.folder / "manifest.json").read_text())
    for change, message in ((None, "does not say with which options"), ({"code": {"goal": 1}}, "options.code.goal")):
        data["options"] = change
        (tmp_path / "manifest.json").write_text(json.dumps(data))
        with pytest.raises(InputError, match=message):
            edgec.open(str(tmp_path)).options  # noqa: B018


def test_what_is_not_an_option(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown goal 'speed'"):
        compiled(tmp_path / "o", options=Options.of(goal="size"), goal="speed")
    with pytest.raises(edgec.EdgecError, match=r"options: expected Options \| None, found dict"):
        compiled(tmp_path / "o", options={})
    with pytest.raises(TypeError, match="unexpected keyword argument 'flash'"):
        compiled(tmp_path / "o", flash=1)
    assert not (tmp_path / "o").exists()
