"""A study of made-up replies, for tests and their browsers.

python tests/support/study_server.py FOLDER PORT [--FLAG VALUE ...]
"""

import sys
from pathlib import Path

from lima_ray.config.command_line import run_command
from lima_ray.records.files import write_jsonl
from lima_ray.records.reply import Reply

SYSTEMS = ("zebulon-one", "quixotic-two")
"""Names that stand in no text and in none of Gradio's files."""
PROMPTS = 12
QUESTION = "How do I thicken sauce number {n}? It should be **smooth**, and safe for children."
REPLIES = (
    """Stir it **slowly**, {n} times.

- first the milk, see List<int> & <b>this</b>
- then the flour

```python
for _ in range({n}):
    stir("<milk>")
```

It holds $$x^2 = {n}$$ grams. <script>document.title = 'taken over'</script>""",
    """## Sauce {n}

Take cornstarch, a spoon for each cup, mix it with cold water and pour it in while it simmers.

1. Mix cornstarch and water.
2. Stir for two minutes.

<img src=x onerror="document.title = 'taken over'"> Serve at once; what stays thickens further.""",
)


def replies(place: int, name: str, prompts: int = PROMPTS) -> list[Reply]:
    """Return the replies of a system, the first one's by place 0."""
    return [
        Reply(f"p{n}", (QUESTION.format(n=n),), name, 0, 0, REPLIES[place].format(n=n), True)
        for n in range(1, prompts + 1)
    ]


def write_replies(folder: Path, prompts: int = PROMPTS) -> list[str]:
    """Write the replies of both systems, and return what the command is given for them."""
    references = []
    for place, name in enumerate(SYSTEMS):
        out = folder / f"replies-{name}"
        out.mkdir(parents=True, exist_ok=True)
        rows = replies(place, name, prompts)
        write_jsonl([row.to_json() for row in rows], out / "replies.jsonl")
        references.append(f"{name}={out}")
    return references


if __name__ == "__main__":
    folder, port, *flags = sys.argv[1:]
    references = write_replies(Path(folder))
    where = ["--out", str(Path(folder) / "study"), "--port", port, "--no_open"]
    run_command("study", [*references, *where, *flags])
