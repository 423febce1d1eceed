"""Compile the Tiny Time Mixer for a Cortex-M7, stream hourly temperatures through it and plot what it forecasts.

    python examples/forecast.py [SERIES.csv] [--plot forecast.png] [--on host|emulator]

One sample goes in an hour; as soon as the last 512 hours are known, every hour gives a forecast of the next 96. The
series is scaled with the mean and deviation of its first 512 hours, so nothing of the future is used. The network was
trained on the load and oil temperature of an electric transformer and has never seen weather.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import edgec
from edgec.compiled import frames, to_device, to_real
from edgec.profile.clips import read_series

SERIES = Path(__file__).resolve().parent / "data" / "greensboro_1981_07.csv"
DAY = 24


def stream(device: edgec.device.Device, series: np.ndarray, specs: tuple) -> list[np.ndarray | None]:
    """The forecast after every sample [96], None while the window is not full."""
    outs = (device.step([to_device(frame, specs[0])]) for frame in frames(series, specs[0]))
    return [None if out is None else to_real(out[0], specs[1]).reshape(-1) for out in outs]


def plot(path: Path, series: np.ndarray, start: int, forecast: np.ndarray) -> None:
    """History, forecast and what came then, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    hours = np.arange(start, start + len(forecast))
    figure, axes = pyplot.subplots(figsize=(10, 4))
    axes.plot(np.arange(start - 7 * DAY, start), series[start - 7 * DAY : start], color="black", label="history")
    axes.plot(hours, series[hours], color="grey", label="what came")
    axes.plot(hours, forecast, color="tab:red", label="forecast, int8 C")
    axes.set_xlabel("hour")
    axes.set_ylabel("series")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("series", nargs="?", type=Path, default=SERIES, help="one number a line, an hour each")
    arguments.add_argument("--plot", type=Path, default=Path("forecast.png"))
    arguments.add_argument("--on", default="host", choices=("host", "emulator"))
    a = arguments.parse_args()
    series = read_series(a.series, 1)[:, 0]
    with tempfile.TemporaryDirectory() as work:
        model = edgec.compile("ttm", target="cortex-m7", out=Path(work) / "m7")
        totals, specs = model.report["totals"], (model.manifest.inputs[0], model.manifest.outputs[0])
        print(f"ttm for cortex-m7: {totals['flash']:,} B flash, {totals['ram']:,} B RAM")
        print(f"{totals['instructions_worst']:,} instructions a forecast, {model.report['how']['instructions']}")
        window = totals["delay"] + 1
        mean, deviation = series[:window].mean(), series[:window].std()
        scaled = ((series - mean) / deviation).astype(np.float32)
        with model.device(a.on) as device:
            outs = stream(device, scaled, specs)
    forecasts = {k + 1: out * deviation + mean for k, out in enumerate(outs) if out is not None}
    horizon = len(next(iter(forecasts.values())))
    judged = {k: f for k, f in forecasts.items() if k + horizon <= len(series)}
    errors = [np.abs(f - series[k : k + horizon]).mean() for k, f in judged.items()]
    days = [np.abs(np.resize(series[k - DAY : k], horizon) - series[k : k + horizon]).mean() for k in judged]
    print(f"{len(series)} hours streamed, {len(forecasts)} forecasts of {horizon} hours, {len(judged)} of them judged")
    print(f"mean absolute error {np.mean(errors):.2f}; repeating the last day instead: {np.mean(days):.2f}")
    start = max(judged)
    plot(a.plot, series, start, forecasts[start])
    print(f"wrote {a.plot}: the forecast after hour {start}")


if __name__ == "__main__":
    main()
