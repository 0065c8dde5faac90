from shoal.cli.progress import describe, failure_of, measure, monitor_ns

NODES = [
    {"ID": "n1", "Status": {"State": "ready"}, "Description": {"Hostname": "one"}},
    {"ID": "n2", "Status": {"State": "down"}, "Description": {"Hostname": "two"}},
]


def replicated(replicas):
    return {"ID": "s", "Spec": {"Mode": {"Replicated": {"Replicas": replicas}}}}


GLOBAL = {"ID": "s", "Spec": {"Mode": {"Global": {}}}}


def task(slot, state, desired="running", node="n1", created="2026-01-01T00:00:00Z", error=""):
    return {
        "Slot": slot,
        "NodeID": node,
        "DesiredState": desired,
        "CreatedAt": created,
        "Status": {"State": state, **({"Err": error} if error else {})},
    }


def test_all_run():
    progress = measure(replicated(2), [task(1, "running"), task(2, "running")], NODES)
    assert progress.converged
    assert describe(progress) == ["overall progress: 2 out of 2 tasks", "1/2: running", "2/2: running"]


def test_bars_show_how_far_a_task_is():
    tasks = [task(1, "running"), task(2, "assigned"), task(3, "pending", node="", error="no suitable node")]
    assert describe(measure(replicated(3), tasks, NODES), 8) == [
        "overall progress: 1 out of 3 tasks",
        "1/3: running   [=======>]",
        "2/3: assigned  [==>     ]",
        "3/3: pending   no suitable node",
    ]
    # what has ended is on its way no more
    assert describe(measure(replicated(1), [task(1, "failed")], NODES), 8)[1] == "1/1: failed"


def test_one_starts_and_one_waits_with_a_reason():
    progress = measure(
        replicated(2), [task(1, "starting"), task(2, "pending", node="", error="no suitable node")], NODES
    )
    assert not progress.converged
    assert describe(progress) == [
        "overall progress: 0 out of 2 tasks",
        "1/2: starting",
        "2/2: pending   no suitable node",
    ]


def test_scaled_down_service_counts_no_task_that_is_to_go():
    assert measure(replicated(1), [task(1, "running"), task(2, "running", desired="remove")], NODES).converged
    assert not measure(replicated(1), [task(1, "running"), task(2, "running")], NODES).converged


def test_task_on_a_node_that_is_down_does_not_count():
    assert not measure(replicated(1), [task(1, "running", node="n2")], NODES).converged


def test_replacement_counts_and_not_what_it_replaces():
    old = task(1, "failed", created="2026-01-01T00:00:01Z", error="exit 1")
    new = task(1, "running", created="2026-01-01T00:00:02Z")
    for tasks in ([old, new], [new, old]):
        assert measure(replicated(1), tasks, NODES).converged


def test_no_replicas_have_converged():
    assert measure(replicated(0), [], NODES).converged


def test_global_service_waits_for_its_first_task():
    empty = measure(GLOBAL, [], NODES)
    assert not empty.converged
    assert describe(empty) == ["overall progress: waiting for new tasks"]
    progress = measure(GLOBAL, [task(0, "running")], NODES)
    assert progress.converged
    assert describe(progress)[1] == "one: running"


def test_many_tasks_are_shown_as_one_number():
    progress = measure(replicated(30), [task(slot, "running") for slot in range(1, 31)], NODES)
    assert describe(progress) == ["overall progress: 30 out of 30 tasks"]


def test_monitor_and_failure():
    service = {"Spec": {"UpdateConfig": {"Monitor": 7}}, "UpdateStatus": {"State": "paused", "Message": "task failed"}}
    assert monitor_ns(service) == 7
    assert monitor_ns(GLOBAL) == 5_000_000_000
    assert failure_of(service) == "service update paused: task failed"
    assert failure_of({"UpdateStatus": {"State": "completed"}}) == ""


def job_task(slot, state, iteration=1, **others):
    return {**task(slot, state, desired="complete", **others), "JobIteration": {"Index": iteration}}


def test_a_job_has_converged_when_all_its_completions_are_there():
    job = {
        "ID": "s",
        "Spec": {"Mode": {"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 2}}},
        "JobStatus": {"JobIteration": {"Index": 1}},
    }
    before = [job_task(0, "complete", iteration=0), job_task(1, "complete", iteration=0)]
    progress = measure(job, [*before, job_task(0, "complete", node="n2"), job_task(1, "running")], NODES)
    assert not progress.converged
    assert describe(progress) == ["job progress: 1 out of 2 complete", "1/2: complete", "2/2: running"]
    assert measure(job, [*before, job_task(0, "complete"), job_task(1, "complete")], NODES).converged


def test_a_global_job_is_counted_by_node():
    job = {"ID": "s", "Spec": {"Mode": {"GlobalJob": {}}}, "JobStatus": {"JobIteration": {}}}
    assert measure(job, [], NODES).waiting
    running = measure(job, [job_task(0, "running", iteration=0)], NODES)
    assert (running.converged, describe(running)) == (False, ["job progress: 0 out of 1 complete", "one: running"])
    assert measure(job, [job_task(0, "complete", iteration=0)], NODES).converged
