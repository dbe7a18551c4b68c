"""B is that of the weights of its pass, whoever wrote them and however: against B computed from the weights by hand."""

from __future__ import annotations

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from targets import right, slope, small
from torch import nn
from torch.nn.utils import parameters_to_vector, parametrizations, vector_to_parameters

import signsym_core as ss
from signsym_core.rules.convert import converted
from signsym_core.rules.snapshot import Snapshot


def network(rule="usf", seed=0, **parameters):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 16, 5), nn.Tanh(), nn.Linear(5, 4)]
    return ss.convert(nn.Sequential(*layers).double(), rule, seed=3, **parameters)


X = torch.rand(6, 2, 6, 6, generator=torch.Generator().manual_seed(5)).double()


def gradient(model, x=X):
    variable = x.clone().requires_grad_()
    model(variable).square().sum().backward()
    return variable.grad


def by_hand(matrix_of, model, x=X):
    """The input's gradient with ordinary autograd: y = f(x, W) in value, f(x, B) in what reaches x."""

    def layer(operation, x, module):
        weight, matrix = module.weight.detach(), matrix_of(module.weight.detach())
        y = operation(x.detach(), weight) + operation(x, matrix) - operation(x, matrix).detach()
        return y + (module.bias.detach().view(-1, 1, 1) if operation is F.conv2d else module.bias.detach())

    variable = x.clone().requires_grad_()
    hidden = layer(F.conv2d, variable, model[0]).relu().flatten(1)
    out = layer(F.linear, layer(F.linear, hidden, model[3]).tanh(), model[5])
    out.square().sum().backward()
    return variable.grad


def usf(weight):
    return weight.square().mean().sqrt() * weight.sign()


def assert_fresh(model):
    """Two passes and a look, so that a matrix that was kept is met too."""
    expected = by_hand(usf, model)
    for _ in range(3):
        assert torch.allclose(gradient(model), expected, rtol=1e-9, atol=1e-12)
    for name, matrix in ss.feedback(model).items():
        assert torch.allclose(matrix, usf(model.get_submodule(name).weight.detach()), rtol=1e-9)


def noise(tensor, number):
    return torch.randn(tensor.shape, generator=torch.Generator().manual_seed(number)).to(tensor.dtype) * 0.3


def through_data(model, number):
    for p in model.parameters():
        p.data.add_(noise(p, number))


def by_lerp(model, number):
    for p in model.parameters():
        p.data.lerp_(noise(p, number), 0.5)


def by_another_data(model, number):
    for p in model.parameters():
        p.data = noise(p, number)


def through_a_vector(model, number):
    vector = parameters_to_vector(model.parameters()).detach()
    vector_to_parameters(vector + noise(vector, number), model.parameters())


def through_numpy(model, number):
    for p in model.parameters():
        p.detach().numpy()[...] = noise(p, number).numpy()


def by_set(model, number):
    for p in model.parameters():
        p.data.set_(noise(p, number))


def by_swapping(model, number):
    for p in model.parameters():
        torch.utils.swap_tensors(p, nn.Parameter(noise(p, number)))


def by_assignment(model, number):
    model.load_state_dict({name: noise(p, number) for name, p in model.named_parameters()}, assign=True, strict=False)


def in_foreach(model, number):
    torch._foreach_mul_([p.data for p in model.parameters()], [noise(p, number) for p in model.parameters()])


def one_tiny_sign(model, number):
    for p in (model[0].weight, model[5].weight):
        p.data.view(-1)[number] = 1e-20
        gradient(model)
        gradient(model)
        p.data.view(-1)[number] = -1e-20


