"""The scheduler's simulation against schedules worked out by hand, and against its bounds."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.schedule import Task, bound_s, simulate


def task(name: str, work_s: float, witness_s: float = 0.0, verify_s: float = 0.0) -> Task:
    return Task(name=name, witness_s=witness_s, work_s=work_s, verify_s=verify_s)


def test_one_worker_does_chunks_in_plan_order():
    tasks = [task("a", 3, witness_s=1), task("b", 2, witness_s=1), task("c", 1, witness_s=1)]
    schedule = simulate(tasks, 1)
    assert schedule.spans == (("a", 0, 1, 4), ("b", 0, 4, 6), ("c", 0, 6, 7))
    assert schedule.makespan_s == 7


def test_an_idle_worker_takes_the_longest_chunk_that_waits():
    schedule = simulate([task("a", 5), task("b", 1), task("c", 1), task("d", 2)], 2)
    assert [span[:2] for span in schedule.spans] == [("a", 0), ("b", 1), ("d", 1), ("c", 1)]
    assert schedule.makespan_s == 5


def test_a_worker_done_during_a_witness_waits_for_the_coordinator():
    tasks = [task("a", 1), task("b", 1), task("c", 1, witness_s=10)]
    # a ends at 1, but the coordinator is busy with c's witness until 10; b was queued and waits.
    assert simulate(tasks, 1).spans == (("a", 0, 0, 1), ("b", 0, 10, 11), ("c", 0, 11, 12))


def test_verifying_an_answer_delays_the_next_answer_but_not_its_worker():
    tasks = [task("a", 1, verify_s=5), task("b", 2), task("c", 1)]
    schedule = simulate(tasks, 2)
    # At 1 worker 0 gets c, then a is verified until 6. Both others finished meanwhile.
    assert schedule.spans == (("a", 0, 0, 1), ("b", 1, 0, 2), ("c", 0, 1, 2))
    assert schedule.makespan_s == 6


def test_one_look_takes_all_answers_that_came_while_a_witness_was_made():
    tasks = [task("a", 1), task("b", 1), task("c", 1, witness_s=5), task("d", 1)]
    # At 5 both a and b are done: one gets c, the other d, which is ready in the same moment.
    assert simulate(tasks, 2).spans == (
        ("a", 0, 0, 1),
        ("b", 1, 0, 1),
        ("c", 0, 5, 6),
        ("d", 1, 5, 6),
    )


def test_more_workers_than_chunks_end_with_the_longest_chunk():
    tasks = [task("a", 2, witness_s=1), task("b", 9, witness_s=1, verify_s=1), task("c", 3)]
    assert simulate(tasks, 64).makespan_s == 12
    assert bound_s(tasks, 64) == (12, "longest chunk")


def test_the_first_chunk_waits_for_its_worker_to_come_up():
    schedule = simulate([task("a", 1), task("b", 1)], 1, up_s=2)
    assert schedule.spans == (("a", 0, 2, 3), ("b", 0, 3, 4))


def test_no_workers_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        simulate([task("a", 1)], 0)


durations = st.integers(min_value=0, max_value=50).map(float)
tasks_lists = st.lists(
    st.builds(Task, name=st.just("x"), witness_s=durations, work_s=durations, verify_s=durations),
    min_size=1,
    max_size=12,
)


@given(tasks=tasks_lists, workers=st.integers(min_value=1, max_value=8))
def test_every_chunk_runs_once_and_no_worker_does_two_at_a_time(tasks: list[Task], workers: int):
    schedule = simulate(tasks, workers)
    assert len(schedule.spans) == len(tasks)
    for worker in range(workers):
        mine = [span for span in schedule.spans if span[1] == worker]
        assert all(one[3] <= other[2] for one, other in pairwise(mine))
    assert schedule.makespan_s >= bound_s(tasks, workers)[0]
    serial_s = sum(t.witness_s + t.work_s + t.verify_s for t in tasks)
    assert schedule.makespan_s <= serial_s
