"""Messages as the Markdown that Gradio's chat draws, so that all of their text is seen.

Gradio's chat takes every message for Markdown with HTML in it, and drops what it does not know:
`List<int>` would become "List". Here a user's message is shown letter by letter, and a reply as
Markdown without HTML: what would begin a tag is written as a character reference (`&#60;`), except
in code, where Markdown itself does so. Nesting is bounded, since what draws it has no bound.
"""

import re
import sys
from bisect import bisect_left
from functools import lru_cache

from markdown_it import MarkdownIt

LATEX = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "\\[", "right": "\\]", "display": True},
    {"left": "\\(", "right": "\\)", "display": False},
]
"""A single dollar stays a dollar."""
MAX_FORMULA_DEPTH = 12
"""A browser takes twice as long for each level of KaTeX's boxes; 300 end the tab."""
MAX_FORMULA_CHARACTERS = 2000
MAX_BLOCK_DEPTH = 20
"""Quotes and lists in each other."""
REMEMBERED = 500

LETTERS = "&#8203;"
"""Begins a text that is sent letter by letter; a browser shows it as nothing."""
REFERENCE = re.compile(r"&#(\d{1,7});")
PLACE = re.compile("\x00(\\d+)\x00")
"""Stands for a formula while code is looked for; whoever calls removes NUL."""
NOT_PLAIN = re.compile(r"[^\w ]|_|^ |(?<=\s) | $")
TAG = re.compile(r"<(?=[A-Za-z/!?])|&(?=#|\w)")
MARKUP = re.compile(r"<(?=[A-Za-z/!?])|&(?=#|\w)|%(?=%%LATEX_BLOCK_)|\\(?=[(\[])|\$(?=\$)")
"""Begins a tag, a character reference, a mark by which Gradio finds formulas again, or a formula
that does not end, for whose end Gradio would look through all that follows, for each anew."""
MARKS = re.compile(r"[\\`*_~\[<|@\n]|\b(?:https?:|www\.)")
MAX_MARKS = 5000
"""What may begin a piece of Markdown, in a message; a browser takes the square of the pieces, a
minute for 60,000."""
EMPHASIS = re.compile(r"[*_~]")
MAX_EMPHASIS = 500
"""Marks of emphasis in a paragraph; pairing them takes the square of their number."""
MAX_OPEN = 50
"""Formulas in a paragraph that do not end; where there are more, those in code are text as well."""
PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")
ESCAPE_OR_TICKS = re.compile(r"\\[!-/:-@\[-`{-~]|`+")
CELL = re.compile(r"((?<!\\)\|)")
FENCE_END = re.compile(r"\s*(?:`{3,}|~{3,})\s*")
MERMAID = re.compile(r"(?<![`~])(`{3,}|~{3,})(?=mermaid)")
"""Gradio draws such a block as a diagram, whose source may hold HTML and styles."""
MARKER = r"[ \t]*(?:>|[-+*](?=[ \t])|\d{1,9}[.)](?=[ \t]))"
NESTED = re.compile(f"(?:{MARKER}){{{MAX_BLOCK_DEPTH}}}")
COMMANDS = re.compile(rf"(?:\\[a-zA-Z]+\s*){{{MAX_FORMULA_DEPTH}}}")
MACROS = re.compile(r"\\(?:[gex]?def|(?:future)?let|(?:re|provide)?newcommand|global)(?![a-zA-Z])")
HUGE = re.compile(r"(?<!\d)\d{3}[.\d]*+\s*+(?:em|ex|pt|px|bp|pc|cm|mm|in|mu|dd|cc|nd|nc|sp)\b")
OPENING = re.compile(r"(?<!\\)\{|\\left(?![a-zA-Z])|\\begin(?![a-zA-Z])")
CLOSING = re.compile(r"(?<!\\)\}|\\right(?![a-zA-Z])|\\end(?![a-zA-Z])")

BLOCKS = MarkdownIt("commonmark").disable(["html_block", "reference"]).enable("table")
BLOCKS.core.ruler.enableOnly(["normalize", "block"])


def plain(text: str) -> str:
    """Return a message as it was typed; for Markdown it is one paragraph of letters."""
    return NOT_PLAIN.sub(referred, text)


def typed(text: str) -> str:
    """Return an edited message as it was typed; the chat page sends it letter by letter."""
    if not text.startswith(LETTERS):
        return text
    return REFERENCE.sub(
        lambda found: chr(min(int(found[1]), sys.maxunicode)), text.removeprefix(LETTERS)
    )