WAYS = [
    through_data,
    by_lerp,
    by_another_data,
    through_a_vector,
    through_numpy,
    by_set,
    by_swapping,
    by_assignment,
    in_foreach,
    one_tiny_sign,
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_b_is_that_of_the_weights_whoever_wrote_them(way, training):
    model = network().train(training)
    assert_fresh(model)
    for number in range(4):
        way(model, number)
        assert_fresh(model)


def test_the_check_sees_a_matrix_that_was_trusted(monkeypatch):
    monkeypatch.setattr(Snapshot, "holds", lambda self, weight: True)
    model = network()
    assert_fresh(model)
    through_data(model, 0)
    with pytest.raises(AssertionError):
        assert_fresh(model)


def test_perturbing_and_restoring_many_times_ends_where_it_began():
    model = network().eval()
    before, matrices = parameters_to_vector(model.parameters()).detach().clone(), ss.feedback(model)
    for number in range(30):
        vector_to_parameters(before + noise(before, number), model.parameters())
        assert_fresh(model)
        vector_to_parameters(before.clone(), model.parameters())
        assert all(torch.equal(matrix, matrices[name]) for name, matrix in ss.feedback(model).items())
        assert_fresh(model)


def test_weights_that_are_views_of_one_buffer():
    model = network()
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    start = 0
    for p in model.parameters():
        p.data = flat[start : start + p.numel()].view(p.shape)
        start += p.numel()
    assert_fresh(model)
    flat.neg_().add_(0.01)
    assert_fresh(model)


def test_a_moving_average_is_attacked_with_its_own_feedback():
    """Two models, one the moving average of the other, attacked after every epoch: as a fresh conversion of it."""
    model = small()
    average, images = copy.deepcopy(model), right(model)
    for number in range(3):
        for p, q in zip(average.parameters(), model.parameters(), strict=True):
            q.data.add_(noise(q, number))
            p.data.lerp_(q.data, 0.7)
        fresh = ss.convert(ss.revert(copy.deepcopy(average)), "usf", seed=3)
        for name in ("eot", "feedback"):
            ours, theirs = (ss.attack("pgd", m, *images, [0.03], gradient=name, keep=40) for m in (average, fresh))
            assert torch.equal(ours.adversarial, theirs.adversarial)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["feedback", "eot"])
@pytest.mark.parametrize("rule", ["usf", "brsf"])
def test_a_model_that_writes_its_weights_in_its_own_forward_pass_is_attacked_rightly(rule, source):
    """Weights that are noisy in every pass and as they were between them, so that only the pass itself sees them."""

    class Noisy(nn.Module):
        def __init__(self, model, copies):
            super().__init__()
            self.model, self.copies, self.passes = model, copies, 0

        def forward(self, x):
            self.passes += 1
            model = self.model
            if self.copies:
                # What nobody can have kept: a conversion for this pass alone.
                model = ss.convert(ss.revert(copy.deepcopy(model)), rule, seed=3).eval()
                # Its draws of another number come from the same seed.
                for (_, new), (_, old) in zip(converted(model), converted(self.model), strict=True):
                    new.state.number = old.state.number
            before = parameters_to_vector(model.parameters()).detach().clone()
            for p in model.parameters():
                p.data.add_(noise(p, self.passes))
            y = model(x)
            for p, value in zip(model.parameters(), before.split([p.numel() for p in model.parameters()]), strict=True):
                p.data.copy_(value.view_as(p))
            return y

    images = right(small(rule))
    made = [
        ss.attack("pgd", Noisy(small(rule), copies), *images, [0.05], gradient=source, keep=40).adversarial
        for copies in (False, True)
    ]
    assert torch.equal(*made)


def test_a_graph_keeps_the_b_of_its_own_pass():
    model = network()
    x = X.clone().requires_grad_()
    loss, expected = model(x).square().sum(), by_hand(usf, model)
    through_data(model, 1)
    assert_fresh(model)
    through_data(model, 2)
    loss.backward()
    # What lies between the layers is that of the first pass as well.
    assert torch.allclose(x.grad, expected, rtol=1e-9, atol=1e-12)


