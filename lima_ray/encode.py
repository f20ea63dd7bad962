"""Encode dialogues as token ids and a loss mask, check them, and show what is learned.

    python -m lima_ray.encode [RECIPE] --show 3

Prints rows with the supervised tokens marked, the lengths, and how well they pack. `--show` takes a
number of rows, `longest`, `cut`, an id, or a place such as `rows.jsonl:17`.

A row is what the chat template renders, so training and serving see the same ids. Each token
belongs to a turn, and the tokens of replies are learned. A row longer than `data.max_tokens` is cut
by these rules:

1. Its first `max_tokens` tokens are kept; nothing is taken from the middle or the start.
2. A cut inside a reply keeps the reply's beginning and adds no EOT: the model never learns to stop
   where the reply went on.
3. A cut inside or right after a later user turn drops that turn; the row then ends with the reply
   before it.
4. A cut inside the first user turn would leave nothing to learn; such rows are named and refused.
"""

from lima_ray.config.command_line import RecipeCommand, parse_command
from lima_ray.data.inspection import show_rows
from lima_ray.data.training_data import load


class EncodeCommand(RecipeCommand):
    """Options of this step."""

    show: str = "3"
    """Rows to print with their supervised tokens marked: so many from all over, longest, cut (with
    :N so many), an id, or a place such as rows.jsonl:17."""


def main(argv: list[str] | None = None) -> None:
    step = parse_command(EncodeCommand, "python -m lima_ray.encode", __doc__, argv)
    show_rows(step.recipe, *load(step.recipe), step.show)


if __name__ == "__main__":
    from lima_ray.config.command_line import run_command

    run_command("encode")
