"""Faults of a training: its workers, nodes, driver and head, and nodes that come and go."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.drill.nodes import HOST, LocalCluster, Node, local_cluster
from benchmarks.drill.outcome import Fault, Outcome, expect
from benchmarks.drill.trainings import Training, expect_same, reference
from benchmarks.local_servers.http_server import QuietHandler, listening
from benchmarks.servers import ROOT

FAULT_AFTER = 10
"""Steps done when the fault comes; the last state is of step 8."""
LONGER = {"optim.epochs": 40, "checkpoint.weights_from_epoch": 40, "model.residual_dropout": 0.0}
"""Flags of a training that Ray Train has time to notice a new node in: it looks once a minute.
Dropout's random numbers depend on the workers, so there is none."""
TOLERANCE = 1e-3
"""Difference of losses, in nats, that another number of workers may make by its rounding."""
NOTICE_S = 30
"""Between a spot machine's notice and its end, as Google gives; AWS gives 120."""


@contextmanager
def under_way(folder: Path) -> Iterator[tuple[LocalCluster, list[Node], Training]]:
    """Train on two nodes of one worker each, and come to the middle of the second epoch."""
    with local_cluster() as cluster:
        nodes = cluster.add_nodes(2)
        training = Training(folder, "run", cluster.environment)
        training.begin()
        training.wait_for_step(FAULT_AFTER)
        try:
            yield cluster, nodes, training
        finally:
            training.kill()


def interrupt(training: Training, whole: Training, fault: Callable[[], None]) -> Outcome:
    """Cause a fault, wait for the end, and compare with the run that nothing interrupted."""
    state = training.run.latest_state()
    expect(state is not None, "no state was saved before the fault")
    assert state
    fault_s = time.time()
    fault()
    went_on = training.wait_until_it_goes_on(fault_s)
    expect(
        went_on.step >= state.step,
        f"the state of step {state.step} was saved, and it went on from step {went_on.step}",
    )
    training.finish()
    held = expect_same(training, whole)
    return Outcome(describe_lost(went_on.lost), went_on.seconds, held)


def describe_lost(steps: int) -> str:
    return f"{steps} steps, computed again" if steps else "nothing"


def kill_worker(folder: Path) -> Outcome:
    whole = reference(folder.parents[1])
    with under_way(folder) as (_, _, training):
        pid = training.last_start()["pids"][1]
        return interrupt(training, whole, lambda: os.kill(pid, signal.SIGKILL))


def kill_node(folder: Path) -> Outcome:
    """Kill a node with a worker; another joins at once, as an autoscaler would see to."""
    whole = reference(folder.parents[1])
    with under_way(folder) as (cluster, nodes, training):

        def replace() -> None:
            nodes[0].kill()
            cluster.add_nodes(1, wait=False)

        return interrupt(training, whole, replace)


def kill_driver(folder: Path) -> Outcome:
    """Kill the command, and give it again."""
    whole = reference(folder.parents[1])
    with under_way(folder) as (_, _, training):

        def again() -> None:
            training.kill()
            training.begin()

        return interrupt(training, whole, again)


def kill_head(folder: Path) -> Outcome:
    """Kill the head, start it again from RocksDB, and give the command again once it has ended."""
    whole = reference(folder.parents[1])
    with under_way(folder) as (cluster, _, training):

        def again() -> None:
            cluster.head.kill()
            cluster.start_head()
            training.wait()
            training.begin()

        return interrupt(training, whole, again)


def drain_node(folder: Path) -> Outcome:
    """Give a node its notice, and take it away in time; another joins after the notice."""
    whole = reference(folder.parents[1])
    with under_way(folder) as (cluster, nodes, training):

        def leave() -> None:
            began_s = time.monotonic()
            with notified(cluster, cluster.node_id(nodes[0])):
                cluster.add_nodes(1)
                time.sleep(max(0, NOTICE_S - (time.monotonic() - began_s)))
                nodes[0].kill()

        return interrupt(training, whole, leave)


def join_late(folder: Path) -> Outcome:
    """Begin on one node, with room for a worker less than asked for, and add another."""
    whole = reference(folder.parents[1], LONGER)
    with local_cluster() as cluster:
        cluster.add_nodes(1)
        flags = LONGER | {"cluster.min_workers": 1}
        training = Training(folder, "run", cluster.environment, flags)
        training.begin()
        try:
            training.wait_for_step(1)
            cluster.add_nodes(1)
            went_on = training.wait_until_it_goes_on(time.time())
            start = training.last_start()
            expect(start["workers"] == 2, f"it went on with {start['workers']} workers")
            training.finish()
        finally:
            training.kill()
        pairs = zip(training.losses(), whole.losses(), strict=True)
        apart = max(abs(a - b) for a, b in pairs)
        expect(apart < TOLERANCE, f"losses differ by {apart:.1e} from those of two workers")
    held = f"losses within {TOLERANCE:.0e} of those of two workers from the start"
    return Outcome(describe_lost(went_on.lost), went_on.seconds, held)


@contextmanager
def notified(cluster: LocalCluster, node_id: str) -> Iterator[None]:
    """Give a machine Google's notice, which `cluster/ray/spot_notice.sh` on it watches for."""

    class Metadata(QuietHandler):
        def do_GET(self) -> None:
            self.respond(200, {}, b"TRUE")

    with listening(Metadata) as port:
        variables = {
            "SPOT_METADATA_URL": f"http://{HOST}:{port}",
            "LIMA_VENV": sys.prefix,
        }
        script = str(ROOT / "cluster" / "ray" / "spot_notice.sh")
        watching = subprocess.Popen(
            [script, "google", cluster.environment["RAY_ADDRESS"], node_id],
            env=os.environ | cluster.environment | variables,
            stdin=subprocess.DEVNULL,
        )
        try:
            yield
            expect(watching.wait(NOTICE_S) == 0, "the notice did not reach Ray")
        finally:
            watching.kill()
            watching.wait()


FAULTS = [
    Fault("worker", "SIGKILL of a training worker", kill_worker),
    Fault("node", "SIGKILL of a node", kill_node),
    Fault("driver", "SIGKILL of the driver", kill_driver),
    Fault("head", "SIGKILL of the head", kill_head),
    Fault("notice", f"a node leaves {NOTICE_S} s after its notice; another joins", drain_node),
    Fault("join", "a node joins late (elastic)", join_late),
]
