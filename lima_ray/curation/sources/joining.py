"""Questions joined with their top answers, whichever parts of a dump these stand in.

A part of the first stage names its site and holds two tables: `questions` with a number `id`, and
`answers` with `parent`, `id`, `score` and what their source needs of them.
"""

import base64
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lima_ray.curation.candidate import Part
from lima_ray.curation.stages import Task


def join_tasks(parts: Sequence[Part]) -> list[Task]:
    """Return a task for each part that holds questions, with the top answer of each of them.

    Of a question's answers that with the highest score is the top one, of equal ones the oldest.
    """
    by_site: dict[str, list[Part]] = {}
    for part in parts:
        by_site.setdefault(part.counts["extra"]["site"]["name"], []).append(part)
    return [task for name, those in by_site.items() for task in join_site(name, those)]


def join_site(name: str, parts: Sequence[Part]) -> Iterator[Task]:
    """Yield the tasks of one site."""
    columns = ["parent", "id", "score"]
    tables = [part.read("answers", columns) for part in parts]
    source_N = np.repeat(np.arange(len(parts)), [len(t) for t in tables])
    row_N = np.concatenate([np.arange(len(t)) for t in tables])
    parent_N, id_N, score_N = (
        np.concatenate([t[c].to_numpy() for t in tables]).astype(np.int64) for c in columns
    )
    order_N = np.lexsort((id_N, -score_N, parent_N))
    _, first = np.unique(parent_N[order_N], return_index=True)
    top_Q = order_N[first]  # one for each question that has an answer of enough score
    parent_Q = parent_N[top_Q]
    for number, part in enumerate(parts):
        ids = part.read("questions", ["id"])["id"].to_numpy()
        if not len(ids):
            continue
        found = np.flatnonzero(np.isin(parent_Q, ids))
        needed = sorted({int(source_N[top_Q[f]]) for f in found})
        index = {source: i for i, source in enumerate(needed)}
        of_part = top_Q[found]
        answers_Q = np.array([index[int(source)] for source in source_N[of_part]], dtype=np.int64)
        tops = pack(np.stack([parent_Q[found], answers_Q, row_N[of_part], id_N[of_part]]))
        arguments = {"part": str(part.folder), "tops": tops}
        arguments |= {"answers": [str(parts[n].folder) for n in needed], "site": name}
        yield Task(f"{name}-joined-{number:05}", arguments)


def pack(tops_4Q: np.ndarray) -> str:
    """Return numbers as a text: a site has millions of questions, and tasks wait in memory."""
    return base64.b64encode(zlib.compress(tops_4Q.astype("<i8").tobytes(), 1)).decode()


def unpack_tops(arguments: Mapping[str, Any]) -> dict[int, tuple[int, int, int]]:
    """Return part, row and id of the top answer by question, from a task's arguments."""
    packed = zlib.decompress(base64.b64decode(arguments["tops"]))
    tops_4Q = np.frombuffer(packed, "<i8").reshape(4, -1)
    return {question: (part, row, id) for question, part, row, id in tops_4Q.T.tolist()}


def read_answers(
    parts: Sequence[Part], tops: Mapping[int, Sequence[int]]
) -> dict[int, dict[str, Any]]:
    """Return the top answer of each question.

    Args:
        parts: that hold them, of which one at a time is in memory.
        tops: part, row and id of the answer, by question.
    """
    by_part: dict[int, list[tuple[int, int]]] = {}
    for question, (part, row, _) in tops.items():
        by_part.setdefault(part, []).append((row, question))
    found = {}
    for part, those in by_part.items():
        rows = parts[part].take([row for row, _ in those], "answers").to_pylist()
        found |= {question: row for (_, question), row in zip(those, rows, strict=True)}
    return found
