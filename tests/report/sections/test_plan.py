from dataclasses import replace

from mbbench.plan import plan
from mbbench.profile import Profile
from mbbench.report.sections.plan import table


def test_a_plan_lists_cells_and_durations() -> None:
    spec = plan(replace(Profile(alpha=(0.25,), res=(96,), device="CPU", baselines=True)))
    plan_table = table(spec)
    assert plan_table.title == "3 cells, 15 to 48 s of measuring"
    assert plan_table.rows == (
        ("0.25 MobileNet-96", "fp32", "openvino", "CPU", "trained on digits, once", "5 to 16 s"),
        ("VGG16-96", "fp32", "openvino", "CPU", "random", "5 to 16 s"),
        ("GoogLeNet-96", "fp32", "openvino", "CPU", "random", "5 to 16 s"),
    )
