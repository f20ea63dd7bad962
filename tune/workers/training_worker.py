"""Warm workers: one group of training processes that trains recipe after recipe, and its judges.

Starting a group costs what a miniature's training costs: Ray Train's start, the imports of torch,
transformers and DeepSpeed, the process group. A lane pays it once. It is a Ray Train run whose loop
asks the dispatcher for the next training; a worker that dies restarts the group, which goes on from
that training's last state. Base weights are mapped from safetensors, so a node holds them once.
"""

import gc
import os
import shutil
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from lima_ray import select, train
from lima_ray.config.cluster import forwarded, worker_environment
from lima_ray.config.errors import UserError
from lima_ray.config.recipe import validate
from lima_ray.data.examples import read_examples
from lima_ray.judging import assessment
from lima_ray.judging.perplexity import dialogue_losses
from lima_ray.model.export_check import check_export
from lima_ray.records.files import write_jsonl
from lima_ray.records.quality import assessed
from lima_ray.records.run import Run
from lima_ray.records.verdict import Verdict
from lima_ray.training.phases import Phases
from tune.training import Job
from tune.workers.training_queue import Task, ask

GROUP_FAILURES = 20
"""Restarts of a lane's workers before the lane gives up."""


class Stopped(Exception):
    """The training ends before its last epoch."""

    def __init__(self, answer: str) -> None:
        super().__init__(answer)
        self.leave = answer == "leave"
        """Whether another start is to go on with it."""


class Lane:
    """A Ray actor that holds one worker group."""

    def run(
        self, dispatcher: Any, number: int, workers: int, cpus: int, gpus: float, path: Path
    ) -> None:
        """Train what the dispatcher gives until it closes.

        Args:
            dispatcher: its handle.
            number: of this lane.
            workers: training processes.
            cpus: CPU cores of each.
            gpus: GPUs of each, a half where it shares one with a judge, or none.
            path: directory for Ray Train's own files.
        """
        name = f"{number}-{time.time_ns()}"  # a name used before would resume its run
        environment = worker_environment(gpus > 0, cpus) | forwarded()
        TorchTrainer(
            work,
            train_loop_config={"dispatcher": dispatcher, "lane": number},
            torch_config=TorchConfig(timeout_s=train.COLLECTIVE_TIMEOUT_S),
            scaling_config=ray.train.ScalingConfig(
                num_workers=workers,
                use_gpu=gpus > 0,
                resources_per_worker={"CPU": cpus} | ({"GPU": gpus} if gpus else {}),
            ),
            run_config=ray.train.RunConfig(
                name=name,
                storage_path=str(path),
                failure_config=ray.train.FailureConfig(max_failures=GROUP_FAILURES),
                worker_runtime_env={"env_vars": environment},
            ),
        ).fit()


def work(config: dict[str, Any]) -> None:
    """What each worker of a lane runs.

    Args:
        config: `dispatcher` and `lane`.
    """
    phases = Phases(time.time())
    import torch

    from lima_ray.training import loop

    del loop
    phases.done("worker_imports")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    dispatcher, lane, fresh = config["dispatcher"], config["lane"], True
    while True:
        job = first_asks(lambda fresh=fresh: ask(dispatcher.take.remote(lane, fresh)))
        fresh = False
        if job == "closed":
            return
        if job != "wait":
            train_job(dispatcher, lane, job, phases)
            phases = Phases(time.time())


def train_job(dispatcher: Any, lane: int, job: Job, phases: Phases) -> None:
    """Train one recipe in the process group that is up, and say how it went."""
    import torch
    from ray.train.torch import get_device
    from torch import distributed as dist

    from lima_ray.training.loop import train as train_recipe

    first = dist.get_rank() == 0

    def saved(epoch: int) -> None:
        """Have an epoch assessed; stop where nobody needs another."""
        if first:  # what older weights of this epoch said
            shutil.rmtree(job.run.dev_dir(epoch), ignore_errors=True)
        answer = first_asks(lambda: ask(dispatcher.saved.remote(job.id, epoch)))
        if answer != "go on":
            raise Stopped(answer)

    error = ""
    try:
        recipe = validate(job.recipe)
        train_recipe(recipe, job.run, torch.device(get_device()), phases, job.lineage, saved)
    except Stopped as stopped:
        if stopped.leave:
            return
        if first:
            prune(job.run, job.keep)
    except UserError as problem:
        error = str(problem)
    except Exception:
        ask(dispatcher.lane_error.remote(lane, traceback.format_exc()))
        raise
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    if first:
        ask(dispatcher.failed.remote(job.id, error) if error else dispatcher.trained.remote(job.id))


