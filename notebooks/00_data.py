# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The data: videos and scans are one thing
#
# **Aim.** See what the model reads. A video is a pile of frames, a CT scan is a pile of slices; after
# loading, both are the same array, and that is the paper's idea.
#
# **Runtime.** About two minutes on two CPU cores the first time, seconds after that. No GPU, no download.

# %%
from viptt_core.datasets import load_for
from viptt_core.experiment import plan_experiment
from viptt_core.figures import class_balance, show_clips
from viptt_core.papermill_io import check_parameters
from viptt_core.splits import make_split
from viptt_core.viewer import view_clip

# %% tags=["parameters"]
dataset: str = "phantom"  # scans: "phantom" (synthetic) or "imageclef"
data_root: str = ""  # folder of the scans and their label CSV; empty for "phantom"
pretrain_dataset: str = "actions"  # videos: "actions" (synthetic) or "ucf50"
pretrain_root: str = ""  # folder with one folder of videos a class; empty for "actions"
group_pattern: str = ""  # which part of a video's name is its group; empty: UCF's v_Class_gNN
preset: str = "demo"  # "paper", "corrected", "demo" or "study"
n_scans: int = 0  # number of phantoms; 0: as the preset says
n_videos: int = 0  # number of synthetic videos; 0: as the preset says
seed: int = 0  # of the split
on_error: str = ""  # "skip" leaves unreadable real files out and lists them; empty: stop and name them

# %%
check_parameters(globals())
plan = plan_experiment(preset, seed=seed, device="cpu")

# %% [markdown]
# ## Videos
# Ten human activities. Clips of one *group* share the person, the place and the camera: a split that
# puts them on both sides tests memory, not understanding.

# %%
videos = load_for(
    plan.preset, pretrain_dataset, pretrain_root,
    n=n_videos or None, group_pattern=group_pattern, on_error=on_error,
)
print(videos.report())

# %%
show_clips(videos)

# %%
class_balance(videos)

# %% [markdown]
# ## Scans
# Chest CT in Hounsfield units, cut to the window from -1000 (air) to 400 (bone), resampled to the same
# grid as the videos. Five types of tuberculosis, as unequal in number as in the benchmark.

# %%
scans = load_for(plan.preset, dataset, data_root, n=n_scans or None, on_error=on_error)
print(scans.report())

# %%
show_clips(scans)

# %%
class_balance(scans)

# %% [markdown]
# Page through one scan: drag the slider, use the arrow keys on it, or turn the wheel on the picture.

# %%
view_clip(scans, 0)

# %% [markdown]
# ## Who trains, who validates, who tests
# The test part is seen once, at the end. Groups (source videos, patients) are never split, except by
# the `paper` preset, which repeats what the authors did.

# %%
print("videos:", make_split(plan.preset.splits, videos, stage="pretrain", seed=seed).sizes())
print("scans: ", make_split(plan.preset.splits, scans, stage="finetune", seed=seed).sizes())

# %% [markdown]
# ## Recap
# Videos and scans are both `uint8` clips with labels and groups. What was left out is listed above.
# Next: [pretraining](01_pretrain).
