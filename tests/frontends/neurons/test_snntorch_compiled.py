"""Networks of snnTorch's recurrent neurons, compiled: host and emulated core against snnTorch over a whole sequence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import edgec

snn = pytest.importorskip("snntorch")

T = 14


class Recurrent(nn.Module):
    """Dense, RLeaky, dense, RSynaptic, dense; the neurons' states start at zero."""

    def __init__(self, reset: str, all_to_all: tuple[bool, bool], late: bool) -> None:
        super().__init__()
        first, second = (
            {"all_to_all": True, "linear_features": n} if whole else {"all_to_all": False, "V": torch.rand(n) - 0.3}
            for whole, n in zip(all_to_all, (9, 5), strict=True)
        )
        self.inputs, self.middle, self.readout = nn.Linear(4, 9), nn.Linear(9, 5), nn.Linear(5, 3)
        self.leaky = snn.RLeaky(
            beta=torch.rand(9), threshold=torch.rand(9) + 0.2, learn_threshold=True, reset_mechanism=reset,
            reset_delay=late, **first,
        )  # fmt: skip
        self.synaptic = snn.RSynaptic(alpha=0.6, beta=torch.rand(5), threshold=0.3, reset_mechanism=reset, **second)

    def forward(self, x: Tensor) -> Tensor:
        spikes, membrane = self.leaky.init_rleaky()
        back, current, potential = self.synaptic.init_rsynaptic()
        frames = []
        for frame in x.unbind(1):
            spikes, membrane = self.leaky(self.inputs(frame), spikes, membrane)
            back, current, potential = self.synaptic(3 * self.middle(spikes), back, current, potential)
            frames.append(self.readout(back))
        return torch.stack(frames, 1)


@pytest.mark.parametrize(
    ("reset", "all_to_all", "late"),
    [("subtract", (True, True), True), ("zero", (True, False), False), ("none", (False, True), True)],
)
def test_host_and_core_give_what_snntorch_gives(
    reset: str, all_to_all: tuple[bool, bool], late: bool, tmp_path: Path
) -> None:
    torch.manual_seed(8)
    net, x = Recurrent(reset, all_to_all, late).eval(), torch.randn(1, T, 4) * 2.5
    with torch.no_grad():
        expected = net(x).numpy()
    assert np.ptp(expected, axis=1).min() > 0
    model = edgec.compile(net, "cortex-m4", tmp_path / "net", precision="float32", example_inputs=(x,))
    for device in ("host", "unicorn"):
        if device == "unicorn":
            pytest.importorskip("unicorn")
        with model.device(device) as opened:
            found = np.stack([opened.step([frame])[0] for frame in x.numpy().reshape(T, 1, 1, 4)])
        np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-5, atol=1e-5, err_msg=device)


class Spikes(nn.Module):
    """One frame a call: spikes of a convolution, of so many neurons, and scores."""

    def __init__(self, neurons: int) -> None:
        super().__init__()
        self.conv, self.dense, self.readout = nn.Conv1d(2, 3, 3), nn.Linear(12, neurons), nn.Linear(neurons, 4)
        self.first, self.second = (snn.Leaky(beta=0.8, init_hidden=True) for _ in range(2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        image = self.first(3 * self.conv(x))
        spikes = self.second(3 * self.dense(image.flatten(1)))
        return image, spikes, self.readout(spikes)


@pytest.mark.parametrize("neurons", [1, 32, 45])
def test_spikes_that_an_int8_network_returns(neurons: int, tmp_path: Path) -> None:
    """0 or 1 each for run, step and verify; a network of frames [1, ...], whose time lies along axis 0."""
    torch.manual_seed(neurons)
    net, frames = Spikes(neurons).eval(), 2 * torch.randn(T, 1, 2, 6)
    graph = edgec.load(net, (frames[0],), step=True)
    data = np.concatenate([frames.numpy(), np.random.default_rng(0).normal(size=(16, 1, 2, 6)).astype(np.float32)])
    model = edgec.compile(graph, "host", tmp_path / "out", calibration=data[:30])
    for neuron in (net.first, net.second):
        neuron.reset_mem()
    with torch.no_grad():
        wanted = [torch.stack(signal).numpy() for signal in zip(*(net(frame) for frame in frames), strict=True)]
    found = list(model.run(frames.numpy()).values())
    for place in (0, 1):
        assert set(np.unique(found[place])) <= {0, 1}
        assert found[place].size == wanted[place].size
        assert np.mean(found[place].reshape(-1) != wanted[place].reshape(-1)) < 0.05
    assert 0 < wanted[0].mean() < 1
    model.reset()
    first = list(model.step(frames[0].numpy()).values())
    np.testing.assert_array_equal(first[1].reshape(-1), found[1][0].reshape(-1))
    assert f"spikes[1, 1, {neurons}]" in repr(model)
    assert edgec.verify(model, frames.numpy()).ok
