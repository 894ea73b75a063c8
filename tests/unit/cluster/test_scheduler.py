"""The scheduler's rules, one by one, in a cluster in memory (`world`)."""

from __future__ import annotations

import itertools

import pytest

from tests.unit.cluster.world import GIB, End, World, node_up
from zkml_ray.cluster.messages import (
    Accepted,
    Answered,
    Attempt,
    Cause,
    ChunkKey,
    ChunkReady,
    Deliver,
    EndWorker,
    HandOut,
    NodeDown,
    StartWorker,
    Tick,
    Withdrawn,
    WorkerDown,
    WorkerSeen,
    WorkerUp,
)
from zkml_ray.cluster.policy import Need, Policy
from zkml_ray.cluster.scheduler import replay


def started(world: World) -> list[StartWorker]:
    return [i for _, i in world.heard if isinstance(i, StartWorker)]


def ended(world: World) -> list[str]:
    return [i.worker for _, i in world.heard if isinstance(i, EndWorker)]


def test_nothing_is_handed_to_a_worker_that_has_not_answered_and_its_clock_starts_there():
    world = World(Need(workers=2), start_s=50)
    world.begin(node_up("a"))
    world.submit("job", 1, limit_s=2.0)
    assert not world.handed()
    world.run()
    assert world.now_s == 51
    assert [a.number for a in world.handed()] == [1]


def test_a_worker_that_never_answers_is_replaced_and_others_work_meanwhile():
    world = World(Need(workers=2), policy=Policy(start_s=5))
    world.begin(node_up("a"))
    silent, other = started(world)
    world._due.clear()
    world.at(1, WorkerUp(worker=other.worker))
    world.submit("job", 6)
    world.run()
    assert len(world.done) == 6
    assert ended(world) == [silent.worker]
    assert any("has not answered for 5 s" in report.text for report in world.reports)


@pytest.mark.parametrize("cause", [Cause.ERROR, Cause.PROCESS, Cause.MEMORY, Cause.PROOF])
def test_poison_chunk_stops_its_job_after_three_different_workers_and_names_it(cause: Cause):
    def nature(attempt: Attempt, node: str) -> End:
        return End(1, cause if attempt.key == ChunkKey("bad", "chunk-001") else None)

    world = World(Need(workers=5), nature)
    world.begin(*(node_up(name, cpus=1) for name in "abcde"))
    world.submit("bad", 3)
    world.submit("good", 9)
    world.run()
    (stop,) = world.stops
    assert (stop.job, stop.key, stop.cause) == ("bad", ChunkKey("bad", "chunk-001"), cause)
    assert "chunk-001 failed 3 times" in stop.text
    assert ("memory" in stop.text) == (cause is Cause.MEMORY)
    tried = [a for a in world.handed("chunk-001") if a.key.job == "bad"]
    assert len({a.worker for a in tried}) == len(set(world.nodes_of(tried))) == 3
    assert {key for key in world.done if key.job == "good"} == {
        ChunkKey("good", f"chunk-{index:03d}") for index in range(9)
    }


def test_lost_machines_cost_a_chunk_nothing_however_many():
    losses = itertools.count(1)

    def nature(attempt: Attempt, node: str) -> End:
        first = attempt.key.chunk == "chunk-000" and next(losses) <= 20
        return End(1, Cause.MACHINE if first else None)

    world = World(Need(workers=30), nature)
    world.begin(*(node_up(f"n{index:02d}", cpus=1) for index in range(30)))
    world.submit("job", 40)
    world.run()
    assert not world.stops
    assert len(world.done) == 40
    assert len(world.handed("chunk-000")) == 21
    said = [r for r in world.reports if r.cause is Cause.MACHINE and r.attempt is not None]
    assert len(said) == 20
    assert world.scheduler.chunks[ChunkKey("job", "chunk-000")].counted() == []


def test_a_chunk_under_which_machine_after_machine_is_lost_is_named_at_last():
    world = World(Need(workers=1), lambda attempt, node: End(1, Cause.MACHINE))
    world.begin(*(node_up(f"n{index:02d}") for index in range(60)))
    world.submit("job", 1)
    world.run()
    (stop,) = world.stops
    assert "30 machines or workers were lost while they had chunk-000" in stop.text


SICK = [Cause.ERROR, Cause.PROCESS, Cause.PROOF, Cause.STORE, Cause.FINAL, Cause.CONFIGURATION]


