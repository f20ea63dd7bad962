"""Whose each browser window is; its name, made by the browser, opens it to nobody else."""

from collections import OrderedDict

MOST_KEPT = 10_000
LONGEST_NAME = 64
"""Gradio's own names have a dozen letters."""


class Windows:
    """Owners by the name of the window, which Gradio calls its session hash."""

    def __init__(self) -> None:
        """Know none."""
        self.owners: OrderedDict[str, str] = OrderedDict()

    def belongs(self, name: str, owner: str) -> bool:
        """Whether a window is this owner's; who names it first has it."""
        if len(name) > LONGEST_NAME:
            return False
        found = self.owners.setdefault(name, owner)
        self.owners.move_to_end(name)
        if len(self.owners) > MOST_KEPT:
            self.owners.popitem(last=False)
        return found == owner
