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
