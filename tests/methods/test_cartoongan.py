"""CartoonGAN in the trainer equals a written-out plain loop in float64."""

import copy
import hashlib
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torchvision.models import squeezenet1_1

from gan_nst.core.errors import WeightsError
from gan_nst.data.domains import Stream
from gan_nst.methods.base import Plan
from gan_nst.methods.cartoongan import CartoonGan, CartoonGanSettings, warm_up_steps
from gan_nst.networks.features import FeatureSettings
from gan_nst.training.settings import TrainingSettings
from gan_nst.training.trainer import Trainer

STEPS, WARM_UP = 6, 2
PLAN = Plan(steps=STEPS, steps_per_epoch=2, seed=3)


def settings(**changes):
    plain = {
        "generator": {"width": 4, "blocks": 1, "downsamplings": 1, "upsampling": "transposed"},
        "discriminator": {"width": 4, "downsamplings": 1},
        "features": {"network": "random"},
        "content_weight": 1.5,
        "warm_up": WARM_UP / STEPS,
        **changes,
    }
    return CartoonGanSettings.model_validate(plain)


def make_method(**changes):
    torch.manual_seed(0)
    return CartoonGan(settings(**changes), PLAN).double()


def batches(seed=0, size=2):
    generator = torch.Generator().manual_seed(seed)

    def draw():
        return torch.rand(size, 3, 16, 16, generator=generator, dtype=torch.float64) * 2 - 1

    return [{"real_a": draw(), "real_b": draw(), "b_smoothed": draw()} for _ in range(STEPS)]


def make_trainer(method, tmp_path):
    return Trainer(
        method,
        TrainingSettings(steps=STEPS, epochs=None),
        lambda step: iter([]),
        device=torch.device("cpu"),
        precision="float32",
        checkpoints=tmp_path,
        header={},
    )


