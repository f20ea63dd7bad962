"""The text of Reddit: titles as prompts, and stories without what their writers say to the site."""

import html
import re

from lima_ray.curation.filters import Result, without

WRITING_TAGS = frozenset(
    {"wp", "writing prompt", "prompt", "tt", "rf", "eu", "sp", "cw", "ff", "hp", "re", "pp"}
    | {"wp/hp", "serious", "serious replies only", "nsfw", "reddit gold"}
)
"""Tags of titles that go; what they mark is a prompt to write from."""
OTHER_TAGS = frozenset(
    {"ip", "mp", "ot", "pi", "pm", "cc", "ws", "cs", "ic", "wp/ip", "wp/workshop", "nano", "meta"}
    | {"mod post", "modpost", "off topic", "contest", "prize", "image prompt", "music prompt"}
    | {"prompt inspired", "prompt me", "moderator post", "workshop", "continuing story", "contest!"}
    | {"constructive criticism", "theme thursday", "sunday free write", "update", "megathread"}
)
"""Tags and flairs of what is no prompt in words: pictures, music, stories, notices."""
TAG = re.compile(r"[\[({]\s*([a-z!][a-z!/ ]{0,22}?)\s*[\])}]", re.IGNORECASE)
LEAD = re.compile(r"^\s*(?:(?:WP|writing prompt|prompt)\s*[:\-]+|WP\s)\s*", re.IGNORECASE)
SITE_IN_TITLE = re.compile(
    r"\b\w*reddit\w*|(?<![\w/])/?[ru]/\w+|\bup-?vot\w+|\bdown-?vot\w+|\bkarma\b|\bAMA\b|\bmods?\b"
    r"|\bfront ?page\b|\bthis sub\b|\bmegapost\b|\bmegathread\b|\bmy post\b|\bx-?post\b"
    r"|\bcake day\b",
    re.IGNORECASE,
)
LEAST_TITLE_CHARS, LEAST_TITLE_WORDS = 20, 5

LINK = re.compile(r"!?\[([^\]]*)\]\([^)\s]*(?:\s[^)]*)?\)")
SUPERSCRIPT = re.compile(r"\^+\(?(?=\w)")
ESCAPED = re.compile(r"\\([^\w\s\\*_`#])")
RULE = re.compile(r"[\s*_\-=~.#\\]*")
# One `\b` before all words: most places in a text fail at it, so a search is five times faster.
SITE = re.compile(
    r"reddit|https?://|^\W*edit\b|\b(?:"
    r"[ru]/\w|up-?vot\w|gilded\b|(?-i:OP\b)|edit(?:ed)?\s*\d*\s*:|patreon\b|author'?s note\b"
    r"|google doc|TL;?DR\b|on mobile\b|writingprompts?\b|this prompt\b"
    r"|thank(?:s| you)(?: \w+){0,3} for (?:the |all the |my )?"
    r"(?:read|gold|silver|award|prompt|kind|feedback|comment|love)"
    r"|(?:feedback|criticisms?|critiques?|comments?|C&C)\b.{0,30}\b(?:welcome|appreciated)\b"
    r"|first (?:time|post|prompt|story|attempt)\b.{0,30}\b(?:here|writing|posting|ever)\b"
    r"|hope you (?:all |guys )?(?:enjoy|like)"
    r"|(?:sorry|apologies|excuse|forgive)\b.{0,40}\b(?:format|grammar|mistakes|typos|spelling))",
    re.IGNORECASE | re.MULTILINE,
)
"""What a writer says to the site's readers, not in the story."""
MOST_NOTE_CHARS = 400
"""A longer paragraph is the story, whatever it names."""
INCOMPLETE = re.compile(
    r"^\W*\(?part (?:\d|one|two|three|i{1,3})\b|[\[(]\d+/\d+[\])]|\(cont\b|^\W*cont(?:inued)?\W*$"
    r"|\b(?:to be continued\b|part (?:2|two|ii)\b|part (?:\d+|[ivx]+)[)\]*_.:]*$"
    r"|continued (?:below|in|here)\b|(?:character|comment) limit\b)",
    re.IGNORECASE | re.MULTILINE,
)


def clean_title(title: str) -> str:
    """Return a title without tags such as [WP], entities and doubled blanks."""
    text = html.unescape(html.unescape(title)).replace("\u200b", "")
    text = TAG.sub(lambda tag: " " if tag[1].lower() in WRITING_TAGS else tag[0], text)
    return LEAD.sub("", " ".join(text.split()).strip(" -:;|*")).strip()


def no_other_tag(title: str, flair: str) -> Result:
    """Keep a submission that no tag or flair marks as something else than a prompt in words."""
    tags = [tag[1].lower() for tag in TAG.finditer(title)]
    found = [tag for tag in (*tags, flair) if tag in OTHER_TAGS]
    return True if not found else (False, found[0])


def is_prompt(title: str) -> Result:
    """Keep a cleaned title that one can write from, and that does not speak of the site."""
    if len(title) < LEAST_TITLE_CHARS or len(title.split()) < LEAST_TITLE_WORDS:
        return False, f"{title!r} is short"
    return without(SITE_IN_TITLE, title)


def is_question(title: str) -> Result:
    """Keep a cleaned title that is a question whole, and does not speak of the site."""
    return is_prompt(title) if title.endswith("?") else (False, f"no question: {title[-40:]}")


def clean_story(body: str) -> str:
    """Return a story as Markdown: no entities, links, notes to readers around it, odd blanks."""
    text = html.unescape(html.unescape(body)).replace("\u200b", "").replace("\xa0", " ")
    text = ESCAPED.sub(r"\1", SUPERSCRIPT.sub("", LINK.sub(r"\1", text)))
    paragraphs = [clean_paragraph(p) for p in re.split(r"\n\s*\n", text.replace("\r\n", "\n"))]
    paragraphs = [p for p in paragraphs if p]
    while paragraphs and is_note(paragraphs[-1]):
        paragraphs.pop()
    while paragraphs and is_note(paragraphs[0]):
        paragraphs.pop(0)
    return "\n\n".join(paragraphs)


def clean_paragraph(text: str) -> str:
    """Return a paragraph with single blanks; its line breaks stay."""
    return "\n".join(line for raw in text.split("\n") if (line := " ".join(raw.split())))


def is_note(paragraph: str) -> bool:
    """Return whether a paragraph at either end is a rule or speaks to readers."""
    short = len(paragraph) <= MOST_NOTE_CHARS
    return bool(RULE.fullmatch(paragraph) or (short and SITE.search(paragraph)))


def is_complete(body: str) -> Result:
    """Keep a story that is no part of a longer one."""
    return without(INCOMPLETE, body)


def no_site(story: str) -> Result:
    """Keep a story in which nothing speaks to the site's readers."""
    return without(SITE, story)
