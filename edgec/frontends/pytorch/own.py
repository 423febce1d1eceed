"""Converters of edgec's own torch operators (edgec.nn): one call is one node."""

from __future__ import annotations

import dataclasses

import numpy as np

from edgec.frontends.pytorch.call import Call, Converters
from edgec.ops.neurons.lif import Lif
from edgec.ops.recurrent import LmuMemory
from edgec.ops.signal.log_mel import LogMel
from edgec.ops.timeline import RunningMean


def lif(call: Call) -> tuple[str, str | None]:
    """Spikes, and the membrane where something reads it."""
    x = call.tensor("x")
    t = call.type_of(x)
    axis = call.axis("time_axis", len(t.shape))
    if t.time_axis != axis:
        raise ValueError(f"the neuron runs along axis {axis} of {t.shape}, but time is {describe(t.time_axis)}")
    per_channel = {
        key: call.const(call.stem(key, key), call.constant(key).reshape(-1)) for key in ("beta", "threshold")
    }
    used = 1 in call.used_results
    op = Lif(
        decay_input=bool(call["decay_input"]),
        reset=str(call["reset"]),
        v_reset=float(call["v_reset"]),
        strict=bool(call["strict"]),
        delayed_reset=bool(call["delayed_reset"]),
        membrane=used,
    )
    outs = call.build.emit_all(op, x, per_channel["beta"], per_channel["threshold"], name=call.name)
    return outs[0], (outs[1] if used else None)


def describe(axis: int | None) -> str:
    """A time axis in words."""
    return "not named" if axis is None else f"axis {axis}"


def lmu_memory(call: Call) -> str:
    """edgec::lmu_memory: the Legendre memory."""
    return call.emit(LmuMemory(int(call["order"]), int(call["theta"]), str(call["form"])), call.tensor("u"))


def log_mel(call: Call) -> str:
    """edgec::log_mel: the audio front end."""
    values = {f.name: call[f.name] for f in dataclasses.fields(LogMel) if f.name in call.args}
    return call.emit(LogMel(**values), call.tensor("pcm"))


def running_mean(call: Call) -> str:
    """The running mean's time axis is the last but one; another place is moved there."""
    x = call.tensor("x")
    t = call.type_of(x)
    axis = call.axis("time_axis", len(t.shape))
    if t.time_axis != axis:
        raise ValueError(f"the running mean runs along axis {axis} of {t.shape}, but time is {describe(t.time_axis)}")
    rank = len(t.shape)
    rest = [k for k in range(rank) if k != axis]
    perm = (*rest[:-1], axis, *rest[-1:])
    y = call.emit(RunningMean(int(call["window"])), call.permute(x, perm))
    return call.permute(y, tuple(int(k) for k in np.argsort(perm)))


CONVERTERS: Converters = {
    "edgec::lif": lif,
    "edgec::lmu_memory": lmu_memory,
    "edgec::log_mel": log_mel,
    "edgec::running_mean": running_mean,
}