@pytest.mark.parametrize("cause", SICK)
def test_a_sick_node_that_fails_at_once_ends_no_run_while_another_is_healthy(cause: Cause):
    def nature(attempt: Attempt, node: str) -> End:
        return End(0.1, cause) if node == "sick" else End(20)

    world = World(Need(workers=4), nature)
    world.begin(*(node_up(name, cpus=1) for name in ("a", "b", "c", "sick")))
    world.submit("job", 30)
    world.run()
    assert not world.stops
    assert len(world.done) == 30
    assert len([a for a in world.handed() if world.homes[a.worker] == "sick"]) <= 12
    for index in range(30):
        nodes = world.nodes_of(world.handed(f"chunk-{index:03d}"))
        assert nodes.count("sick") <= 1, "it was given back to where it failed"


def test_two_quick_failures_quarantine_a_worker_and_a_later_one_is_quarantined_longer():
    world = World(
        Need(workers=2),
        lambda attempt, node: End(0.1, Cause.ERROR) if node == "b" else End(30),
        Policy(quarantine_s=60),
    )
    world.begin(node_up("a", cpus=1), node_up("b", cpus=1))
    world.submit("job", 20)
    world.run()
    on_b = [
        at
        for at, i in world.heard
        if isinstance(i, HandOut) and world.homes[i.attempt.worker] == "b"
    ]
    waits = [later - earlier for earlier, later in itertools.pairwise(on_b)]
    assert waits[0] < 1
    assert [round(wait) for wait in waits[1:4]] == [60, 120, 240]
    assert not world.stops


def test_the_last_worker_is_not_quarantined():
    failing = itertools.count(1)
    world = World(
        Need(workers=1), lambda a, n: End(0.1, Cause.ERROR if next(failing) % 3 else None)
    )
    world.begin(node_up("a"))
    world.submit("job", 5)
    world.run()
    assert len(world.done) == 5
    assert world.now_s < 10


def test_quarantine_ends_when_nobody_else_is_left():
    world = World(
        Need(workers=2),
        lambda a, n: End(0.1, Cause.ERROR) if n == "b" and a.key.job == "one" else End(20),
        Policy(quarantine_s=1e5),
    )
    world.begin(node_up("a", cpus=1), node_up("b", cpus=1))
    world.submit("one", 3)
    world.at(50, NodeDown(node="a"))
    world.at(49, ChunkReady(key=ChunkKey("two", "chunk-009")))
    world.at(55, ChunkReady(key=ChunkKey("two", "chunk-010")))
    world.run(until_s=1000)
    assert ChunkKey("two", "chunk-010") in world.done or world.stops


def test_a_wrong_proof_ends_its_worker_for_good_and_bars_its_node():
    world = World(Need(workers=2), lambda a, node: End(1, Cause.PROOF if node == "b" else None))
    world.begin(node_up("a", cpus=1), node_up("b", cpus=1), node_up("c", cpus=0))
    world.submit("job", 6)
    world.run()
    assert len(world.done) == 6
    (liar,) = ended(world)
    assert world.homes[liar] == "b"
    assert [s.node for s in started(world)] == ["a", "b"] or [s.node for s in started(world)] == [
        "b",
        "a",
    ]
    assert any(r.cause is Cause.PROOF and r.worker == liar for r in world.reports)


def test_where_all_lie_three_of_them_are_asked():
    world = World(Need(workers=2), lambda a, node: End(1, Cause.PROOF))
    world.begin(node_up("a", cpus=2))
    world.submit("job", 1)
    world.run()
    (stop,) = world.stops
    assert "failed 3 times" in stop.text
    assert len({a.worker for a in world.handed()}) == 3


def test_stored_keys_are_suspected_before_the_worker_is():
    world = World(Need(workers=1), lambda a, node: End(1, Cause.PROOF if a.number == 1 else None))
    world.begin(node_up("a"))
    world.tell(ChunkReady(key=ChunkKey("job", "chunk-000"), stored_keys=True))
    world.run()
    assert not ended(world)
    own_keys = [i.own_keys for _, i in world.heard if isinstance(i, HandOut)]
    assert own_keys == [False, True]
    assert [r.cause for r in world.reports] == [Cause.KEYS]


def test_a_configuration_error_of_a_chunk_stops_everything_at_once_with_its_own_text():
    world = World(Need(workers=2), lambda a, node: End(1, Cause.CONFIGURATION))
    world.begin(node_up("a"))
    world.submit("job", 2)
    world.run()
    (stop,) = world.stops
    assert (stop.cause, stop.job) == (Cause.CONFIGURATION, None)
    assert stop.text == "worker-0 had chunk-000 and failed"
    assert world.now_s == 2
    assert world.scheduler.handle(Tick(), 100.0) == []


