"""The benchmark's own arithmetic: sections of the results, exponents, ratios, time until a step."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.comparison import OURS, Comparison, turned
from bench.growth import exponent
from bench.ours import Told
from bench.results import replace_section
from bench.shell import Failed, Sample
from lifeboat.core.timeline import Outcome, RunRecord, StepRecord


def test_a_part_replaces_its_own_section_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "RESULTS.md"
    replace_section(file, "Database", ["old", "", "### A table", "its row"])
    replace_section(file, "Files", ["of files"])
    replace_section(file, "Database", ["new"])
    text = file.read_text()
    assert text.startswith("# Lifeboat beside")
    assert text.index("## Database\n\nnew\n") < text.index("## Files\n\nof files\n")
    assert "old" not in text and "its row" not in text
    assert text.count("## Database") == text.count("# Lifeboat beside") == 1


@pytest.mark.parametrize(
    ("values", "slope"), [([1, 10, 100], 1.0), ([5, 5, 5], 0.0), ([1, 100, 10_000], 2.0)]
)
def test_the_exponent_tells_constant_linear_and_quadratic_apart(
    values: list[float], slope: float
) -> None:
    assert exponent([1e3, 1e4, 1e5], values) == pytest.approx(slope)


def test_who_fails_once_is_out_and_told() -> None:
    comparison = Comparison("work")

    def fail() -> Sample:
        raise Failed("no disk")

    for seconds in (3.0, 1.0, 2.0):
        comparison.measure(OURS, lambda seconds=seconds: Sample(seconds, 0, 0))
        comparison.measure("rival", lambda: Sample(4.0, 0, 0))
        comparison.measure("broken", lambda: Sample(0.1, 0, 0))
    comparison.measure("broken", fail)
    comparison.measure("broken", lambda: Sample(0.1, 0, 0))
    assert comparison.ratio_to_best_peer() == pytest.approx(0.5)
    text = "\n".join(comparison.in_markdown())
    assert "| rival | 4.00 | 4.00, 4.00, 4.00 | 0.50 |" in text
    assert "| broken | failed | no disk |" in text


def test_everybody_is_first_in_turn() -> None:
    assert [turned(["a", "b", "c"], by)[0] for by in range(4)] == ["a", "b", "c", "a"]


def test_time_until_a_step_counts_from_the_command_not_from_its_record() -> None:
    steps = [("verify", 12.0, 13.0), ("start-services", 13.0, 14.0), ("start-services", 15.0, 16.0)]
    record = RunRecord(
        id="r",
        procedure="recover-server",
        platform="p",
        began_at=11.0,
        steps=tuple(
            StepRecord(name=name, began_at=began, ended_at=ended, outcome=Outcome.DONE)
            for name, began, ended in steps
        ),
    )
    told = Told(Sample(9.0, 1.0, 2.0), record, began_at=10.0)
    assert told.until_begin_of("verify").seconds == 2.0
    assert told.until_end_of("start-services").seconds == 6.0
    with pytest.raises(Failed, match="no step 'replay'"):
        told.until_end_of("replay")
