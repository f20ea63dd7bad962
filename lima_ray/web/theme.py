"""How every page looks: colours, fonts, the icon."""

import gradio as gr

ICON = (
    '<link rel="icon" href="data:image/svg+xml,%3Csvg xmlns=%22http://www.w3.org/2000/svg%22 '
    "viewBox=%220 0 16 16%22%3E%3Crect width=%2216%22 height=%2216%22 rx=%224%22 "
    "fill=%22%233f6b5c%22/%3E%3Cpath d=%22M4 5h8v5H8l-2.5 2.5V10H4z%22 fill=%22white%22/%3E"
    '%3C/svg%3E">'
)
SYSTEM_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
SYSTEM_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "DejaVu Sans Mono", "monospace")


def theme() -> gr.themes.Base:
    """Return quiet colours, one accent, and the reader's own fonts."""
    green = gr.themes.Color(
        "#f0f6f3", "#dcebe4", "#bbd7ca", "#93bdaa", "#6fa08f", "#4f8371", "#3f6b5c", "#34574b",
        "#2b473e", "#253b34", "#14221e", name="pine",
    )  # fmt: skip
    return gr.themes.Base(
        primary_hue=green,
        secondary_hue=green,
        neutral_hue=gr.themes.colors.zinc,
        font=SYSTEM_FONT,
        font_mono=SYSTEM_MONO,
        radius_size=gr.themes.sizes.radius_md,
    ).set(
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_400",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )
