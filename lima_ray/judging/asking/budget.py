"""What a study will cost: calls, tokens and money, told before the first call.

Tokens sent are estimated at four ASCII characters a token and one token for every other character,
scaled by what the same judge's earlier answers counted in this directory. Judgements are estimated
at the mean length of those answers, or 250 tokens before there are any; at most they have
`max_new_tokens`. A request that is sent again after a failure may be paid for again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lima_ray.config.errors import UserError
from lima_ray.judging.asking.judges import EndpointJudge, count_tokens
from lima_ray.judging.questions.item import Item
from lima_ray.judging.questions.wording import load_wording
from lima_ray.records.verdict import Verdict

OUTPUT_TOKENS = 250
"""Of a judgement with its reasoning, before any was seen."""


@dataclass(frozen=True)
class Usage:
    """Tokens of answers that came."""

    calls: int
    input_tokens: float
    output_tokens: float
    estimated_input: float
    """What was estimated of the same calls."""


@dataclass(frozen=True)
class Estimate:
    """What one judge will be asked."""

    judge: EndpointJudge
    calls: int
    input_tokens: float
    output_tokens: float
    most_output_tokens: float | None
    """If every judgement is as long as it may be; none where it has no limit."""

    @property
    def usd(self) -> float | None:
        return self.judge.cost(self.input_tokens, self.output_tokens)

    @property
    def most_usd(self) -> float | None:
        return self.judge.cost(self.input_tokens, self.most_output_tokens or self.output_tokens)

    def times(self, count: int) -> "Estimate":
        """Return what the same takes so many times."""
        most = self.most_output_tokens
        return Estimate(
            self.judge,
            self.calls * count,
            self.input_tokens * count,
            self.output_tokens * count,
            None if most is None else most * count,
        )

    def plus(self, other: "Estimate") -> "Estimate":
        """Return what both take together, of one judge."""
        most = self.most_output_tokens, other.most_output_tokens
        return Estimate(
            self.judge,
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            None if None in most else sum(filter(None, most)),
        )

    def describe(self) -> str:
        said = (
            f"{self.judge.annotator.name}: {self.calls:,} calls, about {self.input_tokens:,.0f} "
            f"tokens in and {self.output_tokens:,.0f} out"
        )
        if self.usd is None or self.most_usd is None:
            return f"{said}; no price is given (input_usd, output_usd)"
        return f"{said}, ${self.usd:,.2f}, at most ${self.most_usd:,.2f}"


def estimate(judge: EndpointJudge, items: Sequence[Item], earlier: Iterable[Verdict]) -> Estimate:
    """Estimate what asking a judge will take.

    Args:
        earlier: verdicts of the same directory; those of the same judge scale the estimate.
    """
    seen = usage_of(judge, earlier)
    prompts = (load_wording(item.kind, item.whole).prompt(item) for item in items)
    plain = float(sum(map(count_tokens, prompts)))
    scale = seen.input_tokens / seen.estimated_input if seen.estimated_input else 1.0
    each = seen.output_tokens / seen.calls if seen.calls else OUTPUT_TOKENS
    limit = judge.max_new_tokens
    return Estimate(
        judge=judge,
        calls=len(items),
        input_tokens=plain * scale,
        output_tokens=len(items) * min(each, limit or each),
        most_output_tokens=None if limit is None else float(len(items) * limit),
    )


def usage_of(judge: EndpointJudge, verdicts: Iterable[Verdict]) -> Usage:
    """Return the tokens that a judge's answers counted, of those whose server counts."""
    rows = [
        (used["input"], used["output"], verdict.extra.get("estimated_input", 0))
        for verdict in verdicts
        if verdict.annotator == judge.annotator.name
        and {"input", "output"} <= set(used := verdict.extra.get("usage") or {})
    ]
    sent, received, estimated = map(sum, zip(*rows, strict=True)) if rows else (0, 0, 0)
    return Usage(len(rows), sent, received, estimated)


def spent_usd(judge: EndpointJudge, verdict: Verdict) -> float:
    """Return what an answer cost; where its server counts no tokens, by estimate."""
    used = verdict.extra.get("usage") or {
        "input": verdict.extra.get("estimated_input", 0),
        "output": verdict.extra.get("estimated_output", 0),
    }
    return judge.cost(used.get("input", 0), used.get("output", 0)) or 0.0


def describe_usage(judge: EndpointJudge, used: Usage) -> str:
    """Return what a run used, beside what was estimated of it."""
    off = used.input_tokens / used.estimated_input - 1 if used.estimated_input else 0.0
    said = (
        f"{judge.annotator.name}: used {used.input_tokens:,.0f} tokens in ({off:+.0%} of four "
        f"characters a token) and {used.output_tokens:,.0f} out in {used.calls:,} answers"
    )
    usd = judge.cost(used.input_tokens, used.output_tokens)
    return said if usd is None else f"{said}, ${usd:,.2f}"


def confirm(estimates: Sequence[Estimate], limit_usd: float, asks: bool) -> bool:
    """Let a person decide above a limit; return whether one has accepted more.

    Args:
        asks: whether somebody is there to answer: a terminal.

    Raises:
        UserError: nobody is there, or the answer is no.
    """
    most = sum(one.most_usd or 0 for one in estimates)
    if most <= limit_usd:
        return False
    told = f"this may cost ${most:,.2f}, more than limit_usd ${limit_usd:,.2f}"
    if not asks:
        raise UserError(f"{told}; --yes accepts it, --limit_usd sets another limit")
    if input(f"{told}. Go on? [y/N] ").strip().casefold() not in ("y", "yes"):
        raise UserError("nothing was asked")
    return True
