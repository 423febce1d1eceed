"""Modules against the graphs made of them: single calls on random shapes, small networks, the LMUFormer, refusals."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgec.errors import FrontendError
from edgec.frontends import load, shipped
from edgec.frontends.modules import from_module
from edgec.frontends.pytorch.importer import from_exported
from edgec.ir.evaluate import StepRunner, evaluate, evaluate_all
from edgec.ir.graph import Graph
from edgec.ir.text import parse_graph, print_graph
from edgec.ir.verify import verify
from edgec.ops import OPS
from edgec.ops.neurons.lif import Lif
from edgec.passes.assign_layout import AssignLayout
from edgec.passes.canonicalize import Canonicalize
from edgec.passes.fold_batchnorm import FoldBatchnorm
from edgec.passes.streaming.make_streaming import MakeStreaming


class Call(nn.Module):
    """A function with the given tensors as weights."""

    def __init__(self, function, *weights):
        super().__init__()
        self.function = function
        for k, w in enumerate(weights):
            self.register_buffer(f"w{k}", w)

    def forward(self, *inputs):
        return self.function(*inputs, *self.buffers())


def randomise(module: nn.Module) -> nn.Module:
    """Batch norms as after training, in eval mode; weights random enough that spikes occur."""
    for m in module.modules():
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
            m.running_mean.uniform_(-0.3, 0.3)
            m.running_var.uniform_(0.1, 0.9)
            if m.affine:
                nn.init.uniform_(m.weight, -1.5, 2.0)
                nn.init.uniform_(m.bias, -0.2, 0.9)
    return module.eval()


def outputs_of(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        out = module(*inputs)
    return out if isinstance(out, tuple) else (out,)


def check(module: nn.Module, *inputs: torch.Tensor, time_axis=None) -> Graph:
    """The graph computes what the module does, before and after the layout and folding passes."""
    graph = from_module(module.eval(), inputs, "net", time_axis)
    expected = outputs_of(module, inputs)
    candidates = [graph]
    for p in (AssignLayout(), Canonicalize(), FoldBatchnorm()):
        candidates.append(p.run(candidates[-1]))
        verify(candidates[-1])
    for g in candidates:
        named = {v.name: x for v, x in zip(g.inputs, inputs, strict=True)}
        for e, f in zip(expected, evaluate(g, named), strict=True):
            torch.testing.assert_close(f, e, rtol=1e-5, atol=1e-5)
    return candidates[-1]


def r(*shape):
    return torch.randn(*shape)


CALLS = {
    "add": (lambda x, y: x + y, r(1, 3, 4), r(1, 3, 4)),
    "add alpha": (lambda x, y: torch.add(x, y, alpha=0.3), r(1, 3, 4), r(1, 1, 4)),
    "add number": (lambda x: x + 2, r(1, 3)),
    "sub": (lambda x, y: x - y, r(1, 3), r(1, 3)),
    "rsub": (lambda x: 1 - x, r(1, 3)),
    "mul": (lambda x, y: x * y, r(1, 3), r(1, 1)),
    "div": (lambda x, y: x / y, r(1, 3), r(1, 3) + 5),
    "neg": (lambda x: -x, r(1, 3)),
    "square": (lambda x: x**2 + x.square(), r(1, 3)),
    "relu": (lambda x: x.relu(), r(1, 9)),
    "relu in place": (lambda x: F.relu_(x + 1) * 2, r(1, 9)),
    "add in place": (lambda x: (x * 1).add_(1).mul_(x), r(1, 9)),
    "relu6": (lambda x: F.relu6(x * 5), r(1, 9)),
    "hardtanh": (lambda x: F.hardtanh(x, -0.5, 0.7), r(1, 9)),
    "clamp": (lambda x: x.clamp(min=-0.3), r(1, 9)),
    "gelu": (lambda x: F.gelu(x), r(1, 9)),
    "silu": (lambda x: F.silu(x), r(1, 9)),
    "hardswish": (lambda x: F.hardswish(x * 3) + F.hardsigmoid(x), r(1, 9)),
    "leaky relu": (lambda x: F.leaky_relu(x, 0.1), r(1, 9)),
    "sigmoid": (lambda x: x.sigmoid() + x.tanh(), r(1, 9)),
    "softmax": (lambda x: x.softmax(-1) + x.softmax(1), r(1, 3, 3)),
    "mean": (lambda x: (x.mean(1), x.mean((1, 2), keepdim=True), x.mean(-1, True)), r(1, 3, 4)),
    "mean of an image": (lambda x: x.mean((2, 3)), r(1, 3, 4, 5)),
    "sum": (lambda x: x.sum(-1), r(1, 3, 4)),
    "transpose": (lambda x: x.transpose(1, 2) * 2, r(1, 3, 4)),
    "permute": (lambda x: x.permute(0, 3, 1, 2) + 1, r(1, 3, 4, 2)),
    "views": (
        lambda x: (x.view(1, 12) + 1, x.flatten(1).unsqueeze(1) * 2, x.reshape(1, 2, 6)[:, 0].squeeze(0)),
        r(1, 3, 4),
    ),
    "cat": (lambda x, y: torch.cat((x, y, x), 1), r(1, 3), r(1, 2)),
    "stack": (lambda x, y: torch.stack((x, y), 2), r(1, 3), r(1, 3)),
    "slices": (lambda x: x[:, 1:3] + x[:, -2:], r(1, 5)),
    "chunk": (lambda x: x.chunk(2, -1)[0] * x.split([1, 5], -1)[0], r(1, 6)),
    "unbind": (lambda x: x.unbind(1)[0] - x.unbind(1)[2], r(1, 3, 2)),
    "expand": (lambda x: x.expand(1, 3) + x.expand_as(x), r(1, 3)),
    "matmul": (lambda x, y: x @ y, r(1, 3, 4), r(1, 4, 2)),
    "attention": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v), r(1, 2, 5, 4), r(1, 2, 5, 4), r(1, 2, 5, 4)),
    "cast": (lambda x: x.float().contiguous().clone().detach(), r(1, 3)),
    "constants folded": (lambda x: x * torch.arange(3.0).exp() + torch.zeros_like(x), r(1, 3)),
    "pool 1d": (lambda x: (F.max_pool1d(x, 2), F.avg_pool1d(x, 3, 2, 1)), r(1, 3, 9)),
    "pool 2d": (lambda x: (F.max_pool2d(x, 3, 2, 1), F.avg_pool2d(x, (2, 3))), r(1, 3, 9, 7)),
    "adaptive pool": (lambda x: F.adaptive_avg_pool2d(x, 1), r(1, 3, 4, 5)),
}


@pytest.mark.parametrize("name", CALLS)
def test_one_call(name):
    function, *inputs = CALLS[name]
    check(Call(function), *inputs)


LAYERS = {
    "linear": (nn.Linear(4, 3), r(1, 5, 4)),
    "linear without bias": (nn.Linear(4, 3, bias=False), r(1, 4)),
    "constant matmul": (Call(lambda x, w: x @ w, r(4, 3)), r(1, 5, 4)),
    "conv1d": (nn.Conv1d(4, 6, 3, 2, 1, groups=2), r(1, 4, 9)),
    "conv1d dilated": (nn.Conv1d(4, 6, 3, dilation=2, padding="same", bias=False), r(1, 4, 9)),
    "conv1d padded": (nn.Sequential(nn.ConstantPad1d((2, 0), 0.0), nn.Conv1d(4, 6, 3)), r(1, 4, 9)),
    "conv2d": (nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 0)), r(1, 4, 9, 8)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4, padding=1), r(1, 4, 5, 5)),
    "batch norm 1d": (nn.BatchNorm1d(4), r(1, 4, 5)),
    "batch norm 2d": (nn.BatchNorm2d(4), r(1, 4, 5, 3)),
    "batch norm plain": (nn.BatchNorm1d(4, affine=False), r(1, 4)),
    "layer norm": (nn.LayerNorm(5), r(1, 4, 5)),
    "layer norm plain": (nn.LayerNorm(5, elementwise_affine=False), r(1, 4, 5)),
    "dropout": (nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3)), r(1, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_one_layer(name):
    module, x = LAYERS[name]
    check(randomise(module), x)


def test_a_plain_cnn_keeps_one_permute():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(8), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(32, 5),
    )  # fmt: skip
    graph = check(randomise(net), r(1, 3, 8, 8))
    names = [n.op.name for n in graph.nodes]
    assert names.count("permute") == 1
    assert names[0] == "permute"
    assert names.count("affine") == 1


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.conv, self.norm = (
            nn.Conv2d(1, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.BatchNorm2d(4),
        )
        self.squeeze, self.excite, self.head = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1), nn.Linear(4, 3)
        self.gain = nn.Parameter(torch.rand(4, 1, 1))

    def forward(self, x):
        x = self.stem(x)
        y = self.norm(self.conv(x.relu()))
        gate = self.excite(self.squeeze(F.adaptive_avg_pool2d(y, 1)).relu()).sigmoid()
        x = x * self.gain + y * gate
        return self.head(x.mean((2, 3)))


def test_a_residual_block_with_a_gate_needs_no_permute():
    torch.manual_seed(0)
    graph = check(randomise(Residual()), r(1, 1, 6, 6))
    assert "permute" not in {n.op.name for n in graph.nodes}


class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(6), nn.LayerNorm(6)
        self.tokens = nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 5))
        self.channels = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6))

    def forward(self, x):
        x = x + self.tokens(self.n1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.n2(x))


def test_a_mixer_block():
    torch.manual_seed(0)
    check(Mixer(), r(1, 5, 6))


def small_lmuformer(**changes) -> nn.Module:
    torch.manual_seed(3)
    config = dict(n_mels=8, dim=16, order=8, theta=8, classes=3, **changes)
    return randomise(shipped.package("lmuformer").build(config))


@pytest.mark.parametrize("changes", [{}, {"causal": True}, {"form": "recurrent"}])
def test_the_lmuformer(changes):
    module, pcm = small_lmuformer(**changes), torch.randn(1, 160 * 20) * 0.1
    graph = from_module(module, (pcm,), "lmuformer")
    assert graph.inputs[0].type.time_axis == 1
    expected, spikes = {}, {}
    for path, m in module.named_modules():
        if type(m).__name__ == "LIF":
            m.register_forward_hook(lambda m, a, out, path=path: spikes.__setitem__(path, out))
    with torch.no_grad():
        expected = module(pcm)
    values = evaluate_all(graph, {"pcm": pcm})
    torch.testing.assert_close(values[graph.outputs[0]], expected, rtol=1e-5, atol=1e-5)
    neurons = [n for n in graph.nodes if isinstance(n.op, Lif)]
    assert len(neurons) == len(spikes) == 11
    for node in neurons:
        assert torch.equal(values[node.output], spikes[node.output]), node.output
    assert sum(float(s.sum()) for s in spikes.values()) > 50


def test_the_lmuformer_without_permutes_streams():
    module, pcm = small_lmuformer(), torch.randn(1, 160 * 20) * 0.1
    graph = from_module(module, (pcm,), "lmuformer")
    for p in (AssignLayout(), Canonicalize(), FoldBatchnorm()):
        graph = p.run(graph)
    names = [n.op.name for n in graph.nodes]
    assert "permute" not in names
    assert "reshape" not in names
    assert names.count("affine") == 5  # between the residual stream or the memory and a neuron
    runner = StepRunner(MakeStreaming().run(graph))
    frames = torch.cat([out[0] for out in runner.run({"pcm": pcm})], 1)
    torch.testing.assert_close(frames, outputs_of(module, (pcm,))[0], rtol=1e-5, atol=1e-5)


def test_every_node_says_where_it_comes_from():
    graph = from_module(small_lmuformer(), (torch.zeros(1, 1600),), "lmuformer")
    by_name = {n.outputs[0]: n for n in graph.nodes}
    source = shipped.folder() / "lmuformer" / "model.py"
    line = next(k for k, text in enumerate(source.read_text().splitlines(), 1) if "self.lif0(self.norm0" in text)
    assert by_name["embed.lif0"].source == (f"model.py:{line} embed.lif0",)
    assert all(n.source and "model.py:" in n.source[0] for n in graph.nodes)
    assert not any("/" in s for n in graph.nodes for s in n.source)


def test_the_text_form_round_trips():
    graph = from_module(small_lmuformer(), (torch.zeros(1, 1600),), "lmuformer")
    text = print_graph(graph)
    assert print_graph(parse_graph(text, OPS)) == text


def test_constants_are_copies_of_the_weights():
    module = nn.Linear(2, 2).eval()
    graph = from_module(module, (r(1, 2),))
    before = graph.consts["bias"].data.copy()
    module.bias.data.fill_(7)
    assert np.array_equal(graph.consts["bias"].data, before)


def test_every_unsupported_call_is_listed_with_its_line():
    def forward(x):
        y = torch.fft.rfft(x).real
        y = torch.i0(torch.i0(x)[:, :2] + y[:, :2]) + torch.erfinv(x)[:, :2]
        return torch.erfinv(y[:, ::2])

    with pytest.raises(FrontendError) as caught:
        from_module(Call(forward).eval(), (r(1, 4),), "net")
    text = str(caught.value)
    assert text.startswith(
        "net: the model cannot be imported:\n  - aten::fft_rfft is not supported (once, at test_torch"
    )
    assert "use edgec.nn.LogMel" in text
    assert "aten::i0 is not supported (2 times, first at test_torch_export.py:" in text
    assert "aten::erfinv is not supported (2 times, first at test_torch_export.py:" in text


def test_what_no_result_needs_is_not_imported():
    """Random numbers, calls without a converter and results that were not asked for block nothing."""

    def forward(x):
        noise = torch.rand([]) + torch.erfinv(x).sum()
        torch.zeros(3).uniform_()
        noise.mul_(2)
        return {"first": torch.relu(x), "second": torch.i0(x)}

    module, x = Call(forward).eval(), r(1, 4)
    graph = load(module, (x,), outputs=["first"])
    assert [n.op.name for n in graph.nodes] == ["relu"]
    with pytest.raises(FrontendError, match="aten::i0") as caught:
        load(module, (x,))
    assert "rand" not in str(caught.value)
    assert "erfinv" not in str(caught.value)


# older exporters fail in an LSTM themselves
LSTM = "recurrent layers are not imported" if torch.__version__ >= "2.13" else "torch.export cannot trace the module"
REFUSED = {
    "training mode": (nn.Dropout(), (r(1, 3),), "in training mode"),
    "batch": (nn.Linear(3, 2).eval(), (r(2, 3),), "export it with batch 1"),
    "doubles": (
        nn.Linear(3, 2).double().eval(),
        (torch.zeros(1, 3).double(),),
        "torch.float64; expected torch.float32",
    ),
    "lstm": (nn.LSTM(3, 2).eval(), (r(1, 4, 3),), LSTM),
    "branch": (Call(lambda x: x if x.sum() > 0 else -x).eval(), (r(1, 3),), "torch.export cannot trace the module"),
    "constant output": (Call(lambda x: torch.arange(3)).eval(), (r(1, 3),), "no result of the inputs"),
    "stray pad": (Call(lambda x: F.pad(x, (1, 1)) + 1).eval(), (r(1, 4),), "only right before a convolution"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    module, inputs, message = REFUSED[name]
    with pytest.raises(FrontendError) as caught:
        from_module(module, inputs, "net")
    assert message in str(caught.value)


class Mixed(nn.Module):
    """a - 2 b + 4 c of inputs in a tuple, a dict or side by side."""

    def forward(self, a, more):
        b, c = (more["b"], more["c"]) if isinstance(more, dict) else (more[0], more[1])
        return a - 2 * b + 4 * c


@pytest.mark.parametrize("kind", ["tuple", "dict", "views"])
def test_one_tensor_for_several_inputs(kind):
    x = r(2, 3)
    first = x[:1]
    more = {"tuple": (first, first), "dict": {"b": first, "c": first}, "views": (x[:1], x[1:])}[kind]
    module = Mixed().eval()
    graph = load(module, (first, more))
    values = [r(1, 3) for _ in graph.inputs]
    (found,) = evaluate(graph, {v.name: value for v, value in zip(graph.inputs, values, strict=True)})
    a, b, c = values
    torch.testing.assert_close(found, a - 2 * b + 4 * c)
    assert x[0].tolist() == first[0].tolist()


def test_a_parameter_as_example_input():
    module = nn.Linear(3, 3, bias=False).eval()
    x = r(3, 3)[:1]
    graph = load(Call(lambda y: module(y) + module.weight[:1]).eval(), (module.weight[:1],))
    expected = module(x) + module.weight[:1]
    torch.testing.assert_close(evaluate(graph, {graph.inputs[0].name: x})[0], expected.detach())


def test_a_program_exported_with_one_tensor_twice_is_refused(tmp_path):
    x = r(1, 3)
    program = torch.export.export(Mixed().eval(), (r(1, 3), {"b": x, "c": x}))
    for model in (program, tmp_path / "net.pt2"):
        if model is not program:
            torch.export.save(program, model)
        with pytest.raises(FrontendError, match="exported with the same tensor as two of its inputs"):
            load(model)


class Training(nn.Module):
    """Dropout or batch norm as in training, in a module that is in eval mode."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.norm = kind, nn.BatchNorm1d(3)

    def forward(self, x):
        if self.kind == "norm":
            return F.batch_norm(x, self.norm.running_mean, self.norm.running_var, training=True)
        return F.dropout(x, self.kind, training=True)


