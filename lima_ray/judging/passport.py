"""Is this judge any good? What its verdicts on a fixed set say of the judge itself.

passports = measure(verdicts, people, judges, families)
write_passports(passports, out)               # passport.json
judges_without(verdicts, read_passports(...)) # who is to be marked

An order bias shows in the two orders of a pair, whatever the replies are worth. A liking for length
or for relatives shows only beside people, since the longer reply may be the better one.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lima_ray.records.files import explain_write_errors, read_json, write_json
from lima_ray.records.verdict import Verdict
from lima_ray.results.statistics.agreement_table import GroupAgreement
from lima_ray.results.statistics.bradley_terry import Coefficient
from lima_ray.results.statistics.clustered import ClusteredMean, Rate

PASSPORT_FILE = "passport.json"
MOST_UNREAD = 0.05
"""Share of verdicts that are not read, from which a judge is marked."""


@dataclass(frozen=True)
class Passport:
    """What is known of a judge; NaN and none stand for what these verdicts cannot say."""

    judge: str
    snapshots: list[str]
    wordings: list[str]
    """Hashes of the words in which it was asked."""
    n_verdicts: int
    n_prompts: int
    read: Rate
    consistency: Rate
    """Both orders of a pair give the same verdict."""
    first_slot: Rate
    """The reply shown first is preferred."""
    first_slot_margin: ClusteredMean
    """How much more often the reply shown first is preferred than the second; 0 is unbiased."""
    length_slope: Coefficient
    """Added log odds of a win per unit of tanh(length difference / its deviation); NaN also where
    length alone decides."""
    longer_preferred: Rate
    """The longer reply wins, of verdicts that decide between replies of unequal length."""
    people_longer_preferred: Rate | None
    """The same of people, on the pairs that both judged."""
    contradictions: int
    """Verdicts that contradict the last sentence of their reasoning."""
    agreement: GroupAgreement | None
    """With people."""
    people_agreement: GroupAgreement | None
    """Among people, on what they share: what can be expected of a judge."""
    family_gap: ClusteredMean | None
    """Points (1 a win, 0.5 a tie) that it gives its own family's replies above what people give."""

    @property
    def problems(self) -> list[str]:
        """What speaks against the judge, by 95 % intervals."""
        found = []
        margin, longer, people = (
            self.first_slot_margin,
            self.longer_preferred,
            self.people_longer_preferred,
        )
        # A judge that always takes one side has no spread, and so no interval.
        if margin.low > 0 or margin.high < 0 or abs(margin.mean) == 1:
            found.append(f"prefers the reply shown {'first' if margin.mean > 0 else 'second'}")
        if people is None and longer.low > 0.5:
            found.append("prefers longer replies; whether people do as well is not known")
        elif people and longer.low > max(0.5, people.high):
            found.append("prefers longer replies more than people do")
        if self.read.value < 1 - MOST_UNREAD:
            found.append(f"{1 - self.read.value:.0%} of its verdicts are not read")
        if self.agreement and not self.agreement.kappa.low > 0:
            found.append("does not agree with people beyond chance")
        if self.family_gap and self.family_gap.low > 0:
            found.append("prefers its own family")
        return found

    def describe(self) -> str:
        """Return the passport as lines for a terminal."""
        people = self.people_longer_preferred
        lines = [
            f"passport of {self.judge} ({self.n_verdicts} verdicts on {self.n_prompts} prompts)",
            f"  the same verdict in both orders   {_percent(self.consistency)}",
            f"  the reply shown first preferred   {_percent(self.first_slot)}",
            f"  longer reply preferred            {_percent(self.longer_preferred)}"
            + (f", by people {_percent(people)}" if people else ""),
            f"  slope on length (log odds)        {_number(self.length_slope)}",
            f"  verdicts that were read           {_percent(self.read)}",
            f"  contradict their reasoning        {self.contradictions}",
        ]
        for name, one in (("", self.agreement), (" among themselves", self.people_agreement)):
            if one:
                kappa, accuracy = one.kappa.value, one.tie_discounted
                lines.append(
                    f"  {'agreement of people' if name else 'agreement with people'}{name}: "
                    f"{_share(accuracy.value)} tie-discounted "
                    f"[{_share(accuracy.low)}, {_share(accuracy.high)}], kappa {kappa:.2f}, "
                    f"{one.n_items} items"
                )
        if self.family_gap:
            lines.append(f"  gap to its own family             {self.family_gap.mean:+.3f}")
        lines.append(f"  {'; '.join(self.problems) or 'nothing speaks against it here'}")
        return "\n".join(lines)


def write_passports(passports: Sequence[Passport], folder: Path) -> None:
    """Write passport.json; passports of other judges that stand there are kept."""
    file = folder / PASSPORT_FILE
    now = {one.judge: _plain(asdict(one) | {"problems": one.problems}) for one in passports}
    with explain_write_errors(file, "--out"):
        write_json(file, (read_json(file) or {}) | now)


def judges_without(verdicts: Iterable[Verdict], folders: Iterable[Path]) -> list[str]:
    """Return the models that judged and of whose snapshot no folder has a passport."""
    known: dict[str, set[str]] = defaultdict(set)
    for folder in folders:
        for name, passport in (read_json(folder / PASSPORT_FILE) or {}).items():
            known[name] |= {"", *passport.get("snapshots", [])}
    found = {
        verdict.annotator
        for verdict in verdicts
        if verdict.extra.get("annotator_kind") == "endpoint"
        and verdict.extra.get("snapshot", "") not in known[verdict.annotator]
    }
    return sorted(found)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, null for NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _percent(rate: Rate) -> str:
    return f"{_share(rate.value)} [{_share(rate.low)}, {_share(rate.high)}]"


def _number(one: Coefficient) -> str:
    return "-" if math.isnan(one.value) else f"{one.value:+.2f} [{one.low:+.2f}, {one.high:+.2f}]"


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f} %"
