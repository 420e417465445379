# %% [markdown]
# # Is it the videos? Ablations and controls
#
# **Aim.** The paper compares two arms that differ in more than their start: one is pretrained on videos, and it also
# trains all layers, weights its classes and rotates its scans. Take the comparison apart: what does each change
# contribute, what is left for the videos when all else is equal, and which controls does that survive?
#
# **Runtime.** About a minute on one CPU core: this page computes everything from the committed predictions, and trains
# nothing. How long the runs took stands at its end.

# %% tags=["colab", "remove-cell"]
if "google.colab" in str(get_ipython()):  # without constraints.txt: Colab's own PyTorch is built for its GPU
    get_ipython().system("git clone --depth 1 https://github.com/OWNER/viptt-net /content/viptt-net")
    get_ipython().system("pip install --quiet --editable /content/viptt-net")
    get_ipython().run_line_magic("cd", "/content/viptt-net")

# %%
from viptt_core.figures.study import (
    attribution_chart,
    efficiency_chart,
    factorial_chart,
    forest_chart,
    pretraining_chart,
    replication_chart,
    seed_chart,
)
from viptt_core.papermill_io import check_parameters
from viptt_core.study.report import (
    arms_table,
    attribution_table,
    contrasts_table,
    cost_table,
    efficiency_table,
    endings_table,
    families_table,
    folds_table,
    open_results,
    plan_table,
    power_table,
    replication_table,
    verdict,
)

# %% tags=["parameters"]
study: str = "synthetic"  # "synthetic", "lidc", "paper", or the path of your own plan (.toml)
replication: str = "lidc"  # a study on real scans that stands beside it, where its results are here
results: str = ""  # folder with a folder of results for each study; empty: the results of this repository

# %%
check_parameters(globals())
found = open_results(study, folder=results)
on_real_scans = open_results(replication, folder=results, optional=True)

# %% [markdown]
# ## The plan came first
# Arms, seeds, tests and the stopping rule were written down and committed before the first run; the digest names the
# file. Where a plan was not followed, the text below the table says so.

# %% tags=["hide-output"]
plan_table(found)

# %%
families_table(found)

# %% [markdown]
# ## The primary contrast
# The same network, data, steps of fine-tuning and search for a learning rate; what differs is where the weights start.
# Each dot is a run on the whole test part, lines join runs of the same seed. The interval covers both what another
# training seed and what another sample of test cases would change.

# %%
seed_chart(found)

# %%
verdict(found)

# %%
arms_table(found)

# %%
contrasts_table(found, "primary", "against random")

# %% [markdown]
# ## How the runs ended
# A run that the epoch limit cuts off might have gained more. If one arm has many such runs and its rival few, their
# difference says less.

# %%
endings_table(found)

# %% [markdown]
# ## What the paper's gap is made of
# Each of the changes is switched on and off in all combinations. The Shapley value of a change is what it adds,
# averaged over all orders in which the changes could be made; together they are the whole gap between the two arms.

# %%
attribution_chart(found)

# %%
attribution_table(found)

# %%
verdict(found, "the paper's comparison")

# %% [markdown]
# All combinations, so that one can see whether a change works by itself or only with another:

# %%
factorial_chart(found)

# %% [markdown]
# ## Controls that could refute it
# If what helps is what the videos show, then pretraining with shuffled labels, with shuffled frames or with a still
# picture in place of each video should do worse, and the steps of pretraining spent on the scans should not do as well.
# A hollow mark is an interval that includes 0.

# %%
forest_chart(found, "against random", "what pretraining needs", "what is carried over", "order of slices")

# %%
contrasts_table(found, "what pretraining needs", "what is carried over", "order of slices")

# %% [markdown]
# On scans whose disease was left out of the simulation there is nothing to learn. A kappa above 0 here would be a
# leak:

# %%
arms_table(found, "no_finding")

# %% [markdown]
# ## Temporal parts
# What reads the sequence of slices: the paper's LSTM, other recurrent parts, attention, or the plain mean, which knows
# no order. Other backbones (VGG16, EfficientNet-B3, a 3D ResNet) want a GPU and are not measured here; their plan is
# ready: `make paper STUDIES=backbones VIDEOS=DIR SCANS=DIR`.

# %%
forest_chart(found, "temporal parts")

# %%
contrasts_table(found, "temporal parts")

# %% [markdown]
# ## Leakage
# Clips of one group come from the same scene. With near-copies on both sides of the split, pretraining looks better
# than it is. Whether that reaches the scans is another question.

# %%
pretraining_chart(found)

# %%
verdict(found, "leakage")

# %% [markdown]
# ## Fewer labelled scans
# Pretraining is meant for the case where labels are few.

# %%
efficiency_chart(found)

# %%
efficiency_table(found)

# %%
contrasts_table(found, "label efficiency")

# %% [markdown]
# ## What the paper's numbers of scans can show
# The paper validates on a fifth of its scans and is ranked on the hidden test scans. How far kappa on so many scans
# varies, what choosing the best of several runs pretends, and which gain one run an arm could show at all:

# %%
power_table(found)

# %% [markdown]
# ## On real CT
# A second study, after a plan of its own: other scans and another question, but real ones that anybody can get. Its
# arms stand beside baselines that use no network; an arm that does not beat them has learnt little.

# %%
replication_chart(on_real_scans)

# %%
replication_table(on_real_scans)

# %%
verdict(on_real_scans)

# %%
folds_table(on_real_scans)

# %% [markdown]
# ## Every contrast of the plan
# None is left out, whatever it shows.

# %%
contrasts_table(found)

# %% [markdown]
# ## Costs

# %%
cost_table(found)

# %% [markdown]
# ## Recap
# The verdicts above are computed from the intervals: where one includes 0, the two arms are not told apart, and that
# is the result. Results on synthetic scans say what the method does where the truth is known, and nothing about
# patients. The tables as files, every arm in them, lie in `results/`. `viptt recheck` computes all of them again;
# `viptt study run` trains the runs anew.
