"""Every figure has a text alternative that says what it shows, and is marked when synthetic."""

import base64
import re

import nbconvert
import nbformat.v4 as v4
import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.figure import Figure

from viptt_core import figures
from viptt_core.figures.viewer import compare_clips
from viptt_core.results import Summary


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    rows = []
    for arm in ("random", "video"):
        for i, p in enumerate(rng.dirichlet(np.ones(3), 30)):
            row = {"arm": arm, "part": "test", "name": f"s{i}", "group": f"s{i}", "label": i % 3}
            rows.append(row | {"p(Focal)": p[0], "p(Miliary)": p[1], "p(Other)": p[2]})
    return pd.DataFrame(rows)


@pytest.fixture
def history():
    epochs = {"epoch": [1, 2, 3], "loss": [1, 0.8, 0.6], "val_loss": [1.1, 0.9, 1.0], "val_kappa": [0, 0.2, 0.1]}
    return pd.concat([pd.DataFrame(epochs).assign(arm=arm) for arm in ("random", "video")])


@pytest.fixture
def pictures(make_clip_set, predictions, history):
    """One of each kind, of synthetic data."""
    clips = make_clip_set(synthetic=True)
    return {
        "show_clips": figures.show_clips(clips),
        "class_balance": figures.class_balance(clips),
        "training_curves": figures.training_curves(history, synthetic=True),
        "confusion": figures.confusion(predictions, synthetic=True),
        "kappa_by_arm": figures.kappa_by_arm(Summary(predictions).table, synthetic=True),
    }


def test_every_picture_says_what_it_shows_and_is_marked_synthetic(pictures, predictions):
    assert set(pictures) == {
        name
        for name, thing in vars(figures).items()
        if getattr(thing, "__module__", "") == figures.__name__
        and getattr(thing, "__annotations__", {}).get("return") == "Picture"
    }
    for name, picture in pictures.items():
        page = picture._repr_mimebundle_()["text/html"]
        alt = re.search(r'alt="([^"]+)"', page)[1]
        assert len(alt) > 40 and alt.endswith("Synthetic data."), name
        assert any(text.get_text() == "synthetic data" for text in picture.figure.texts), name
        kind, data = re.search(r"data:image/(\S+?);base64,([^\"]+)", page).groups()
        assert kind in ("webp", "svg+xml") and len(base64.b64decode(data)) > 1000, name
    assert "class0 10, class1 10" in pictures["class_balance"].alt
    assert "epoch 2 of 3 kept, validation kappa 0.20" in pictures["training_curves"].alt
    table = Summary(predictions).table
    assert f"random: {table['kappa'][0]:.2f} ({table['kappa_low'][0]:.2f} to" in pictures["kappa_by_arm"].alt
    counts = [sum(int(text.get_text()) for text in axis.texts) for axis in pictures["confusion"].figure.axes]
    assert counts == [30, 30]


def test_real_data_is_not_marked_synthetic(make_clip_set):
    picture = figures.class_balance(make_clip_set())
    assert "ynthetic" not in picture.alt and not any(text.get_text() for text in picture.figure.texts)


def test_the_same_picture_gives_the_same_bytes(make_clip_set):
    clips = make_clip_set()
    assert figures.class_balance(clips).encode("svg") == figures.class_balance(clips).encode("svg")


def test_other_forms_of_a_notebook_keep_every_figure(make_clip_set):
    clips = make_clip_set(synthetic=True)
    shown = [figures.class_balance(clips), figures.show_clips(clips), compare_clips(clips)]
    bundles = [InteractiveShell.instance().display_formatter.format(one) for one in shown]
    outputs = [v4.new_output("display_data", data, metadata=metadata) for data, metadata in bundles]
    notebook = v4.new_notebook(cells=[v4.new_code_cell("x", outputs=outputs)])
    body, resources = nbconvert.MarkdownExporter().from_notebook_node(notebook)
    assert len(re.findall(r"<img src=|!\[\w*\]\(", body)) >= 3
    assert len(resources["outputs"]) == 3
    assert all(picture.startswith(b"\x89PNG") for picture in resources["outputs"].values())


def test_a_picture_without_words_is_refused():
    with pytest.raises(ValueError, match="text alternative"):
        figures.Picture(Figure(), " ")
