"""Whether a writer speaks of themselves: `I` and `my`, but not Henry I, Type I errors or I/O.

LIMA (section 2.1) drops answers in the first person. An `I` is taken for a numeral or a letter only
where what stands around it says so; every other one is the writer.
"""

import re

AROUND_CHARS = 40
"""What a numeral or a letter is told by, at most."""
WORDS = re.compile(r"\bI\b|\b(?:me|my|mine|myself)\b|\b(?:Me|My|Mine|Myself)\b")
"""`I` in capitals alone: a variable `i` is not the writer."""
PRESENT = (
    r"(?:am|have|do|don['’]t|think|know|like|love|use|want|need|guess|believe|mean|see|say|find"
    r"|feel|hope|suggest|recommend|prefer|agree|wonder|suppose|assume|can|can['’]t|will|won['’]t"
    r"|may|might|must|should|would|could|never|always|usually|often|just|also|really|personally)"
)
"""After a name, what makes `I` the writer: a king has, thinks and knows."""
COUNTED = (
    r"(?:Type|Part|Class|Phase|Stage|Level|Grade|Book|Chapter|Section|Article|Title|Volume|Act"
    r"|Scene|Figure|Table|Appendix|Category|Schedule|Group|Division|Mark|War|Episode|Calculus"
    r"|Algebra|Physics|Chemistry|Apollo|Saturn|Corinthians|Samuel|Kings|Timothy|Factor|Complex"
    r"|Elizabeth|Henry|Charles|James|George|William|Edward|Richard|Louis|Napoleon|Nicholas"
    r"|Alexander|Peter|Leopold|Otto|Frederick|Francis|Philip|Ferdinand|Maximilian|Justinian|Mary"
    r"|John|Paul|Carlos|Pedro|Catherine|Ramesses|Darius|Theodosius|Constantine|Wilhelm|Franz)"
)
COUNTED_LOWER = (
    r"(?:type|part|class|phase|stage|level|grade|book|chapter|section|article|volume|act|scene"
    r"|figure|table|appendix|category|group|division|war|letter|capital|vowel|photosystem|topoisomerase"
    r"|polymerase|current)"
)
"""Words before which a writer may stand as well: `the part I like`."""
ROMAN = r"(?:II|III|IV|V|VI|VII|VIII|IX|X|XI|XII)\b"
NUMERAL = re.compile(
    r"\bI/O\b"
    r"|\b(?:[A-Z]\.)*I\.(?=[A-Za-z]\b)"  # I.E., and R.I.P.
    r"|(?<=[A-Za-z]\.)I\b"
    r"|(?<=[=+*×] )I\b"  # V = I R
    r"|^[ \t]*I[.)](?=\s)"  # the first of a list
    r"|(?<=\w\()I(?=\))"  # Fe(I)
    r"|(?<=[\w]-)I\b|\bI(?=[-–]\w)"  # type-I, I-beam, I-IV
    r"|\bI(?=['’]s\b)"
    r"|\bI(?=\s*(?:[=≈<>]|(?:,|and|or|to|through|vs\.?|/|&|–|-)\s*" + ROMAN + r"))"
    r"|\b" + COUNTED + r"\s+I\b(?!['’](?:m|ve|d|ll|M|VE|D|LL)\b)(?!\s+" + PRESENT + r"\b)"
    r"|\b" + COUNTED_LOWER + r"\s+[\"“‘']?I\b"
    r"(?=[\"”’')\],;:.]|\s*$|\s+(?:errors?|chords?|diabetes|collagen|interferons?|hypersensitivity"
    r"|superconductors?|civilizations?|in the alphabet|is the ninth)\b)"
    r"|\bthe\s+I\s+(?=chord|column|beam)",
    re.MULTILINE,
)
MINE = re.compile(
    r"\b(?:an?|the|this|that|each|every|old|open|coal|gold|silver|copper|iron|salt|diamond|uranium"
    r"|land|naval|sea)[\s-]mine\b|\bmine[\s-]?(?:shaft|field|worker|site|craft)s?\b",
    re.IGNORECASE,
)


def find_first_person(text: str) -> re.Match[str] | None:
    """Return where a writer first speaks of themselves; none where they do not."""
    for found in WORDS.finditer(text):
        if found[0] not in ("I", "mine", "Mine") or not is_other(text, *found.span()):
            return found
    return None


def is_other(text: str, start: int, end: int) -> bool:
    """Return whether an `I` is a numeral or a letter, or `mine` one of coal."""
    around = max(0, start - AROUND_CHARS), end + AROUND_CHARS
    found = (m for pattern in (NUMERAL, MINE) for m in pattern.finditer(text, *around))
    return any(m.start() <= start and end <= m.end() for m in found)