def features_of(network, image):
    """The random network's features of images normalised by ImageNet's statistics, in units of their mean magnitude."""
    mean, deviation = (
        torch.tensor(values)[:, None, None].double()
        for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    x = ((image + 1) / 2 - mean) / deviation
    first, second, third = (layer for layer in network.layers if isinstance(layer, torch.nn.Conv2d))
    x = F.relu(F.conv2d(x, first.weight, first.bias, padding=1))
    x = F.relu(F.conv2d(x, second.weight, second.bias, stride=2, padding=1))
    return F.conv2d(x, third.weight, third.bias, stride=2, padding=1) / network.unit


class PlainAdam:
    """Kingma and Ba 2015, algorithm 1."""

    def __init__(self, parameters):
        self.parameters = list(parameters)
        self.means = [torch.zeros_like(p) for p in self.parameters]
        self.squares = [torch.zeros_like(p) for p in self.parameters]
        self.count = 0

    @torch.no_grad()
    def step(self, loss, rate):
        self.count += 1
        gradients = torch.autograd.grad(loss, self.parameters)
        for p, g, mean, square in zip(self.parameters, gradients, self.means, self.squares, strict=True):
            mean += (1 - 0.5) * (g - mean)
            square += (1 - 0.999) * (g * g - square)
            hat = mean / (1 - 0.5**self.count)
            p -= rate * hat / ((square / (1 - 0.999**self.count)).sqrt() + 1e-8)


def plain_loop(
    method,
    *,
    content=1.5,
    warm_up=WARM_UP,
    average=False,
    generator_first=False,
    smoothed_real=False,
):
    """Every step's losses by name, and the weights at the end; the method is only copied from."""
    generator, discriminator = (
        copy.deepcopy(method.generators["ab"]),
        copy.deepcopy(method.discriminators["b"]),
    )
    generator.requires_grad_(True), discriminator.requires_grad_(True)
    adams = PlainAdam(generator.parameters()), PlainAdam(discriminator.parameters())
    logged = []
    for step, batch in enumerate(batches()):
        share = (step - warm_up) / (STEPS - warm_up)
        rate = 2e-4 * (1 if share < 0.5 else 0.1 if share < 0.75 else 0.01)
        losses = {}

        def move_discriminator(batch=batch, losses=losses, rate=rate):
            losses["discriminator_real"] = F.softplus(-discriminator(batch["real_b"])).mean()
            sign = -1 if smoothed_real else 1
            losses["discriminator_smoothed"] = F.softplus(sign * discriminator(batch["b_smoothed"])).mean()
            losses["discriminator_fake"] = F.softplus(
                discriminator(generator(batch["real_a"]).detach())
            ).mean()
            names = ("discriminator_real", "discriminator_smoothed", "discriminator_fake")
            if average:
                losses |= {name: losses[name] / 3 for name in names}
            adams[1].step(sum(losses[name] for name in names), rate)

        def move_generator(batch=batch, losses=losses, rate=rate, step=step):
            fake = generator(batch["real_a"])
            difference = features_of(method.features, fake) - features_of(method.features, batch["real_a"])
            losses["content"] = content * difference.abs().mean()
            if step >= warm_up:
                losses["adversarial"] = F.softplus(-discriminator(fake)).mean()
            adams[0].step(sum(losses[name] for name in ("content", "adversarial") if name in losses), rate)

        order = [move_generator] if step < warm_up else [move_discriminator, move_generator]
        for move in reversed(order) if generator_first else order:
            move()
        logged.append({name: loss.item() for name, loss in losses.items()})
    return logged, [*generator.parameters(), *discriminator.parameters()]


def trained(method, tmp_path):
    """Returns the same results from our trainer."""
    trainer, logged = make_trainer(method, tmp_path), []
    for batch in batches():
        trainer.train_step([batch])
        trainer.step += 1
        means = {k: mean for k, mean in trainer.means.take().items() if "norm" not in k}
        assert {k.split("/")[0] for k in means if "discriminator_" in k} <= {"discriminator"}
        logged.append({k.split("/")[1]: value for k, value in means.items()})
    return logged, [*method.generators.parameters(), *method.discriminators.parameters()]


def apart(one, other):
    """Returns the largest difference of losses and of weights; losses that only one of them has count as infinite."""
    losses = [
        max(abs(a.get(k, math.inf) - b.get(k, math.inf)) if k in a and k in b else math.inf for k in a | b)
        for a, b in zip(one[0], other[0], strict=True)
    ]
    return max(losses), max((a - b).abs().max().item() for a, b in zip(one[1], other[1], strict=True))


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return trained(make_method(), tmp_path_factory.mktemp("run"))


def test_training_equals_the_plain_loop(ours):
    method = make_method()
    assert max(apart(ours, plain_loop(method))) < 1e-10
    start = [*method.generators.parameters(), *method.discriminators.parameters()]
    assert all((a - b).abs().max() > 1e-5 for a, b in zip(start, ours[1], strict=True))


@pytest.mark.parametrize(
    "change",
    [{"content": 1.6}, {"warm_up": 1}, {"warm_up": 3}, {"generator_first": True}, {"smoothed_real": True}],
)
def test_the_comparison_detects_a_difference(ours, change):
    """Negative control: another rule on one side makes losses and weights differ."""
    assert min(apart(ours, plain_loop(make_method(), **change))) > 1e-6


def test_the_comparison_detects_a_mean_of_three_instead_of_their_sum(ours):
    """Adam cancels a constant factor, so only the losses reveal it."""
    assert apart(ours, plain_loop(make_method(), average=True))[0] > 0.1


@pytest.mark.parametrize("change", [{"betas": (0.6, 0.999)}, {"decay_at": (0.5,)}, {"learning_rate": 1e-4}])
def test_the_comparison_detects_other_settings(tmp_path, change):
    method = make_method(**change)
    expected = plain_loop(method)
    assert apart(trained(method, tmp_path), expected)[1] > 1e-6


def cross_entropy(scores, real):
    chances = [1 / (1 + math.exp(-s)) for s in scores.flatten().tolist()]
    return -math.fsum(math.log(p if real else 1 - p) for p in chances) / len(chances)


def squares(scores, real):
    values = scores.flatten().tolist()
    return math.fsum((s - real) ** 2 for s in values) / len(values)


@pytest.mark.parametrize(("adversarial", "naive"), [("bce", cross_entropy), ("lsgan", squares)])
def test_every_term_equals_a_naive_one(adversarial, naive):
    method, batch = make_method(adversarial=adversarial), batches()[0]
    discriminator, fake = method.discriminators["b"], method.generators["ab"](batch["real_a"])
    wanted, found = (features_of(method.features, x).flatten().tolist() for x in (batch["real_a"], fake))
    content = 1.5 * math.fsum(abs(x - y) for x, y in zip(wanted, found, strict=True)) / len(wanted)
    expected = {
        "discriminator_real": naive(discriminator(batch["real_b"]), 1),
        "discriminator_smoothed": naive(discriminator(batch["b_smoothed"]), 0),
        "discriminator_fake": naive(discriminator(fake), 0),
        "adversarial": naive(discriminator(fake), 1),
        "content": content,
    }
    losses = method.discriminator_losses(dict(batch)) | method.generator_losses(dict(batch))
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-9)
    (only,) = method.content_losses(dict(batch)).items()
    assert (only[0], only[1].item()) == ("content", pytest.approx(content, rel=1e-9))


