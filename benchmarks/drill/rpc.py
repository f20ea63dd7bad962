"""Lost replies: of every hundred RPCs of Ray five are done and their answers lost."""

import json
import time
from pathlib import Path

from benchmarks.drill import serving, sweep, trainings
from benchmarks.drill.nodes import LocalCluster, local_cluster
from benchmarks.drill.outcome import Fault, Outcome, expect

LOST_PERCENT = 5
VARIABLES = {
    "RAY_testing_rpc_failure": json.dumps(
        {
            "*": {
                "num_failures": -1,
                "req_failure_prob": 0,
                "resp_failure_prob": LOST_PERCENT,
                "in_flight_failure_prob": 0,
            }
        }
    ),
    # Ray's processes of one node talk through pipes that lose nothing.
    "RAY_testing_rpc_failure_avoid_intra_node_failures": "1",
}


def expect_losses_of_replies(cluster: LocalCluster) -> str:
    """Refuse a cluster whose processes did not take the faults; say how many did."""
    logs = [file for file in cluster.folder.glob("*/session_*/logs/*") if file.is_file()]
    told = sum("RpcFailureManager seed" in file.read_text(errors="replace") for file in logs)
    expect(told > 0, f"no process of Ray's took RAY_testing_rpc_failure; {len(logs)} logs")
    return f"{told} processes of Ray's lost replies"


def train(folder: Path) -> Outcome:
    whole = trainings.reference(folder.parents[1])
    with local_cluster(variables=VARIABLES) as cluster:
        cluster.add_nodes(2)
        training = trainings.Training(folder, "run", cluster.environment)
        training.begin()
        try:
            training.finish()
        finally:
            training.kill()
        starts = len(training.records("start"))
        held = trainings.expect_same(training, whole)
        took = expect_losses_of_replies(cluster)
    lost = "nothing" if starts == 1 else f"{starts - 1} restarts"
    return Outcome(lost, None, f"{held}; {took}")


def run_sweep(folder: Path) -> Outcome:
    whole = sweep.reference(folder.parents[1])
    with local_cluster(variables=VARIABLES) as cluster:
        cluster.add_nodes(2)
        one = sweep.SmallSweep(folder, cluster.environment)
        one.begin()
        one.finish()
        held = sweep.expect_same(one, whole)
        took = expect_losses_of_replies(cluster)
    return Outcome("nothing", None, f"{held}; {took}")


def serve(folder: Path) -> Outcome:
    """Ask a hundred times; what fails must be told, and the next request answered."""
    with serving.served(folder, variables=VARIABLES) as app:
        began = time.monotonic()
        answered = [app.answers() for _ in range(100)]
        seconds = time.monotonic() - began
        expect(answered[-1], "the last request was not answered")
        took = expect_losses_of_replies(app.cluster)
    lost = answered.count(False)
    return Outcome(f"{lost} of 100 requests", None, f"asked one by one in {seconds:.0f} s; {took}")


FAULTS = [
    Fault("rpc-train", f"{LOST_PERCENT} % of RPC replies lost: training", train),
    Fault("rpc-sweep", f"{LOST_PERCENT} % of RPC replies lost: a sweep", run_sweep),
    Fault("rpc-serve", f"{LOST_PERCENT} % of RPC replies lost: serving", serve),
]