def test_training_inside_a_module_in_eval_mode():
    x = r(1, 3, 8)
    graph = load(Training(0.0).eval(), (x,))
    assert torch.equal(evaluate(graph, {"x": x})[0] if graph.nodes else x, x)
    for kind, message in ((0.3, "dropout in training mode"), ("norm", "atch")):
        with pytest.raises(FrontendError, match=message):
            load(Training(kind).eval(), (x,))
    program = torch.export.export(nn.Sequential(nn.Conv1d(3, 3, 1), nn.BatchNorm1d(3), nn.Dropout()).train(), (x,))
    with pytest.raises(FrontendError):
        load(program)


def test_weights_that_are_no_numbers_are_refused():
    module = nn.Linear(3, 2).eval()
    module.weight.data[0, 1] = float("nan")
    with pytest.raises(FrontendError, match="weight: 1 of 6 values are not finite"):
        from_module(module, (r(1, 3),))


def test_the_time_axis_can_be_named():
    module = nn.Sequential(nn.Conv1d(4, 5, 3, padding=1), nn.ReLU()).eval()
    graph = from_module(module, (r(1, 4, 9),), "net", time_axis=2)
    assert graph.type_of(graph.outputs[0]).time_axis == 2
    with pytest.raises(FrontendError, match="time axis of the input is used as the channel axis"):
        from_module(module, (r(1, 4, 9),), "net", time_axis=1)
    with pytest.raises(FrontendError, match="time axis 3 is not an axis"):
        from_module(module, (r(1, 4, 9),), "net", time_axis=3)


