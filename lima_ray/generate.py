"""Generate replies to prompts, with a model on the Ray cluster or behind an endpoint.

    python -m lima_ray.generate runs/NAME data/test.jsonl --out replies/NAME
    python -m lima_ray.generate MODEL data/test.jsonl --out replies/MODEL --endpoint URL

MODEL is the directory of a run or of an export, decoded over the Ray cluster, or with --endpoint
the name of a model behind any OpenAI-compatible server. Of each row everything up to the last user
turn is the prompt; a row with `follow_ups` is a scripted dialogue, asked turn after turn with the
model's own replies between. Every reply is written as it arrives, with a seed that depends on the
row, sample and turn alone; the same command goes on where a killed one stopped and asks nothing
twice. What an endpoint never answered stands in failed.jsonl and is asked again next time.

In a local dialogue that has outgrown the context, the turns left get an empty reply of 0 tokens
that did not stop: the model has no room to answer.
"""

if __name__ == "__main__":  # arguments first: the imports below take seconds
    import sys

    from lima_ray.config.command_line import run_command

    sys.exit(run_command("generate"))

import sys

from lima_ray.generation.arguments import GenerationJob
from lima_ray.generation.job import generate


def main(job: GenerationJob) -> None:
    generate(job)
