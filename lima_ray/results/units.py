"""Seconds, bytes and counts as people read them."""

from collections.abc import Sequence

from lima_ray.records.lineage import MIB


def format_duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def format_bytes(count: float) -> str:
    mib = count / MIB
    if mib < 1:
        return f"{count / 1024:,.0f} KiB"
    if mib < 1024:
        return f"{mib:,.0f} MiB"
    return f"{mib / 1024:,.1f} GiB" if mib < 1 << 20 else f"{mib / (1 << 20):,.2f} TiB"


def format_number(value: float | None) -> str:
    """Return a number with commas, whole from 10 on; nothing where there is none."""
    if value is None:
        return ""
    return f"{value:,.1f}" if value % 1 and value < 10 else f"{value:,.0f}"


def format_share(share: float | None) -> str:
    """Return a share in percent, of three digits; nothing where there is none."""
    return "" if share is None else f"{100 * share:.3g} %"


def counted(count: int, noun: str, plural: str = "") -> str:
    """Write a count: `1 seed`, `3 seeds`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def align(lines: Sequence[tuple[str, str]]) -> str:
    """Write names and what is said of each in two columns of text, a line each."""
    width = max(len(name) for name, _ in lines) + 2
    return "\n".join(f"{name:<{width}}{said}" for name, said in lines)
