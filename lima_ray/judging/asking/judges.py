"""Judges of a study: the exact rules, or models behind OpenAI-compatible endpoints.

parse_judge("exact")
parse_judge("gpt-4o@https://api.openai.com/v1,input_usd=2.5,output_usd=10,requests_per_minute=500")
"""

import re
from collections.abc import Sequence
from typing import Self

from pydantic import Field, ValidationError, model_validator

from lima_ray.config.errors import UserError, describe_invalid
from lima_ray.config.flags import did_you_mean
from lima_ray.config.secrets.reading import KEY_ENV
from lima_ray.config.sections import Sampling, Section
from lima_ray.generation.client import Client
from lima_ray.generation.endpoint import Endpoint, check_url, read_key
from lima_ray.judging.questions.item import Item
from lima_ray.judging.questions.reading import find_contradiction, read_judgement
from lima_ray.judging.questions.verdicts import Annotator, record_verdict
from lima_ray.judging.questions.wording import load_wording
from lima_ray.records.verdict import Verdict

EXACT = Annotator("exact", "exact")
JUDGE_SAMPLING = Sampling(temperature=0, top_p=1, repetition_penalty=1, max_new_tokens=1024)
SPECIFICATION = re.compile(r"(?P<model>[^,]+)@(?P<url>https?://[^,]+)(?P<fields>(?:,[^,]*)*)")


class EndpointJudge(Section):
    """A model that judges, and how it is asked."""

    model: str = Field(min_length=1)
    """Its name at the endpoint."""
    url: str
    """Base URL of the endpoint, ending in /v1."""
    name: str = ""
    """What verdicts call it; empty takes the model's name."""
    family: str = ""
    """Of models, to compare its verdicts on relatives with those on others."""
    input_usd: float | None = Field(default=None, ge=0)
    """Price of a million tokens sent, in USD; none is not known."""
    output_usd: float | None = Field(default=None, ge=0)
    """Price of a million tokens received."""
    api_key_env: str = KEY_ENV
    """Environment variable that holds the key."""
    requests_per_minute: float = Field(default=0, ge=0)
    """Most requests sent in a minute; 0 sets no limit."""
    concurrency: int = Field(default=8, ge=1)
    """Requests on their way at once."""
    retries: int = Field(default=5, ge=0)
    """How often a request that failed is sent again."""
    timeout_s: float = Field(default=600, gt=0)
    """Longest wait for one judgement, in seconds."""
    backoff_s: float = Field(default=0.5, ge=0)
    """Wait before the first retry; it doubles with each."""
    temperature: float = Field(default=JUDGE_SAMPLING.temperature, ge=0, le=2)
    """Divides the logits; 0 always takes the likeliest token."""
    max_new_tokens: int | None = Field(default=JUDGE_SAMPLING.max_new_tokens, ge=1)
    """Longest judgement, in tokens."""
    seed: int = 0
    """Seed of its draws."""

    @model_validator(mode="after")
    def _has_both_prices(self) -> Self:
        if (self.input_usd is None) != (self.output_usd is None):
            raise ValueError("one price alone tells no cost; give both input_usd and output_usd")
        return self

    @property
    def sampling(self) -> Sampling:
        changes = {"temperature": self.temperature, "seed": self.seed}
        changes |= {"max_new_tokens": self.max_new_tokens}
        return JUDGE_SAMPLING.model_copy(update=changes)

    @property
    def annotator(self) -> Annotator:
        # Under a name of its own another model is another judge all the same.
        renamed = {"model": self.model} if self.name and self.name != self.model else {}
        asked = self.sampling.model_dump(mode="json") | renamed
        return Annotator(self.name or self.model, "endpoint", asked)

    @property
    def endpoint(self) -> Endpoint:
        shared = set(Endpoint.model_fields) & set(type(self).model_fields)
        return Endpoint(**{name: getattr(self, name) for name in shared})

    def cost(self, input_tokens: float, output_tokens: float) -> float | None:
        """Return USD of so many tokens; none where a price is not known."""
        if self.input_usd is None or self.output_usd is None:
            return None
        return (input_tokens * self.input_usd + output_tokens * self.output_usd) / 1e6


def parse_judges(specifications: Sequence[str]) -> tuple[list[EndpointJudge], bool]:
    """Return the endpoint judges, and whether the exact judge is among those named.

    Raises:
        UserError: none at all, one that cannot be read, or two of one name.
    """
    if not specifications:
        raise UserError("no judge: --judges exact, or --judges MODEL@http://HOST:PORT/v1")
    found = [parse_judge(text) for text in specifications if text != EXACT.name]
    names = [judge.annotator.name for judge in found] + [EXACT.name]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"several judges are called {twice[0]}; give one another: ,name=NAME")
    return found, EXACT.name in specifications


def parse_judge(text: str) -> EndpointJudge:
    """Read `MODEL@URL[,FIELD=VALUE ...]`, whose fields are those of `EndpointJudge`."""
    match = SPECIFICATION.fullmatch(text)
    if not match:
        raise UserError(
            f"{text!r} is no judge: write exact, or MODEL@URL such as "
            "gpt-4o@https://api.openai.com/v1,input_usd=2.5,output_usd=10"
        )
    fields: dict[str, str] = {"model": match["model"].strip(), "url": match["url"]}
    for part in filter(None, match["fields"].split(",")):
        name, equals, value = part.partition("=")
        if not equals or name in fields:
            raise UserError(f"judge {match['model']}: {part!r} is not FIELD=VALUE, each once")
        fields[name.strip()] = value.strip()
    check_url(match["url"])
    read_key(fields.get("api_key_env", KEY_ENV))
    names = list(EndpointJudge.model_fields)
    try:
        return EndpointJudge.model_validate(fields)
    except ValidationError as error:
        said = describe_invalid(
            error,
            f"judge {match['model']}",
            lambda name, _: f"there is no {name}{did_you_mean(name, names)}",
        )
        raise UserError(said) from error


async def ask(client: Client, judge: EndpointJudge, item: Item) -> Verdict:
    """Return a model's verdict on an item, read or unreadable.

    Raises:
        Unanswered: no usable answer came.
        UserError: the endpoint refuses.
    """
    wording = load_wording(item.kind, item.whole)
    prompt = wording.prompt(item)
    answer = await client.chat([{"role": "user", "content": prompt}], judge.sampling)
    # A judgement that was cut off ends anywhere, so its last line says nothing.
    said = read_judgement(wording, answer.text) if answer.stopped else (None, answer.text)
    verdict, explanation = said
    # Some servers send a usage that counts nothing; no prompt has 0 tokens.
    counted = bool(answer.n_prompt_tokens) and answer.n_tokens is not None
    usage = {"input": answer.n_prompt_tokens, "output": answer.n_tokens} if counted else None
    contradicts = None if verdict is None else find_contradiction(wording, verdict, explanation)
    return record_verdict(
        item,
        judge.annotator,
        verdict,
        status="unreadable" if verdict is None else "read",
        explanation=explanation,
        snapshot=answer.snapshot,
        contradicts=contradicts,
        usage=usage,
        estimated_input=count_tokens(prompt),
        estimated_output=None if counted else count_tokens(answer.text),
    )


def unanswered(judge: EndpointJudge, item: Item, error: str) -> Verdict:
    return record_verdict(item, judge.annotator, None, status="unanswered", explanation=error)


def count_tokens(text: str) -> int:
    """Estimate tokens: four ASCII characters each, and one for every other character."""
    ascii_characters = len(text.encode("ascii", "ignore"))
    return -(-ascii_characters // 4) + len(text) - ascii_characters