def test_what_no_attempt_mends_stops_its_job_alone_at_once_with_its_own_text():
    world = World(
        Need(workers=2),
        lambda a, node: End(1, Cause.FINAL if a.key == ChunkKey("bad", "chunk-001") else None),
    )
    world.begin(node_up("a"))
    world.submit("bad", 3)
    world.submit("good", 3)
    world.run()
    (stop,) = world.stops
    assert (stop.cause, stop.job) == (Cause.FINAL, "bad")
    assert stop.text.endswith("had chunk-001 and failed")
    assert len(world.handed("chunk-001")) == 2
    assert {key.job for key in world.done} == {"good"}


@pytest.mark.parametrize("cause", [Cause.FINAL, Cause.CONFIGURATION])
def test_what_no_attempt_mends_is_asked_of_a_second_machine_where_one_works(cause: Cause):
    world = World(Need(workers=3), lambda a, n: End(1, cause if a.key.job == "bad" else None))
    world.begin(*(node_up(name, cpus=1) for name in "abc"))
    world.submit("bad", 1)
    world.run()
    (stop,) = world.stops
    assert (stop.cause, stop.text) == (
        cause,
        f"{world.handed()[1].worker} had chunk-000 and failed",
    )
    assert len(set(world.nodes_of(world.handed()))) == len(world.handed()) == 2


def test_a_late_answer_of_a_straggler_frees_its_worker_and_changes_nothing():
    def nature(attempt: Attempt, node: str) -> End:
        straggles = attempt.key.chunk == "chunk-007" and attempt.number == 1
        return End(100.0 if straggles else 10.0)

    world = World(Need(workers=2), nature)
    world.begin(node_up("a", cpus=1), node_up("b", cpus=1))
    world.submit("job", 8, predicted_s=10.0)
    for at in range(90, 400, 5):
        key = ChunkKey("later", f"chunk-{at}")
        world.at(at, ChunkReady(key=key, predicted_s=10.0))
    world.run(to_the_end=True)
    assert len(world.done) == 8 + 62
    assert len([i for _, i in world.heard if isinstance(i, Deliver)]) == 70
    slow = world.handed("chunk-007")[0].worker
    assert [a for a in world.handed() if a.worker == slow][-1].key.job == "later"


def test_a_wrong_set_up_of_every_node_stops_at_once_of_one_node_only_costs_its_worker():
    wrong = dict.fromkeys("ab", Cause.CONFIGURATION)
    for no_start, stops in ((wrong, 1), ({"a": Cause.CONFIGURATION}, 0)):
        world = World(Need(workers=2), no_start=no_start)
        world.begin(node_up("a", cpus=1), node_up("b", cpus=1))
        world.submit("job", 4)
        world.run()
        assert len(world.stops) == stops
        if stops:
            assert world.stops[0].text == "configuration on a" or "on b" in world.stops[0].text
            assert world.now_s == 1
        else:
            assert len(world.done) == 4
            assert len(started(world)) == 2


def test_workers_that_do_not_come_up_anywhere_end_the_run_with_their_cause():
    world = World(Need(workers=1), no_start={"a": Cause.START})
    world.begin(node_up("a"))
    world.submit("job", 1)
    world.run()
    (stop,) = world.stops
    assert stop.text == "no worker comes up: start on a"
    assert len(started(world)) == 3


def test_store_failures_cost_no_attempt_and_are_met_with_growing_waits():
    world = World(
        Need(workers=1),
        lambda a, node: End(0.5, Cause.STORE if a.number <= 6 else None),
    )
    world.begin(node_up("a"))
    world.submit("job", 1)
    world.run()
    assert not world.stops
    times = [at for at, i in world.heard if isinstance(i, HandOut)]
    assert [later - earlier for earlier, later in itertools.pairwise(times)] == [
        1.0 + 0.5,
        2.5,
        4.5,
        8.5,
        16.5,
        32.5,
    ]


def test_a_store_that_fails_everybody_stops_the_run_when_patience_ends():
    world = World(
        Need(workers=3), lambda a, node: End(1, Cause.STORE), Policy(store_patience_s=120)
    )
    world.begin(node_up("a"))
    world.submit("job", 9)
    world.run()
    (stop,) = world.stops
    assert (stop.cause, stop.job) == (Cause.STORE, None)
    assert 120 <= world.now_s < 200