def first_asks(question: Callable[[], Any]) -> Any:
    """What the first worker is answered, on every worker."""
    from torch import distributed as dist

    answer = [question() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(answer, src=0)
    return answer[0]


class Assessor:
    """A Ray actor that judges epochs, and concludes trainings: chooses, exports and measures."""

    def run(self, dispatcher: Any, seat: int, threads: int) -> None:
        """Do what the dispatcher gives until it closes.

        Args:
            dispatcher: its handle.
            seat: number of this assessor.
            threads: CPU threads it may use.
        """
        import torch

        torch.set_num_threads(threads)
        fresh = True
        while (task := ask(dispatcher.task.remote(seat, fresh))) != "closed":
            fresh = False
            if task == "wait":
                continue
            try:
                if task.epoch is None:
                    conclude(task.job)
                    ask(dispatcher.concluded.remote(task.job.id))
                else:
                    ask(dispatcher.assessed.remote(task.job.id, task.epoch, grade(task)))
            except UserError as error:
                ask(dispatcher.task_failed.remote(task, str(error)))
            except Exception:
                ask(dispatcher.task_failed.remote(task, traceback.format_exc()))
            gc.collect()


def grade(task: Task) -> float:
    """Mean grade of an epoch's dev replies; what is judged already is not judged again."""
    assert task.epoch is not None
    recipe = validate(task.job.recipe)
    done = assessed(task.job.run, recipe.select.judge_name).get(task.epoch)
    return (done or assessment.assess(task.job.run, task.epoch, recipe)).grade


def conclude(job: Job) -> None:
    """Choose a trained run's epoch, export it, measure it, and drop the weights not kept."""
    run, recipe = job.run, validate(job.recipe)
    trained_before = job.is_trained()
    if not trained_before:
        select.choose(run, recipe, say=lambda _: None)
        check_export(run, recipe.checkpoint.weights_dtype)
    if job.by_loss:
        measure_loss(job)
        if not trained_before:
            prune(run, job.keep)
        return
    prompts = assessment.Prompts(job.prompts, "test", job.samples)
    _, verdicts = assessment.judged(run.export_dir, prompts, job.measured, recipe)
    unanswered = [v for v in verdicts if v.status == "unanswered"]
    if unanswered:
        (job.measured / "verdicts.jsonl").unlink()
        raise UserError(
            f"the judge did not answer on {len(unanswered)} of {len(verdicts)} replies: "
            f"{unanswered[0].explanation}"
        )
    if not trained_before:  # another sweep may want what it has kept
        prune(run, job.keep)


def measure_loss(job: Job) -> None:
    """Write the loss of the exported model on each dialogue that measures.

    A dialogue's verdict is its summed loss over the mean number of supervised tokens, so that the
    mean over dialogues is the loss of a token, and its exponential the perplexity.
    """
    losses_R, tokens_R = dialogue_losses(job.run.export_dir, job.heldout())
    rows = read_examples(job.prompts, "heldout")
    verdicts = [
        Verdict(
            id=f"{number:06}-{row.id}",  # ids of held-out rows may repeat
            kind="loss",
            annotator="loss",
            verdict=float(loss / tokens_R.mean()),
            sample=0,
            extra={"tokens": int(tokens)},
        )
        for number, (row, loss, tokens) in enumerate(zip(rows, losses_R, tokens_R, strict=True))
    ]
    job.measured.mkdir(parents=True, exist_ok=True)
    write_jsonl([verdict.to_json() for verdict in verdicts], job.measured / "verdicts.jsonl")


def prune(run: Run, keep: str) -> None:
    """Drop resume state and the weights that are not kept; the export has its own links."""
    if keep == "all":
        return
    shutil.rmtree(run.state_dir, ignore_errors=True)
    shutil.rmtree(run.epochs_dir, ignore_errors=True)
    if keep == "none":
        for weights in run.export_dir.glob("*.safetensors"):
            weights.unlink()
