"""Scripted dialogues: the user's turns of one sample of one row, and the replies so far."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain

from lima_ray.config.errors import SHOWN_ERRORS, UserError, join_names
from lima_ray.config.sections import Sampling
from lima_ray.records.example import Example
from lima_ray.records.reply import Reply

Key = tuple[str, int]
"""A row's id, and the number of the sample."""


@dataclass
class Script:
    row: Example
    sample: int
    replies: list[str] = field(default_factory=list)

    @property
    def key(self) -> Key:
        return self.row.id, self.sample

    @property
    def prompt(self) -> tuple[str, ...]:
        """The row up to its last user turn; a reference reply after it is not shown."""
        return self.row.turns[: (len(self.row.turns) - 1) // 2 * 2 + 1]

    @property
    def follow_ups(self) -> list[str]:
        """The user's turns after each reply but the last."""
        return self.row.extra.get("follow_ups", [])

    @property
    def turns(self) -> int:
        """Replies that the whole script asks for."""
        return 1 + len(self.follow_ups)

    @property
    def finished(self) -> bool:
        return len(self.replies) >= self.turns

    @property
    def dialogue(self) -> tuple[str, ...]:
        """The turns to reply to next, the user's last."""
        return *self.prompt, *chain.from_iterable(zip(self.replies, self.follow_ups, strict=False))

    def next_sampling(self, sampling: Sampling) -> Sampling:
        """Return the next turn's sampling, with a seed of row, sample and turn alone."""
        name = json.dumps([sampling.seed, *self.key, len(self.replies)])
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) >> 1
        return sampling.model_copy(update={"seed": seed})

    def record_reply(
        self, model: str, sampling: Sampling, text: str, stopped: bool, n_tokens: int | None
    ) -> Reply:
        taken = {*Reply.__dataclass_fields__, "follow_ups"}
        record = Reply(
            id=self.row.id,
            conversations=self.dialogue,
            model=model,
            sample=self.sample,
            turn=len(self.replies),
            reply=text,
            stopped=stopped,
            n_tokens=n_tokens,
            seed=self.next_sampling(sampling).seed,
            source=self.row.source,
            system=self.row.system,
            extra={k: v for k, v in self.row.extra.items() if k not in taken},
        )
        self.replies.append(text)
        return record


def check_prompt_lengths(
    scripts: Iterable[Script],
    prompt_ids: Callable[[Sequence[str], str | None], list[int]],
    context: int,
    sampling: Sampling,
) -> int:
    """Refuse prompts that leave no room for a reply.

    Args:
        prompt_ids: token ids of a dialogue with a system message, as the model sees it.
        sampling: its `context` bounds prompt and reply together.

    Returns:
        most tokens of prompt and reply together.
    """
    limit = min(sampling.context, context)
    prompts = {s.row.id: (s.prompt, s.row.system) for s in scripts}
    lengths = {id: len(prompt_ids(*prompt)) for id, prompt in prompts.items()}
    long = [f"{id} ({n} tokens)" for id, n in lengths.items() if n >= limit]
    if long:
        raise UserError(
            f"{len(long)} of {len(prompts)} prompts leave no room for a reply: prompt and "
            f"reply together have {limit} tokens, the less of sampling.context "
            f"{sampling.context} and the model's context {context}. "
            f"Shorten or remove {join_names(long, SHOWN_ERRORS)}"
        )
    return limit
