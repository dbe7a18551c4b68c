"""The fine-tune loop: goes on with the same numbers, treats head and body apart, stops on a broken gradient."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import signsym_core as ss
from signsym_core.backbones import Model
from signsym_core.datasets import inputs
from signsym_core.training.alignment import layer_alignment
from signsym_core.training.checkpoint import Checkpoint
from signsym_core.training.health import NonFiniteGradientError

TASK = ss.TASKS.build("classification")
SOURCE = ss.DATASETS.build("digits", train_images=50, test_images=20, classes=[0, 1, 2])
DATA = SOURCE.load(Path())

#: The rules that train any network; the others are tested beside theirs.
RULES = [rule.name for rule in ss.RULES if rule.backbones is None]


class Dropped(nn.Module):
    """A network with dropout, which draws from the global generator."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.relu = nn.ReLU()
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(6 * 36, 3)

    def forward(self, x):
        return self.fc(self.drop(self.relu(self.norm(self.conv(x))).flatten(1)))


def model(rule="usf", **parameters):
    torch.manual_seed(0)
    return ss.convert(Model(Dropped(), "fc", (0.5,), (0.5,)), rule, seed=5, **parameters)


def train(network, epochs=3, seed=1, **more):
    chosen = {"optimizer": "adamw" if "feedback" in str(network) and "rule=kp" in str(network) else "adam"}
    settings = ss.FineTune(epochs=epochs, batch_size=16, lr=1e-3, head_lr=1e-2, **(chosen | more.pop("settings", {})))
    return ss.fine_tune(network, DATA.train, SOURCE, TASK, settings, seed=seed, **more)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_going_on_from_any_epoch_gives_the_numbers_of_an_undisturbed_run(rule):
    undisturbed, checkpoints = model(rule), []
    history = train(undisturbed, on_epoch=checkpoints.append)
    for checkpoint in checkpoints[:-1]:
        resumed = model(rule)
        torch.rand(17)  # whatever happened in between
        again = train(resumed, resume=checkpoint)
        assert same(resumed, undisturbed)
        assert [row["loss"] for row in again] == [row["loss"] for row in history]


def test_training_learns_and_depends_on_the_seed_alone():
    one, other, third = model(), model(), model()
    first, last = (row["loss"] for row in (train(one, epochs=8)[0], train(other, epochs=8)[-1]))
    assert last < first / 2
    assert same(one, other)
    train(third, epochs=8, seed=2)
    assert not same(one, third)


def test_the_global_generator_is_left_alone():
    network = model()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(network)
    assert torch.equal(torch.rand(3), expected)


def test_head_and_body_have_their_own_rates():
    network = model("bp")
    before = copy.deepcopy(network.state_dict())
    settings = ss.FineTune(epochs=1, batch_size=16, lr=0, head_lr=1e-2, weight_decay=0)
    ss.fine_tune(network, DATA.train, SOURCE, TASK, settings, seed=0)
    assert torch.equal(network.network.conv.weight, before["network.conv.weight"])
    assert not torch.equal(network.network.fc.weight, before["network.fc.weight"])
    assert not torch.equal(network.network.norm.running_mean, before["network.norm.running_mean"])


def test_no_epochs_leave_the_weights_alone():
    network = model()
    before = copy.deepcopy(network)
    assert train(network, epochs=0) == []
    assert same(network, before)


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_logging_alignment_changes_no_number(rule):
    plain, logged = model(rule), model(rule)
    train(plain)
    history = train(logged, settings={"log_alignment": 2})
    assert same(plain, logged)
    rows = [row for row in history if "layer" in row]
    assert {row["layer"] for row in rows} == {"network.conv", "network.fc"}
    assert all(math.isfinite(row["norm"]) for row in rows)
    # The head's own weight gradient does not pass through any feedback; PEPITA's is of another input.
    assert rule == "pepita" or all(row["cosine"] == pytest.approx(1) for row in rows if row["layer"] == "network.fc")


def test_alignment_of_bp_is_perfect_and_of_fa_is_not():
    images, labels = torch.rand(20, 1, 8, 8), torch.arange(20) % 3
    for rule, perfect in (("bp", True), ("fa", False)):
        conv = layer_alignment(model(rule), TASK.objective(10, 0), images, labels)[0]
        assert (conv.cosine == pytest.approx(1)) == perfect
        assert (conv.sign_agreement == 1) == perfect
        assert (conv.norm == pytest.approx(conv.norm_bp)) == perfect


