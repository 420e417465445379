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
# # Pretraining on human activities
#
# **Aim.** Train the CNN-RNN to tell human activities apart, before it has seen a scan.
#
# **Runtime.** About two minutes on two CPU cores with the `demo` preset. With real UCF50 and the
# `paper` preset a GPU is needed: the authors' runs took 1.7 to 5.4 hours on 16 GB GPUs.

# %% tags=["colab", "remove-cell"]
import os
import sys

if "google.colab" in sys.modules:  # without constraints.txt: Colab brings a PyTorch of its own, built for its GPU
    from IPython import get_ipython

    get_ipython().system("git clone --depth 1 https://github.com/OWNER/viptt-net /content/viptt-net")
    get_ipython().system("pip install --quiet --editable /content/viptt-net")
    os.chdir("/content/viptt-net")
    sys.path.insert(0, os.getcwd())

# %%
from viptt_core.datasets import load_for
from viptt_core.experiment import plan_experiment, pretrain
from viptt_core.figures import confusion, show_clips, training_curves
from viptt_core.figures.viewer import browse_clips
from viptt_core.papermill_io import check_parameters
from viptt_core.probes import baseline_predictions
from viptt_core.results import Summary
from viptt_core.splits import make_split

# %% tags=["parameters"]
dataset: str = "actions"  # videos: "actions" (synthetic), "ucf50", "ucf101" or "folder" (your own)
data_root: str = ""  # folder with one folder of videos a class; empty for "actions"
classes: str = ""  # class folders, "A,B", or "all"; empty: the paper's ten where they are
group_pattern: str = ""  # which part of a video's name is its group; empty: UCF's v_Class_gNN
groups: str = ""  # CSV that names the group of each video (file, class, group) instead; empty: none
preset: str = "demo"  # "paper", "corrected", "frozen", "demo", "study" or a TOML file of yours
start: str = "video"  # "video", or "image": the same training on single still frames
epochs: int = 0  # at most so many; 0: as the preset says
n_videos: int = 0  # number of synthetic videos; 0: as the preset says
seed: int = 0  # of split, start weights and batches
device: str = "auto"  # "auto", "cpu", "cuda" or "mps"
precision: str = "auto"  # "auto" (the fastest the device supports), "fp32", "bf16" or "fp16"
processes: int = 1  # that share each batch, one a GPU
frames_per_chunk: int = 0  # fewer need less memory; 0: as many as fit
compile_backbone: bool = False  # torch.compile: slow to start, then faster, on a GPU
tensorboard: bool = False  # log to TensorBoard too, in the run's folder
on_error: str = ""  # "skip" leaves unreadable videos out and lists them; empty: stop and name them

# %%
check_parameters(globals())
plan = plan_experiment(
    preset,
    pretrain_epochs=epochs,
    seed=seed,
    device=device,
    precision=precision,
    processes=processes,
    frames_per_chunk=frames_per_chunk,
    compile=compile_backbone,
    tensorboard=tensorboard,
)

# %% [markdown]
# ## The videos

# %%
videos = load_for(
    plan.preset,
    dataset,
    data_root,
    n=n_videos or None,
    classes=classes,
    group_pattern=group_pattern,
    groups=groups,
    on_error=on_error,
)
print(videos.report())

# %%
show_clips(videos)

# %% [markdown]
# The first of each class, to play. The rate is that of the video, less the frames that were skipped.

# %%
browse_clips(videos, per_class=1)

# %% [markdown]
# ## Training
# A run that was interrupted goes on where it stopped; a finished one is used again when data, settings,
# seed and code are the same.

# %%
run = pretrain(plan, videos, start=start)
print(run.report())

# %%
training_curves(run.history.assign(arm=start), synthetic=videos.synthetic)

# %% [markdown]
# ## How well it tells activities apart
# On clips of groups it has never seen, beside baselines that need no network: the most frequent class, logistic
# regression on principal components of the coarse picture, and, for real files, their headers alone: frame size,
# length, bytes (a model that does not beat them may have learnt the file format).

# %%
split = make_split(plan.preset.splits, videos, stage="pretrain", seed=seed)
Summary(run.predictions, baseline_predictions(videos, split), synthetic=videos.synthetic)

# %%
confusion(run.predictions, synthetic=videos.synthetic)

# %% [markdown]
# ## Recap
# The weights lie in the run's folder and go on to [fine-tuning](02_finetune), all but the last layer.
