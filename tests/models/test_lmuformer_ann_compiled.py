"""The LMUFormer without neurons, compiled: the same bytes from the reference, the C here and the emulated core."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

import edgec
from edgec.ir.evaluate import StepRunner, evaluate
from models.lmuformer.anytime import compiled_scores, torch_scores
from models.lmuformer.train import load_checkpoint
from tests.conftest import MODEL, shipped_clips
from tests.models.test_lmuformer_compiled import stream

ANALOG = MODEL / "lmuformer_ann.pt"
CLIPS = [pcm for _, pcm in shipped_clips()[:24:12]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> edgec.CompiledModel:
    return edgec.compile(ANALOG, "cortex-m7", tmp_path_factory.mktemp("ann") / "m7")


def whole_outputs(model: edgec.CompiledModel, pcm: np.ndarray) -> np.ndarray:
    """The whole-sequence reference's integers [frames, classes]."""
    graph = model.graph("whole")
    return evaluate(graph, {graph.inputs[0].name: torch.from_numpy(pcm).view(1, -1)})[0].numpy()[0]


def test_reference_host_and_emulated_core_give_the_same_bytes(model: edgec.CompiledModel) -> None:
    pytest.importorskip("unicorn")
    with model.device("host") as host, model.device("unicorn") as core:
        for pcm in CLIPS:
            expected = whole_outputs(model, pcm)
            np.testing.assert_array_equal(stream(host, model, pcm), expected, err_msg="host")
            np.testing.assert_array_equal(stream(core, model, pcm), expected, err_msg="emulated core")


def test_streamed_references_equal_the_whole_sequence(model: edgec.CompiledModel) -> None:
    step = model.graph("step")
    x = torch.from_numpy(CLIPS[1]).view(1, -1)
    streamed = torch.cat([o[0] for o in StepRunner(step).run({step.inputs[0].name: x})], 1)
    np.testing.assert_array_equal(streamed[0].numpy(), whole_outputs(model, CLIPS[1]))


def test_its_convolutions_read_16_bits(model: edgec.CompiledModel) -> None:
    """Behind each ReLU of the embedding a batch norm gives the channels very different reach."""
    convolutions = [layer for layer in model.report["layers"] if layer["op"] == "qconv1d"]
    assert Counter(layer["variant"] for layer in convolutions) == {"wide_dsp": 5}


def test_scores_stay_close_to_torch(model: edgec.CompiledModel) -> None:
    """Every frame of two clips: an error below half a step of the int8 scores, whose rounding alone makes 0.29."""
    whole, pcm = model.graph("whole"), torch.from_numpy(np.stack(CLIPS))
    quant = whole.type_of(whole.outputs[0]).quant
    assert quant is not None
    expected, found = torch_scores(load_checkpoint(ANALOG), pcm), compiled_scores(model, pcm)
    error = float(np.sqrt(np.square(found - expected).mean()))
    assert error < 0.5 * quant.scale[0]
    assert (found[:, -1].argmax(1) == expected[:, -1].argmax(1)).all()


def test_flash_is_within_the_bar(model: edgec.CompiledModel) -> None:
    assert model.report["totals"]["flash"] <= 1.15 * model.report["totals"]["weights"] + 64 * 1024