def test_a_gradient_that_is_not_finite_stops_the_run_and_names_layer_and_step():
    network = model("bp")
    calls = []

    def poison(gradient):
        calls.append(1)
        return gradient * math.inf if len(calls) == 3 else gradient

    network.network.conv.weight.register_hook(poison)
    with pytest.raises(NonFiniteGradientError, match=r"'network\.conv\.weight' is not finite in epoch 1, step 3"):
        train(network)


@pytest.mark.slow
def test_an_unscaled_rule_that_overflows_is_caught():
    torch.manual_seed(0)
    deep = [layer for _ in range(40) for layer in (nn.Conv2d(64, 64, 3, padding=1), nn.ReLU())]
    body = nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), *deep, nn.Flatten(), nn.Linear(64 * 64, 3))
    network = ss.convert(Model(body, "82", (0.5,), (0.5,)), "usf", scale="unit")
    with pytest.raises(NonFiniteGradientError, match="scale may be too large"):
        train(network, epochs=1)


def test_a_layer_that_the_network_goes_around_is_refused_by_name():
    class Around(Dropped):
        def forward(self, x):
            hidden = nn.functional.conv2d(x, self.conv.weight, self.conv.bias)
            return self.fc(self.norm(hidden).relu().flatten(1))

    network = ss.convert(Model(Around(), "fc", (0.5,), (0.5,)), "usf")
    with pytest.raises(ValueError, match=r"network\.conv.*bp_layers"):
        train(network)


def test_going_on_works_from_a_checkpoint_that_was_written_and_read(tmp_path):
    undisturbed, checkpoints = model("brsf"), []
    train(undisturbed, on_epoch=checkpoints.append)
    save_file(checkpoints[0].tensors, tmp_path / "checkpoint.safetensors")
    read = Checkpoint(epoch=1, tensors=load_file(tmp_path / "checkpoint.safetensors"), history=checkpoints[0].history)
    resumed = model("brsf")
    train(resumed, resume=read)
    assert same(resumed, undisturbed)


def test_going_on_works_where_the_feedback_is_drawn_at_every_forward_pass():
    undisturbed, checkpoints = model("brsf", redraw="forward"), []
    train(undisturbed, on_epoch=checkpoints.append)
    resumed = model("brsf", redraw="forward")
    train(resumed, resume=checkpoints[0])
    assert same(resumed, undisturbed)


def test_a_checkpoint_is_a_copy_that_later_epochs_do_not_change():
    checkpoints, kept = [], []

    def keep(checkpoint):
        checkpoints.append(checkpoint)
        kept.append(copy.deepcopy(checkpoint))

    train(model(), on_epoch=keep)
    assert [checkpoint.epoch for checkpoint in checkpoints] == [1, 2, 3]
    for one, other in zip(checkpoints, kept, strict=True):
        assert all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())
        assert one.history == other.history


def test_a_checkpoint_of_another_rule_is_refused():
    checkpoints = []
    train(model("usf"), epochs=1, on_epoch=checkpoints.append)
    with pytest.raises((ValueError, RuntimeError), match="usf"):
        train(model("frsf"), resume=checkpoints[0])


