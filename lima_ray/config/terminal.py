"""Text of others, made safe to print: a terminal obeys control characters, whoever wrote them."""

CONTROL = [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
CONTROL += [0x061C, 0x200E, 0x200F, *range(0xD800, 0xE000)]
"""C0, DEL and C1, whose sequences set titles, move the cursor or write to the clipboard; what turns
the direction of text; and halves of surrogate pairs, which cannot be printed."""
SHOWN = {ord(c): None for c in "\r"} | {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for code in CONTROL
    if chr(code) not in "\r\n\t"
}


def printable(text: str) -> str:
    """Return a text with its control characters escaped, but for \\n and \\t."""
    return text.translate(SHOWN)
