# %% [markdown]
# # Class by class, and what the network looks at
#
# **Aim.** See which types of tuberculosis are told apart and which are not, test the claim that pretraining helps most
# for rare types, and check whether the evidence of a network lies where the finding is.
#
# **Runtime.** About a minute on one CPU core: everything is computed from committed predictions and maps, and nothing
# is trained.

# %% tags=["colab", "remove-cell"]
if "google.colab" in str(get_ipython()):  # without constraints.txt: Colab's own PyTorch is built for its GPU
    get_ipython().system("git clone --depth 1 https://github.com/OWNER/viptt-net /content/viptt-net")
    get_ipython().system("pip install --quiet --editable /content/viptt-net")
    get_ipython().run_line_magic("cd", "/content/viptt-net")

# %%
from viptt_core.figures.per_class import (
    browse_examples,
    calibration_chart,
    class_chart,
    confusion_chart,
    curves_chart,
    evidence_strip,
    pointing_chart,
)
from viptt_core.figures.study import forest_chart
from viptt_core.papermill_io import check_parameters
from viptt_core.study.report import contrasts_table, open_results, per_class_table, pointing_table, verdict

# %% tags=["parameters"]
study: str = "synthetic"  # "synthetic", "lidc", "paper", or the path of your own plan (.toml)
arms: str = ""  # names of the arms to show, separated by ";"; empty: those of the plan's primary experiment
results: str = ""  # folder with a folder of results for each study; empty: the results of this repository

# %%
check_parameters(globals())
found = open_results(study, arms=arms, folder=results)

# %% [markdown]
# ## What is taken for what
# Shares of each true class, mean over seeds: a row adds up to 100 %.

# %%
confusion_chart(found)

# %% [markdown]
# ## Precision, recall and F1
# Precision: of the scans that were given this class, the share that has it. Recall: of the scans that have it, the
# share that was found. F1: their harmonic mean.

# %%
class_chart(found)

# %%
per_class_table(found)

# %% [markdown]
# ## Does it help most for rare classes?
# The paper says so. It is tested as a claim of its own, by the mean recall of the rare classes and with a correction
# for the number of tests.

# %%
forest_chart(found, measure="rare recall")

# %%
contrasts_table(found, measure="rare recall")

# %%
verdict(found, "rare classes")

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
# ## Which slices matter, and where in them
# Two kinds of maps, of one network each, for the class it predicts. *Occlusion* hides one slice after another and
# records how much the score drops: the importance of a slice. *Grad-CAM* weighs the last convolution by its gradient:
# where in a slice. In phantoms the true finding is known, and its outline is drawn.

# %%
evidence_strip(found)

# %% [markdown]
# A map that points to where findings usually are looks good without looking at the patient. So chance is the same map
# on the findings of *other* patients of the same class, and an untrained network is asked, too.

# %%
pointing_chart(found)

# %%
pointing_table(found)

# %% [markdown]
# ## Errors, one by one
# Errors come first in the list. Laid over the scan: the true finding, outlined, and Grad-CAM of one network. Switch
# them off and on with the boxes below, or with the key `o` after a click on the picture.

# %%
browse_examples(found)

# %% [markdown]
# ## Recap
# Read a class with its interval: the rarest has the fewest test cases. A map explains one network on one scan; only the
# comparison with chance over all of them says whether networks look at the finding.
