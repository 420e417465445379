# %% [markdown]
# # Is it the videos?
#
# **Aim.** In the paper, the run with video pretraining differs from the other one in more than that: it also trains all
# layers, weights its classes and rotates its scans. Here the arms of a comparison differ in one thing. Each section
# asks one question, answers it in a sentence, and shows the figure and the table behind it.
#
# **Runtime.** Seconds on one CPU core: everything is read from committed tables, and nothing is trained.

# %% tags=["colab", "remove-cell"]
if "google.colab" in str(get_ipython()):  # without constraints.txt: Colab's own PyTorch is built for its GPU
    get_ipython().system("git clone --depth 1 https://github.com/OWNER/viptt-net /content/viptt-net")
    get_ipython().system("pip install --quiet --editable /content/viptt-net")
    get_ipython().run_line_magic("cd", "/content/viptt-net")

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Imports"}
from viptt_core.figures.study import (
    attribution_chart,
    forest_chart,
    seed_chart,
    sources_chart,
    trend_chart,
)
from viptt_core.papermill_io import check_parameters
from viptt_core.study.report import answers, banner, families_table, open_results, plan_table, show_table
from viptt_core.study.sentences import (
    attribution_answer,
    baselines_answer,
    cost_answer,
    leak_answer,
    plan_answer,
    power_answer,
    runs_answer,
    sources_answer,
)

# %% tags=["hide-input", "parameters"] mystnb={"code_prompt_show": "Parameters"}
study: str = "synthetic"  # "synthetic", "real", "paper", or the path of your own plan (.toml)
beside: str = "real"  # a study on real scans that stands beside it
other: str = "malignancy"  # another question on these scans
folder: str = ""  # holds `results/`; empty: the results of this repository

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Results that are read"}
check_parameters(globals())
found = open_results(study, folder=folder)
on_real_scans = open_results(beside, folder=folder)
other_question = open_results(other, folder=folder)

# %% tags=["remove-input"]
banner(found, on_real_scans, other_question)

# %% [markdown]
# ## How to read an answer
# An answer follows from an interval by one rule, whatever it says: *harms* where the interval lies below 0, *helps*
# where it lies above 0, *no gain of 0.10 or more* where its upper end is below 0.10, else *undecided*. With fewer than
# 8 seeds, with seeds of the plan still missing, or where the videos were not learned, there is an interval and no
# verdict. The more contrasts a question has, the wider their intervals.

# %% [markdown]
# ## What does each of the changes add?
# Videos, class weights and rotation are switched on and off in all combinations; the CNN stays frozen as ImageNet left
# it. What a change adds is averaged over all orders in which the changes could be made (Shapley value). The paper's
# better run also trained all layers, so these parts do not add up to the paper's gap.

# %% tags=["remove-input"]
attribution_answer(found)

# %% tags=["remove-input"]
attribution_chart(found)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: what each change adds"}
show_table(found, "attribution")

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: scores"}
show_table(found, "scores", arm=found.plan.factorial_arms)

# %% [markdown]
# ## Does pretraining on videos change kappa?
# The network, its frozen CNN, the scans and the search for a learning rate are the same in both arms. They differ in
# whether the layers above the CNN have seen videos before. One dot per seed; lines join runs of the same seed. The
# interval covers the variation between seeds, each with its own scans and videos, and between samples of test cases.

# %% tags=["remove-input"]
answers(found, "primary")

# %% tags=["remove-input"]
baselines_answer(found)

# %% tags=["remove-input"]
seed_chart(found)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: scores"}
show_table(found, "scores")

# %% [markdown]
# ## And on real CT?
# A second study, with a plan of its own: lung nodules of five types, and real videos. Every result stands beside
# baselines that train no network. One of them uses grey percentiles of the whole cube, its middle half and its
# middle third. These regions were chosen on the same nodules, so its kappa is somewhat optimistic.

