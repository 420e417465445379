# %% [markdown]
# # The data: videos and scans as arrays
#
# **Aim.** See what the network reads. A video is a stack of frames, and a CT scan is a stack of slices. After loading,
# both are the same kind of array: this is the paper's idea. The page also shows what preprocessing keeps and discards,
# and what a split by clip leaks.
#
# **Runtime.** A few minutes at most on two CPU cores, less when repeated. No GPU, no download.

# %% tags=["colab", "remove-cell"]
if "google.colab" in str(get_ipython()):  # without constraints.txt: Colab's own PyTorch is built for its GPU
    get_ipython().system("git clone --depth 1 https://github.com/OWNER/viptt-net /content/viptt-net")
    get_ipython().system("pip install --quiet --editable /content/viptt-net")
    get_ipython().run_line_magic("cd", "/content/viptt-net")

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Imports"}
import numpy as np
import pandas as pd

from viptt_core.constants import CT_WINDOWS
from viptt_core.ct import window_hu
from viptt_core.datasets import load_scans, load_videos
from viptt_core.experiment import plan_from
from viptt_core.figures import class_balance, show_clips
from viptt_core.figures.data import (
    group_structure,
    hu_windows,
    leakage_chart,
    sampling_of_scan,
    sampling_of_video,
)
from viptt_core.figures.viewer import browse_clips, compare_clips, compare_phantoms, view_phantom
from viptt_core.metrics import accuracy, cohen_kappa
from viptt_core.papermill_io import check_parameters
from viptt_core.probes import measure_leakage
from viptt_core.shown import ResultTable
from viptt_core.splits import make_split

# %% tags=["hide-input", "parameters"] mystnb={"code_prompt_show": "Parameters"}
dataset: str = "phantom"  # scans: "phantom" (synthetic), "imageclef", "mosmed", "medmnist3d" or "folder" (your own)
data_root: str = ""  # folder of the scans, or the .npz file of "medmnist3d"; empty for "phantom"
labels: str = ""  # label CSV; empty: the one in data_root with these columns
file_column: str = ""  # of the CSV of "folder"; empty: FileName
label_column: str = ""  # of the CSV of "folder"; empty: Label
patient_column: str = ""  # of the CSV of "folder": a patient's scans stay in one set; empty: each scan is a patient
classes: str = ""  # names of the classes in label order, or of class folders: "A,B+C"; empty: those of the set
hu_window: str = ""  # of scans, in HU: "-1000,400" is the paper's; empty: the preset's
pretrain_dataset: str = "actions"  # videos: "actions" (synthetic), "ucf50" or "folder" (your own)
pretrain_root: str = ""  # folder with one folder of videos per class; empty for "actions"
pretrain_classes: str = ""  # class folders of the videos, "A,B", or "all"; empty: the paper's ten if present
group_pattern: str = ""  # the part of a video's name that is its group; empty: UCF's v_Class_gNN
groups: str = ""  # CSV with the group of each video (file, class, group) instead; empty: none
real_scan: str = "data/lungpetctdx/A0001.nii.gz"  # a CT scan for the HU windows; if absent, a phantom is shown
preset: str = "demo"  # "paper", "corrected", "frozen", "demo", "study" or your own TOML file
n_scans: int = 0  # number of phantoms; 0: the preset's
n_videos: int = 0  # number of synthetic videos; 0: the preset's
seed: int = 0  # of the split
on_error: str = ""  # "skip" leaves out unreadable real files and lists them; empty: stop and name them

# %%
given = check_parameters(globals())
plan = plan_from(given, device="cpu")

# %% [markdown]
# ## A clip
# The videos show ten human activities. A *clip* is the grey frames of one video on a common grid: an array
# `[T, H, W]`, time first. The data set is an array `[N, T, H, W]`, with a label, a group and a name for each clip.
# Each row below shows one class: a few frames of one clip, from first to last.

# %%
videos = load_videos(plan.preset, given)
print(videos.report())
show_clips(videos)

# %% [markdown]
# ## A volume
# A CT scan measures how strongly each small box of the body (a *voxel*) attenuates X-rays, in Hounsfield units
# (HU): air is -1000, water 0, bone several hundred. Grey levels show only a *window* of that scale: values below it are
# black, values above it white. The paper keeps -1000 to 400 HU. This covers lung and soft tissue, with little contrast
# within either. A radiologist changes the window.

# %%
hu_windows(real_scan)

# %% [markdown]
# The task has five types of tuberculosis. Here they are side by side in the paper's window, with the findings outlined.
# They are simulated, because the benchmark's scans may not be shown. Click an image and scroll with the arrow keys, the
# wheel or a swipe: a small finding is visible in few slices. The keys are listed below. Press `o` to hide the outlines,
# and try to find the findings without them.

# %%
compare_phantoms()

# %% [markdown]
# A *volume* is a scan in that window, resampled to the grid of the videos, slices first: `[T, H, W]` again. From here
# on, the code treats videos and scans alike.

# %%
scans = load_scans(plan.preset, given)
print(scans.report())
show_clips(scans)

# %% [markdown]
# ## What sampling keeps
# A scan has up to several hundred slices; the grid has fewer. Slices between the sampled ones never reach the network,
# and neither do small nodules in them. Here is one simulated chest, seen from the front.