def test_functional_calls_send_down_the_b_of_the_weights_that_they_are_given():
    model = network()
    other = {name: noise(p, 1) for name, p in model.named_parameters()}
    reference = network()
    by_assignment(reference, 1)
    x = X.clone().requires_grad_()
    torch.func.functional_call(model, other, (x,)).square().sum().backward()
    assert torch.allclose(x.grad, by_hand(usf, reference), rtol=1e-9, atol=1e-12)
    assert_fresh(model)

    def loss(parameters, x):
        return torch.func.functional_call(model, parameters, (x,)).square().sum()

    assert torch.allclose(torch.func.grad(loss, argnums=1)(other, X), x.grad, rtol=1e-9, atol=1e-12)
    each = torch.func.vmap(torch.func.grad(loss, argnums=1), in_dims=(None, 0))(other, X[:, None]).squeeze(1)
    assert torch.allclose(each, x.grad, rtol=1e-9, atol=1e-12)
    stacked = {name: torch.stack([p, other[name]]).detach() for name, p in model.named_parameters()}
    both = torch.func.vmap(torch.func.grad(loss, argnums=1), in_dims=(0, None))(stacked, X)
    assert torch.allclose(both[0], gradient(model), rtol=1e-9, atol=1e-12)
    assert torch.allclose(both[1], x.grad, rtol=1e-9, atol=1e-12)


def test_a_derivative_forward_is_refused():
    model = network()
    with pytest.raises(RuntimeError, match="jvp"):
        torch.func.jvp(model, (X,), (torch.ones_like(X),))


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
def test_compiled_models_follow_weights_that_nothing_counts(training):
    model = network().train(training)
    # torch keeps a few compilations of one function, and every rule needs one.
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for number in range(3):
        through_data(model, number)
        for _ in range(3):
            assert torch.allclose(gradient(compiled), by_hand(usf, model), rtol=1e-9, atol=1e-12)


def test_a_weight_that_is_computed_after_the_conversion_sends_down_its_own_signs():
    model = network()
    parametrizations.weight_norm(model[3])
    assert_fresh(model)
    with torch.no_grad():
        model[3].parametrizations.weight.original1.neg_()
    assert_fresh(model)


def test_replicas_of_data_parallel_have_matrices_of_their_own():
    """As `torch.nn.parallel.replicate` makes them: shallow copies of modules with weights of their own."""
    layer = ss.convert(nn.Linear(6, 4), "brsf", seed=1).train()
    gradient(layer, torch.rand(2, 6))
    with torch.no_grad():
        layer.weight.add_(0.1)
    replicas = [layer._replicate_for_data_parallel() for _ in range(2)]
    for number, replica in enumerate(replicas):
        replica.weight, replica.bias = layer.weight.detach() * (number + 1), layer.bias.detach()
    matrices = [replica.matrix(replica.weight)[0] for replica in replicas]
    assert layer.state.draws == 2
    assert torch.allclose(2 * matrices[0], matrices[1])
    assert torch.equal(matrices[0], ss.feedback(layer)[""])


def steps(model, optimizer, numbers, batches=1):
    for number in numbers:
        for batch in range(batches):
            x = torch.rand(6, 2, 6, 6, generator=torch.Generator().manual_seed(10 * number + batch)).double()
            model(x).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def copied(model):
    return copy.deepcopy(model)


