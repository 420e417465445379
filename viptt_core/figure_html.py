"""A figure in a notebook's output: a picture or viewer that says which function drew it, and from what.

The book turns this into a line below the figure, see `viptt_core.book.sources`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence


def named(draw: Callable) -> Callable:
    """Let what a function returns carry the function's full name as `code`, if it is a figure."""

    @functools.wraps(draw)
    def named_draw(*args, **settings):
        shown = draw(*args, **settings)
        if hasattr(shown, "code"):
            shown.code = f"{draw.__module__}.{draw.__qualname__}"
        return shown

    return named_draw


def figure_html(content: str, *, code: str, data: Sequence[str] = (), numbers: str = "") -> str:
    """The figure.

    Args:
        content: HTML of the picture or viewer.
        code: Full name of the function that drew it; "" where it is none of ours.
        data: Committed files it is drawn from, paths from the artifact's root.
        numbers: HTML of a link to numbers that come with it.
    """
    caption = f"<figcaption>{numbers}</figcaption>" if numbers else ""
    return (
        f'<figure class="viptt-figure" style="margin:0" data-code="{code}" '
        f'data-files="{" ".join(data)}">{content}{caption}</figure>'
    )
