# %% [markdown]
# # Fine-tuning on chest CT: does video pretraining help?
#
# **Aim.** Fine-tune the same network on CT scans from different initialisations. Compare kappa on scans that were used
# neither for training nor for model selection.
#
# **Runtime.** A few minutes at most on two CPU cores with the preset `demo`, pretraining included. The preset `paper`
# needs a GPU: the authors' final run took 5.5 hours on a P100.

# %% tags=["colab", "remove-cell"]
if "google.colab" in str(get_ipython()):  # without constraints.txt: Colab's own PyTorch is built for its GPU
    get_ipython().system("git clone --depth 1 https://github.com/OWNER/viptt-net /content/viptt-net")
    get_ipython().system("pip install --quiet --editable /content/viptt-net")
    get_ipython().run_line_magic("cd", "/content/viptt-net")

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Imports"}
from scipy.stats import binomtest

from viptt_core.datasets import load_scans, load_videos
from viptt_core.experiment import build_model, compare_starts, plan_from
from viptt_core.figures import confusion, kappa_by_arm, show_clips, training_curves
from viptt_core.model import ViPTTNet
from viptt_core.papermill_io import check_parameters
from viptt_core.probes import baseline_predictions
from viptt_core.results import Summary, predicted_classes
from viptt_core.shown import interval, show_code, with_interval
from viptt_core.splits import make_split
from viptt_core.statistics import resample, two_level_comparison
from viptt_core.training import Trainer

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
preset: str = "demo"  # "paper", "corrected", "frozen", "demo", "study" or your own TOML file
starts: str = ""  # of "random,image,video"; "random" trains every layer, so "demo" is then slow; empty: the preset's
epochs: int = 0  # of fine-tuning, maximum number; 0: the preset's
pretrain_epochs: int = 0  # of pretraining, maximum number; 0: the preset's
n_scans: int = 0  # number of phantoms; 0: the preset's
n_videos: int = 0  # number of synthetic videos; 0: the preset's
seed: int = 0  # of split, initial weights, batches and augmentation
device: str = "auto"  # "auto", "cpu", "cuda" or "mps"
precision: str = "auto"  # "auto" (the fastest the device supports), "fp32", "bf16" or "fp16"
frames_per_chunk: int = 0  # fewer frames at a time need less memory; 0: as many as fit
on_error: str = ""  # "skip" leaves out unreadable real files and lists them; empty: stop and name them

# %%
given = check_parameters(globals())
plan = plan_from(given)

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
# A *stem* turns a grey image into three channels, the *backbone* turns each image into features, the *temporal part*
# reads these in order, and two layers compute a score for each class. For its sizes, see [the model](../model.md).

# %%
build_model(plan.preset, len(scans.class_names), seed=seed, imagenet=False).architecture

# %%
show_code(ViPTTNet.forward)

# %% [markdown]
# ## One step of training
# Both stages and all arms process a batch in this way. The surrounding loop draws batches, validates after each
# epoch, and saves what an interrupted run needs to continue.

# %%
show_code(Trainer.step)

# %% [markdown]
# ## Training every arm
# The arms share scans, split, seed and settings. They differ only in their initialisation, except in the preset
# `paper`, which repeats the authors' unequal arms. As in [pretraining](01_pretrain), finished runs are used again.

# %%
comparison = compare_starts(plan, scans, videos)
print(comparison.report())

# %%
training_curves(comparison.history, synthetic=scans.synthetic)

# %% [markdown]
# ## Result on the test set
# The table adds baselines without a network: the most frequent class, logistic regression on principal components of
# the coarse image, and percentiles of the grey values. Where a data set has them, covariates such as the diameter of
# a nodule are another. For real files, one baseline uses only their headers. An arm should beat all of them. The area
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
# ## Exercises
# **Radiology.** How well is the recall of the rarest type known? Give an interval for the last arm.

# %% tags=["hide-cell", "solution"] mystnb={"code_prompt_show": "Show the solution"}
# Poorly: the test set has few scans of that type, so the interval is wide whatever
# the recall. More scans of other types would not help.
test = comparison.predictions.query("part == 'test'")
last = test[test["arm"] == plan.starts[-1]]
rarest = last["label"].value_counts().idxmin()
found = predicted_classes(last[last["label"] == rarest]) == rarest
recall = binomtest(int(found.sum()), len(found)).proportion_ci()
print(f"{scans.class_names[rarest]}: found {found.sum()} of {len(found)}; recall {interval(recall.low, recall.high)}")

# %% [markdown]
# **Machine learning.** The intervals of two arms can overlap although the arms differ. Compute an interval that
# answers the question: does the last arm differ from the first?

# %% tags=["hide-cell", "solution"] mystnb={"code_prompt_show": "Show the solution"}
# Both arms are tested on the same scans, so draw the scans once and compare on each
# draw. An interval that includes 0 shows no difference. With one seed it does not
# cover the variation between training runs.
first = test[test["arm"] == plan.starts[0]]
settings = {"groups": last["group"].to_numpy(), "n_classes": len(scans.class_names)}
draws = resample(last["label"].to_numpy(), predicted_classes(last)[None], **settings)
draws_of_first = resample(first["label"].to_numpy(), predicted_classes(first)[None], **settings)
difference = two_level_comparison("kappa", draws, draws_of_first)
print("difference in kappa:", with_interval(difference.estimate, difference.low, difference.high, signed=True))

# %% [markdown]
# ## Recap
# With one seed and one split, the intervals are wide: read them, not the order of the arms. A result on synthetic scans
# shows that the pipeline works and says nothing about patients.
# Next: [Is it the videos?](03_ablations), with many seeds.
