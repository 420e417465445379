"""ViPTT-Net, reproducible: video pretraining for tuberculosis types in chest CT.

Importing the package loads nothing heavy (papermill imports it on every call through our plug-in):
take what you need from its modules, for example `from viptt_core.datasets import load_dataset`.
"""

__version__ = "0.1.0"
