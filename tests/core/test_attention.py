"""Attention under a rule: torch's outputs, a written-out attention of Linear layers, the guarantees of any layer."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import VisionTransformer

import signsym_core as ss
from signsym_core.backbones import Model
from signsym_core.rules.bypassed import BypassedLayerError, refuse_bypassed
from signsym_core.rules.convert import converted, exact_gradient
from signsym_core.rules.held import weights_of
from signsym_core.rules.layers import UnservedLayerError
from signsym_core.rules.state import ZeroFeedbackError
from signsym_core.rules.whole import WholeRule

E, HEADS, STEPS, KEYS, N = 12, 3, 4, 6, 2
KINDS = {
    "plain": {},
    "batch first": {"batch_first": True},
    "without bias": {"bias": False},
    "other dimensions": {"kdim": 5, "vdim": 7},
    "bias of key and value": {"add_bias_kv": True},
    "zero attention": {"add_zero_attn": True},
    "everything": {"kdim": 5, "vdim": 7, "batch_first": True, "add_bias_kv": True, "add_zero_attn": True},
}
RULES = [(rule.name, {}) for rule in ss.RULES if not issubclass(rule, WholeRule)] + [("brsf", {"redraw": "forward"})]
RULE_IDS = [" ".join([name, *parameters.values()]) for name, parameters in RULES]


def attention(**settings):
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(E, HEADS, **settings)
    for parameter in layer.parameters():
        parameter.data.normal_(0, 0.4)
    return layer


def inputs(layer, same=False):
    random = torch.Generator().manual_seed(1)
    sizes = (E, E, E) if same else (E, layer.kdim, layer.vdim)
    shapes = [(STEPS if place == 0 else KEYS, N, size) for place, size in enumerate(sizes)]
    query, key, value = (torch.randn(shape, generator=random) for shape in shapes)
    if layer.batch_first:
        query, key, value = (x.transpose(0, 1) for x in (query, key, value))
    return (query, query, query) if same else (query, key, value)


def masks(keys):
    random = torch.Generator().manual_seed(2)
    hidden = torch.zeros(N, keys, dtype=torch.bool)
    hidden[1, -1] = True
    blocked = torch.rand(STEPS, keys, generator=random) > 0.7
    blocked[:, 0] = False
    return [
        {},
        {"attn_mask": blocked},
        {"attn_mask": torch.randn(N * HEADS, STEPS, keys, generator=random)},
        {"key_padding_mask": hidden},
        {"key_padding_mask": hidden, "attn_mask": blocked},
    ]


class Written(nn.Module):
    """Attention of Linear layers, as a textbook has it; weights are those of a MultiheadAttention."""

    def __init__(self, layer):
        super().__init__()
        self.packed, bias = layer._qkv_same_embed_dim, layer.in_proj_bias is not None
        if self.packed:
            self.in_proj = nn.Linear(E, 3 * E, bias=bias)
            self._fill(self.in_proj, layer.in_proj_weight, layer.in_proj_bias)
        else:
            biases = layer.in_proj_bias.chunk(3) if bias else [None] * 3
            for name, row in zip("qkv", biases, strict=True):
                weight = getattr(layer, f"{name}_proj_weight")
                setattr(self, name, nn.Linear(weight.shape[1], E, bias=bias))
                self._fill(getattr(self, name), weight, row)
        self.out_proj = nn.Linear(E, E, bias=bias)
        self._fill(self.out_proj, layer.out_proj.weight, layer.out_proj.bias)

    def _fill(self, linear, weight, bias):
        linear.weight.data.copy_(weight)
        if bias is not None:
            linear.bias.data.copy_(bias)

    def forward(self, query, key, value, mask):
        if not self.packed:
            q, k, v = self.q(query), self.k(key), self.v(value)
        elif query is key:
            q, k, v = self.in_proj(query).chunk(3, dim=-1)
        else:
            # One pass for all, so that there is one draw of B.
            rows = self.in_proj(torch.cat([query, key, value]))
            q, k, v = rows.split([len(query), len(key), len(value)])
            q, k, v = q[..., :E], k[..., E : 2 * E], v[..., 2 * E :]
        q, k, v = (x.unflatten(-1, (HEADS, -1)).movedim(0, 2) for x in (q, k, v))
        scores = q @ k.transpose(-1, -2) / (E // HEADS) ** 0.5
        weights = scores.masked_fill(mask, -torch.inf).softmax(-1)
        return self.out_proj((weights @ v).movedim(2, 0).flatten(2))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_weights_are_torchs_to_the_bit(kind, training):
    plain = attention(**KINDS[kind]).train(training)
    served = ss.convert(copy.deepcopy(plain), "usf").train(training)
    for same in (True, False) if plain._qkv_same_embed_dim else (False,):
        arguments = inputs(plain, same)
        for mask in masks(STEPS if same else KEYS):
            for needed, averaged in ((True, True), (True, False), (False, True)):
                settings = {"need_weights": needed, "average_attn_weights": averaged, **mask}
                expected, actual = (layer(*arguments, **settings) for layer in (plain, served))
                assert torch.equal(expected[0], actual[0])
                assert (expected[1] is None) == (actual[1] is None)
                assert expected[1] is None or torch.equal(expected[1], actual[1])
                with torch.no_grad():
                    # torch's fused kernel for evaluation adds in another order.
                    assert torch.allclose(plain(*arguments, **settings)[0], actual[0], atol=1e-6)


def test_unbatched_and_causal_inputs_are_torchs_too():
    plain = attention(batch_first=True)
    served = ss.convert(copy.deepcopy(plain), "frsf")
    x = torch.randn(STEPS, E)
    for needed in (True, False):
        expected, actual = (layer(x, x, x, need_weights=needed) for layer in (plain, served))
        assert torch.equal(expected[0], actual[0])
        assert expected[1] is None or torch.equal(expected[1], actual[1])
    x, causal = torch.randn(N, STEPS, E), nn.Transformer.generate_square_subsequent_mask(STEPS)
    for needed in (True, False):
        settings = {"attn_mask": causal, "is_causal": True, "need_weights": needed}
        assert torch.equal(plain(x, x, x, **settings)[0], served(x, x, x, **settings)[0])
    with pytest.raises(ValueError, match="attn_mask must be given"):
        served(x, x, x, is_causal=True)
    with pytest.raises(ValueError, match="nested"):
        served(*[torch.nested.nested_tensor([x[0], x[1, :2]])] * 3)


@pytest.mark.parametrize(("rule", "parameters"), RULES, ids=RULE_IDS)
@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("kind", ["plain", "without bias", "other dimensions"])
def test_gradients_are_those_of_a_written_out_attention_of_linear_layers(kind, same, rule, parameters):
    layer = attention(**KINDS[kind])
    if same and not layer._qkv_same_embed_dim:
        pytest.skip("keys of another size are no queries")
    written = ss.convert(Written(layer), rule, seed=3, **parameters)
    served = ss.convert(layer, rule, seed=3, **parameters)
    mask = masks(STEPS if same else KEYS)[1]["attn_mask"]
    query, key, value = (x.requires_grad_() for x in inputs(layer, same))
    results = []
    for model, arguments in ((served, {"attn_mask": mask, "need_weights": False}), (written, {"mask": mask})):
        model.zero_grad()
        outputs = model(query, key, value, **arguments)
        outputs = outputs[0] if isinstance(outputs, tuple) else outputs
        leaves = [query] if same else [query, key, value]
        gradients = torch.autograd.grad(outputs.square().sum(), [*leaves, *_projections(model)])
        results.append([outputs, *gradients, *ss.feedback(model).values()])
    assert len(results[0]) == len(results[1])
    for ours, expected in zip(*results, strict=True):
        # The bias of the keys moves no softmax: its gradient is nothing but rounding.
        assert (ours - expected).norm() <= 1e-5 * max(expected.norm(), 1)


def _projections(model):
    """The parameters of both kinds of attention in one order."""
    if isinstance(model, Written):
        if model.packed:
            return [p for _, p in weights_of(model)]
        return [model.q.weight, model.k.weight, model.v.weight, *(p for _, p in weights_of(model.out_proj))]
    packed = ("in_proj_weight", "in_proj_bias")
    names = packed if model._qkv_same_embed_dim else [f"{letter}_proj_weight" for letter in "qkv"]
    parameters = [getattr(model, name) for name in names]
    return [*(p for p in parameters if p is not None), *(p for _, p in weights_of(model.out_proj))]


@pytest.mark.parametrize("rule", ["fa", "usf", "brsf"])
def test_the_exact_gradient_is_autograds_to_the_bit_and_the_feedback_is_not(rule):
    plain = attention(batch_first=True).eval()
    served = ss.convert(copy.deepcopy(plain), rule).eval()
    x = inputs(plain, same=True)[0].clone().requires_grad_()

    def gradient(layer):
        return torch.autograd.grad(layer(x, x, x)[0].square().sum(), x)[0]

    expected = gradient(plain)
    with exact_gradient(served):
        assert torch.equal(gradient(served), expected)
    assert F.cosine_similarity(gradient(served).flatten(), expected.flatten(), dim=0) < 0.99


def vit(rule=None, **parameters):
    torch.manual_seed(0)
    settings = {"image_size": 16, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 24}
    model = VisionTransformer(num_classes=5, **settings)
    nn.init.normal_(model.heads.head.weight, std=0.5)
    return model.eval() if rule is None else ss.convert(model, rule, seed=3, **parameters).eval()


def test_every_matrix_of_a_vision_transformer_is_served_and_attacks_see_the_difference():
    model = vit("fa")
    block = "encoder.layers.encoder_layer_0"
    assert [name for name in ss.feedback(model) if name.startswith(block)] == [
        *(f"{block}.self_attention.in_proj", f"{block}.self_attention.out_proj"),
        *(f"{block}.mlp.0", f"{block}.mlp.3"),
    ]
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    labels = model(images).argmax(1)
    adversarial = {
        name: ss.attack("fgsm", each, images, labels, [0.05], gradient=gradient, keep=6).adversarial
        for name, each, gradient in (
            *(("feedback", model, "feedback"), ("exact", model, "exact")),
            ("plain", vit(), "feedback"),
        )
    }
    assert torch.equal(adversarial["exact"], adversarial["plain"])
    assert not torch.equal(adversarial["feedback"], adversarial["exact"])


def test_an_attention_that_is_gone_around_is_told():
    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.head = attention(batch_first=True), nn.Linear(E, 3)

        def forward(self, x):
            layer = self.attention
            q, k, v = F.linear(x, layer.in_proj_weight, layer.in_proj_bias).chunk(3, dim=-1)
            return self.head(layer.out_proj(F.scaled_dot_product_attention(q, k, v))).mean(1)

    model = ss.convert(Around(), "usf").eval()
    x = torch.randn(2, STEPS, E)
    model(x)
    with pytest.raises(BypassedLayerError, match=r"attention\.in_proj"):
        refuse_bypassed(model, x)


def test_a_fused_encoder_is_no_bypass_where_gradients_are_asked_for():
    torch.manual_seed(0)
    encoder = nn.TransformerEncoderLayer(E, 2, 24, batch_first=True, dropout=0.0)
    model = ss.convert(nn.Sequential(encoder, nn.Flatten(), nn.Linear(E * STEPS, 3)), "fa").eval()
    x = torch.randn(2, STEPS, E)
    with torch.no_grad():
        model(x)
    refuse_bypassed(model, x)


@pytest.mark.parametrize(
    ("names", "served"),
    [
        (("attention",), ["head"]),
        (("attention.in_proj",), ["attention.out_proj", "head"]),
        (("attention.in_proj_weight",), ["attention.out_proj", "head"]),
        (("attention.out_proj",), ["attention.in_proj", "head"]),
        (("first",), ["attention.out_proj", "head"]),
        (("head",), ["attention.in_proj", "attention.out_proj"]),
        (("attention.in_proj", "attention.out_proj"), ["head"]),
    ],
)
def test_bp_layers_name_projections_parameters_or_all(names, served):
    model = ss.convert(block(), "fa", bp_layers=names)
    assert list(ss.feedback(model)) == served
    opened = any("attention" in name for name in served)
    assert (type(model.attention) is nn.MultiheadAttention) != opened
    x = torch.randn(2, STEPS, E, requires_grad=True)
    model.head(model.attention(x, x, x)[0]).sum().backward()
    assert x.grad.isfinite().all()


def block():
    model = nn.Module()
    model.attention, model.head = attention(batch_first=True), nn.Linear(E, 3)
    return model


def test_revert_and_refusals_leave_the_plain_attention():
    model, before = block(), block().state_dict()
    ss.revert(ss.convert(model, "frsf"))
    broken = block()
    broken.attention.in_proj_weight.data.zero_()
    with pytest.raises(ZeroFeedbackError, match=r"attention\.in_proj"):
        ss.convert(broken, "fa")
    refused = block()
    refused.other = nn.Bilinear(2, 2, 2)
    with pytest.raises(UnservedLayerError, match="Bilinear"):
        ss.convert(refused, "usf")
    for each in (model, broken, refused):
        assert type(each.attention) is nn.MultiheadAttention
        assert [name for name in each.state_dict() if "other" not in name] == list(before)
        assert [name for name, _ in each.named_modules() if "proj" in name] == ["attention.out_proj"]
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_checkpoints_copies_and_moves_keep_the_feedback():
    model = ss.convert(block(), "brsf", seed=1).train()
    x = torch.randn(2, STEPS, E)

    def run(each):
        return each.head(each.attention(x.to(each.head.weight.dtype), *[x.to(each.head.weight.dtype)] * 2)[0])

    run(model).sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    run(model).sum().backward()
    expected = ss.feedback(model)
    loaded = ss.convert(block(), "brsf", seed=7).train()
    loaded.load_state_dict(model.state_dict())
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    for each in (loaded, copy.deepcopy(model), torch.load(stream, weights_only=False)):
        matrices = ss.feedback(each)
        assert all(torch.equal(matrices[name], matrix) for name, matrix in expected.items())
        assert dict(converted(each))["attention.in_proj"].attention[0] is each.attention
    # Moving the weights is no update, so no draw is owed.
    moved = ss.feedback(copy.deepcopy(model).double())
    assert all(torch.allclose(moved[name].float(), matrix, rtol=1e-5) for name, matrix in expected.items())
    plain = block()
    plain.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if "_extra" not in name})
    loaded.load_state_dict(plain.state_dict())


@pytest.mark.slow
def test_a_vision_transformer_is_fine_tuned_under_every_rule():
    source = ss.DATASETS.build("digits", size=16, train_images=12, test_images=4)
    data = source.load(Path())
    # AdamW, since Kolen-Pollack learning takes no coupled decay.
    settings = ss.FineTune(epochs=1, batch_size=6, lr=1e-3, head_lr=1e-3, optimizer="adamw")
    # A plain network is what forward-only rules are for, and LRA is for a recurrent one.
    for rule in [rule.name for rule in ss.RULES if rule.name != "pepita" and rule.backbones is None]:
        network = vit()
        network.heads.head = nn.Linear(16, 10)
        model = ss.convert(Model(network, "heads.head", (0.5,) * 3, (0.5,) * 3), rule, seed=0)
        before = copy.deepcopy(model.network.encoder.layers[0].self_attention.in_proj_weight.data)
        pieces = copy.deepcopy(model)
        for each, micro_batch in ((model, None), (pieces, 2)):
            ss.fine_tune(
                each, data.train, source, ss.TASKS.build("classification"), settings, seed=1, micro_batch=micro_batch
            )
        assert not torch.equal(model.network.encoder.layers[0].self_attention.in_proj_weight, before)
        for parameter, in_pieces in zip(model.parameters(), pieces.parameters(), strict=True):
            assert (parameter - in_pieces).abs().median() < 1e-5
