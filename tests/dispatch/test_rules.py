"""The tangent of each function against forward-mode AD in float64; values are those of plain tensors, bit by bit."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as nnf
from torch import nn
from torch.utils.checkpoint import checkpoint

from scm_media.dispatch import TangentError, carry, find_fallbacks
from scm_media.dispatch import rules as rules_module
from scm_media.dispatch import tensor as tensor_module

WIDE = torch.float64


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=WIDE)


W, V, M = drawn(5, 6, seed=1), drawn(2, 4, 6, seed=2), drawn(2, 4, 6, seed=3) > 0
KERNELS = [drawn(3, 4, *[3] * rank, seed=rank) for rank in (1, 2, 3)]
BACK = [drawn(4, 3, *[3] * rank, seed=rank) for rank in (1, 2, 3)]
HEADS, KEYS = drawn(2, 2, 5, 4, seed=5), drawn(2, 2, 7, 4, seed=6)
FLOATS = drawn(2, 1, 5, 7, seed=7)
LAYER_NORM, RMS_NORM = nn.LayerNorm((4, 6)).double(), nn.RMSNorm(6, eps=1e-3).double()
BOOLS = torch.ones(5, 7, dtype=torch.bool).tril(2)


def in_place(x: torch.Tensor) -> torch.Tensor:
    y = x * 1.5
    y += V
    y *= x
    y -= 0.5
    y /= 2.0
    y.mul_(x).add_(x, alpha=2).sub_(V)
    y[:, 0] = x[:, 1]
    y[:, 1] = 3.0
    y[:, 2] += x[:, 3]
    part = y.view(2, 24)
    part.mul_(2.0)
    y[:, 3].copy_(x[:, 0])
    y[0, 0].fill_(1.5)
    y[0, 1].zero_()
    return y.clamp_(-9.0, 9.0)


def written(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    out[..., 0::2] = x[..., 1::2] * V[..., 0::2]
    out[..., 1::2] = torch.sin(x[..., 0::2])
    return out


# Functions of x (2, 4, 6).
FUNCTIONS = {
    **{
        function.__name__: function for function in (torch.sin, torch.cos, torch.tan, torch.atan, torch.exp, torch.exp2)
    },
    **{function.__name__: function for function in (torch.expm1, torch.tanh, torch.sigmoid, torch.erf, torch.relu)},
    "neg, square": lambda x: torch.neg(x) + torch.square(x),
    "logarithms": lambda x: sum(log(x.abs() + 0.5) for log in (torch.log, torch.log2, torch.log10, torch.log1p)),
    "atan2": lambda x: torch.atan2(x, V) + torch.atan2(V, x) + torch.arctan2(x, x + 2),
    "roots": lambda x: torch.sqrt(x.abs() + 0.5) + torch.rsqrt(x.abs() + 0.5),
    "reciprocal": lambda x: torch.reciprocal(x.abs() + 1),
    "activations": lambda x: nnf.silu(x) + nnf.gelu(x) + nnf.gelu(x, approximate="tanh") + nnf.softplus(x, 2.0),
    "more activations": lambda x: nnf.leaky_relu(x, 0.2) + nnf.elu(x) + nnf.logsigmoid(x) + nnf.relu6(3 * x),
    "mish and hardtanh": lambda x: nnf.mish(x) + nnf.hardtanh(x),
    "activations in place": lambda x: nn.SiLU(inplace=True)(x * 2) + nn.ReLU(inplace=True)(x * 2),
    "powers": lambda x: x**2 + x.pow(3) + torch.pow(x.abs() + 1, 0.5) + x**0,
    "powers of tensors": lambda x: torch.pow(x.abs() + 1, V.abs()) + 2**x,
    "clamps": lambda x: (
        x.clamp(-0.5, 0.7) + x.clamp(min=0.1) + x.clamp_min(0.2) + x.clamp_max(0.3) + torch.clip(x, 0.0)
    ),
    "operators": lambda x: (
        2 * x + x * V + V * x - x + (1 - x) - (V - x) + x / 3 + 2.0 / (x.abs() + 1) + x / (x.abs() + 2)
    ),
    "scaled sums": lambda x: torch.add(x, V, alpha=2) + torch.sub(V, x, alpha=3) + torch.rsub(x, 1.0) + x.add(1),
    "broadcasting": lambda x: x + x[:1, :1] * V + x.mean((0, 1)) * x,
    "integer division": lambda x: x + torch.div(x, 0.3, rounding_mode="floor"),
    "addcmul, lerp": lambda x: (
        torch.addcmul(x, x, V, value=0.5) + torch.lerp(x, V, 0.3) + torch.lerp(V, x, x.sigmoid())
    ),
    "where": lambda x: torch.where(M, x, x**2) + torch.where(M, x, 0.0) + torch.where(M, V, x) + x.where(M, V),
    "masked_fill": lambda x: x.masked_fill(M, -2.0) + x.masked_fill(~M, 0.5),
    "views": lambda x: (
        x.view(8, 6).reshape(2, 4, 6).permute(1, 0, 2).transpose(0, 1).contiguous().flatten(1).unflatten(1, (4, 6))
    ),
    "more views": lambda x: (
        x.unsqueeze(1).squeeze(1).expand(2, 4, 6).movedim(1, 2).mT.swapaxes(0, 1).swapaxes(0, 1).clone()
    ),
    "view_as": lambda x: x.view_as(V).reshape_as(V).expand_as(V).type_as(V).to(V).to(torch.float64).double(),
    "indices": lambda x: (
        x[:, [0, 2]] + x[:, 1:3] + x[..., None, :][:, :2, 0] + x.narrow(1, 0, 2) + x.select(1, 0)[:, None]
    ),
    "gather": lambda x: (
        x.gather(1, torch.zeros(2, 4, 6, dtype=torch.int64)) + x.index_select(1, torch.tensor([3, 2, 1, 0]))
    ),
    "take": lambda x: torch.take_along_dim(x, torch.zeros(2, 1, 6, dtype=torch.int64), 1) + x.diagonal(0, 1, 2).sum(),
    "pieces": lambda x: torch.cat([*x.chunk(2, 1), *x.split([1, 3], 1), *x.unbind(1)[0][:, None].tensor_split(1)], 1),
    "stack": lambda x: torch.stack([x, V, x * 2]).sum(0) + torch.hstack([x, V])[:, 2:6],
    "repeats": lambda x: (
        x.repeat(1, 2, 1)[:, 1:5] + x.repeat_interleave(2, 1)[:, 3:7] + torch.tile(x, (1, 1, 2))[..., :6]
    ),
    "sums": lambda x: (
        x.sum(1, keepdim=True) + x.mean(-1, keepdim=True) + x.cumsum(1) + x.flip(1) + x.roll(1, 2) + x.sum()
    ),
    "triangles": lambda x: x[:, :, :4].tril() + x[:, :, :4].triu(1) + x.diff(dim=1).sum(),
    "padding": lambda x: nnf.pad(x, (1, 2), value=3.0)[..., 1:7] + nnf.pad(x, (2, 2), mode="reflect")[..., 2:8],
    "resampling": lambda x: nnf.interpolate(x, scale_factor=2) + nnf.interpolate(x, size=12, mode="linear"),
    "resampling pictures": lambda x: nnf.interpolate(x[:, None], scale_factor=2.0, mode="bilinear", antialias=True),
    "pooling": lambda x: nnf.avg_pool1d(x, 2) + nnf.adaptive_avg_pool1d(x, 3) + nnf.avg_pool2d(x[None], (1, 2))[0],
    "shuffles": lambda x: nnf.pixel_unshuffle(nnf.pixel_shuffle(x.reshape(2, 4, 2, 3), 2), 2),
    "fourier": lambda x: torch.fft.irfft(torch.fft.rfft(x, dim=-1) * V[..., :4], n=6, dim=-1),
    "complex": lambda x: torch.view_as_real(torch.view_as_complex(x.view(2, 4, 3, 2)) * torch.polar(V, V)[..., :3]),
    "products": lambda x: x @ W.T + torch.matmul(V, x.mT) @ x[..., :5] + torch.bmm(x, W.T.expand(2, 6, 5)),
    "matrix, vector": lambda x: x[0] @ x[1, 0] + torch.mm(x[0], W.T)[:, 0] + torch.mv(x[0], W[0]),
    "addmm": lambda x: (
        torch.addmm(x[0, :, :5], x[1], W.T, beta=2) + torch.baddbmm(V[..., :5], x, W.T.expand(2, 6, 5), alpha=0.5)
    ),
    "linear": lambda x: (
        nnf.linear(x, W, W[:, 0]) + nnf.linear(V, x[0, : 5 - 1].new_zeros(5, 6) + x[0, :1], x[0, 0, :5])
    ),
    "einsum": lambda x: torch.einsum("bij,kj->bik", x, W) + torch.einsum("bij,bkj,kl->bil", x, x, W[:4, :5]),
    "convolutions": lambda x: nnf.conv1d(x, KERNELS[0], padding=1) + nnf.conv1d(x, KERNELS[0], x[0, :3, 0], 1, 1),
    "convolutions of pictures": lambda x: nnf.conv2d(x[:, :, None].expand(2, 4, 6, 6), KERNELS[1], None, stride=2),
    "convolutions of videos": lambda x: nnf.conv3d(x[:, :, None, None].expand(2, 4, 3, 3, 6), KERNELS[2]),
    "transposed convolutions": lambda x: (
        nnf.conv_transpose1d(x, BACK[0], stride=2)
        + nnf.conv_transpose2d(x[:, :, None], BACK[1]).sum()
        + nnf.conv_transpose3d(x[:, :, None, None], BACK[2]).sum()
    ),
    "softmax": lambda x: x.softmax(-1) + nnf.softmax(x, 1) + nnf.log_softmax(x, -1) + x.logsumexp(1, keepdim=True),
    "layer norm": lambda x: nnf.layer_norm(x, (6,)) + LAYER_NORM(x) + nnf.layer_norm(x, (6,), W[0], W[1]),
    "layer norm of a weight": lambda x: nnf.layer_norm(x, (6,), x[0, 0], W[1]),
    "group norm": lambda x: (
        nnf.group_norm(x, 2) + nnf.group_norm(x, 4, W[0, :4], W[1, :4]) + nnf.group_norm(x.mT.contiguous().mT, 2)
    ),
    "rms norm": lambda x: nnf.rms_norm(x, (6,), W[0]) + RMS_NORM(x),
    "other norms": lambda x: (
        nnf.normalize(x, dim=1) + x.norm(dim=1, keepdim=True) + torch.linalg.vector_norm(x, dim=-1)[..., None]
    ),
    "deviation": lambda x: x / x.std(-1, keepdim=True) + x.var(1, keepdim=True),
    "attention": lambda x: nnf.scaled_dot_product_attention(x[..., :4], x[..., 1:5], x[..., 2:]),
    "attention, masked": lambda x: (
        nnf.scaled_dot_product_attention(HEADS * x[0, 0, 0], KEYS * x[0, 0, 1], KEYS * x[0, 0, 2], FLOATS)
        + nnf.scaled_dot_product_attention(HEADS * x[0, 0, 0], KEYS, KEYS, attn_mask=BOOLS)
    ),
    "attention, causal": lambda x: nnf.scaled_dot_product_attention(
        HEADS * x[0, 0, 0], HEADS * x[0, 0, 1], HEADS, is_causal=True, scale=0.3
    ),
    "attention, grouped": lambda x: nnf.scaled_dot_product_attention(
        HEADS * x[0, 0, 0], KEYS[:, :1] * x[0, 0, 1], KEYS[:, :1] * x[0, 0, 2], enable_gqa=True
    ),
    "attention of torch.nn": lambda x: nn.MultiheadAttention(6, 2, batch_first=True, dtype=WIDE)(x, x, V)[0],
    "largest": lambda x: (
        x.max(1).values + x.min(1).values + x.topk(2, 1).values.sum(1) + x.sort(1).values[:, 0] + x.max() + x.amax(1)
    ),
    "in place": in_place,
    "written into": written,
    "nan_to_num": lambda x: x + torch.nan_to_num(x.masked_fill(M, float("inf")), posinf=1.0) * x,
    "steps": lambda x: x + x.round() + torch.sign(x) + (x > 0) * V + torch.floor(x),
    "casts": lambda x: (
        x.float().double() + x.half().double() + x.bfloat16().double() + x.type(torch.float32).cpu() + +x
    ),
    "other views": lambda x: (
        x.moveaxis(0, 1).swapdims(0, 1) + x.ravel().view(2, 4, 6) + x[0].t().t() + x.broadcast_to(2, 4, 6)
    ),
    "lists of views": lambda x: (
        torch.vstack([x, *torch.broadcast_tensors(x, V)])[:2] + torch.cat(x.split_with_sizes([1, 3], 1), 1)
    ),
    "new tensors": lambda x: (
        x
        + torch.ones_like(x)
        + torch.zeros_like(x)
        + torch.full_like(x, 2.0)
        + x.new_ones(6)
        + x.new_full((6,), 3.0)
        + x.new_empty(6).fill_(2.0)
    ),
    "blocks": lambda x: (
        nnf.fold(nnf.unfold(x[:, None], (2, 2), stride=2), (4, 6), (2, 2), stride=2)[:, 0] + x.unfold(1, 4, 1).mT[:, 0]
    ),
    "spectra": lambda x: (
        torch.fft.ifft(torch.fft.fft(x)).real
        + torch.fft.ifft2(torch.fft.fft2(x)).real
        + torch.real(torch.fft.fft(x))
        + torch.fft.fft(x).imag
        + torch.imag(torch.fft.fft(x))
    ),
    "pooled volumes": lambda x: (
        nnf.avg_pool3d(x[:, None, None].expand(2, 1, 2, 4, 6), 2) + nnf.adaptive_avg_pool2d(x[:, None], 2).sum()
    ),
    "dot": lambda x: torch.dot(x[0, 0], x[1, 1]) + torch.diag(x[0, 0]).sum(),
    "embedding": lambda x: x + nn.functional.embedding(x.argmax(-1), drawn(6, 6)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_tangent_is_that_of_forward_mode(name):
    function, x, dx = FUNCTIONS[name], drawn(2, 4, 6, seed=11), drawn(2, 4, 6, seed=12)
    torch.manual_seed(0)
    with torch.no_grad():
        plain = function(x.clone())
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        value, tangent = carry(function, [x], [dx])
    assert torch.equal(value, plain), "the value is that of the function"
    assert type(value) is type(tangent) is torch.Tensor
    torch.manual_seed(0)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = torch.func.jvp(function, (x,), (dx,))[1]
    torch.testing.assert_close(tangent, expected, rtol=1e-9, atol=1e-10)


def test_each_rule_is_met_by_one_of_these_functions(monkeypatch):
    """A rule that nothing tests would be a guess."""
    met = set()
    real = tensor_module._tangent

    def watch(func, base, given, value):
        met.add(base)
        return real(func, base, given, value)

    monkeypatch.setattr(tensor_module, "_tangent", watch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for function in FUNCTIONS.values():
            carry(function, [drawn(2, 4, 6, seed=11)], [drawn(2, 4, 6, seed=12)])
    assert sorted(rules_module.RULES.keys() - met - {"detach"}) == []  # detach has a test of its own


def test_detach_stops_the_gradient_and_not_the_tangent():
    """The tangent is the derivative of what the module computes."""
    x, dx = drawn(3).requires_grad_(), drawn(3, seed=1)
    value, tangent = carry(lambda x: x.detach() * x, [x], [dx])
    assert torch.allclose(tangent, 2 * x * dx)
    assert torch.allclose(torch.autograd.grad(value.sum(), x)[0], x)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.Dropout1d(0.5), nn.Dropout(0.5, inplace=True)])
def test_dropout_has_one_mask_for_both(layer, training):
    layer.train(training)
    x, dx = drawn(2, 4, 6), drawn(2, 4, 6, seed=1)
    torch.manual_seed(5)
    plain = layer(x.clone())
    torch.manual_seed(5)
    value, tangent = carry(layer, [x], [dx])
    assert torch.equal(value, plain)
    assert torch.equal(tangent, torch.where(plain == 0, 0, dx * (2 if training else 1)))


def test_the_value_keeps_its_graph_and_the_tangent_has_none():
    layers = nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.LayerNorm(6), nn.Linear(6, 6)).double()
    x = drawn(2, 4, 6)
    expected = torch.autograd.grad(layers(x).square().sum(), list(layers.parameters()))
    value, tangent = carry(layers, [x], [drawn(2, 4, 6, seed=1)])
    assert not tangent.requires_grad
    found = torch.autograd.grad(value.square().sum(), list(layers.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_function_without_a_rule_falls_back_and_is_named_once():
    def twice(x):
        return torch.atanh(torch.atanh(0.1 * x))

    with pytest.warns(UserWarning, match="torch's atanh has no rule .* forward mode") as told:
        carry(twice, [drawn(3)], [drawn(3, seed=1)])
    assert len(told) == 1 and "atanh" in find_fallbacks()


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (
            lambda x: torch.from_numpy(x.detach().numpy()),
            "has no tangent: it does not depend on the inputs by functions",
        ),
        (lambda x: nnf.alpha_dropout(x, 0.5, training=True), "alpha_dropout draws random numbers"),
        (
            lambda x: nnf.scaled_dot_product_attention(HEADS * x[0], HEADS, HEADS, dropout_p=0.5),
            "its attention drops probabilities",
        ),
        (lambda x: _assigned(torch.zeros(3, dtype=WIDE), x), r"into one without \(x\[index\] = y\)"),
        (lambda x: torch.zeros(3, dtype=WIDE).add_(x), r"into one without \(add, in place\)"),
    ],
)
def test_what_would_lose_the_tangent_is_refused(function, reason):
    with pytest.raises(TangentError, match=reason):
        carry(function, [drawn(3)], [drawn(3, seed=1)])


def _assigned(target: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    target[1:] = x[1:]
    return target


def test_checkpoints_recompute_the_same():
    layers = nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.Dropout(0.5), nn.Linear(6, 6)).double().train()
    x, dx = drawn(2, 4, 6), drawn(2, 4, 6, seed=1)
    found = []
    for function in (layers, lambda x: checkpoint(layers, x, use_reentrant=False)):
        torch.manual_seed(3)
        value, tangent = carry(function, [x], [dx])
        found.append([value, tangent, *torch.autograd.grad(value.square().sum(), list(layers.parameters()))])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_under_autocast_the_value_is_that_of_autocast():
    layers = nn.Sequential(nn.Linear(6, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 6))
    x, dx = drawn(32, 6).float(), drawn(32, 6, seed=1).float()
    with torch.autocast("cpu", torch.bfloat16):
        value, tangent = carry(layers, [x], [dx])
        assert torch.equal(value, layers(x)) and value.dtype == torch.bfloat16
    expected = torch.func.jvp(layers, (x,), (dx,))[1]
    assert ((tangent.float() - expected).norm() / expected.norm()) < 0.02
