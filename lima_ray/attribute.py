"""Find the training rows that taught a reply, by gradients or by text.

    python -m lima_ray.attribute runs/NAME replies/NAME
    python -m lima_ray.attribute runs/NAME replies/NAME --ids ID ID --rows 10
    python -m lima_ray.attribute runs/NAME replies/NAME --method text

REPLIES is a directory of replies, as `lima_ray.generate` and a run's `dev/NN` have them, made by
the run's export or by one of its kept epochs. The rows found are written to attribution.jsonl, a
line for each reply. A row's score is how alike its gradient is to the reply's: from -1 to 1, the
mean over linear layers and epochs of the cosine of both losses' gradients by the layer's weight.
The rows' gradients are kept in the run's gradients/, so a second call costs one backward pass for
each reply and epoch. What is in the file already is not computed again.
"""

if __name__ == "__main__":  # arguments first: the imports below take seconds
    import sys

    from lima_ray.config.command_line import run_command

    sys.exit(run_command("attribute"))

from pathlib import Path

from lima_ray.attribution.arguments import AttributeCommand
from lima_ray.attribution.job import Job, prepare
from lima_ray.compare import ReplyKey, read_replies_by_key
from lima_ray.config.errors import UserError
from lima_ray.config.storage.working_copy import location, reference
from lima_ray.config.terminal import printable
from lima_ray.records.attribution import Attribution, AttributionKey, read_attributions
from lima_ray.records.files import acquire_lock, explain_write_errors, write_jsonl
from lima_ray.records.journal import Journal
from lima_ray.records.reply import Reply

FILE = "attribution.jsonl"
SHOWN_CHARACTERS = 160
"""Of a prompt, a reply and a row in the terminal."""


def attribute(command: AttributeCommand, replies: dict[ReplyKey, Reply]) -> list[Attribution]:
    """Attribute replies to training rows, or go on where an earlier call stopped.

    Returns:
        of each reply that has a text, in their order.

    Raises:
        UserError: no run, no weights, replies of another model, rows that have changed since, ids
            that are not there, or no reply that has a token.
    """
    given = command.replies
    file = given / "replies.jsonl" if given.is_dir() else given
    if command.out is None and location(file):
        raise UserError(f"the replies are in a bucket, {reference(file)}; give an --out here")
    job, out = prepare(command, list(replies.values()), file), command.out or file.with_name(FILE)
    with explain_write_errors(out, "--out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        lock = acquire_lock(
            out.with_name(f".{out.name}.lock"),
            f"another process is writing to {out}; wait for it, or choose another --out",
        )
        try:
            return complete(job, out)
        finally:
            lock.release()


def complete(job: Job, out: Path) -> list[Attribution]:
    """Add to a file what it lacks of a job, and return all that the job asks for."""
    known = read_attributions(out)
    method = job.command.method
    keys: list[AttributionKey] = [(r.id, r.sample, r.turn, method) for r in job.replies]
    todo = [
        number
        for number, (key, reply) in enumerate(zip(keys, job.replies, strict=True))
        if not job.is_known(known.get(key), reply)
    ]
    journal = Journal(out)
    journal.repair()
    for found in job.compute(todo) if todo else ():
        journal.append(found.to_json())
        known[found.key] = found
    if todo:  # a line of each that was computed again goes
        write_jsonl((found.to_json() for found in known.values()), out)
    print(f"{out}: {len(keys)} replies by {method} ({len(todo)} new)", flush=True)
    return [known[key] for key in keys]


def describe(found: Attribution, reply: Reply) -> str:
    """Return a reply and its rows, a line each."""
    lines = [
        f"{found.id} (sample {found.sample}, turn {found.turn})",
        f"   asked  {shorten(reply.conversations[-1])}",
        f"   reply  {shorten(reply.reply)}",
    ]
    lines += [f"  {row.score:6.3f}  {shorten(' | '.join(row.conversations))}" for row in found.rows]
    return printable("\n".join(lines))


def shorten(text: str) -> str:
    line = " ".join(text.split())
    return f"{line[:SHOWN_CHARACTERS]} ..." if len(line) > SHOWN_CHARACTERS else line


def main(command: AttributeCommand) -> None:
    replies = read_replies_by_key(command.replies)
    found = attribute(command, replies)
    for one in found[: command.show]:
        print(f"\n{describe(one, replies[one.id, one.sample, one.turn])}")
    if 0 < command.show < len(found):
        print(f"\nand {len(found) - command.show} more replies in the file (--show)")
