"""What keeps a step fast, tested without a clock: no waiting, one memory layout, few compiled graphs."""

import copy
import logging

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from gan_nst.core.errors import SettingsError
from gan_nst.methods import base
from gan_nst.methods.cyclegan import CycleGan, CycleGanSettings
from gan_nst.training import compilation, monitor
from gan_nst.training import compilation as forecast
from gan_nst.training.compilation import Forecast, step_operations
from gan_nst.training.settings import TrainingSettings
from gan_nst.training.trainer import Means, Trainer

CPU = torch.device("cpu")
PLAN = base.Plan(steps=20, steps_per_epoch=4)
SMALL = {
    "generator": {"width": 4, "blocks": 1},
    "discriminator": {"width": 4, "layers": 2},
    "replay": 0,  # its random draws are numbers on the host, on every device
}


def make(compiled=False, upsampling="resize", **training):
    torch.manual_seed(0)
    plain = {**SMALL, "generator": {**SMALL["generator"], "upsampling": upsampling}}
    return Trainer(
        CycleGan(CycleGanSettings.model_validate(plain), PLAN),
        TrainingSettings(steps=PLAN.steps, epochs=None, **training),
        lambda step: iter([]),
        device=CPU,
        precision="float32",
        checkpoints=None,
        header={},
        compiled=compiled,
    )


def images(count=1, size=32):
    generator = torch.Generator().manual_seed(1)
    return {
        key: torch.rand(count, 3, size, size, generator=generator) * 2 - 1 for key in ("real_a", "real_b")
    }


class Watch(TorchDispatchMode):
    """Records every operation that makes the host wait for the device."""

    WAITING = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select")

    def __init__(self):
        super().__init__()
        self.waited = []

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        if function._opname in self.WAITING:
            self.waited.append(str(function))
        return function(*arguments, **(named or {}))


@pytest.fixture
def watch(monkeypatch):
    """On the CPU, some ways of reading numbers are not operations; those are patched by name."""
    watch = Watch()

    def watched(name, real):
        def look(self, *rest, **named):
            watch.waited.append(name)
            return real(self, *rest, **named)

        return look

    for name in ("tolist", "numpy", "cpu", "item", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, watched(name, getattr(torch.Tensor, name)))
    return watch


def test_a_step_never_waits_for_the_device(watch):
    trainer = make(gradient_clip=1.0)
    with watch:
        trainer.train_step([images(), images()])
    assert not watch.waited


def test_a_log_line_waits_once_an_update_and_for_the_guard(watch):
    trainer = make()
    trainer.train_step([images()])
    with watch:
        trainer._log({})
    assert watch.waited.count("tolist") == 2
    assert watch.waited.count("item") == 1


def test_logged_means_survive_a_change_of_terms():
    means = Means()
    for _ in range(10):
        means.add(("g/content",), torch.tensor([1.0]), torch.tensor(0.0))
    means.add(("g/adversarial", "g/content"), torch.tensor([4.0, 2.0]), torch.tensor(0.0))
    assert means.take() == {"g/adversarial": 4.0, "g/content": pytest.approx(12 / 11)}
    assert means.take() == {}


def test_a_checkpoint_with_another_memory_layout_resumes_identically():
    ours, other = make(), make()
    for trainer in (ours, other):
        trainer.train_step([images()])
        trainer.step = 1
    payload = {
        "state": ours.method.state_dict(),
        "ema": ours.ema.networks.state_dict(),
        "optimizers": copy.deepcopy({key: o.state_dict() for key, o in ours.optimizers.items()}),
        "random": [{"cpu": torch.get_rng_state()}],
        "step": 1,
    }
    for saved in payload["optimizers"].values():
        for state in saved["state"].values():
            state.update({key: value.contiguous() for key, value in state.items()})
    other.restore(payload)
    for trainer in (ours, other):
        trainer.train_step([images()])
    for a, b in zip(ours.method.parameters(), other.method.parameters(), strict=True):
        assert torch.equal(a, b)


def test_every_convolution_sees_channels_last():
    trainer = make()
    wrong = []

    def look(name):
        def hook(module, inputs, output):
            for x in (*inputs, output):
                if x.shape[1] > 3 and not x.is_contiguous(memory_format=torch.channels_last):
                    wrong.append(name)

        return hook

    for name, module in trainer.method.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(look(name))
    trainer.train_step([images(2)])
    assert not wrong


def graphs(trainer, steps=3):
    """How many graphs were compiled after each step, by a compiler that only counts."""
    counted, after = [], []

    def count(graph, inputs):
        counted.append(graph)
        return graph

    torch._dynamo.reset()
    for role in trainer.roles.values():
        for network in role.networks.values():
            network.compile(dynamic=False, backend=count)
    for _ in range(steps):
        trainer.train_step([images()])
        trainer.step += 1
        after.append(len(counted))
    torch._dynamo.reset()
    return after


# torch's compiler accesses .grad in a way that makes torch warn, and hides the warning except under `-W error`.
_GRAD_ACCESS = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")


@_GRAD_ACCESS
def test_few_graphs_are_compiled_and_all_at_the_first_step():
    # Generators: 2, 3 and 1 images; discriminators: scoring a fake, training. Both networks of a kind share graphs.
    assert graphs(make()) == [5, 5, 5]


