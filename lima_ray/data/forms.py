"""The forms in which people keep dialogues, each made into turns: LIMA, `messages`, ShareGPT,
Alpaca, and pairs of prompt and completion.

Nothing that would change what is learned is passed over: a turn may say that it is not learned
(`weight` 0, `train` false), and what a dialogue of texts cannot hold (tool calls, reasoning,
images) is refused by name.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from lima_ray.config.errors import UserError
from lima_ray.config.recipe import did_you_mean

ROLES = {
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "system",
}
TOOL_ROLES = ("tool", "function", "function_call", "function_response", "observation")
UNSUPPORTED = {
    "tool_calls": "a call of a tool",
    "function_call": "a call of a function",
    "tools": "tools that the model may call",
    "functions": "functions that the model may call",
    "reasoning_content": "reasoning beside the reply",
    "audio": "sound",
    "audios": "sound",
    "image": "an image",
    "images": "images",
    "video": "a film",
    "videos": "films",
}
"""Keys of rows and messages whose meaning a dialogue of texts cannot hold."""
UNSUPPORTED_IN_MESSAGES = UNSUPPORTED | {
    "tool_call_id": "a tool's answer",
    "reasoning": "reasoning beside the reply",
    "thinking": "reasoning beside the reply",
    "refusal": "a refusal beside the reply",
    "train_detail": "a loss on parts of a turn",
    "prefix": "a reply that is to be continued",
}
"""Those of messages alone; as keys of rows they are often notes about the row."""
LEARNED_KEYS = ("weight", "train", "training", "loss")
"""Keys of a message that say whether its turn is learned."""
KNOWN_FORMS = (
    "conversations, messages, instruction (with output) or prompt (with completion or response)"
)
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass
class ParsedRow:
    used: set[str]
    """The row's keys that are taken up in this."""
    turns: list[Any] = field(default_factory=list)
    learned: list[bool] = field(default_factory=list)
    """For each turn whether it may be learned; empty where the form cannot say."""
    system: Any = None


def parse_row(row: Any, where: str) -> ParsedRow:
    """Recognise a row's form and take its turns out; refuse what is wrong or cannot be held."""
    if not isinstance(row, dict):
        raise UserError(f"{where} is a JSON {type(row).__name__}; a row is an object")
    if half := next(find_lone_surrogates(row), None):  # first, since no message could show the row
        raise UserError(f"{where} has half of a character in {half}")
    form = next((form for key, form in FORMS.items() if key in row), None)
    if form is None:
        keys = ", ".join(map(str, row)) or "none"
        hint = "".join(did_you_mean(str(k), list(FORMS)) for k in row)[:80]
        raise UserError(f"{where} has the keys {keys}; a row has {KNOWN_FORMS}{hint}")
    if "chosen" in row and "rejected" in row:
        raise UserError(
            f"{where} is a preference (chosen and rejected); training here imitates one reply: "
            "keep the chosen one"
        )
    refuse_unsupported(row, UNSUPPORTED, where)
    parsed = form(row, where)
    given = [key for key in ("system", "system_prompt") if row.get(key)]
    parsed.used |= {"system", *given}
    systems = [parsed.system, *(row[key] for key in given)]
    systems = [s for n, s in enumerate(systems) if s and s not in systems[:n]]
    if len(systems) > 1:
        raise UserError(f"{where} has two system messages, {systems[0]!r} and {systems[1]!r}")
    parsed.system = join_text_parts(systems[0], f"{where} system message") if systems else None
    if parsed.system is not None and not isinstance(parsed.system, str):
        kind = type(parsed.system).__name__
        raise UserError(f"{where} system message is a {kind}; it needs a string")
    return parsed


def refuse_unsupported(fields: dict[str, Any], unheld: dict[str, str], where: str) -> None:
    """Refuse a row or message with something that would be lost."""
    for key, meaning in unheld.items():
        if fields.get(key) not in (None, "", [], {}, False):
            raise UserError(
                f"{where} has {key}, {meaning}, which a dialogue of texts does not hold; write it "
                "into the content, or remove it"
            )


def parse_conversations(row: dict[str, Any], where: str) -> ParsedRow:
    """Return LIMA's alternating strings, or ShareGPT's `{"from", "value"}` objects."""
    turns = row["conversations"]
    if isinstance(turns, list) and turns and isinstance(turns[0], dict):
        return parse_messages(turns, where, {"conversations"})
    if not isinstance(turns, list):
        raise UserError(f"{where} conversations is a {type(turns).__name__}; it needs a list")
    parsed = ParsedRow({"conversations"}, turns)
    if row.get("weights") is not None:
        weights = row["weights"]
        if not isinstance(weights, list) or len(weights) != len(turns):
            raise UserError(
                f"{where} weights is {weights!r}; it needs a list of 0 and 1, one for each turn"
            )
        parsed.learned = [parse_learned(w, f"{where} weights") for w in weights]
        parsed.used.add("weights")
    return parsed


