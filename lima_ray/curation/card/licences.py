"""Licences of rows: their addresses, and which licence a dataset of them can carry as a whole.

What is said here is a reading of the licences' text and no legal advice.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

CREATIVE_COMMONS = re.compile(
    r"^CC[ -]BY((?:[ -](?:NC|SA|ND))*)(?:[ -](\d\.\d))?(?: International| Unported)?$", re.I
)
OTHERS = {
    "cc0": ("https://creativecommons.org/publicdomain/zero/1.0/", ()),
    "cc010": ("https://creativecommons.org/publicdomain/zero/1.0/", ()),
    "pddl": ("https://opendatacommons.org/licenses/pddl/1-0/", ()),
    "publicdomain": ("https://creativecommons.org/publicdomain/mark/1.0/", ()),
    "odcby10": ("https://opendatacommons.org/licenses/by/1-0/", ("BY",)),
    "apache20": ("https://www.apache.org/licenses/LICENSE-2.0", ("BY",)),
    "mit": ("https://opensource.org/license/mit", ("BY",)),
    "reddituseragreement": ("https://redditinc.com/policies/user-agreement", ("RESERVED",)),
}
"""By the letters and digits of their names, in lower case."""
NEWEST = "4.0"


@dataclass(frozen=True)
class Licence:
    """One licence, as a row names it."""

    name: str
    url: str = ""
    """Of its text; empty where the name is not known here."""
    terms: frozenset[str] = frozenset()
    """Of BY, NC, SA and ND; RESERVED where authors give others no right to pass the text on."""
    version: str = ""


@dataclass(frozen=True)
class WholeLicence:
    """What a dataset can carry as a whole."""

    name: str
    """Empty where no one licence covers all rows."""
    conflicts: tuple[str, ...]
    """Sentences on why not."""


def split_licences(said: str) -> list[str]:
    """Return the licences that a row names: of a question and its answer there may be two."""
    return [name for part in said.split(",") if (name := " ".join(part.split()))]


def find_licence(name: str) -> Licence:
    """Return what is known of a licence by its name, such as CC BY-SA 3.0."""
    if found := CREATIVE_COMMONS.match(name):
        terms = ["BY", *re.findall("NC|SA|ND", found[1].upper())]
        version = found[2] or NEWEST
        url = f"https://creativecommons.org/licenses/{'-'.join(terms).lower()}/{version}/"
        return Licence(name, url, frozenset(terms), version)
    letters = re.sub("[^a-z0-9]", "", name.lower())
    if letters in OTHERS:
        url, terms = OTHERS[letters]
        return Licence(name, url, frozenset(terms))
    return Licence(name)


def whole_licence(said: Iterable[str]) -> WholeLicence:
    """Return the licence that a dataset of such rows can carry, or what stands against one.

    CC BY-SA from version 2.0 on lets an adaptation carry a later version of the same licence, never
    other terms; so one family with share-alike decides, and two exclude each other. Rows under
    licences that ask for a notice alone, such as Apache-2.0 and MIT, carry all of these.

    Args:
        said: what each row says of its licence; empty where it says nothing.
    """
    rows = list(said)
    unnamed = sum(not split_licences(row) for row in rows)
    found = [find_licence(n) for n in sorted({n for row in rows for n in split_licences(row)})]
    conflicts = (
        [f"{unnamed:,} of {len(rows):,} rows name no licence: ask their authors."]
        if unnamed
        else []
    )
    if unknown := [licence.name for licence in found if not licence.url]:
        conflicts.append(f"Not known here, so people have to read it: {', '.join(unknown)}.")
    if reserved := [licence.name for licence in found if "RESERVED" in licence.terms]:
        conflicts.append(f"{', '.join(reserved)}: authors keep the right to pass their texts on.")
    if closed := [licence.name for licence in found if "ND" in licence.terms]:
        conflicts.append(f"{', '.join(closed)} lets nobody pass a changed text on.")
    alike = [lic for lic in found if "SA" in lic.terms]
    for_all = [lic.name for lic in alike if "NC" not in lic.terms]
    limited = [lic.name for lic in found if "NC" in lic.terms]
    if for_all and limited:
        conflicts.append(
            f"Rows under {', '.join(for_all)} may get no further restriction, and rows under "
            f"{', '.join(limited)} forbid commercial use: no licence satisfies both, so who needs "
            "one for all leaves one side out."
        )
    if conflicts:
        return WholeLicence("", tuple(conflicts))
    terms = frozenset[str]().union(*(licence.terms for licence in found))
    kinds = [term for term in ("BY", "NC", "SA") if term in terms]
    if not kinds:
        return WholeLicence("CC0 1.0" if found else "", ())
    if kinds == ["BY"] and not any(licence.version for licence in found):
        # Each of them asks for its own notice and for nothing of the others' rows.
        named = [licence.name for licence in found if licence.terms]
        return WholeLicence(" and ".join(named), ())
    deciding = [lic.version for lic in alike or found if lic.version]
    return WholeLicence(f"CC {'-'.join(kinds)} {max(deciding, default=NEWEST)}", ())
