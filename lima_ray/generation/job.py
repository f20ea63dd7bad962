"""Replies to every prompt, from a model here or an endpoint; a stopped job goes on where it was."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from lima_ray.config.errors import UserError
from lima_ray.config.paths import output_path, resolve
from lima_ray.config.storage import whole_folders
from lima_ray.data.examples import read_prompts
from lima_ray.generation.arguments import GenerationJob
from lima_ray.generation.client import Client
from lima_ray.generation.endpoint import check_url, read_key
from lima_ray.generation.progress import GenerationProgress
from lima_ray.generation.reply_directory import ReplyDirectory
from lima_ray.generation.request_pool import request_all
from lima_ray.generation.scripts import Script
from lima_ray.records.example import Example
from lima_ray.records.lineage import check_base, hash_base
from lima_ray.records.reply import Reply
from lima_ray.records.run import model_name


def generate(job: GenerationJob, in_process: bool = False) -> list[Reply]:
    """Reply to every prompt, or go on where an earlier call stopped.

    Args:
        in_process: decode in this process instead of over the Ray cluster, for callers that are
            workers themselves. An endpoint is always asked from this process.

    Returns:
        all replies of `job.out`, in the order of rows, samples and turns.

    Raises:
        UserError: bad input, prompts without room for a reply (they are named), a directory of
            other replies, an endpoint that refuses; or some replies failed for good. What was
            answered is kept in any case.
    """
    if job.server.url:
        check_url(job.server.url)
        read_key(job.server.api_key_env)
    rows = read_prompts(job.prompts, job.split)
    order = [(row, sample) for sample in range(job.samples) for row in rows]
    scripts = {(row.id, sample): Script(row, sample) for row, sample in order}
    path = None if job.server.url else find_model(job.model)
    job = job.model_copy(update={"name": job.name or (model_name(path) if path else job.model)})
    with ReplyDirectory(output_path(job.out)) as replies:
        replies.resume(identity(job, path, rows))
        for record in replies.records:
            scripts[record.id, record.sample].replies.append(record.reply)
        todo = [script for script in scripts.values() if not script.finished]
        if todo:
            with GenerationProgress(
                sum(s.turns for s in scripts.values()), len(replies.records)
            ) as meter:
                if path is None:
                    generate_from_endpoint(job, todo, replies, meter)
                else:
                    # Imports the engine: seconds, which an endpoint need not wait.
                    from lima_ray.generation.local import generate_in_process, generate_on_cluster

                    decode = generate_in_process if in_process else generate_on_cluster
                    for record in decode(job, path, todo):
                        replies.add(record)
                        meter.add(record)
        print(replies.summary(), flush=True)
        if replies.failures:
            raise UserError(
                f"{replies.failures} of {len(scripts)} prompts got no reply (every sample "
                f"counts); {replies.failed_file} says why, and the same command asks them again"
            )
        place = {row.id: number for number, row in enumerate(rows)}
        replies.sort(lambda r: (place[r.id], r.sample, r.turn))
        return replies.records


def find_model(reference: str) -> Path:
    """Return the directory of a run's export or of a Hugging Face model; refuse what is neither."""
    path = resolve(reference)
    if path is None:
        raise UserError(
            f"no model at {reference}: it is no directory; the name of a model behind a server "
            "needs --endpoint URL"
        )
    if (path / "recipe.yaml").exists():
        path = fetched_export(path)
        if not path.exists():
            raise UserError(f"{reference} has no export yet; training has not ended")
    check_base(str(path))
    return path


def fetched_export(run: Path) -> Path:
    """Return a run's export; where the run is a bucket's working copy, fetched if it is there."""
    export = run / "export"
    return whole_folders.fetch(export) if whole_folders.is_whole(export) else export


def identity(job: GenerationJob, path: Path | None, rows: list[Example]) -> dict[str, Any]:
    """Return what decides the replies; a directory holds those of one identity."""
    digest = hashlib.sha256("\n".join(row.to_line() for row in rows).encode()).hexdigest()
    decided = {"model": job.name, "prompts_hash": digest[:12], "samples": job.samples}
    decided |= {"sampling": job.sampling.model_dump()}
    if path:
        rounded = {} if job.weights == "auto" else {"weights": job.weights}
        return decided | {"model_hash": hash_base(str(path))} | rounded
    asked = {"url": job.server.url, "model": job.model, "extra": job.server.extra}
    return decided | {"endpoint": asked}


def generate_from_endpoint(
    job: GenerationJob, scripts: list[Script], replies: ReplyDirectory, meter: "GenerationProgress"
) -> None:
    if job.sampling.repetition_penalty != 1 and not job.server.extra:
        print(
            f"sampling.repetition_penalty {job.sampling.repetition_penalty} is not sent: OpenAI's "
            "API has none. --endpoint_extra sends it to servers that know it"
        )

    async def handle(client: Client, script: Script) -> None:
        while not script.finished:
            messages = replace(script.row, turns=script.dialogue).messages()
            try:
                completion = await client.chat(messages, script.next_sampling(job.sampling))
            except UserError as error:
                raise UserError(f"{error}\n  it was asked for row {script.row.id}") from error
            record = script.record_reply(
                job.name, job.sampling, completion.text, completion.stopped, completion.n_tokens
            )
            replies.add(record)
            meter.add(record)

    request_all(job.server, job.model, scripts, handle, replies.add_failure)