def test_the_content_weight_scales_only_its_term():
    one, ten, none = (make_method(content_weight=w).generator_losses(dict(batches()[0])) for w in (1, 10, 0))
    assert ten["content"].item() == pytest.approx(10 * one["content"].item(), rel=1e-12)
    assert none["content"].item() == 0
    assert one["adversarial"] == ten["adversarial"] == none["adversarial"]


def test_the_content_loss_moves_the_generator_through_frozen_features():
    method, batch = make_method(), batches()[0]
    before = copy.deepcopy(dict(method.features.named_buffers()))
    method.content_losses(batch)["content"].backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in method.generators.parameters())
    assert all(p.grad is None for p in method.discriminators.parameters())
    assert all(torch.equal(b, before[n]) and not b.requires_grad for n, b in method.features.named_buffers())


def test_the_generator_term_moves_it_through_the_discriminator_and_not_the_other_way():
    method, batch = make_method(), batches()[0]
    method.generator_losses(batch)["adversarial"].backward()
    assert all(p.grad.abs().max() > 0 for p in method.generators.parameters())
    method.zero_grad()
    sum(method.discriminator_losses(batch).values()).backward()
    assert all(p.grad is None for p in method.generators.parameters())
    assert all(p.grad.abs().max() > 0 for p in method.discriminators.parameters())


def test_the_warm_up_leaves_the_discriminator_and_its_optimizer_alone(tmp_path):
    method = make_method()
    trainer = make_trainer(method, tmp_path)
    before = copy.deepcopy(method.discriminators.state_dict())
    for step, batch in enumerate(batches()):
        trainer.train_step([batch])
        trainer.step += 1
        rests = step < WARM_UP
        now = method.discriminators.state_dict()
        assert all(torch.equal(before[name], now[name]) == rests for name in now)
        assert (not trainer.optimizers["discriminator"].state) == rests
        if not rests:
            counts = {int(s["step"]) for s in trainer.optimizers["discriminator"].state.values()}
            assert counts == {step + 1 - WARM_UP}
            before = copy.deepcopy(now)


@pytest.mark.parametrize(("share", "steps"), [(0, 0), (1 / 3, 2), (0.5, 3), (1, 6)])
def test_the_warm_up_is_a_share_of_the_steps(share, steps):
    method = make_method(warm_up=share)
    assert warm_up_steps(method.settings, PLAN) == steps
    roles = [[update.role for update in method.updates(step)] for step in range(STEPS)]
    assert roles == [["generator"]] * steps + [["discriminator", "generator"]] * (STEPS - steps)


def test_the_rate_falls_as_published():
    """10 epochs of warm-up and 100 of training, to a tenth after 50 and 75 of these: znxlwm/pytorch-CartoonGAN."""
    plan, published = Plan(110 * 7, 7), CartoonGanSettings.model_fields
    s = settings(**{name: published[name].default for name in ("warm_up", "learning_rate", "decay_at")})
    for role in CartoonGan(s, plan).roles().values():
        for step in range(plan.steps):
            epoch = step // 7 - 10
            expected = 2e-4 * (1 if epoch < 50 else 0.1 if epoch < 75 else 0.01)
            assert role.learning_rate(step) == pytest.approx(expected), epoch


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("warm_up", [0, 0.5, 1])
def test_short_runs_have_a_rate_and_no_warm_up_alone_decays(steps, warm_up):
    s, plan = settings(warm_up=warm_up), Plan(steps, 1)
    rates = [CartoonGan(s, plan).roles()["generator"].learning_rate(step) for step in range(steps)]
    assert all(0 < later <= earlier for earlier, later in itertools.pairwise(rates))
    assert set(rates[: warm_up_steps(s, plan)]) <= {2e-4}


