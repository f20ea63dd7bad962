"""Arguments of `lima_ray.judge`."""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field

from lima_ray.config.sections import ReadPath, Spending
from lima_ray.judging.questions.design import Orders
from lima_ray.judging.questions.item import ItemKind


class JudgeCommand(Spending):
    """Whose replies are judged, by whom, and what it may cost."""

    replies: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME=REPLIES")]
    """Replies of each model: a directory of replies, its replies.jsonl, or a table (CSV, JSON,
    Parquet) with a column of replies and one of prompts, ids or both."""
    out: Path
    """Directory for verdicts.jsonl; the same directory goes on where an earlier command stopped."""
    kind: ItemKind = "pairwise"
    """pairwise: A, B or neither; grade: 1 to 6; audit: excellent, pass or fail; safety: safe or
    unsafe."""
    judges: tuple[str, ...] = ()
    """exact, or MODEL@URL of an OpenAI-compatible endpoint with ,FIELD=VALUE after it: input_usd
    and output_usd (of a million tokens), requests_per_minute, concurrency, api_key_env, name,
    family, temperature, max_new_tokens, retries, timeout_s."""
    whole: bool = False
    """Judge dialogues as a whole, instead of each of their replies."""
    pairs: Literal["first", "all"] = "first"
    """Compare each model with the first, or every two."""
    orders: Orders = "both"
    """Ask each pair in both orders, in one drawn by the seed, or as the models are given."""
    seed: int = 0
    """Seed of the orders."""
    prompts: str = ""
    """What the models were asked, where replies are tables without prompts; replies to others are
    refused."""
    split: str = "test"
    """Split of prompts that are a directory or a dataset of the hub."""
    ids: tuple[str, ...] = ()
    """Judge replies to these prompts alone."""
    missing: Literal["stop", "drop"] = "stop"
    """Where a model lacks replies: stop and name them, or drop these prompts for every model."""
    dry_run: bool = False
    """Tell calls, tokens and money, and ask nothing."""
    allow_self: bool = False
    """Let a model judge its own replies."""
    unreadable: Literal["keep", "ask"] = "keep"
    """Unreadable answers of an earlier run: keep them as such, or ask again and pay again."""
    workers: int | None = Field(default=None, ge=0)
    """Ray actors that ask; none takes one for each node of a cluster that is joined (RAY_ADDRESS),
    and otherwise asks from this process, as 0 does."""
    passport: bool = False
    """Tell how far the judges can be trusted, and write passport.json: pairs in both orders."""
    passports: tuple[ReadPath, ...] = ()
    """Directories with a passport.json of the judges; verdicts of judges without are marked."""
    people: tuple[ReadPath, ...] = ()
    """With --passport: people's verdicts on these replies, a verdicts.jsonl each."""
    families: tuple[str, ...] = ()
    """With --passport: NAME=FAMILY of judged models, beside a judge's ,family=FAMILY."""
