# %% [markdown]
# # Class by class, and what the network rests on
#
# **Aim.** See which types of tuberculosis are told apart and which are not, ask what pretraining changes for rare
# types, and check whether a network rests on the slices where the finding is.
#
# **Runtime.** Seconds on one CPU core: everything is read from committed tables, a few phantoms are simulated again,
# and nothing is trained.

# %% tags=["colab", "remove-cell"]
if "google.colab" in str(get_ipython()):  # without constraints.txt: Colab's own PyTorch is built for its GPU
    get_ipython().system("git clone --depth 1 https://github.com/OWNER/viptt-net /content/viptt-net")
    get_ipython().system("pip install --quiet --editable /content/viptt-net")
    get_ipython().run_line_magic("cd", "/content/viptt-net")

# %%
from viptt_core.figures.per_class import (
    auc_chart,
    browse_examples,
    calibration_chart,
    class_chart,
    confusion_chart,
    curves_chart,
    evidence_chart,
    importance_chart,
)
from viptt_core.figures.study import forest_chart
from viptt_core.papermill_io import check_parameters
from viptt_core.study.report import answers, open_results, show_table

# %% tags=["parameters"]
study: str = "synthetic"  # "synthetic", "real", "paper", or the path of your own plan (.toml)
arms: str = ""  # names of the arms to show, separated by ";"; empty: those of the plan's primary experiment
folder: str = ""  # holds `results/`; empty: the results of this repository

# %%
check_parameters(globals())
found = open_results(study, arms=arms, folder=folder)

# %% [markdown]
# ## What is taken for what
# Shares of each true class, mean over seeds: a row adds up to 100 %.

# %%
confusion_chart(found)

# %% [markdown]
# ## Can each class be seen at all?
# AUC of each class against all others: 0.5 is chance, 1 is perfect.

# %%
auc_chart(found)

# %% [markdown]
# ## Precision, recall and F1
# Precision: of the scans that were given this class, the share that has it. Recall: of the scans that have it, the
# share that was found. F1: their harmonic mean.

# %%
class_chart(found)

# %%
show_table(found, "classes")

# %% [markdown]
# ## Rare classes
# The paper says that pretraining helps especially for these. Asked as a question of its own: what changes in the mean
# recall of the rare classes, without and with class weights?

# %%
forest_chart(found, measure="rare recall")

# %%
answers(found, "rare types")

# %% [markdown]
# ## Curves
# Each class against all others. Precision depends on how frequent the class is; the ROC curve does not.

# %%
curves_chart(found)

# %% [markdown]
# ## Calibration
# Of the cases that a network is 70 % sure of, 70 % should be right. The expected calibration error (ECE) is the mean
# distance from that.

# %%
calibration_chart(found)

# %% [markdown]
# ## Which slices matter
# *Occlusion* puts an empty slice in the place of one after another and records how much the probability of the
# predicted class drops: the importance of a slice. In phantoms it is known which slices the finding meets. A map
# *within* a slice cannot be had of this network: its frozen backbone hands on each slice as numbers pooled over the
# plane, and what was trained sees only these. So there is no Grad-CAM here.

# %%
importance_chart(found)

# %% [markdown]
# Importance where findings usually are looks good without looking at the patient. So chance is the same importance on
# the findings of *other* patients of the same class.

# %%
evidence_chart(found)

# %%
show_table(found, "evidence")

# %% [markdown]
# ## Some of them, to page through
# Of each type one phantom, one that was taken for another type where there is such, with the true finding outlined.

# %%
browse_examples(found)

# %% [markdown]
# ## Recap
# Read a class with its interval: the rarest has the fewest test cases. Importance explains one network on one scan;
# only the comparison with chance over all of them says whether networks rest on the finding.
