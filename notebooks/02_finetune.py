# %% [markdown]
# # Fine-tuning on chest CT: does video pretraining help?
#
# **Aim.** Fine-tune the same network on CT scans from different starts, and compare the kappa on scans
# that neither training nor model selection has seen.
#
# **Runtime.** Two minutes on two CPU cores with the `demo` preset, pretraining included. With real
# scans and the `paper` preset a GPU is needed: the authors' runs took 5.5 hours on a P100.

# %% tags=["colab", "remove-cell"]
if "google.colab" in str(get_ipython()):  # without constraints.txt: Colab's own PyTorch is built for its GPU
    get_ipython().system("git clone --depth 1 https://github.com/OWNER/viptt-net /content/viptt-net")
    get_ipython().system("pip install --quiet --editable /content/viptt-net")
    get_ipython().run_line_magic("cd", "/content/viptt-net")

# %%
from viptt_core.datasets import load_scans, load_videos
from viptt_core.experiment import build_model, compare_starts, plan_from
from viptt_core.figures import confusion, kappa_by_arm, show_clips, training_curves
from viptt_core.model import ViPTTNet
from viptt_core.papermill_io import check_parameters
from viptt_core.probes import baseline_predictions
from viptt_core.results import Summary
from viptt_core.shown import show_code
from viptt_core.splits import make_split
from viptt_core.training import Trainer

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
preset: str = "demo"  # "paper", "corrected", "frozen", "demo", "study" or a TOML file of yours
starts: str = ""  # arms to compare, from "random,image,video"; empty: as the preset says
epochs: int = 0  # of fine-tuning, at most; 0: as the preset says
pretrain_epochs: int = 0  # of pretraining, at most; 0: as the preset says
n_scans: int = 0  # number of phantoms; 0: as the preset says
n_videos: int = 0  # number of synthetic videos; 0: as the preset says
seed: int = 0  # of split, start weights, batches and augmentation
device: str = "auto"  # "auto", "cpu", "cuda" or "mps"
precision: str = "auto"  # "auto" (the fastest the device supports), "fp32", "bf16" or "fp16"
frames_per_chunk: int = 0  # fewer need less memory; 0: as many as fit
compile_backbone: bool = False  # torch.compile: slow to start, then faster, on a GPU
on_error: str = ""  # "skip" leaves unreadable real files out and lists them; empty: stop and name them

# %%
given = check_parameters(globals())
plan = plan_from(given, compile=compile_backbone)

# %% [markdown]
# ## The scans

# %%
scans = load_scans(plan.preset, given)
print(scans.report())
show_clips(scans)

# %% [markdown]
# ## The videos to pretrain on

# %%
videos = load_videos(plan.preset, given)
print(videos.report())

# %% [markdown]
# ## The network
# A *stem* makes three channels of a grey picture, the *backbone* turns each picture into features, the *temporal* part
# reads these in order, and two layers make a score for each class. [The model](../model.md) has its sizes.

# %%
build_model(plan.preset, len(scans.class_names), seed=seed, imagenet=False).architecture

# %%
show_code(ViPTTNet.forward)

# %% [markdown]
# ## One step of training
# In both stages and all arms, this is what the loop does with a batch. Around it, it draws the batches, validates after
# each epoch, and keeps what a killed run needs to go on.

# %%
show_code(Trainer.step)

# %% [markdown]
# ## Training every arm
# The arms share scans, split, seed and settings; what differs is where the weights start (except in the `paper`
# preset, which repeats the authors' unequal arms). As in [pretraining](01_pretrain), finished runs are used again.

# %%
comparison = compare_starts(plan, scans, videos)
print(comparison.report())

# %%
training_curves(comparison.history, synthetic=scans.synthetic)

# %% [markdown]
# ## Result on the test part
# Beside the arms stand baselines that need no network: the most frequent class; logistic regression on 40 principal
# components of the coarse picture, and on what is known of a scan besides its picture, such as the diameter of a
# nodule; and, for real files, what their headers alone tell. An arm that does not beat them has learnt little. The area
# under the ROC curve (AUC) is the mean over the classes, each against the rest.

# %%
split = make_split(plan.preset.splits, scans, stage="finetune", seed=seed)
baselines = baseline_predictions(scans, split)
summary = Summary(comparison.predictions, baselines, caveat=comparison.caveat, synthetic=scans.synthetic)
summary

# %%
kappa_by_arm(summary.table, synthetic=scans.synthetic)

# %%
confusion(comparison.predictions, synthetic=scans.synthetic)

# %% [markdown]
# ## Recap
# One seed and one split: the intervals show how little that decides. A result on synthetic scans says
# that the pipeline works, and nothing about patients.
