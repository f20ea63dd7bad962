"""Verdicts as CSV, a row each, for spreadsheets."""

import csv
import io
from collections.abc import Iterable

from lima_ray.records.verdict import Verdict

FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")
"""How text begins that a spreadsheet would run or swallow."""
COLUMNS = (
    *("id", "sample", "turn", "group", "kind", "annotator", "annotator_kind", "snapshot"),
    *("status", "verdict", "model_A", "model_B", "preferred", "grade", "explanation", "key"),
)


def write_table(verdicts: Iterable[Verdict]) -> str:
    """Return verdicts as CSV; cells that a spreadsheet would take for a formula begin with `'`."""
    out = io.StringIO()
    rows = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    rows.writeheader()
    for verdict in verdicts:
        rows.writerow({name: neutralise(value) for name, value in _row(verdict).items()})
    return out.getvalue()


def neutralise(value: object) -> object:
    """Return a cell that no spreadsheet takes for a formula; numbers stay numbers."""
    text = isinstance(value, str) and value.lstrip(" \n\xa0\u200b\ufeff").startswith(FORMULA)
    return f"'{value}" if text else value


def _row(verdict: Verdict) -> dict[str, object]:
    order = verdict.order or range(len(verdict.models))
    shown = [*(verdict.models[place] for place in order), "", ""][:2]
    preferred = {"A": shown[0], "B": shown[1]}.get(str(verdict.verdict), verdict.verdict)
    return {
        "id": verdict.id,
        "sample": verdict.sample,
        "turn": verdict.turn,
        "group": verdict.group,
        "kind": verdict.kind,
        "annotator": verdict.annotator,
        "annotator_kind": verdict.extra.get("annotator_kind", ""),
        "snapshot": verdict.extra.get("snapshot", ""),
        "status": verdict.status,
        "verdict": verdict.verdict,
        "model_A": shown[0],
        "model_B": shown[1],
        "preferred": preferred if verdict.kind == "pairwise" else "",
        "grade": verdict.grade,
        "explanation": verdict.explanation,
        "key": verdict.key,
    }