# %%
sampling_of_scan()

# %% [markdown]
# Only the beginning of a video is read. The authors take the first 70 frames; the preset `demo` takes fewer and skips
# some in between. What happens later in the video is not seen.

# %%
sampling_of_video({"paper": (70, 1), "this run": (plan.preset.frames, plan.preset.stride)})

# %% [markdown]
# ## Scroll through a scan
# This is one scan on the paper's grid, 70 slices of 224 x 224, in the paper's window. Choose the soft tissue window,
# or change level and width. Like the clips, the image has 256 grey levels for the paper's 1400 HU: a narrow window
# uses only a few of them, and values outside -1000 to 400 HU are lost. Image compression on this page adds faint
# blocks, which a narrow window makes visible.

# %%
view_phantom()

# %% [markdown]
# One scan of each class, as the network gets them:

# %%
compare_clips(scans)

# %% [markdown]
# One video of each class, at its own frame rate:

# %%
browse_clips(videos, per_class=1)

# %% [markdown]
# ## Class frequencies
# The benchmark's five types are unequal in number, and the phantoms have the same proportions. Accuracy then flatters a
# model that always answers the most frequent class. The score is therefore Cohen's kappa.

# %%
class_balance(scans)

# %%
class_balance(videos)

# %% [markdown]
# ## Groups, and what a split by clip leaks
# Clips of one *group* share the person, the place and the camera: in UCF50 they are cut from the same video. The
# authors split by clip, so one group can be in the training set and the test set. A split by group prevents this.

# %%
by_clip = make_split("authors", videos, stage="pretrain", seed=seed)
by_group = make_split("group", videos, stage="pretrain", seed=seed)
group_structure(videos, {"by clip, as the authors": by_clip, "by group": by_group})

# %% [markdown]
# How much does this matter? A simple probe measures it: it takes the class of the training clip with the most similar
# coarse pixels. Synthetic videos only show that the measure works. For UCF50 or your own videos, run this page with
# `pretrain_dataset` and `pretrain_root`.

# %%
leakage = measure_leakage(videos)
leakage

# %%
leakage_chart(leakage)

# %% [markdown]
# The same for the scans:

# %%
measure_leakage(scans)

# %% [markdown]
# ## Training, validation and test set
# The validation set chooses the learning rate, the time to stop and the checkpoint. The test set is used once, at the
# end. Groups (source videos, patients) are never split, except in the preset `paper`, which repeats the authors'
# split. A data set with a published split keeps it.

# %%
print("videos:", make_split(plan.preset.splits, videos, stage="pretrain", seed=seed).sizes())
print("scans: ", make_split(plan.preset.splits, scans, stage="finetune", seed=seed).sizes())

# %% [markdown]
# ## Your own data
# Before training, check every file. In a shell:
#
# ```
# viptt data list
# viptt data check imageclef FOLDER
# ```
#
# The check reports unreadable files, scans that are not in HU, unusual orientations, duplicates under two names and
# more. It ends with exit code 1 if something would spoil a run. Then run this page on your data:
#
# ```
# papermill notebooks/00_data.py out.ipynb -p dataset imageclef -p data_root FOLDER
# ```

# %% [markdown]
# ## Exercises
# **Radiology.** A nodule can contain fat (about -100 HU) or calcification (about 500 HU). Can the network distinguish
# fat from soft tissue (about 40 HU), and calcification from dense bone (about 900 HU)? Compare the windows.

# %% tags=["hide-cell", "solution"] mystnb={"code_prompt_show": "Show the solution"}
# In the paper's window, fat and soft tissue differ by a small part of the grey scale;
# the soft tissue window separates them better. Calcification and dense bone are white
# in both windows: that difference is lost.
hu = np.array([-100, 40, 500, 900])
paper, soft_tissue = window_hu(hu, CT_WINDOWS["the paper's"]), window_hu(hu, CT_WINDOWS["soft tissue"])
tissues = ["fat", "soft tissue", "calcification", "dense bone"]
grey = pd.DataFrame({"tissue": tissues, "HU": hu, "paper's window": paper, "soft tissue window": soft_tissue})
ResultTable("Grey values: 0 is black, 1 is white.", grey.round(2))

# %% [markdown]
# **Machine learning.** One model always answers the most frequent class. Another gives the right number of answers of
# each class, but to random scans. What are their accuracy and kappa?

# %% tags=["hide-cell", "solution"] mystnb={"code_prompt_show": "Show the solution"}
# Both have learned nothing. The first has the higher accuracy, and a kappa of exactly
# 0. The second has a kappa near 0, above or below it by chance.
always = np.full_like(scans.labels, np.bincount(scans.labels).argmax())
shuffled = np.random.default_rng(seed).permutation(scans.labels)
print(f"always the same: accuracy {accuracy(scans.labels, always):.2f}, kappa {cohen_kappa(scans.labels, always):.2f}")
print(f"shuffled: accuracy {accuracy(scans.labels, shuffled):.2f}, kappa {cohen_kappa(scans.labels, shuffled):.2f}")

# %% [markdown]
# ## Recap
# Videos and scans are both `uint8` clips with labels and groups. Window and sampling decide what can be seen at all,
# and the split decides what a score means. Files that were left out are listed above. Next:
# [pretraining](01_pretrain).