def test_a_store_that_fails_on_one_chunk_alone_stops_that_job():
    world = World(
        Need(workers=2),
        lambda a, n: End(1, Cause.STORE if a.key.chunk == "chunk-000" else None),
        Policy(store_failures=4),
    )
    world.begin(node_up("a"))
    world.submit("job", 300)
    world.run()
    assert "the store failed 4 times on chunk-000" in world.stops[0].text


def test_an_attempt_that_takes_too_long_is_ended_and_counts():
    world = World(Need(workers=2), lambda a, n: End(1, Cause.TIME if a.number == 1 else None))
    world.begin(node_up("a", cpus=1), node_up("b", cpus=1))
    world.submit("job", 1, limit_s=30.0)
    world.run()
    first, second = world.handed()
    assert first.worker != second.worker
    assert ended(world) == [first.worker]
    (failure,) = world.scheduler.chunks[first.key].counted()
    assert failure.cause is Cause.TIME
    assert world.now_s == 32


def test_a_stopped_worker_is_noticed_long_before_its_deadline_and_its_chunk_loses_nothing():
    world = World(Need(workers=1), lambda a, n: End(1, Cause.TIME if a.number == 1 else None))
    world.begin(node_up("a"))
    world.submit("job", 1, limit_s=900.0)
    world.at(10, WorkerSeen(worker="worker-0", running=False))
    world.run()
    assert world.now_s < 10 + 15 + 3
    assert world.scheduler.chunks[ChunkKey("job", "chunk-000")].counted() == []
    # One that runs again in time keeps what it has.
    world = World(Need(workers=1), lambda a, n: End(40))
    world.begin(node_up("a"))
    world.submit("job", 1)
    world.at(10, WorkerSeen(worker="worker-0", running=False))
    world.at(20, WorkerSeen(worker="worker-0", running=True))
    world.run()
    assert [a.number for a in world.handed()] == [1]
    assert not ended(world)


def test_late_and_foreign_answers_change_nothing():
    world = World(Need(workers=2), lambda a, n: End(1, Cause.TIME))
    world.begin(node_up("a"))
    world.submit("job", 1, limit_s=10.0)
    with pytest.raises(AssertionError, match="nothing happens"):
        world.run(until_s=15)
    first, second = world.handed()
    before = repr(world.scheduler.chunks), repr(world.scheduler.workers)
    for late in (first, Attempt(second.key, 3, second.worker), Attempt(second.key, 2, "worker-9")):
        assert world.scheduler.handle(Answered(attempt=late), world.now_s) == []
        assert world.scheduler.handle(Accepted(attempt=late), world.now_s) == []
        assert (
            world.scheduler.handle(
                WorkerDown(worker=first.worker, cause=Cause.PROCESS, text=""), world.now_s
            )
            == []
        )
    assert world.scheduler.handle(Accepted(attempt=second), world.now_s) == []
    assert (repr(world.scheduler.chunks), repr(world.scheduler.workers)) == before


def test_the_longest_chunk_goes_first_and_jobs_are_served_alike():
    world = World(Need(workers=1))
    world.begin(node_up("a"))
    for job, sizes in (("one", (3.0, 9.0, 5.0)), ("two", (4.0, 8.0))):
        for index, predicted_s in enumerate(sizes):
            key = ChunkKey(job, f"{index}")
            world.tell(ChunkReady(key=key, predicted_s=predicted_s))
    world.run()
    assert [(a.key.job, a.key.chunk) for a in world.handed()] == [
        ("one", "1"),
        ("two", "1"),
        ("two", "0"),
        ("one", "2"),
        ("one", "0"),
    ]


def test_chunks_go_where_their_keys_are():
    def nature(attempt: Attempt, node: str) -> End:
        return End(10.0)

    world = World(Need(workers=2), nature)
    world.begin(node_up("a", cpus=1), node_up("b", cpus=1))
    for job in range(16):
        for chunk in range(4):
            key = ChunkKey(f"job-{job:02d}", f"{chunk}")
            world.tell(ChunkReady(key=key, circuit=f"{chunk}", predicted_s=10.0, setup_s=10.0))
    world.run()
    made = {(world.homes[a.worker], a.key.chunk) for a in world.handed()}
    assert len(made) <= 6, "keys were made on both nodes"
    assert world.now_s <= 1 + 16 * 4 * 10 / 2 + 20


