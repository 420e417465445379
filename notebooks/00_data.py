# %% [markdown]
# # The data: videos and scans are one thing
#
# **Aim.** See what the model reads. A video is a pile of frames, a CT scan is a pile of slices; after
# loading, both are the same array, and that is the paper's idea. On the way: what the preparation keeps and
# what it throws away, and how much a careless split gives away.
#
# **Runtime.** About two minutes on two CPU cores the first time, half a minute after that. No GPU, no download.

# %% tags=["colab", "remove-cell"]
if "google.colab" in str(get_ipython()):  # without constraints.txt: Colab's own PyTorch is built for its GPU
    get_ipython().system("git clone --depth 1 https://github.com/OWNER/viptt-net /content/viptt-net")
    get_ipython().system("pip install --quiet --editable /content/viptt-net")
    get_ipython().run_line_magic("cd", "/content/viptt-net")

# %%
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
from viptt_core.papermill_io import check_parameters
from viptt_core.probes import measure_leakage
from viptt_core.splits import make_split

# %% tags=["parameters"]
dataset: str = "phantom"  # scans: "phantom" (synthetic), "imageclef", "mosmed", "medmnist3d" or "folder" (your own)
data_root: str = ""  # folder of the scans, or the .npz file of "medmnist3d"; empty for "phantom"
labels: str = ""  # label CSV; empty: the one in data_root that has the columns
file_column: str = ""  # of the CSV of "folder"; empty: FileName
label_column: str = ""  # of the CSV of "folder"; empty: Label
patient_column: str = ""  # of the CSV of "folder": a patient's scans stay in one part; empty: each scan its own
classes: str = ""  # names of the classes in label order, or of class folders: "A,B+C"; empty: as the set has them
hu_window: str = ""  # of scans: "-1000,400" is the paper's, in HU; empty: as the preset says
pretrain_dataset: str = "actions"  # videos: "actions" (synthetic), "ucf50" or "folder" (your own)
pretrain_root: str = ""  # folder with one folder of videos a class; empty for "actions"
pretrain_classes: str = ""  # class folders of the videos, "A,B", or "all"; empty: the paper's ten where they are
group_pattern: str = ""  # which part of a video's name is its group; empty: UCF's v_Class_gNN
groups: str = ""  # CSV that names the group of each video (file, class, group) instead; empty: none
real_scan: str = "data/lungpetctdx/A0001.nii.gz"  # one CT scan for the HU windows; a phantom where it is absent
preset: str = "demo"  # "paper", "corrected", "frozen", "demo", "study" or a TOML file of yours
n_scans: int = 0  # number of phantoms; 0: as the preset says
n_videos: int = 0  # number of synthetic videos; 0: as the preset says
seed: int = 0  # of the split
on_error: str = ""  # "skip" leaves unreadable real files out and lists them; empty: stop and name them

# %%
given = check_parameters(globals())
plan = plan_from(given, device="cpu")

# %% [markdown]
# ## A clip
# Videos of ten human activities. A *clip* is the frames of one video, in grey, on one grid: an array
# `[T, H, W]`, time first. The set is an array `[N, T, H, W]`, with a label, a group and a name for each clip.
# Below, a row a class: a few frames of a clip, from first to last.

# %%
videos = load_videos(plan.preset, given)
print(videos.report())
show_clips(videos)

# %% [markdown]
# ## A volume
# A CT scan measures how strongly each small box of the body (a *voxel*) weakens X-rays, in Hounsfield units
# (HU): air is -1000, water 0, bone several hundred. An eye or a model that gets grey levels sees only a
# *window* of that scale: what lies below is black, what lies above is white. The paper keeps -1000 to 400 HU.
# That holds lung and soft tissue, though with little contrast within either; a radiologist changes the window.

# %%
hu_windows(real_scan)

# %% [markdown]
# The task has five types of tuberculosis. Here they are side by side in the paper's window, simulated, since the
# benchmark's scans may not be shown, each with its finding outlined. Click a picture and page through them with the
# arrow keys, the wheel or a swipe: a small finding lies in few slices. All keys are listed below. The key `o` takes the
# outlines away: try to find them without.

