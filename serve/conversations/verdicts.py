"""What a person makes of replies, as a verdict that holds their texts and how they were made."""

from collections.abc import Sequence
from typing import Any

from lima_ray.records.verdict import Verdict, prompt_id
from serve.conversations.dialogue import Turn, now


def verdict_on(
    replies: Sequence[Turn], prompt: Sequence[Turn], system: str, **fields: Any
) -> Verdict:
    """Return the verdict on replies, in the order of its `models`, to the turns before them."""
    conversations = [turn.content for turn in prompt]
    return Verdict(
        id=prompt_id(conversations, system or None),
        models=tuple(turn.model or "" for turn in replies),
        extra={
            "conversations": conversations,
            "system": system or None,
            "replies": [turn.content for turn in replies],
            "revisions": [turn.revision for turn in replies],
            "sampling": [turn.sampling for turn in replies],
            "seeds": [turn.seed for turn in replies],
            "created": now().isoformat(),
            **fields.pop("extra", {}),
        },
        **fields,
    )
