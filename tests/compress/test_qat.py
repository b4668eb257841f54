import torch
from torch import nn

from mbbench.compress import fake
from mbbench.compress.qat import fake_quantized, unfold
from mbbench.models import build, fold_batch_norm, randomize
from mbbench.spec import ModelSpec

SPEC = ModelSpec(alpha=0.25, resolution=32, classes=10)


def network() -> nn.Module:
    module = build(SPEC)
    randomize(module, seed=0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
            layer.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
    return module


def test_layers_round_within_the_block_and_still_train() -> None:
    linear = nn.Linear(4, 3)
    layer, original = nn.Sequential(linear), linear.weight
    x = torch.rand(5, 4) * 2
    before = layer(x)
    weight = linear.weight.detach().clone()
    with fake_quantized(layer, {"0": (0.0, 1.0)}):
        inside = layer(x)
        inside.sum().backward()
        assert original.grad is not None
        assert original.grad.abs().sum() > 0
    expected = nn.functional.linear(fake.activations(x, (0.0, 1.0)), fake.weights(weight), linear.bias)
    torch.testing.assert_close(inside, expected)
    torch.testing.assert_close(layer(x), before)


def test_an_unfolded_network_computes_what_the_folded_one_computes() -> None:
    module = network()
    folded = fold_batch_norm(module)
    unfolded = build(SPEC)
    unfolded.load_state_dict(unfold(folded, module))
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(unfolded(images), module(images))