# %%
compare_phantoms()

# %% [markdown]
# A *volume* is a scan in that window on the videos' grid, slices first: `[T, H, W]` again. From here on
# nothing asks which of the two it was.

# %%
scans = load_scans(plan.preset, given)
print(scans.report())
show_clips(scans)

# %% [markdown]
# ## What the sampling keeps
# A scan has some hundred slices, the grid has fewer. The slices between two that are read never reach the
# model, and with them small nodules. Here is the same simulated chest, seen from the front.

# %%
sampling_of_scan()

# %% [markdown]
# Of a video, only the start is read: the authors take the first 70 frames; the preset `demo` takes fewer
# frames and skips some between them. An activity that shows itself late is not seen.

# %%
sampling_of_video({"paper": (70, 1), "this run": (plan.preset.frames, plan.preset.stride)})

# %% [markdown]
# ## Page through it
# One scan on the paper's grid, 70 slices of 224 x 224, in the paper's window. Choose the one for soft tissue, or drag
# level and width. The picture has 256 grey levels for the paper's 1400 HU, as the clips have: a narrow window spreads
# few of them, and what lay outside -1000 to 400 HU is gone. Its compression for this page adds faint blocks,
# which a narrow window shows, too.

# %%
view_phantom()

# %% [markdown]
# The scans of this run, as the network gets them, one of each class:

# %%
compare_clips(scans)

# %% [markdown]
# And the videos, in the same viewer, played at their own rate:

# %%
browse_clips(videos, per_class=1)

# %% [markdown]
# ## How many of each
# In the benchmark the five types are unequal in number, and the phantoms follow it. A model that only ever
# names the largest class then looks better than it is, which is why the score is Cohen's kappa.

# %%
class_balance(scans)

# %%
class_balance(videos)

# %% [markdown]
# ## Groups, and what a split by clip gives away
# Clips of one *group* share the person, the place and the camera: in UCF50 they are cut from the same video.
# The authors split by clip, which puts parts of one group on both sides. Split by group, none straddles.

# %%
by_clip = make_split("authors", videos, stage="pretrain", seed=seed)
by_group = make_split("group", videos, stage="pretrain", seed=seed)
group_structure(videos, {"by clip, as the authors": by_clip, "by group": by_group})

# %% [markdown]
# How much does that matter? A probe that cannot understand anything shows it: it looks for the training clip
# whose coarse pixels are nearest and takes its class. On synthetic videos this shows that the measure works;
# for UCF50 or your own set, run this page with `pretrain_dataset` and `pretrain_root`.

# %%
leakage = measure_leakage(videos)
leakage

# %%
leakage_chart(leakage)

# %% [markdown]
# And the scans:

# %%
measure_leakage(scans)

# %% [markdown]
# ## Who trains, who validates, who tests
# Learning rate, stopping and checkpoint see the validation part only; the test part is seen once, at the end.
# Groups (source videos, patients) are never split, except by the preset `paper`, which repeats what the
# authors did. A set that was published with parts keeps them.

# %%
print("videos:", make_split(plan.preset.splits, videos, stage="pretrain", seed=seed).sizes())
print("scans: ", make_split(plan.preset.splits, scans, stage="finetune", seed=seed).sizes())

# %% [markdown]
# ## Your own data
# Before training, let every file be read once. In a shell:
#
# ```
# viptt data list
# viptt data check imageclef FOLDER
# ```
#
# The check names unreadable files, scans that are not in HU, turned axes, duplicates under two names and
# more, and ends with exit code 1 when something would spoil a run. Then run this page on the set:
#
# ```
# papermill notebooks/00_data.py out.ipynb -p dataset imageclef -p data_root FOLDER
# ```

# %% [markdown]
# ## Recap
# Videos and scans are both `uint8` clips with labels and groups. The window and the sampling decide what can
# be seen at all, the split decides what a score means. What was left out is listed above.
# Next: [pretraining](01_pretrain).