def test_the_smoothed_cartoon_is_the_cartoon_of_its_step():
    assert CartoonGan.streams["b_smoothed"] == Stream("b", "smoothed", tied_to="real_b")
    assert set(CartoonGan.streams) == {"real_a", "real_b", "b_smoothed"}


def test_the_content_network_is_in_no_role_and_in_no_checkpoint():
    method = make_method()
    held = {id(m) for role in method.roles().values() for m in role.networks.modules()}
    assert not held & {id(m) for m in method.features.modules()}
    assert not list(method.features.parameters())
    assert {key.split(".")[0] for key in method.state_dict()} == {"generators", "discriminators"}
    assert set(method.translations()) == {"ab"}


def test_auto_weights_are_resolved_by_what_is_found(tmp_path, monkeypatch, caplog):
    wanted = settings(features={"network": "squeezenet1_1", "layer": "fire3", "weights": "auto"})
    resolved = CartoonGan.resolve(wanted)
    assert resolved.features == FeatureSettings(network="random")
    assert resolved.model_copy(update={"features": wanted.features}) == wanted
    (message,) = caplog.messages
    for part in ("squeezenet1_1.pth", "random features", "method.features.weights=download"):
        assert part in message
    caplog.clear()
    (tmp_path / "squeezenet1_1.pth").write_bytes(b"looked at only when it is loaded")
    monkeypatch.setenv("GAN_NST_WEIGHTS", str(tmp_path))
    found = CartoonGan.resolve(wanted).features
    digest = hashlib.sha256(b"looked at only when it is loaded").hexdigest()
    assert found == FeatureSettings(network="squeezenet1_1", layer="fire3", sha256=digest)
    assert not caplog.messages


def test_a_run_resumes_only_with_the_same_weights(tmp_path, monkeypatch):
    """`auto` is resolved when a run starts; later it must be the same file, at any path, or an error."""
    with torch.random.fork_rng(devices=[]):
        torch.save(squeezenet1_1(weights=None).state_dict(), tmp_path / "squeezenet1_1.pth")
    monkeypatch.setenv("GAN_NST_WEIGHTS", str(tmp_path))
    begun = CartoonGan.resolve(settings(features={"network": "squeezenet1_1", "weights": "auto"}))
    features = begun.features.model_dump()
    (tmp_path / "moved").mkdir()
    moved = (tmp_path / "squeezenet1_1.pth").rename(tmp_path / "moved" / "light.pth")
    with pytest.raises(WeightsError, match=r"squeezenet1_1\.pth"):
        CartoonGan.resolve(settings(features={**features, "weights": "auto"}))
    at_new_place = CartoonGan.resolve(settings(features={**features, "weights": moved}))
    CartoonGan(at_new_place, PLAN)
    weights = torch.load(moved, weights_only=True)
    torch.save({name: w + 1e-3 for name, w in weights.items()}, moved)
    with pytest.raises(WeightsError, match="not the file that the run started with"):
        CartoonGan(at_new_place, PLAN)


@pytest.mark.parametrize(
    "features",
    [
        {"network": "random", "weights": "some.pth"},
        {"network": "vgg19_normalised", "weights": "download"},
        {"network": "random", "weights": "download"},
    ],
)
def test_invalid_weights_are_refused(features):
    with pytest.raises(ValidationError, match="weights: "):
        settings(features=features)


def test_missing_weights_are_reported_with_every_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_NST_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError) as raised:
        CartoonGan.resolve(settings(features={}))
    message = str(raised.value)
    assert "\n" not in message
    for part in (
        "VGG-19 (content loss): no vgg19-dcbb9e9d.pth or vgg19.pth in ",
        str(tmp_path),
        torch.hub.get_dir(),
        "method.features.weights=FILE",
        "method.features.weights=download",
        "method.features.network=squeezenet1_1",
    ):
        assert part in message
    with pytest.raises(WeightsError, match=r"squeezenet1_1\.pth in ") as raised:
        CartoonGan.resolve(settings(features={"network": "squeezenet1_1"}))
    assert "method.features.network" not in str(raised.value)
