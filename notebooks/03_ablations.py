# %% [markdown]
# # Is it the videos? Ablations and controls
#
# **Aim.** The paper compares two arms that differ in more than their start: one is pretrained on videos, and it also
# trains all layers, weights its classes and rotates its scans. Here the arms of a comparison differ in one thing. What
# do the videos change, what do the other changes, what do the controls say, and what is found on real scans?
#
# **Runtime.** Seconds on one CPU core: everything is read from committed tables, and nothing is trained. How long the
# runs took stands at the end.

# %% tags=["colab", "remove-cell"]
if "google.colab" in str(get_ipython()):  # without constraints.txt: Colab's own PyTorch is built for its GPU
    get_ipython().system("git clone --depth 1 https://github.com/OWNER/viptt-net /content/viptt-net")
    get_ipython().system("pip install --quiet --editable /content/viptt-net")
    get_ipython().run_line_magic("cd", "/content/viptt-net")

# %%
from viptt_core.figures.study import (
    attribution_chart,
    baselines_chart,
    factorial_chart,
    forest_chart,
    seed_chart,
    sources_chart,
    trend_chart,
)
from viptt_core.papermill_io import check_parameters
from viptt_core.study.report import answers, families_table, open_results, plan_table, show_table

# %% tags=["parameters"]
study: str = "synthetic"  # "synthetic", "real", "paper", or the path of your own plan (.toml)
beside: str = "real"  # a study on real scans that stands beside it
other: str = "malignancy"  # another question on these scans
folder: str = ""  # holds `results/`; empty: the results of this repository

# %%
check_parameters(globals())
found = open_results(study, folder=folder)
on_real_scans = open_results(beside, folder=folder)
other_question = open_results(other, folder=folder)

# %% [markdown]
# ## The answers
# Each follows from an interval by one rule, whatever it says: *harms* where the interval lies below 0, *helps* where it
# lies above 0, *no gain of 0.10 or more* where its upper end is below 0.10, else *undecided*. With fewer than 8 seeds,
# or where the videos were not learned, there is an interval and no verdict.

# %%
answers(found)

# %%
answers(on_real_scans)

# %%
answers(other_question)

# %% [markdown]
# ## The plan came first
# Arms, seeds and questions were written down and committed before the first run; the digest names the file. Where a
# plan was not followed, the text below the table says so.

# %% tags=["hide-output"]
plan_table(found)

# %%
families_table(found)

# %% [markdown]
# ## Were the videos learned?
# What has not been learned cannot be carried over. Accuracy on videos held out, beside what naming the largest class
# gives, and beside what size and length of the files tell where there are files:

# %%
sources_chart(found)

# %%
show_table(found, "sources")

# %% [markdown]
# ## The primary contrast
# The same network, frozen as ImageNet left it, the same scans and search for a learning rate; what differs is whether
# the layers above it have seen videos before. Each dot is a run on the whole test set, lines join runs of the same
# seed. The interval covers what another seed, with its scans and videos, and what another sample of test cases would
# change.

# %%
seed_chart(found)

# %%
answers(found, "primary")

# %%
show_table(found, "scores")

# %% [markdown]
# How much of that needs no network at all:

# %%
baselines_chart(found)

# %% [markdown]
# ## How the runs ended

# %%
show_table(found, "runs")

# %% [markdown]
# ## Within the frozen network: videos, class weights, rotation
# Each is switched on and off in all combinations. The Shapley value of a change is what it adds, averaged over all
# orders in which the changes could be made. The paper's better run trained all layers, too: this is not the paper's
# gap.

# %%
attribution_chart(found)

# %%
show_table(found, "attribution")

# %% [markdown]
# All combinations, so that one can see whether a change works by itself or only with another:

# %%
factorial_chart(found)

# %% [markdown]
# ## Controls
# What changes if the videos have the labels of others, their frames in random order, or nothing moves in them? If the
# steps of pretraining are spent on scans? If the network starts without ImageNet, or the slices lose their order? A
# hollow mark is an interval that includes 0.

# %%
forest_chart(found, "what pretraining needs", "what the network uses")

# %%
show_table(found, "contrasts", family=["what pretraining needs", "what the network uses"])

# %% [markdown]
# On scans whose disease was left out of the simulation there is nothing to learn. A kappa above 0 here would be a
# leak:

# %%
show_table(found, "scores", experiment="no_finding")

# %% [markdown]
# ## How many videos, how many labelled scans
# The same comparison with fewer and more of either. Large draws overlap from seed to seed: intervals, no verdict.

# %%
trend_chart(found, "n_videos")

# %%
trend_chart(found, "n_train")

# %%
show_table(found, "trend")

# %% [markdown]
# ## On real CT
# A second study, after a plan of its own: lung nodules of five types, and real videos. Were these learned?

# %%
sources_chart(on_real_scans)

# %%
show_table(on_real_scans, "sources")

# %%
seed_chart(on_real_scans)

# %%
answers(on_real_scans, "primary")

# %%
forest_chart(on_real_scans)

# %%
show_table(on_real_scans, "contrasts")

# %% [markdown]
# Its arms stand beside baselines that use no network:

# %%
baselines_chart(on_real_scans)

# %%
show_table(on_real_scans, "baselines")

# %% [markdown]
# Another question on the same nodules, benign or malignant:

# %%
show_table(other_question, "scores")

# %%
show_table(other_question, "contrasts")

# %%
show_table(other_question, "baselines")

# %% [markdown]
# ## What the paper's numbers of scans can show
# The paper validates on a fifth of its scans and is ranked on the hidden test scans. How far kappa on so many scans
# varies, what choosing the best of several runs pretends, and which gain one run an arm could show at all:

# %%
show_table(found, "power")

# %% [markdown]
# ## Every contrast of the plan
# None is left out, whatever it shows.

# %%
show_table(found, "contrasts")

# %% [markdown]
# ## Costs

# %%
show_table(found, "cost")

# %%
show_table(on_real_scans, "cost")

# %% [markdown]
# ## Recap
# The answers stand at the top, and each is computed from an interval. Results on synthetic scans say what the method
# does where the truth is known, and nothing about patients. The tables as files, every arm in them, lie in `results/`.
# `viptt recheck` computes all of them again; `viptt study run` trains the runs anew.
