# %% [markdown]
# # Pretraining on human activities
#
# **Aim.** Train the network to recognise human activities in videos, before it sees a scan.
#
# **Runtime.** A few minutes at most on two CPU cores with the preset `demo`. The preset `paper` needs a GPU:
# the authors' runs took 1.7 to 5.4 hours on 16 GB GPUs.

# %% tags=["colab", "remove-cell"]
if "google.colab" in str(get_ipython()):  # without constraints.txt: Colab's own PyTorch is built for its GPU
    get_ipython().system("git clone --depth 1 https://github.com/OWNER/viptt-net /content/viptt-net")
    get_ipython().system("pip install --quiet --editable /content/viptt-net")
    get_ipython().run_line_magic("cd", "/content/viptt-net")

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Imports"}
import numpy as np
import pandas as pd

from viptt_core.datasets import load_videos
from viptt_core.experiment import build_model, plan_from, pretrain
from viptt_core.figures import confusion, show_clips, training_curves
from viptt_core.model import count_parameters
from viptt_core.papermill_io import check_parameters
from viptt_core.probes import baseline_predictions
from viptt_core.results import Summary
from viptt_core.shown import ResultTable, interval
from viptt_core.splits import make_split
from viptt_core.statistics import kappa_interval_by_simulation

# %% tags=["hide-input", "parameters"] mystnb={"code_prompt_show": "Parameters"}
dataset: str = "actions"  # videos: "actions" (synthetic), "ucf50" or "folder" (your own)
data_root: str = ""  # folder with one folder of videos per class; empty for "actions"
classes: str = ""  # class folders, "A,B", or "all"; empty: the paper's ten if present
group_pattern: str = ""  # the part of a video's name that is its group; empty: UCF's v_Class_gNN
groups: str = ""  # CSV with the group of each video (file, class, group) instead; empty: none
preset: str = "demo"  # "paper", "corrected", "frozen", "demo", "study" or your own TOML file
epochs: int = 0  # maximum number; 0: the preset's
n_videos: int = 0  # number of synthetic videos; 0: the preset's
seed: int = 0  # of split, initial weights and batches
device: str = "auto"  # "auto", "cpu", "cuda" or "mps"
precision: str = "auto"  # "auto" (the fastest the device supports), "fp32", "bf16" or "fp16"
frames_per_chunk: int = 0  # fewer frames at a time need less memory; 0: as many as fit
on_error: str = ""  # "skip" leaves out unreadable videos and lists them; empty: stop and name them

# %%
given = check_parameters(globals())
plan = plan_from(given, pretrain_epochs=epochs)

# %% [markdown]
# ## The videos
# To play them, see [the data](00_data).

# %%
videos = load_videos(plan.preset, given)
print(videos.report())
show_clips(videos)

# %% [markdown]
# ## Training
# An interrupted run continues where it stopped. A finished run is used again if data, settings, seed and code are the
# same.

# %%
run = pretrain(plan, videos)
print(run.report())

# %%
training_curves(run.history.assign(arm="video"), synthetic=videos.synthetic)

# %% [markdown]
# ## Accuracy on the test set
# The test clips are from groups that training and validation never used. The table adds baselines without a network:
# the most frequent class, logistic regression on principal components of the coarse image, and percentiles of the
# grey values. For real files, one baseline uses only their headers: frame size, length and file size. A network that
# does not beat it may have learned the file format.

# %%
split = make_split(plan.preset.splits, videos, stage="pretrain", seed=seed)
Summary(run.predictions, baseline_predictions(videos, split), synthetic=videos.synthetic)

# %%
confusion(run.predictions, synthetic=videos.synthetic)

# %% [markdown]
# ## Exercises
# **Radiology.** How much would the kappa of such a network vary from one test set of this size to the next? How many
# clips does it take to halve that range?

# %% tags=["hide-cell", "solution"] mystnb={"code_prompt_show": "Show the solution"}
# Four times as many: the range shrinks with the square root of the number of cases.
# The same holds for scans.
counts = np.bincount(videos.labels[split.test])
print("this size:", interval(*kappa_interval_by_simulation(counts, kappa=0.5)))
print("four times as many:", interval(*kappa_interval_by_simulation(np.multiply(counts, 4), kappa=0.5)))

# %% [markdown]
# **Machine learning.** How many parameters are carried over to the scans? How many of them did pretraining change, if
# the stem and the backbone are frozen, as in the preset `demo`?

# %% tags=["hide-cell", "solution"] mystnb={"code_prompt_show": "Show the solution"}
# All but the last layer is carried over. With a frozen stem and backbone, pretraining
# changes only the temporal part and the dense layer.
model = build_model(plan.preset, len(videos.class_names), seed=seed, imagenet=False)
parts = {"stem": model.stem, "backbone": model.backbone, "temporal part": model.temporal, "dense layer": model.feature}
counted = pd.Series(parts).map(count_parameters).rename("parameters").rename_axis("carried over")
ResultTable(f"Left behind: {count_parameters(model.classifier):,} in the last layer.", counted.reset_index())

# %% [markdown]
# ## Recap
# The weights are in the run's folder. All but the last layer go on to [fine-tuning](02_finetune).
