"""Pages: blocks written once, shown as Markdown beside its pictures and as one HTML file.

`blocks` are what a page is made of, `markdown` and `html` write them, `files` writes both forms,
`pictures` draws a figure for light and for dark pages. Text is anybody's: each form escapes it and
shows control characters instead of sending them.

    blocks = [Heading("Study", 1), text("Of ", Code("base"), ": 43 %."), rows_table(rows)]
    write_page(blocks, folder / "report")       # report.md and report.html
"""