def parse_messages(messages: Any, where: str, used: set[str]) -> ParsedRow:
    """Return OpenAI's `{"role", "content"}` objects, an optional system message first."""
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise UserError(f"{where} messages must be a list of objects")
    parsed = ParsedRow(used)
    for number, message in enumerate(messages, start=1):
        place = f"{where} message {number}"
        role = parse_role(message, place)
        refuse_unsupported(message, UNSUPPORTED_IN_MESSAGES, place)
        content = join_text_parts(message.get("content", message.get("value")), place)
        if role == "system":
            if number > 1:
                raise UserError(f"{place} is a system message; it comes first")
            parsed.system = content
            continue
        if role != ("user", "assistant")[len(parsed.turns) % 2]:
            raise UserError(f"{place} is the {role}'s; turns alternate and the user's comes first")
        said = [
            parse_learned(message[k], f"{place} {k}")
            for k in LEARNED_KEYS
            if message.get(k) is not None
        ]
        parsed.turns.append(content)
        parsed.learned.append(all(said))
    return parsed


def parse_role(message: dict[str, Any], place: str) -> str:
    name = message.get("role", message.get("from"))
    plain = name.strip().lower() if isinstance(name, str) else ""
    if plain in TOOL_ROLES:
        raise UserError(
            f"{place} has the role {name!r}; tools are not trained here: write the exchange as the "
            "user's and assistant's words, or remove the row"
        )
    if plain not in ROLES:
        raise UserError(f"{place} has the role {name!r}; roles are user, assistant and system")
    return ROLES[plain]


def join_text_parts(content: Any, place: str) -> Any:
    """Return a message's text; parts of text are joined, and parts that are no text refused."""
    if not (isinstance(content, list) and content and all(isinstance(p, dict) for p in content)):
        return content
    texts = []
    for part in content:
        kind, text = part.get("type", "text"), part.get("text")
        if kind not in ("text", "input_text", "output_text") or not isinstance(text, str):
            raise UserError(
                f"{place} has a part of the type {kind!r}; a dialogue here holds texts alone"
            )
        texts.append(text)
    return "".join(texts)


def parse_learned(value: Any, place: str) -> bool:
    """Return whether a turn of this `weight` or `train` is learned."""
    if value not in (0, 1):
        raise UserError(f"{place} is {value!r}; a turn is learned (1, true) or not (0, false)")
    return bool(value)


def parse_pair(row: dict[str, Any], where: str) -> ParsedRow:
    """Return Alpaca's instruction, input and output after the exchanges of `history`, Dolly's
    instruction, context and response, or a prompt and its completion or response."""
    asked = "instruction" if "instruction" in row else "prompt"
    prompt = row[asked]
    replies = [key for key in ("output", "response", "completion") if row.get(key) is not None]
    if len(replies) > 1:
        raise UserError(f"{where} has {' and '.join(replies)}; which is the reply?")
    reply = row[replies[0]] if replies else None
    used = {asked, "input", "context", "output", "response", "completion", "history"} & row.keys()
    if isinstance(prompt, list):  # the conversational kind: both are lists of messages
        if not isinstance(reply, list | None):
            raise UserError(f"{where} {asked} is a list of messages and {replies[0]} is not")
        return parse_messages([*prompt, *(reply or [])], where, used)
    history = row.get("history") or []
    if not isinstance(history, list) or not all(
        isinstance(h, list) and len(h) == 2 for h in history
    ):
        raise UserError(f"{where} history must be a list of [user, assistant] pairs")
    for key in ("input", "context"):
        context = row.get(key)
        if context and not isinstance(context, str):
            raise UserError(f"{where} {key} is a {type(context).__name__}; it needs a string")
        if isinstance(prompt, str) and context:
            prompt = f"{prompt}\n\n{context}"
    if replies == ["completion"] and isinstance(reply, str):
        reply = reply.removeprefix(" ")  # in that form it parts the completion from the prompt
    last = [prompt] + ([reply] if replies else [])
    return ParsedRow(used, [*chain.from_iterable(history), *last])


FORMS: dict[str, Callable[[dict[str, Any], str], ParsedRow]] = {
    "conversations": parse_conversations,
    "messages": lambda row, where: parse_messages(row["messages"], where, {"messages"}),
    "instruction": parse_pair,
    "prompt": parse_pair,
}


def find_lone_surrogates(value: Any, path: str = "") -> Iterator[str]:
    """Yield where a value of a row holds half of a character, and which half."""
    if isinstance(value, str):
        if lone := LONE_SURROGATE.search(value):
            yield f"{path or 'a key'}: {lone[0]!a}"
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from find_lone_surrogates(key)
            yield from find_lone_surrogates(inner, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from find_lone_surrogates(inner, f"{path}[{number}]")
