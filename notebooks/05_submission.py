# %% [markdown]
# # From checkpoints to an ImageCLEF submission
#
# **Aim.** Predict a folder of scans with several models, combine their predictions, and write a submission
# file for ImageCLEF. The authors averaged the class *numbers* of three runs. The page compares this with averaging
# probabilities and with a vote.
#
# **Runtime.** A few minutes at most on two CPU cores with the preset `demo`, if [fine-tuning](02_finetune) has been
# run: it trains two of the three models. The third has ImageNet + videos and another seed. With `-p weights
# demo-synthetic,demo-synthetic-image` nothing is trained: these two come with the package. The paper's network on
# ImageCLEF's test scans needs a GPU. Those scans may not be redistributed, so the page uses synthetic scans unless
# you name a folder. It stores them in `data/`.

# %% tags=["colab", "remove-cell"]
if "google.colab" in str(get_ipython()):  # without constraints.txt: Colab's own PyTorch is built for its GPU
    get_ipython().system("git clone --depth 1 https://github.com/OWNER/viptt-net /content/viptt-net")
    get_ipython().system("pip install --quiet --editable /content/viptt-net")
    get_ipython().run_line_magic("cd", "/content/viptt-net")

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Imports"}
from viptt_core.experiment import plan_from
from viptt_core.figures.entry import counts_chart, published_chart, rule_chart, scores_chart
from viptt_core.papermill_io import check_parameters
from viptt_core.prediction.scans import predict_scans
from viptt_core.prediction.score import read_labels
from viptt_core.submission import count_classes, counts_text
from viptt_core.submission.entry import (
    counts_table,
    entry_models,
    entry_scans,
    keep_entry,
    models_table,
    plan_entry,
    scans_table,
    scores,
    write_entry,
)
from viptt_core.training.device import Engine

# %% tags=["hide-input", "parameters"] mystnb={"code_prompt_show": "Parameters"}
weights: str = ""  # A,B,C: files, runs or names of `viptt weights list`; empty: models are trained here
scans: str = ""  # folder of the scans; empty: synthetic scans that no run has seen
labels: str = ""  # CSV of the scans' classes, if known; synthetic scans have one
file_column: str = ""  # of the CSV; empty: FileName
label_column: str = ""  # of the CSV, names or 1..5; empty: Label or TypeOfTB
patient_column: str = ""  # of the CSV, intervals are then over patients; empty: each scan is a patient
ensemble: str = "mean"  # for the file: "mean" of probabilities, "vote", or "authors" (class numbers of three models)
fill: int = 0  # class 1..5 for unreadable scans; 0: no file is written if there is one
output: str = ""  # file to write; empty: runs/submission.txt
preset: str = "demo"  # of models trained here, and of synthetic scans
epochs: int = 0  # of their fine-tuning, maximum number; 0: the preset's
pretrain_epochs: int = 0  # of their pretraining, maximum number; 0: the preset's
n_train: int = 0  # number of synthetic scans to train on; 0: the preset's
n_videos: int = 0  # number of synthetic videos to pretrain on; 0: the preset's
n_scans: int = 0  # number of synthetic scans to predict; 0: 100
seed: int = 0  # of models trained here
device: str = "auto"  # "auto", "cpu", "cuda" or "mps"

# %%
given = check_parameters(globals())
plan = plan_entry(weights, ensemble=ensemble, output=output, fill=fill)

# %% [markdown]
# ## The scans

# %%
columns = {"file_column": file_column, "label_column": label_column, "patient_column": patient_column}
known = read_labels(labels, **columns) if labels else None
files, known = entry_scans(plan, scans, labels=known, preset=preset, n=n_scans)

# %% [markdown]
# ## The models
# Each weights file contains a model card: what the model was trained on, and how scans must be preprocessed.
# `viptt weights list` prints it.

# %%
training = plan_from(given)
models = entry_models(plan, training, n_train=n_train, n_videos=n_videos)
models_table(models)

# %% [markdown]
# ## Predictions of each model
# An unreadable scan does not stop the others. A scan that does not look like a chest CT, or differs from the training
# scans, is predicted with a warning. Both are listed here. In a shell, `viptt submit` does the same.

# %%
engine = Engine(device=device, precision="fp32")  # the same digits on every machine
entry = keep_entry(plan, predict_scans(models, files, engine=engine), known)

# %%
scans_table(entry)

# %% [markdown]
# ## Three ways to combine them
# - *mean*: the class with the highest mean probability.
# - *vote*: the class that most models predict.
# - *authors*: round(0.6 a + 0.2 b + 0.2 c), where a, b and c are the class *numbers* of three runs.
#
# The numbers are only names: Tuberculoma (3) is not more than Infiltrative (1), and Focal (2) is not between them.
# The average can be a class that no run predicted. The chart shows the result if the second and third run agree.
# Orange marks a class that no run predicted. The class that the second and third run agree on never wins against the
# first.

# %%
rule_chart()

# %% [markdown]
# For these scans: the number of predictions of each class, and of answers that no model gave.

# %%
counts_chart(entry)

# %%
counts_table(entry)

# %% [markdown]
# The authors' notebooks contain the counts of two of their three runs and of their submission. The submission has
# fewer Infiltrative (1) and more Focal (2) than either run. Averages of 1 and a larger number would have this effect.
# The counts of the third run are not available and may also contribute.

# %%
published_chart()

# %% [markdown]
# ## Scores
# They need the true classes. Those of ImageCLEF's test scans are not public.

# %%
summary = scores(entry)
summary

# %%
scores_chart(summary, entry)

# %% [markdown]
# ## The file
# One line per scan, no header: each scan once, under its own name, with a class from 1 to 5.

# %%
written = write_entry(entry)
print(f"{plan.output}: {counts_text(count_classes(written.tolist()))}")
print(*plan.output.read_text(encoding="utf-8").splitlines()[:5], sep="\n")

# %% [markdown]
# ## Recap
# Do not average the numbers of classes that have no order. The result depends on the order of the list, and can be a
# class that no model predicts. Average probabilities, or vote. Read differences in score with their intervals: one seed
# and one cohort show little, and synthetic scans say nothing about patients.