def test_an_exported_program_and_what_load_refuses():
    module, x = nn.Linear(3, 2).eval(), r(1, 3)
    graph = load(torch.export.export(module, (x,)))
    torch.testing.assert_close(evaluate(graph, {"input": x})[0], module(x).detach())
    assert from_exported(torch.export.export(module, (x,)), "a b").name == "a_b"
    with pytest.raises(FrontendError, match="needs example_inputs"):
        load(module)
    with pytest.raises(FrontendError, match="found int"):
        load(3)


@pytest.mark.parametrize("unread", [torch.arange(3), torch.tensor(True), torch.ones(2, 5), torch.ones(1, 2).double()])
def test_an_input_that_nothing_reads_blocks_no_import(unread):
    assert [v.name for v in load(Call(lambda x, y: 2 * x).eval(), (r(1, 3), unread)).inputs] == ["inputs_0"]


def test_a_model_of_no_input():
    with pytest.raises(FrontendError, match="the model reads no input"):
        load(Call(lambda x: torch.ones(1, 3)).eval(), (torch.arange(3),))


def test_what_cannot_be_traced_is_told_by_line_and_nothing_else_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    class Branches(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    class Misfits(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ torch.ones(5, 2)

    class Raises(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise NotImplementedError("later")

    for module in (Branches(), Misfits(), Raises()):
        with pytest.raises(FrontendError, match=r"cannot trace the module at test_torch_export.py:\d+: \w+: "):
            load(module.eval(), (torch.randn(1, 4),))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("call", "what"),
    [(lambda x: nn.functional.pad(x, (1, 1)), "zero padding"), (lambda x: x.mean(1, True).expand(1, 3), "expanded")],
)
def test_results_that_only_another_operator_takes_over(call, what):
    with pytest.raises(FrontendError, match=f"an output is an? (tensor with )?{what}"):
        load(Call(call).eval(), (r(1, 3),))
