from types import SimpleNamespace

from mbbench_torch.layers import cpu_us, gpu_us, node_times

from mbbench.backend import Executed, NodeTime


def event(name: str, start: float, us: float, *children: SimpleNamespace) -> SimpleNamespace:
    """Return an event whose kernels take a tenth of its time."""
    return SimpleNamespace(
        name=name,
        time_range=SimpleNamespace(start=start, elapsed_us=lambda: us),
        device_time_total=us / 10,
        cpu_children=list(children),
    )


def call(stem: float, classifier: float) -> SimpleNamespace:
    convolution = event("aten::conv2d", 1, stem, event("aten::_convolution", 2, stem / 2))
    product = event("Torch-Compiled Region", 9, classifier + 8, event("mkldnn::_linear_pointwise", 10, classifier))
    return event("call", 0, 9999, product, event("aten::to", 5, 3), convolution)  # not in chronological order


EXECUTED = (Executed(("stem",), "conv", "fp32"), Executed(("classifier",), "linear", "int8"))


def test_events_are_matched_to_layers_by_order_and_the_rest_to_operators() -> None:
    assert node_times([call(20, 40), call(30, 50), call(90, 45)], EXECUTED, cpu_us) == (
        NodeTime(("stem",), "conv", "fp32", 0.03),
        NodeTime(("classifier",), "linear", "int8", 0.045),
        NodeTime((), "aten::to", "unknown", 0.003),
        NodeTime((), "Torch-Compiled Region", "unknown", 0.008),
    )


def test_a_different_number_of_events_than_layers_gives_no_times() -> None:
    assert node_times([call(20, 40)], EXECUTED[:1], cpu_us) == ()


def test_on_a_gpu_the_times_are_the_kernels() -> None:
    stem, classifier, *rest = node_times([call(20, 40)], EXECUTED, gpu_us)
    assert (stem.median_ms, classifier.median_ms) == (0.002, 0.004)
    assert [(node.type, round(node.median_ms, 6)) for node in rest] == [
        ("aten::to", 0.0003),
        ("Torch-Compiled Region", 0.0008),
    ]


def test_layers_whose_kernels_the_profiler_does_not_see_give_no_times() -> None:
    assert node_times([call(0, 40)], EXECUTED, gpu_us) == ()
