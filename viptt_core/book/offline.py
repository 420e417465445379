"""Nothing from another host: formulas as MathML, which browsers draw by themselves, and no scripts of Thebe.

Jupyter Book always loads Thebe's extension. No page here runs code in the browser, and its scripts name another host
and stand twice on each page, which is an error there.
"""

from __future__ import annotations

from docutils import nodes


def add_to(app) -> None:
    """Register the renderer, which `html_math_renderer: mathml` chooses, and take Thebe's handlers of pages away."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    for event in ("env-before-read-docs", "doctree-resolved"):
        for listener in list(app.events.listeners[event]):
            if listener.handler.__module__ == "sphinx_thebe":
                app.disconnect(listener.id)


def _inline(translator, node: nodes.math) -> None:
    translator.body.append(to_mathml(node.astext()))
    raise nodes.SkipNode


def _block(translator, node: nodes.math_block) -> None:
    formula = to_mathml(node.astext(), display="block")
    translator.body.append(f'<div class="math notranslate nohighlight">{formula}</div>')
    raise nodes.SkipNode


def to_mathml(latex: str, *, display: str = "inline") -> str:
    """A formula of LaTeX as a MathML element; `display` is "inline" or "block"."""
    from latex2mathml.converter import convert

    return convert(latex, display=display)