# %% tags=["remove-input"]
answers(on_real_scans, "primary")

# %% tags=["remove-input"]
baselines_answer(on_real_scans)

# %% tags=["remove-input"]
seed_chart(on_real_scans)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: scores (real CT)"}
show_table(on_real_scans, "scores")

# %% [markdown]
# ## What does each set of real videos change?

# %% tags=["remove-input"]
answers(on_real_scans, "each source")

# %% tags=["remove-input"]
forest_chart(on_real_scans, "primary", "each source")

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: differences (real CT)"}
show_table(on_real_scans, "contrasts", family=["primary", "each source"])

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: without a network (real CT)"}
show_table(on_real_scans, "baselines")

# %% [markdown]
# ## Benign or malignant: is the answer the same?
# The same nodules, another question.

# %% tags=["remove-input"]
answers(other_question)

# %% tags=["remove-input"]
baselines_answer(other_question)

# %% tags=["remove-input"]
seed_chart(other_question)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: scores"}
show_table(other_question, "scores")

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: differences"}
show_table(other_question, "contrasts")

# %% [markdown]
# ## What does pretraining need?
# In the controls, each video gets the label of another one, its frames come in random order, or nothing moves in it; or
# the steps of pretraining are spent on scans instead. A hollow mark is an interval that includes 0.

# %% tags=["remove-input"]
answers(found, "what pretraining needs")

# %% tags=["remove-input"]
forest_chart(found, "what pretraining needs")

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: differences"}
show_table(found, "contrasts", family="what pretraining needs")

# %% [markdown]
# On real CT, two of these controls:

# %% tags=["remove-input"]
answers(on_real_scans, "what pretraining needs")

# %% tags=["remove-input"]
forest_chart(on_real_scans, "what pretraining needs")

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: differences (real CT)"}
show_table(on_real_scans, "contrasts", family="what pretraining needs")

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: without a network (real CT)"}
show_table(on_real_scans, "baselines")

# %% [markdown]
# ## What does the network use?
# In the controls, the network starts without ImageNet's weights, averages over the slices instead of reading them with
# an LSTM, or gets them in random order.

# %% tags=["remove-input"]
answers(found, "what the network uses")

# %% tags=["remove-input"]
forest_chart(found, "what the network uses")

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: differences"}
show_table(found, "contrasts", family="what the network uses")

# %% [markdown]
# On real CT, without shuffled slices, and with class weights:

# %% tags=["remove-input"]
answers(on_real_scans, "what the network uses")

# %% tags=["remove-input"]
forest_chart(on_real_scans, "what the network uses")

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: differences (real CT)"}
show_table(on_real_scans, "contrasts", family="what the network uses")

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: without a network (real CT)"}
show_table(on_real_scans, "baselines")

# %% [markdown]
# ## Is a class found where there is nothing to find?
# On scans whose disease was left out of the simulation there is nothing to learn. An interval of kappa above 0
# would indicate a leak.

# %% tags=["remove-input"]
leak_answer(found)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: scores"}
show_table(found, "scores", experiment="no_finding")

# %% [markdown]
# ## Do more videos help?
# Large samples of videos overlap between seeds, so there are intervals, but no verdict.

# %% tags=["remove-input"]
answers(found, "number of videos")

# %% tags=["remove-input"]
trend_chart(found, "n_videos")

# %% [markdown]
# ## Do videos help where labelled scans are few?
# Large cohorts overlap between seeds, so there are intervals, but no verdict.

# %% tags=["remove-input"]
answers(found, "number of labelled scans")

# %% tags=["remove-input"]
trend_chart(found, "n_train")

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: numbers of videos and scans"}
show_table(found, "trend")

# %% [markdown]
# ## Do videos help with rare types?
# According to the paper, they help these types most. Here without and with class weights; more in
# [class by class](04_per_class).

# %% tags=["remove-input"]
answers(found, "rare types")

