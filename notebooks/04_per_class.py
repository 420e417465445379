# %% [markdown]
# # Class by class, and what the network relies on
#
# **Aim.** See which types of tuberculosis the networks distinguish, ask what pretraining changes for rare types, and
# check whether a network relies on the slices that show the finding. Each section asks one question, answers it in a
# sentence, and shows the figure and the table behind it.
#
# **Runtime.** Seconds on one CPU core: everything is read from committed tables, a few phantoms are simulated again,
# and nothing is trained.

# %% tags=["colab", "remove-cell"]
if "google.colab" in str(get_ipython()):  # without constraints.txt: Colab's own PyTorch is built for its GPU
    get_ipython().system("git clone --depth 1 https://github.com/OWNER/viptt-net /content/viptt-net")
    get_ipython().system("pip install --quiet --editable /content/viptt-net")
    get_ipython().run_line_magic("cd", "/content/viptt-net")

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Imports"}
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
from viptt_core.study.report import answers, banner, open_results, show_table
from viptt_core.study.sentences import (
    calibration_answer,
    classes_answer,
    confusion_answer,
    curves_answer,
    evidence_answer,
)

# %% tags=["hide-input", "parameters"] mystnb={"code_prompt_show": "Parameters"}
study: str = "synthetic"  # "synthetic", "real", "paper", or the path of your own plan (.toml)
arms: str = ""  # names of the arms to show, separated by ";"; empty: those of the plan's primary experiment
folder: str = ""  # holds `results/`; empty: the results of this repository

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Results that are read"}
check_parameters(globals())
found = open_results(study, arms=arms, folder=folder)

# %% tags=["remove-input"]
banner(found)

# %% [markdown]
# ## Can each class be seen at all?
# Area under the ROC curve (AUC) of each class against all others: 0.5 is chance, 1 is perfect.

# %% tags=["remove-input"]
classes_answer(found, "auc", "AUC")

# %% tags=["remove-input"]
auc_chart(found)

# %% [markdown]
# ## How many cases of each class are found?
# Recall: of the scans that have a class, the share that was found. Precision: of the scans that were given it, the
# share that has it. F1: their harmonic mean.

# %% tags=["remove-input"]
classes_answer(found, "recall", "recall")

# %% tags=["remove-input"]
class_chart(found)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: scores by class"}
show_table(found, "classes")

# %% [markdown]
# ## Which class is mistaken for which?
# Shares of each true class, over all seeds: a row adds up to 100 %.

# %% tags=["remove-input"]
confusion_answer(found)

# %% tags=["remove-input"]
confusion_chart(found)

# %% [markdown]
# ## Does pretraining help with rare types?
# According to the paper, it helps these types most. What changes in their mean recall, without and with class weights?

# %% tags=["remove-input"]
answers(found, "rare types")

# %% tags=["remove-input"]
forest_chart(found, measure="rare recall")

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: differences"}
show_table(found, "contrasts", measure="rare recall")

# %% [markdown]
# ## Does it depend on the threshold?
# Each class against all others, at every threshold. Precision depends on how frequent the class is; the ROC curve does
# not.

# %% tags=["remove-input"]
curves_answer(found)

# %% tags=["remove-input"]
curves_chart(found)

# %% [markdown]
# ## Are the probabilities right?
# Of the cases that a network is 70 % sure of, 70 % should be right. The expected calibration error (ECE) is the mean
# distance from that.

# %% tags=["remove-input"]
calibration_answer(found)

# %% tags=["remove-input"]
calibration_chart(found)

# %% [markdown]
# ## Does a network rely on the slices that show the finding?
# *Occlusion* replaces one slice after another by an empty one and records how far the probability of the predicted
# class drops: the importance of that slice. In phantoms we know which slices show the finding. A network that only
# learned where findings usually are would do well without looking at the patient. So *chance* is its importance on the
# findings of *other* patients of the same class. There is no map *within* a slice (Grad-CAM): the frozen backbone
# reduces each slice to a few numbers, pooled over the plane.

# %% tags=["remove-input"]
evidence_answer(found)

# %% tags=["remove-input"]
evidence_chart(found)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: importance on the finding"}
show_table(found, "evidence")

# %% [markdown]
# ## What does that look like in single scans?
# One phantom of each type, if possible one that was mistaken for another type.

# %% tags=["remove-input"]
importance_chart(found)

# %% [markdown]
# The same phantoms to page through, the true finding outlined:

# %% tags=["remove-input"]
browse_examples(found)

# %% [markdown]
# ## Exercises

# %% [markdown]
# **Radiology.** In your clinic a type is half as frequent as in this test set. Which of the scores above would change,
# although the network and the patients of each type are the same?

# %% tags=["hide-cell", "solution"] mystnb={"code_prompt_show": "Show the solution"}
# Recall and AUC treat the patients of a class and all others separately, so they stay the same. Precision and F1 mix
# both and fall with a rarer class. Accuracy and kappa change, too, and the probabilities are no longer calibrated.
show_table(found, "classes")

# %% [markdown]
# **Machine learning.** Why is the importance on the finding compared with the findings of other patients of the class,
# and not with an even spread over all slices?

# %% tags=["hide-cell", "solution"] mystnb={"code_prompt_show": "Show the solution"}
# A network that always looks at the slices where a class usually has its finding beats an even spread without looking
# at the patient. The findings of other patients of the class have the same usual place, so only importance above
# that level is evidence that the network uses this patient's finding.
show_table(found, "evidence")

# %% [markdown]
# ## Recap
# Read a class with its interval: the rarest has the fewest test cases. Importance explains one network on one scan;
# only the comparison with chance over all of them says whether networks rely on the finding.