def pickled(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def loaded(model):
    other = network("brsf", seed=9)
    other.load_state_dict(model.state_dict())
    return other


def assigned(model):
    other = network("brsf", seed=9)
    other.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    return other


@pytest.mark.parametrize("way", [copied, pickled, loaded, assigned])
@pytest.mark.parametrize("moment", ["after the step", "after the pass"])
def test_a_copy_owes_the_draw_that_its_original_owes(way, moment):
    model = network("brsf")
    steps(model, torch.optim.Adam(model.parameters(), lr=0.01), range(3))
    if moment == "after the pass":
        gradient(model)
        model.zero_grad()
    other = way(model)
    assert torch.equal(parameters_to_vector(model.parameters()), parameters_to_vector(other.parameters()))
    for network_ in (model, other):
        steps(network_, torch.optim.SGD(network_.parameters(), lr=0.1), range(3, 6))
    assert [layer.state.draws for _, layer in converted(model)] == [6, 6, 6] if moment == "after the step" else True
    assert [layer.state.draws for _, layer in converted(model)] == [layer.state.draws for _, layer in converted(other)]
    assert torch.equal(parameters_to_vector(model.parameters()), parameters_to_vector(other.parameters()))


class Uncounted(torch.optim.Optimizer):
    """Gradient descent that writes through `.data` and is none of torch's, so that no counter and no hook sees it."""

    def __init__(self, parameters):
        self.all = list(parameters)

    def step(self):
        for p in self.all:
            p.data.sub_(p.grad, alpha=0.01)

    def zero_grad(self):
        for p in self.all:
            p.grad = None


@pytest.mark.parametrize("batches", [1, 3])
def test_one_draw_for_each_update_whoever_updates(batches):
    draws, weights = [], []
    for kind in (lambda p: torch.optim.SGD(p, lr=0.01), Uncounted):
        model = network("brsf", scale="unit")
        optimizer = kind(model.parameters())
        for number in range(4):
            steps(model, optimizer, [number], batches)
            model.eval()
            gradient(model)
            model.zero_grad()
            with torch.no_grad():
                model.train()(X)
        draws.append([layer.state.draws for _, layer in converted(model)])
        weights.append(parameters_to_vector(model.parameters()))
    assert draws[0] == draws[1] == [5, 5, 5]
    assert torch.allclose(*weights, rtol=1e-9)


def test_moving_a_model_is_no_update_and_hides_none():
    model = network("brsf")
    layer = converted(model)[0][1]
    gradient(model)
    model.float().double().to(memory_format=torch.channels_last)
    gradient(model)
    assert layer.state.draws == 1
    through_data(model, 0)
    model.to(torch.float32).double()
    gradient(model)
    assert layer.state.draws == 2


def test_feedback_alignment_on_zero_weights_is_refused_by_name():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    nn.init.zeros_(model[2].weight)
    with pytest.raises(ValueError, match=r"layer '2': its weights are 0.*xavier.*bp_layers=\('2',\)"):
        ss.convert(model, "fa")
    assert all(type(layer) is nn.Linear for layer in model if hasattr(layer, "weight")), "nothing is converted by half"
    ss.convert(model, "fa", scale="xavier")
    assert gradient(model, torch.rand(2, 4)).abs().sum() > 0
    with torch.no_grad():
        model[0].weight[1] = 0
    with pytest.raises(ValueError, match=r"layer '0'.*1 of 4 rows of B"):
        ss.convert(model, "fa", scale="rms_channel", bp_layers=("2",))
    # Rules that follow the weights leave 0 as soon as the weights do.
    ss.convert(model, "usf")
    steps_taken = torch.optim.SGD(model.parameters(), lr=0.1)
    gradient(model, torch.rand(2, 4))
    steps_taken.step()
    assert ss.feedback(model)["2"].abs().sum() > 0


def test_gradients_of_a_training_step_are_as_by_hand_with_the_magnitudes_of_its_draw():
    model = network("frsf")
    magnitudes = {id(layer.weight): layer.state.magnitudes(layer.weight) for _, layer in converted(model)}
    for number in range(3):
        sizes = {key: value / 256 * 3**0.5 for key, value in magnitudes.items()}
        index = iter([id(layer.weight) for _, layer in converted(model)])
        expected = by_hand(lambda weight, i=index, s=sizes: usf(weight) * s[next(i)], model)
        assert torch.allclose(gradient(model), expected, rtol=1e-9, atol=1e-12)
        through_data(model, number)


def test_slope_of_the_small_model_is_that_of_its_own_feedback():
    model = small()
    before = slope(model, *right(model))
    through_data(model, 3)
    assert not torch.equal(slope(model, *right(model)), before)
