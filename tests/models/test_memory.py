from mbbench.models import memory
from mbbench.spec import ModelSpec


def test_the_least_memory_of_mobilenet_is_counted_by_hand() -> None:
    model = ModelSpec(alpha=0.25, resolution=32)
    assert memory.image_bytes(model) == 3 * 32 * 32 * 4
    # The widest point is the first pointwise convolution: 8 channels in, 16 out, 16x16 pixels.
    assert memory.activation_bytes(model) == (8 + 16) * 16 * 16 * 4
    assert memory.activation_bytes(model, "int8") == memory.activation_bytes(model) // 4
    assert memory.activation_bytes(model, "bf16") == memory.activation_bytes(model) // 2
    assert memory.weight_bytes(ModelSpec("vgg16")) == 138_357_544 * 4


def test_training_keeps_every_layers_output_twice() -> None:
    model = ModelSpec(alpha=0.25, resolution=32, classes=10)
    # (side, channels) of the stem, then of the depthwise and the pointwise convolution of each block
    pairs = [(16, 8), (16, 8), (16, 16), (8, 16), (8, 32), (8, 32), (8, 32), (4, 32), (4, 64), (4, 64), (4, 64),
             (2, 64), (2, 128), *[(2, 128)] * 10, (1, 128), (1, 256), (1, 256), (1, 256)]  # fmt: skip
    elements = sum(side * side * channels for side, channels in pairs) + 10
    assert memory.training_bytes(model, 32) == 32 * 2 * 4 * elements


def test_files_have_the_height_and_width_of_their_input() -> None:
    assert memory.image_bytes(ModelSpec("onnx", resolution=240, width=320, name="mine")) == 3 * 240 * 320 * 4
