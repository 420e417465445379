# %% [markdown]
# # From checkpoints to the ImageCLEF file
#
# **Aim.** Predict a folder of scans with several models, combine what they say, and write the file that
# ImageCLEF's task takes. The authors averaged the class *numbers* of three runs; see what that does, beside averaging
# probabilities and beside a vote.
#
# **Runtime.** About three minutes on two CPU cores with the `demo` preset, once its models are trained (notebook 02
# trains two of the three; the third is the video arm with another seed, and takes seconds more). With
# `-p weights demo-synthetic,demo-synthetic-image` nothing is trained: these two come with the package. The 421 test
# scans of ImageCLEF take a minute or two to read, and longer on a CPU with the paper's network: a GPU is then of use.
# The scans are not to be passed on; without them the page runs on a hundred synthetic ones, which it keeps below
# `data/` (some 200 MB).

# %% tags=["colab", "remove-cell"]
if "google.colab" in str(get_ipython()):  # without constraints.txt: Colab's own PyTorch is built for its GPU
    get_ipython().system("git clone --depth 1 https://github.com/OWNER/viptt-net /content/viptt-net")
    get_ipython().system("pip install --quiet --editable /content/viptt-net")
    get_ipython().run_line_magic("cd", "/content/viptt-net")

# %%
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

# %% tags=["parameters"]
weights: str = ""  # A,B,C: files, runs, names that `viptt weights list` knows; empty: models are trained here
scans: str = ""  # folder of the scans; empty: synthetic scans of patients that no run has seen
labels: str = ""  # CSV of the scans' classes, where they are known; synthetic scans have one
file_column: str = ""  # of the CSV; empty: FileName
label_column: str = ""  # of the CSV, names or 1..5; empty: Label or TypeOfTB
patient_column: str = ""  # of the CSV, intervals are then over patients; empty: each scan its own
ensemble: str = "mean"  # what is written: "mean" of probabilities, "vote", or "authors" (class numbers, three models)
fill: int = 0  # class 1..5 for scans that cannot be read; 0: such a scan keeps the file from being written
output: str = ""  # file to write; empty: runs/submission.txt
preset: str = "demo"  # of the models that are trained here, and of synthetic scans
epochs: int = 0  # of their fine-tuning, at most; 0: as the preset says
pretrain_epochs: int = 0  # of their pretraining, at most; 0: as the preset says
n_train: int = 0  # number of synthetic scans to train on; 0: as the preset says
n_videos: int = 0  # number of synthetic videos to pretrain on; 0: as the preset says
n_scans: int = 0  # number of synthetic scans to predict; 0: 100
seed: int = 0  # of the training here
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
# A model's card travels in its file: what it was trained on, and what a scan must become before it is asked;
# `viptt weights list` prints all of it.

# %%
training = plan_from(given)
models = entry_models(plan, training, n_train=n_train, n_videos=n_videos)
models_table(models)

# %% [markdown]
# ## What each model says
# A scan that cannot be read stops no other. A scan unlike a chest CT, or unlike those that the models were trained on,
# is predicted, with a warning; both are listed here. `viptt submit` does the same from a shell.

# %%
engine = Engine(device=device, precision="fp32")  # the same digits on every machine
entry = keep_entry(plan, predict_scans(models, files, engine=engine), known)

# %%
scans_table(entry)

# %% [markdown]
# ## Three ways to combine them
# - *mean*: the class of the largest mean probability.
# - *vote*: the class that most models find most probable.
# - *authors*: round(0.6 a + 0.2 b + 0.2 c), where a, b and c are the class *numbers* of three runs.
#
# The numbers are names: a Tuberculoma (3) is not more than an Infiltrative finding (1), and a Focal one (2) does not
# lie between them. Their average can name a class that no run has named. Where the second and the third run agree,
# this is what comes of it; orange marks an answer that nobody gave. What two of the three agree on, against the first,
# is never the answer.

# %%
rule_chart()

# %% [markdown]
# These scans: how many are put into each class, and for how many the answer is one that no model gave.

# %%
counts_chart(entry)

# %%
counts_table(entry)

# %% [markdown]
# The authors' notebooks hold these counts of two of their three runs and of the file they handed in. Infiltrative (1)
# is in fewer scans than in either run, Focal (2) in more, as averages of 1 and a larger number would have it. (The
# counts of the third run are not known and may have a part in this.)

# %%
published_chart()

# %% [markdown]
# ## Scores
# Only where the classes are known; those of ImageCLEF's test scans are not public.

# %%
summary = scores(entry)
summary

# %%
scores_chart(summary, entry)

# %% [markdown]
# ## The file
# One line a scan, no header: each scan once, under its own name, with a class of 1 to 5.

# %%
written = write_entry(entry)
print(f"{plan.output}: {counts_text(count_classes(written.tolist()))}")
print(*plan.output.read_text(encoding="utf-8").splitlines()[:5], sep="\n")

# %% [markdown]
# ## Recap
# Classes without an order must not be averaged by their numbers: the result depends on how the list happens to be
# sorted, and can be a class that no model believes in. Average probabilities, or vote. Read the differences in score
# beside the intervals: one seed and one cohort decide little, and synthetic scans say nothing about patients.