@_GRAD_ACCESS
def test_compiled_networks_compute_the_same():
    if compilation._why_unavailable(CPU) is not None:
        pytest.skip("torch.compile is unavailable")
    plain, fast = make(), make(compiled=True)
    losses = []
    for trainer in (plain, fast):
        trainer.train_step([images()])
        losses.append(trainer.means.take())
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for (name, a), b in zip(plain.method.named_parameters(), fast.method.parameters(), strict=True):
        # Adam's first step depends only on the sign of a gradient, so rounding matters where it is near 0.
        assert (a - b).abs().median() < 1e-7, name
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("choice", "device", "operations", "works", "resolved"),
    [
        ("auto", "cuda", 1e13, True, "never"),
        ("auto", "cuda", 1e18, True, "always"),
        ("auto", "cuda", 1e18, False, "never"),
        ("auto", "cpu", 1e18, True, "never"),
        ("never", "cuda", 1e18, True, "never"),
        ("always", "cpu", 1, True, "always"),
    ],
)
def test_networks_are_compiled_when_it_pays_off(
    monkeypatch, caplog, choice, device, operations, works, resolved
):
    monkeypatch.setattr(compilation, "_why_unavailable", lambda device: None if works else "no g++")
    caplog.set_level(logging.INFO)
    assert compilation.resolve_compile(choice, torch.device(device), operations) == resolved
    assert ("no g++" in caplog.text) == (not works)


def test_asking_for_an_unavailable_compiler_is_refused(monkeypatch):
    monkeypatch.setattr(compilation.torch, "compile", lambda f, dynamic: _fails)
    with pytest.raises(SettingsError, match=r"^compile=always, .*no compiler.*never$"):
        compilation.resolve_compile("always", CPU, 1)


def _fails(x):
    raise RuntimeError("no compiler\nand many lines")


def test_activation_checkpointing_stores_less_with_equal_results():
    kept = {}
    trainers = {choice: make(activation_checkpointing=choice) for choice in (False, True)}
    for choice, trainer in trainers.items():
        sizes = []

        def pack(x, sizes=sizes):
            sizes.append((x.untyped_storage().data_ptr(), x.untyped_storage().nbytes()))
            return x

        trainer.method.generators.requires_grad_(True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            losses = trainer.method.generator_losses(images(size=64))
        assert losses
        kept[choice] = sum(dict(sizes).values())
        trainer.method.generators.requires_grad_(False)
        trainer.train_step([images(size=64)])
    assert kept[True] < 0.5 * kept[False]
    for a, b in zip(trainers[False].method.parameters(), trainers[True].method.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_operations_of_a_step_are_those_of_its_convolutions():
    trainer = make(upsampling="transposed")
    counted = 0

    def hook(module, inputs, output):
        nonlocal counted
        # Multiplications and additions: the full kernel is applied to each output (transposed: to each input).
        larger = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        one = 2 * larger[:, 0].numel() * module.weight.numel()
        backward = module.weight.requires_grad + inputs[0].requires_grad
        counted += one * (1 + backward)

    for module in trainer.method.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(hook)
    operations = step_operations(trainer.method, 0, batch_size=2, crop_size=32)
    counted = 0
    trainer.train_step([images(2)])
    assert operations == counted


def test_counting_operations_leaves_the_method_as_it_was():
    trainer = make()
    before = {
        key: value.clone() for key, value in trainer.method.state_dict().items() if torch.is_tensor(value)
    }
    step_operations(trainer.method, 0, 1, 32)
    for key, value in trainer.method.state_dict().items():
        if torch.is_tensor(value):
            assert torch.equal(value, before[key])
    assert not any(p.requires_grad for p in trainer.method.parameters())


def test_a_forecast_ignores_the_first_steps(monkeypatch):
    # After steps 11 to 15: 0.5 seconds each, except for a hiccup.
    clock = iter([100.0, 100.5, 101.0, 109.0, 109.5])
    monkeypatch.setattr(forecast.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(forecast, "peak_memory", lambda device: 3 * 2**29)
    watching = Forecast(CPU, 10, 1000, growth=1.0)
    lines = [watching.after(step) for step in range(11, 20)]
    assert [bool(line) for line in lines] == [False] * 4 + [True] + [False] * 4
    assert lines[4] == "about 8 min for 990 steps of 0.5 s, and validation; 1.5 GiB of memory"


def test_a_forecast_during_warm_up_covers_the_steps_after_it(monkeypatch):
    clock = iter([0.0, 0.5, 1.0, 1.5, 2.0])
    monkeypatch.setattr(forecast.time, "perf_counter", lambda: next(clock))
    watching = Forecast(CPU, 0, 100, growth=3.0)
    lines = [watching.after(step) for step in range(1, 6)]
    assert lines[-1].startswith("about 2 min for 100 steps of 1.5 s")


def test_the_time_left_ignores_the_first_step(monkeypatch, tmp_path, caplog):
    # The start, the end of the first step (which compiles), ten steps later.
    clock = iter([0.0, 100.0, 110.0])
    monkeypatch.setattr(monitor.time, "perf_counter", lambda: next(clock))
    caplog.set_level(logging.INFO)
    watching = monitor.Monitor(tmp_path, 0, 61)
    for step in range(1, 11):
        watching.advance(step)
    watching.log(11, {})
    watching.close()
    assert "step 11/61  50 s left" in caplog.text
