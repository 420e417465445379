# %% [markdown]
# # Pretraining on human activities
#
# **Aim.** Train the CNN-RNN to tell human activities apart, before it has seen a scan.
#
# **Runtime.** About a minute on two CPU cores with the `demo` preset. With real UCF50 and the
# `paper` preset a GPU is needed: the authors' runs took 1.7 to 5.4 hours on 16 GB GPUs.

# %% tags=["colab", "remove-cell"]
if "google.colab" in str(get_ipython()):  # without constraints.txt: Colab's own PyTorch is built for its GPU
    get_ipython().system("git clone --depth 1 https://github.com/OWNER/viptt-net /content/viptt-net")
    get_ipython().system("pip install --quiet --editable /content/viptt-net")
    get_ipython().run_line_magic("cd", "/content/viptt-net")

# %%
from viptt_core.datasets import load_videos
from viptt_core.experiment import plan_from, pretrain
from viptt_core.figures import confusion, show_clips, training_curves
from viptt_core.papermill_io import check_parameters
from viptt_core.probes import baseline_predictions
from viptt_core.results import Summary
from viptt_core.splits import make_split

# %% tags=["parameters"]
dataset: str = "actions"  # videos: "actions" (synthetic), "ucf50" or "folder" (your own)
data_root: str = ""  # folder with one folder of videos a class; empty for "actions"
classes: str = ""  # class folders, "A,B", or "all"; empty: the paper's ten where they are
group_pattern: str = ""  # which part of a video's name is its group; empty: UCF's v_Class_gNN
groups: str = ""  # CSV that names the group of each video (file, class, group) instead; empty: none
preset: str = "demo"  # "paper", "corrected", "frozen", "demo", "study" or a TOML file of yours
epochs: int = 0  # at most so many; 0: as the preset says
n_videos: int = 0  # number of synthetic videos; 0: as the preset says
seed: int = 0  # of split, start weights and batches
device: str = "auto"  # "auto", "cpu", "cuda" or "mps"
precision: str = "auto"  # "auto" (the fastest the device supports), "fp32", "bf16" or "fp16"
frames_per_chunk: int = 0  # fewer need less memory; 0: as many as fit
compile_backbone: bool = False  # torch.compile: slow to start, then faster, on a GPU
on_error: str = ""  # "skip" leaves unreadable videos out and lists them; empty: stop and name them

# %%
given = check_parameters(globals())
plan = plan_from(given, pretrain_epochs=epochs, compile=compile_backbone)

# %% [markdown]
# ## The videos
# [The data](00_data) plays them.

# %%
videos = load_videos(plan.preset, given)
print(videos.report())
show_clips(videos)

# %% [markdown]
# ## Training
# A run that was interrupted goes on where it stopped; a finished one is used again when data, settings,
# seed and code are the same.

# %%
run = pretrain(plan, videos)
print(run.report())

# %%
training_curves(run.history.assign(arm="video"), synthetic=videos.synthetic)

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
