"""The API's requests: OpenAI's fields that are honoured, ours beside them, and no others.

A field is honoured, or refused by name; none is passed over. Fields of OpenAI's that ask for
nothing at their neutral value (`presence_penalty` 0, say) may be sent at that value.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from lima_ray.config.sections import Sampling
from serve.api.errors import NEUTRAL

UNSET = {
    *NEUTRAL,
    "audio",
    "prediction",
    "reasoning_effort",
    "verbosity",
    "web_search_options",
    "prompt_cache_key",
    "safety_identifier",
    "name",
    "refusal",
    "tool_calls",
    "annotations",
}
"""Fields of OpenAI's that are not honoured and may be null."""
MAX_CHOICES = 16
MAX_MESSAGES = 4096
MAX_PROMPTS = 64
MAX_STOPS = 16
MAX_SEED = 2**63 - 1

Text = Annotated[str, StringConstraints(max_length=2**22)]
StopString = Annotated[str, StringConstraints(min_length=1, max_length=256)]
PAPER = Sampling()


class StrictModel(BaseModel):
    """A JSON object whose every field is known."""

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_what_asks_for_nothing(cls, data: Any) -> Any:
        """Take out known fields at their neutral value; others stay and are refused by name."""
        if not isinstance(data, dict):
            return data
        return {
            name: value
            for name, value in data.items()
            if name in cls.model_fields
            or not (
                (value is None and name in UNSET)
                or any(
                    value == neutral and isinstance(value, bool) == isinstance(neutral, bool)
                    for neutral in NEUTRAL.get(str(name), ())
                )
            )
        }


class TextPart(StrictModel):
    """A piece of a message's content."""

    type: Literal["text"]
    text: Text


class Message(StrictModel):
    """One turn of a dialogue, or the system message before it."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(max_length=1024)]

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class StreamOptions(StrictModel):
    """What a stream tells beside its text."""

    include_usage: bool = False
    """End with a chunk that has the numbers of tokens."""
    include_obfuscation: Literal[False] = False
    """OpenAI's padding of chunks; there is none here."""


class GenerationRequest(StrictModel):
    """What both kinds of completions share."""

    model: str = Field(max_length=256)
    """A name that GET /v1/models lists."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """Divides the logits; 0 always takes the likeliest token. Unset is the paper's 0.7."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Nucleus. Unset is the paper's 0.9."""
    repetition_penalty: float | None = Field(default=None, ge=1, le=10)
    """Makes tokens generated before less likely. Unset is the paper's 1.2."""
    penalise_prompt: bool | None = None
    """Penalise the prompt's tokens too; the paper's form does not."""
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    """Choices for each prompt; choice i has the seed `seed + i`."""
    stop: StopString | Annotated[list[StopString], Field(max_length=MAX_STOPS)] | None = None
    """Texts that end a reply before themselves."""
    seed: int | None = Field(default=None, ge=-MAX_SEED, le=MAX_SEED)
    """Seed of the draws. Unset takes a new one, which the answer tells."""
    stream: bool | None = None
    """Send the reply as it comes, as server-sent events."""
    stream_options: StreamOptions | None = None
    user: str | None = Field(default=None, max_length=256)
    """Who asks; written into the access log."""
    return_token_ids: bool | None = None
    """Tell the token ids of the prompt and of each reply."""

    @model_validator(mode="after")
    def _stream_options_need_a_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is given, but stream is not true")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def sampling(self, seed: int, max_new_tokens: int | None, context: int) -> Sampling:
        """Return how to decode one choice.

        A reply has `max_new_tokens` at most where given; prompt and reply together have `context`.
        """
        fields = {"temperature", "top_p", "repetition_penalty", "penalise_prompt"}
        given = self.model_dump(include=fields, exclude_none=True)
        limits = {"max_new_tokens": max_new_tokens, "context": context}
        return PAPER.model_copy(update=given | limits | {"seed": seed})


class ChatRequest(GenerationRequest):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    """A system message where there is one, then user and assistant in turn; the user ends."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Most tokens of a reply; it ends in any case where the model's context does."""
    max_completion_tokens: int | None = Field(default=None, ge=1)
    """The newer name of max_tokens."""
    logprobs: bool | None = None
    """Tell each token's log probability by the model alone."""
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    """Likeliest tokens told beside each."""
    overflow: Literal["error", "drop_oldest"] | None = None
    """A dialogue that leaves no room for a reply: refuse it, or drop its oldest exchanges (the
    answer tells how many messages)."""

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs is given, but logprobs is not true")
        if None not in (self.max_tokens, self.max_completion_tokens) and (
            self.max_tokens != self.max_completion_tokens
        ):
            raise ValueError("max_tokens and max_completion_tokens differ; give one of them")
        return self

    @property
    def max_new_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def alternatives(self) -> int | None:
        """Return how many likeliest tokens to tell; none tells no log probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None


Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=2**17)]


class CompletionRequest(GenerationRequest):
    """POST /v1/completions: plain text to go on with, without the chat template."""

    prompt: (
        Text
        | Ids
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_PROMPTS)]
        | Annotated[list[Ids], Field(min_length=1, max_length=MAX_PROMPTS)]
    )
    """One text, or one list of token ids, or several of either."""
    max_tokens: int | None = Field(default=16, ge=1)
    """Most tokens of a reply; null leaves it to the model's context."""
    logprobs: int | None = Field(default=None, ge=0, le=20)
    """Likeliest tokens told with each token's own log probability."""
    echo: bool | None = None
    """Begin the text with the prompt; not together with logprobs."""

    @model_validator(mode="after")
    def _echo_has_no_logprobs(self) -> Self:
        if self.echo and self.logprobs is not None:
            raise ValueError("echo with logprobs asks for the prompt's, which are not computed")
        return self

    @property
    def max_new_tokens(self) -> int | None:
        return self.max_tokens

    @property
    def alternatives(self) -> int | None:
        return self.logprobs

    @property
    def prompts(self) -> list[str | list[int]]:
        """Return the prompts, always as a list."""
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return [self.prompt]  # pyright: ignore[reportReturnType]
        return self.prompt  # pyright: ignore[reportReturnType]
