"""What the built book shows beside its text: how a page was made, where a figure comes from, formulas.

A Sphinx extension, named in `_config.yml`. It reads committed files only and executes nothing.
"""

from __future__ import annotations


def setup(app) -> dict[str, bool | str]:
    """Add everything to Sphinx."""
    from viptt_core import __version__
    from viptt_core.book import commands, offline, sources, stamp, status

    for part in (commands, offline, sources, stamp, status):
        part.add_to(app)
    return {"version": __version__, "parallel_read_safe": True, "parallel_write_safe": True}
