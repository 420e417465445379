"""Formulas as MathML, which browsers draw by themselves: no script, nothing from another host."""

from __future__ import annotations

from docutils import nodes


def add_to(app) -> None:
    """Register the renderer; `html_math_renderer: mathml` chooses it."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))


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