def test_a_straggler_gets_a_second_copy_on_another_machine_and_one_answer_counts():
    def nature(attempt: Attempt, node: str) -> End:
        return End(1000.0 if attempt.key.chunk == "chunk-007" and attempt.number == 1 else 10.0)

    world = World(Need(workers=2), nature)
    world.begin(node_up("a", cpus=1), node_up("b", cpus=1))
    world.submit("job", 8, predicted_s=10.0)
    world.run()
    assert len(world.done) == 8
    assert len(set(world.nodes_of(world.handed("chunk-007")))) == 2
    assert world.now_s < 120


def test_workers_get_shares_of_their_own_nodes_and_never_more_than_there_is():
    world = World(Need(workers=3))
    world.begin(node_up("big", cpus=16), node_up("small", cpus=2))
    assert sorted((s.node, s.cpus) for s in started(world)) == [("big", 5), ("big", 5), ("big", 6)]
    world = World(Need(workers=2))
    world.begin(node_up("big", cpus=16), node_up("small", cpus=12))
    assert sorted((s.node, s.cpus) for s in started(world)) == [("big", 16), ("small", 12)]
    world = World(Need(workers=4, cpus=2, memory_bytes=3 * GIB))
    world.begin(node_up("a", cpus=8, memory_bytes=7 * GIB), node_up("head", cpus=1))
    world.submit("job", 20)
    world.run()
    assert [(s.node, s.cpus, s.memory_bytes) for s in started(world)] == [("a", 2, 3 * GIB)] * 2
    (report,) = world.reports
    assert report.cause is Cause.CAPACITY
    assert report.text == (
        "there is room for 2 of 4 workers: it needs 4 x 2 CPUs and 4 x 3.0 GiB; the cluster has, "
        "free of others, a 8 CPUs 7.0 GiB, head 1 CPUs 64.0 GiB"
    )


def test_a_run_that_has_no_room_says_what_it_needs_and_what_is_there_within_30_s():
    world = World(Need(workers=2, cpus=4))
    world.begin(node_up("a", cpus=1), node_up("b", cpus=2))
    world.submit("job", 1)
    world.run()
    (stop,) = world.stops
    assert stop.cause is Cause.CAPACITY
    assert "it needs 2 x 4 CPUs; the cluster has, free of others, b 2 CPUs" in stop.text
    assert world.now_s <= 30


def test_a_node_that_joins_gets_the_workers_that_had_no_room():
    world = World(Need(workers=3, cpus=2), lambda a, n: End(10))
    world.begin(node_up("a", cpus=2))
    world.submit("job", 12)
    world.at(15, node_up("b", cpus=4))
    world.run()
    assert [s.node for s in started(world)] == ["a", "b", "b"]
    assert 40 < world.now_s < 70
    # And one that comes before time is up is waited for.
    world = World(Need(workers=1))
    world.begin()
    world.submit("job", 1)
    world.at(15, node_up("late"))
    world.run()
    assert len(world.done) == 1


def test_a_withdrawn_job_is_proved_no_further_and_its_answers_change_nothing():
    world = World(Need(workers=1), lambda a, n: End(10))
    world.begin(node_up("a"))
    world.submit("one", 3)
    world.submit("two", 2)
    world.at(5, Withdrawn(job="one"))
    world.run()
    assert {key.job for key in world.done} == {"two"}
    assert [a.key.job for a in world.handed()] == ["one", "two", "two"]
    assert [i.attempt.key.job for _, i in world.heard if isinstance(i, Deliver)] == ["two", "two"]


def test_the_log_replays_to_the_same_instructions():
    failing = itertools.count()
    causes = [None, Cause.ERROR, None, Cause.PROCESS, Cause.STORE, None, Cause.PROOF, None]
    world = World(
        Need(workers=3), lambda a, n: End(3, causes[next(failing) % 8] if a.number < 3 else None)
    )
    world.begin(node_up("a"), node_up("b"))
    world.submit("job", 20, predicted_s=2.0, setup_s=1.0)
    world.at(17, NodeDown(node="b"))
    world.run()
    again, instructions = replay(world.need, world.policy, world.scheduler.log)
    assert [i for step in instructions for i in step] == [i for _, i in world.heard]
    assert repr(again.chunks) == repr(world.scheduler.chunks)


def test_hundreds_of_chunks_on_many_nodes_are_proved_once_each():
    world = World(Need(workers=40), lambda a, n: End(1.0 + a.number % 3))
    world.begin(*(node_up(f"n{index}", cpus=4) for index in range(10)))
    for job in range(40):
        world.submit(f"job-{job}", 8, predicted_s=1.0)
    world.run()
    assert len(world.done) == 320 == len(world.handed())
