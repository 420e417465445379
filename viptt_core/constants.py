"""Science constants, each with its source.

[P] the paper's abstract, arXiv 2105.12810 · [C] the authors' public notebooks ·
[B] the benchmark's or data set's own pages.
"""

# --- Computed tomography ------------------------------------------------------------------
HU_AIR = -1000  # by the definition of the Hounsfield scale
HU_WINDOW = (-1000, 400)  # HU; lower and upper bound kept before scaling to [0, 1] [C]
CT_WINDOWS = {"the paper's": HU_WINDOW, "lung": (-1350, 150), "soft tissue": (-160, 240)}  # the last two: radiology

# --- The paper's input grid ---------------------------------------------------------------
PAPER_FRAMES = 70  # frames of a video, slices of a scan [C]
PAPER_SIZE = 224  # pixels, height and width [C]

# --- ImageCLEF 2021 Tuberculosis, TB type -------------------------------------------------
# Index + 1 is the number used in the label CSV and the submission file. [B]
TB_CLASSES = ("Infiltrative", "Focal", "Tuberculoma", "Miliary", "Fibro-cavernous")
TB_TRAIN_COUNTS = (420, 226, 101, 100, 70)  # scans a class, training set [B]
TB_RARE_CLASSES = ("Tuberculoma", "Miliary", "Fibro-cavernous")  # fewer than 12 % each

# --- UCF50 ---------------------------------------------------------------------------------
# The ten classes the authors trained on, in their order (an unsorted directory listing). [C]
UCF_CLASSES = ("Mixing", "TennisSwing", "HorseRiding", "JumpRope", "JumpingJack", "BaseballPitch", "Rowing")
UCF_CLASSES += ("SkateBoarding", "WalkingWithDog", "Skijet")
UCF_GROUPS = 25  # groups a class: clips of a group come from the same source video [B]
UCF_FRAME_SIZE = (240, 320)  # pixels, height and width [B]
UCF_FRAME_RATE = 26  # frames a second, about [B]
UCF_GROUP_PATTERN = r"(v_.+_g\d+)_c\d+"  # first capture group: what must not straddle a split

# --- Rotation augmentation, final TB run [C] ------------------------------------------------
ROTATION_DEGREES = (-20, -10, -5, 5, 10, 20)
ROTATION_PROBABILITY = 0.75

# --- What the paper reports [P] --------------------------------------------------------------
PAPER_KAPPA_SCRATCH = 0.17  # validation
PAPER_KAPPA_PRETRAINED = 0.35  # validation
PAPER_KAPPA_TEST = 0.20  # hidden test, second place