class Plain(nn.Module):
    """A network without chance."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.fc = nn.Linear(4 * 36, 3)

    def forward(self, x):
        return self.fc(self.conv(x).relu().flatten(1))


def plain():
    torch.manual_seed(0)
    return Model(Plain(), "fc", (0.5,), (0.5,)).double()


def textbook(network, settings):
    """Adam (Kingma, Ba 2015) and AdamW (Loshchilov, Hutter 2019) from their formulas, on all images at once."""
    images, labels = inputs(DATA.train.images, SOURCE), DATA.train.labels
    moments = {p: (torch.zeros_like(p), torch.zeros_like(p)) for p in network.parameters()}
    head = {id(p) for p in network.network.fc.parameters()}
    for step in range(1, settings.epochs + 1):
        loss = nn.functional.cross_entropy(network(images), labels)
        gradients = torch.autograd.grad(loss, list(moments))
        with torch.no_grad():
            for (p, (m, v)), gradient in zip(moments.items(), gradients, strict=True):
                rate = settings.head_lr if id(p) in head else settings.lr
                if settings.optimizer == "adam":
                    gradient = gradient + settings.weight_decay * p
                else:
                    p.mul_(1 - rate * settings.weight_decay)
                m.mul_(settings.beta1).add_(gradient, alpha=1 - settings.beta1)
                v.mul_(settings.beta2).add_(gradient.square(), alpha=1 - settings.beta2)
                m_hat, v_hat = m / (1 - settings.beta1**step), v / (1 - settings.beta2**step)
                p.sub_(rate * m_hat / (v_hat.sqrt() + 1e-8))
    return network


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize(("beta1", "beta2"), [(0.9, 0.999), (0.5, 0.9)])
def test_bp_gives_the_numbers_of_the_textbook(optimizer, weight_decay, beta1, beta2):
    settings = ss.FineTune(
        epochs=5,
        batch_size=50,
        lr=1e-3,
        head_lr=1e-2,
        weight_decay=weight_decay,
        optimizer=optimizer,
        beta1=beta1,
        beta2=beta2,
    )
    ours = ss.convert(plain(), "bp")
    ss.fine_tune(ours, DATA.train, SOURCE, TASK, settings, seed=0)
    expected = textbook(plain(), settings)
    for mine, theirs in zip(ours.parameters(), expected.parameters(), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("lr", "head_lr"), [(1e-3, 1e-2), (1e-2, 1e-3)])
def test_the_first_step_of_each_parameter_is_as_long_as_its_rate(lr, head_lr):
    network = ss.convert(plain(), "usf")
    before = copy.deepcopy(network)
    settings = ss.FineTune(epochs=1, batch_size=50, lr=lr, head_lr=head_lr, weight_decay=0)
    ss.fine_tune(network, DATA.train, SOURCE, TASK, settings, seed=0)
    for part, rate in (("conv", lr), ("fc", head_lr)):
        old, new = getattr(before.network, part).bias, getattr(network.network, part).bias
        assert torch.allclose((new - old).abs(), torch.full_like(old, rate), rtol=1e-3)


def test_batch_statistics_are_those_of_the_images():
    network = model("usf")
    first = copy.deepcopy(network)
    settings = ss.FineTune(epochs=1, batch_size=50)
    ss.fine_tune(network, DATA.train, SOURCE, TASK, settings, seed=0)
    hidden = first.network.conv((inputs(DATA.train.images, SOURCE) - 0.5) / 0.5)
    expected = 0.1 * hidden.mean(dim=(0, 2, 3))
    assert torch.allclose(network.network.norm.running_mean, expected, atol=1e-5)
    assert network.network.norm.num_batches_tracked == 1


def order_of(network, seed, batch_size, epochs=2):
    """Positions of the images in the order in which training meets them, epoch by epoch."""
    flat = inputs(DATA.train.images, SOURCE).flatten(1)
    seen = []

    def look(module, arguments):
        if module.training:
            distances = torch.cdist(arguments[0].flatten(1).float(), flat)
            seen.extend(distances.argmin(1).tolist())

    handle = network.register_forward_pre_hook(look)
    settings = ss.FineTune(epochs=epochs, batch_size=batch_size)
    ss.fine_tune(network, DATA.train, SOURCE, TASK, settings, seed=seed)
    handle.remove()
    return [seen[at : at + len(flat)] for at in range(0, len(seen), len(flat))]


def test_every_epoch_meets_every_image_once_in_an_order_that_only_the_seed_decides():
    first, second = order_of(model("bp"), seed=3, batch_size=16)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert order_of(model("brsf"), seed=3, batch_size=16) == [first, second]
    assert order_of(plain(), seed=3, batch_size=25) == [first, second]
    torch.manual_seed(99)
    assert order_of(model("fa"), seed=3, batch_size=10) == [first, second]
    assert order_of(model("bp"), seed=4, batch_size=16) != [first, second]


@pytest.mark.parametrize(("epoch", "step"), [(1, 1), (1, 25), (2, 7)])
def test_a_broken_gradient_is_dated_wherever_it_comes(epoch, step):
    network, calls, epochs = model("bp"), [], []

    def poison(gradient):
        calls.append(1)
        return gradient * math.nan if len(calls) == 25 * (epoch - 1) + step else gradient

    network.network.fc.bias.register_hook(poison)
    settings = ss.FineTune(epochs=3, batch_size=2)
    with pytest.raises(NonFiniteGradientError, match=rf"'network\.fc\.bias' .* epoch {epoch}, step {step} \(1 of"):
        ss.fine_tune(network, DATA.train, SOURCE, TASK, settings, seed=0, on_epoch=lambda done: epochs.append(done))
    assert len(epochs) == epoch - 1


def test_no_epochs_make_no_checkpoint():
    made = []
    train(model(), epochs=0, on_epoch=made.append)
    assert made == []


def test_a_batch_of_one_image_trains_where_there_is_no_batch_normalisation():
    network = ss.convert(plain(), "usf")
    before = copy.deepcopy(network)
    settings = ss.FineTune(epochs=1, batch_size=1)
    ss.fine_tune(network, DATA.train, SOURCE, TASK, settings, seed=0)
    assert not same(network, before)


def test_the_model_is_in_evaluation_mode_afterwards():
    network = model()
    train(network, epochs=1)
    assert not any(module.training for module in network.modules())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": -1}, "'epochs' expects a whole number, at least 0, got -1"),
        ({"batch_size": 0}, "'batch_size'"),
        ({"lr": -1e-3}, "'lr'"),
        ({"head_lr": -1.0}, "'head_lr'"),
        ({"weight_decay": -0.1}, "'weight_decay'"),
        ({"beta1": 1.0}, "'beta1'"),
        ({"beta2": -0.1}, "'beta2'"),
        ({"log_alignment": -1}, "'log_alignment'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        ss.FineTune(**settings)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["usf", "frsf"])
def test_logging_alignment_looks_at_every_so_many_steps(rule):
    history = train(model(rule), epochs=2, settings={"log_alignment": 2})
    # 50 images in batches of 16: four steps for each epoch, so steps 2 and 4.
    assert [(row["epoch"], row["step"]) for row in history if "layer" in row] == [
        (epoch, step) for epoch in (1, 2) for step in (2, 4) for _ in ("conv", "fc")
    ]


def test_bp_is_aligned_with_itself_while_it_trains():
    rows = [row for row in train(model("bp"), settings={"log_alignment": 1}) if "layer" in row]
    assert len(rows) == 3 * 4 * 2
    assert all(row["cosine"] == pytest.approx(1, abs=1e-6) for row in rows)
    assert all(row["sign_agreement"] == 1 for row in rows)


def stepped(steps, rule="brsf", **more):
    network = model(rule)
    history = train(network, settings={"steps": steps}, **more)
    return network, history


def test_steps_that_fill_epochs_are_those_epochs_and_more_of_them_end_inside_one():
    per_epoch = 4  # 50 images in batches of 16: the last one has 2
    whole = model("brsf")
    losses = [row["loss"] for row in train(whole, epochs=2)]
    network, history = stepped(2 * per_epoch)
    assert same(network, whole)
    assert [row["loss"] for row in history] == losses
    further, longer = stepped(2 * per_epoch + 1)
    assert [row["loss"] for row in longer[:2]] == losses
    assert not same(further, whole)
    assert [row["epoch"] for row in longer] == [1, 2, 3]


def test_no_step_leaves_every_number_as_it_was():
    network, history = stepped(0)
    assert same(network, model("brsf"))
    assert history == []


def test_each_step_is_the_next_one_of_a_longer_run():
    """Against a run whose optimiser is counted: after N calls its weights are those of N steps."""
    seen = []
    kept = torch.optim.Adam.step
    network = model("usf")
    try:
        torch.optim.Adam.step = lambda self, *a, **k: (kept(self, *a, **k), seen.append(copy.deepcopy(network)))[0]
        train(network, epochs=2)
    finally:
        torch.optim.Adam.step = kept
    assert len(seen) == 8
    for steps in (1, 3, 6):
        one, _ = stepped(steps, "usf")
        pairs = zip(one.parameters(), seen[steps - 1].parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_steps_go_on_from_a_whole_epoch_with_the_numbers_of_an_undisturbed_run():
    checkpoints = []
    undisturbed, history = stepped(6, on_epoch=checkpoints.append)
    assert [checkpoint.epoch for checkpoint in checkpoints] == [1]
    resumed, again = stepped(6, resume=checkpoints[0])
    assert same(resumed, undisturbed)
    assert [row["loss"] for row in again] == [row["loss"] for row in history]


@pytest.mark.parametrize(("images", "batch"), [(1, 1), (1, 4), (4, 4), (5, 4), (6, 4), (9, 4), (3, 1)])
def test_the_batches_of_an_epoch_are_counted_as_they_come(images, batch):
    sizes = [min(batch, images - start) for start in range(0, images, batch)]
    expected = [size for size in sizes if size > 1 or batch == 1 or images == 1]
    assert ss.FineTune(batch_size=batch).batches(images) == len(expected)