@lru_cache(REMEMBERED)
def formatted(text: str) -> str:
    """Return a reply whose Markdown and formulas are drawn, and whose HTML is text.

    One of too many pieces is shown as code.
    """
    formulas: list[str] = []
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if len(MARKS.findall(text)) > MAX_MARKS:
        fence = longer_ticks(text, 3)
        return f"{fence}\n{text}\n{fence}"
    # Gradio takes formulas out before it looks for code, kind by kind; so does this.
    for kind in LATEX:
        text = set_aside(text, str(kind["left"]), str(kind["right"]), formulas)
    lines = [flat(line) for line in text.split("\n")]
    code, tables, open_fence = blocks(lines)
    drawn, at = [], 0
    while at < len(lines):
        end = at + 1
        if at in code:
            drawn.append(restored(MERMAID.sub(r"\1 ", lines[at]), formulas))
        elif at in tables:
            parts = CELL.split(lines[at])
            drawn.append("".join(inline(part, formulas) for part in parts))
        else:
            while end < len(lines) and end not in code and end not in tables and lines[end].strip():
                end += 1
            drawn.append(inline("\n".join(lines[at:end]), formulas))
        at = end
    return "\n".join([*drawn, open_fence] if open_fence else drawn)


def set_aside(text: str, left: str, right: str, formulas: list[str]) -> str:
    """Keep the formulas of a kind, and return the text with what stands for them."""
    parts, at = [], 0
    while (start := text.find(left, at)) >= 0:
        end = text.find(right, start + len(left) + 1) + len(right)
        if end < len(right):
            break
        source = text[start:end]
        # Gradio does not find a formula in a formula again, so what holds one begins with a letter.
        holds = PLACE.search(source) is not None
        formulas.append("\\" if holds else source)
        rest = source[1:] if holds else ""
        parts += [text[at:start], f"\x00{len(formulas) - 1}\x00{rest}"]
        at = end
    return "".join([*parts, text[at:]])


def flat(line: str) -> str:
    """Return a line as text where its quotes and lists lie too deep in each other."""
    return line if NESTED.match(line) is None else PUNCTUATION.sub(r"\\\g<0>", line, count=1)


def blocks(lines: list[str]) -> tuple[set[int], set[int], str]:
    """Return the lines of code, those of tables, and the fence that the last code block lacks."""
    code, tables, open_fence = set[int](), set[int](), ""
    for token in BLOCKS.parse("\n".join(lines)):
        if token.map is None:
            continue
        if token.type in {"fence", "code_block"}:
            code |= set(range(*token.map))
        if token.type == "table_open":
            tables |= set(range(*token.map))
        if token.type == "fence" and token.level == 0 and token.map[1] >= len(lines):
            closed = token.map[1] - token.map[0] > 1 and FENCE_END.fullmatch(lines[-1])
            open_fence = "" if closed else token.markup
    return code, tables, open_fence


def inline(text: str, formulas: list[str]) -> str:
    """Return text between blocks, its markup as text but for that in code spans."""
    if len(EMPHASIS.findall(text)) > MAX_EMPHASIS:
        text = EMPHASIS.sub(r"\\\g<0>", text)
    if sum(text.count(str(kind["left"])) for kind in LATEX) > MAX_OPEN:
        text = text.replace("`", "\\`")
    parts, at = [], 0
    runs: dict[int, list[int]] = {}
    for run in re.finditer("`+", text):
        runs.setdefault(len(run[0]), []).append(run.start())
    while found := ESCAPE_OR_TICKS.search(text, at):
        parts.append(shown(text[at : found.start()], formulas))
        end = found.end()
        if found[0] in {"\\(", "\\["}:
            parts.append(referred("\\") + found[0][1])
            at = end
            continue
        if found[0][0] == "`":
            same = runs.get(len(found[0]), [])
            following = bisect_left(same, end)
            end = same[following] + len(found[0]) if following < len(same) else end
        parts.append(restored(text[found.start() : end], formulas))
        at = end
    return "".join([*parts, shown(text[at:], formulas)])


def shown(text: str, formulas: list[str]) -> str:
    """Return text outside code, its formulas drawn, or as source where they are too much."""
    return PLACE.sub(lambda place: formula(formulas[int(place[1])]), MARKUP.sub(referred, text))


def restored(text: str, formulas: list[str]) -> str:
    """Return text in code, where a formula is code too."""
    return PLACE.sub(lambda place: formulas[int(place[1])], text)


def formula(source: str) -> str:
    """Return a formula to be drawn; one that would keep the browser busy becomes code."""
    if source == "\\":
        return referred(source)
    if simple(source):
        return TAG.sub(referred, source)
    ticks = longer_ticks(source, 1)
    return f"{ticks} {' '.join(source.split())} {ticks}"


def longer_ticks(text: str, least: int) -> str:
    """Return backticks that no run of them in a text could end."""
    return "`" * max(least, 1 + max(map(len, re.findall("`+", text)), default=0))


def simple(source: str) -> bool:
    """Whether a formula is short, defines nothing, has no huge box, and lies within few braces."""
    if len(source) > MAX_FORMULA_CHARACTERS or any(
        bad.search(source) for bad in (MACROS, COMMANDS, HUGE)
    ):
        return False
    steps = [(m.start(), 1) for m in OPENING.finditer(source)]
    steps += [(m.start(), -1) for m in CLOSING.finditer(source)]
    depth = 0
    for _, step in sorted(steps):
        depth = max(0, depth + step)
        if depth > MAX_FORMULA_DEPTH:
            return False
    return True


def referred(letter: str | re.Match[str]) -> str:
    """Return a letter as a character reference, which is never markup."""
    return f"&#{ord(letter if isinstance(letter, str) else letter[0])};"
