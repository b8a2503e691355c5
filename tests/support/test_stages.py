"""The lines that show open stages of work fit their width and say what, how much and how long."""

from __future__ import annotations

import threading

import pytest

from hubmerge.support.progress import SilentProgress, count_work, counting, current_counter, show_item
from hubmerge.support.stages import OpenStage, Stages
from tests.checks import every


def stage(**values: object) -> OpenStage:
    return OpenStage(**{"title": "step 3: merge clocks", "total": 71, "unit": "tensors", "began": 100.0, **values})  # type: ignore[arg-type]


def test_a_line_has_amount_time_left_and_item() -> None:
    opened = stage(done=10.0, item="vision_model.encoder.layers.0.mlp.fc1.weight")
    line = opened.line(100, 130.0)
    assert line.startswith("step 3: merge clocks  ##----------  10/71 tensors  3 min 3 s left  vision_model.")
    assert opened.left(130.0) == pytest.approx(183.0)
    assert stage().line(80, 100.2) == "step 3: merge clocks  ------------  0/71 tensors"
    assert stage(total=None, unit="").line(80, 165.0) == "step 3: merge clocks  1 min 5 s"


@pytest.mark.parametrize("width", [1, 5, 12, 20, 40, 80, 200])
@pytest.mark.parametrize("title", ["run", "step 3: publish to somebody/a-very-long-name-of-a-target-repo", "語" * 30])
def test_no_line_is_longer_than_its_width(width: int, title: str) -> None:
    opened = stage(title=title, done=12.0, item="a.very.long.name.of.a.tensor" * 3)
    assert len(opened.line(width, 1000.0, indent="  "[: width - 1])) <= width
    stages = Stages()
    for number in range(9):
        stages.add(stage(title=f"{title} {number}"))
    assert every(len(line) <= width for line in stages.lines(width, 6))
    assert len(stages.lines(width, 6)) == 6
    assert len(stages.one_line(width)) <= width


def test_bytes_have_units_and_amounts_stay_within_the_total() -> None:
    opened = stage(total=349_900_000, unit="bytes", done=12_300_000.0)
    assert opened.amount == "12.3 MB of 349.9 MB"
    assert stage(total=None, unit="bytes", done=2_500_000.0).amount == "2.5 MB"
    assert stage(total=None, unit="bytes").amount == ""
    assert stage(done=80.0).amount == "71/71 tensors"
    assert stage(total=None, unit="rows", done=4.0).amount == "4 rows"


def test_the_oldest_stage_is_first_and_the_rest_is_counted() -> None:
    stages = Stages()
    for number in range(8):
        stages.add(stage(title=f"stage {number}", total=None))
    lines = stages.lines(80, 6)
    assert lines[0].startswith("stage 0")
    assert [line.split()[1] for line in lines[1:-1]] == ["4", "5", "6", "7"]
    assert lines[-1] == "  and 3 more"
    assert stages.one_line(80).startswith("stage 0, stage 7")
    for one in stages.open()[1:]:
        assert not stages.remove(one)
    assert stages.remove(stages.open()[0])
    assert (stages.lines(80, 6), stages.one_line(80)) == ([], "")


def test_deeper_functions_count_for_the_stage_of_their_thread() -> None:
    opened, others = stage(), []

    def elsewhere() -> None:
        count_work(5)
        others.append(current_counter())

    count_work(3)
    with counting(opened) as counter:
        count_work(2)
        show_item("a")
        with counting(stage()):
            count_work(7)
        count_work(1)
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert (opened.done, opened.item, counter.done, others) == (3, "a", 3, [None])
    with SilentProgress().stage("silent") as advance, counting(advance):
        show_item("b")
        count_work(1)
    assert current_counter() is None
