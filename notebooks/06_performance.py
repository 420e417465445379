# %% [markdown]
# # Performance: how fast, beside what
#
# **Aim.** See what the engine gains over straightforward code, and where the time that remains goes.
#
# **Runtime.** Seconds: this page reads results that were measured before. To measure them again takes a
# quarter of an hour on two CPU cores (`make bench`), or hours at the paper's size (`make bench-full`).

# %% tags=["colab", "remove-cell"]
if "google.colab" in str(get_ipython()):  # without constraints.txt: Colab's own PyTorch is built for its GPU
    get_ipython().system("git clone --depth 1 https://github.com/OWNER/viptt-net /content/viptt-net")
    get_ipython().system("pip install --quiet --editable /content/viptt-net")
    get_ipython().run_line_magic("cd", "/content/viptt-net")

# %%
from viptt_core.figures.performance import profile_chart, ratio_chart, scaling_chart
from viptt_core.papermill_io import check_parameters
from viptt_core.performance import load_results, profile_table, results_table

# %% tags=["parameters"]
profile: str = "quick"  # "quick" (16 frames a clip) or "full" (70 frames, the paper's)
results: str = ""  # folder of the result files; empty: benchmarks/results

# %%
check_parameters(globals())
measured = load_results(profile, folder=results)

# %% [markdown]
# ## What was measured, and how
# Each row runs ours and a reference on the same machine in the same run, in turn: ours, reference, ours,
# reference. What else the machine does at that time meets both. The ratio is that of the two medians; the
# range is the smallest and the largest ratio of one pair. A ratio travels from machine to machine better than
# a time does; targets were set before measuring. Where the target is a bound of its own, as for memory, there is
# no ratio and the table shows the value.
#
# The machine:

# %%
measured.machines()

# %% [markdown]
# ## All rows

# %%
results_table(measured)

# %%
measured.verdict()

# %% [markdown]
# ## The ratios
# On the first panel further right is better, on the second further left. The black bar is the target.

# %%
ratio_chart(measured)

# %% [markdown]
# ## How time grows
# A step that trains all layers, over more clips, more frames and larger frames. Linear growth is a slope of 1
# on these axes. Below 1, a part of the time does not depend on the work: the optimiser writes the same weights
# however few pixels were seen.

# %%
scaling_chart(measured)

# %% [markdown]
# ## Where the remaining time goes
# Operators are grouped under names a reader knows, in the precision the engine picks by itself. *Data movement*
# is copies between precisions and memory layouts; *other* holds the loss and the time between operators.

# %%
profile_chart(measured)

# %%
profile_table(measured)

# %% [markdown]
# ## The authors' own times
# **Other hardware, not comparable**: their GPUs, disks and Keras beside our machine. They stand here for a
# sense of scale, and no ratio above is formed with them.
#
# | what | their time | on | source |
# |---|---|---|---|
# | preprocess one scan | 5.4 s | not stated | C |
# | an epoch, backbone frozen (UCF50) | 174 s | V100 | C |
# | an epoch, all layers (TB scans) | 489 s | P100 | C |
# | predict one scan | 1.51 s | P100 | C |
#
# C: outputs stored in the authors' public notebooks.

# %% [markdown]
# ## Recap
# What was not measured is said in the table and in the sentence below it, with the reason; it counts neither
# as met nor as missed. The two profiles differ in the frames of a clip and in the number of repeats.
#
# To measure on your machine: `make bench` (quick), `make bench-full` (the paper's size),
# `python -m benchmarks.profiling` (where the time goes, on the CPU). On a machine with a GPU the first two write a
# file of their own, which becomes a column here when this page is executed again.