# %% tags=["remove-input"]
forest_chart(found, "rare types")

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: differences"}
show_table(found, "contrasts", family="rare types")

# %% [markdown]
# ## Were the videos learned?
# What has not been learned cannot be carried over. A set of videos counts as learned if the interval of the accuracy on
# held-out videos lies above what one gets without seeing them: by naming the largest class, or by the size of the
# picture.

# %% tags=["remove-input"]
sources_answer(found)

# %% tags=["remove-input"]
sources_chart(found)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: accuracy on held-out videos"}
show_table(found, "sources")

# %% [markdown]
# The real videos:

# %% tags=["remove-input"]
sources_answer(on_real_scans)

# %% tags=["remove-input"]
sources_chart(on_real_scans)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: accuracy on held-out videos (real videos)"}
show_table(on_real_scans, "sources")

# %% [markdown]
# ## What could the paper's number of scans show?
# The paper validates on a fifth of its scans and is ranked on the hidden test scans. Simulated for one run per arm:

# %% tags=["remove-input"]
power_answer(found)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: what so many scans can show"}
show_table(found, "power")

# %% [markdown]
# ## What was planned, and was it run?
# Arms, seeds and questions were written down and committed before the first run; the digest names the file. Where a
# plan was not followed, the text below its table says so.

# %% tags=["remove-input"]
plan_answer(found)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: the plan"}
plan_table(found)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: the questions"}
families_table(found)

# %% tags=["remove-input"]
plan_answer(on_real_scans)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: the plan (real CT)"}
plan_table(on_real_scans)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: the questions (real CT)"}
families_table(on_real_scans)

# %% [markdown]
# ## What did every planned contrast show?
# All contrasts of the first two studies, whatever they show. [Claims](../claims.md) has those of every study.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: differences"}
show_table(found, "contrasts")

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: differences (real CT)"}
show_table(on_real_scans, "contrasts")

# %% [markdown]
# ## How did the runs end, and what did they cost?

# %% tags=["remove-input"]
runs_answer(found)

# %% tags=["remove-input"]
runs_answer(on_real_scans)

# %% tags=["remove-input"]
cost_answer(found)

# %% tags=["remove-input"]
cost_answer(on_real_scans)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: how the runs ended"}
show_table(found, "runs")

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: how the runs ended (real CT)"}
show_table(on_real_scans, "runs")

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: costs"}
show_table(found, "cost")

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Table: costs (real CT)"}
show_table(on_real_scans, "cost")

# %% [markdown]
# ## Exercises

# %% [markdown]
# **Radiology.** A colleague compares the mean kappa of two arms on the nodules and calls the arm with the higher mean
# better. Which line of this page says whether that holds, and what does it take into account?

# %% tags=["hide-cell", "solution"] mystnb={"code_prompt_show": "Show the solution"}
# The interval of the difference says so, not the two means: both arms share seeds, folds and patients, and only the
# difference is free of what they share. The interval covers other seeds and other patients. The rule turns it into a
# verdict, and the baselines say whether either arm is worth using.
show_table(on_real_scans, "contrasts", family="primary")

# %% [markdown]
# **Machine learning.** In the paper class weights came together with the videos. Which two arms of the factorial show
# what the videos change where the classes are weighted in both? What would a comparison across the diagonal mix up?

# %% tags=["hide-cell", "solution"] mystnb={"code_prompt_show": "Show the solution"}
# Compare two arms that both have class weights and differ in the start alone. Across the diagonal, ImageNet only
# without class weights against ImageNet + videos with class weights, the difference mixes both changes and their
# interaction.
show_table(found, "scores", arm=["image", "image-weights", "video", "video-weights"])

# %% [markdown]
# ## Recap
# Each answer is computed from an interval by one rule, and a part that has not run says so. The tables as files, every
# arm in them, lie in `results/`. `viptt recheck` computes all of them again; `viptt study run` trains the runs anew.
