"""How a figure moves in each of the ten UCF activities, and with which props.

Each is a function that places pelvis, hands, feet and props over time in the figure's own frame: x forward,
y left, z up; unit: body height; angles in radians. Inverse kinematics adds elbows and knees.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

THIGH, SHANK, UPPER_ARM, FOREARM = 0.235, 0.235, 0.175, 0.155  # body heights


def xyz(x, y, z) -> np.ndarray:
    """Points [..., 3] from coordinates that broadcast against one another."""
    return np.stack(np.broadcast_arrays(*(np.asarray(v, float) for v in (x, y, z))), -1)


def pair(x, y, z) -> list[np.ndarray]:
    """A point on the left and its mirror image on the right."""
    return [xyz(x, y, z), xyz(x, -np.asarray(y, float), z)]


def ring(points: int, radius: float = 1.0, height: float = 0.0) -> np.ndarray:
    """Horizontal circle, [points, 3]."""
    angle = np.arange(points) * 2 * np.pi / points
    return xyz(radius * np.cos(angle), radius * np.sin(angle), height)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / (np.linalg.norm(vector, axis=-1, keepdims=True) + 1e-9)


def bend(root, target, upper: float, lower: float, pole) -> tuple[np.ndarray, np.ndarray]:
    """Middle joint and end of two bones from `root` towards `target`, [..., 3] each; bends towards `pole`."""
    along = np.asarray(target, float) - root
    length = np.linalg.norm(along, axis=-1, keepdims=True)
    # A target out of reach is approached as far as the bones allow.
    reach = np.clip(length, abs(upper - lower) + 1e-3, (upper + lower) * 0.999)
    along = along / (length + 1e-9)
    foot = (upper**2 - lower**2 + reach**2) / (2 * reach)
    pole = np.asarray(pole, float)
    side = unit(pole - (pole * along).sum(-1, keepdims=True) * along)
    return root + foot * along + np.sqrt(np.maximum(upper**2 - foot**2, 0)) * side, root + reach * along


def keyed(cycle: np.ndarray, keys) -> np.ndarray:
    """Smooth periodic curve [F, D] along key poses: rows of (phase, D values), all in hundredths."""
    keys = np.asarray(keys, float) / 100
    # Straight lines between keys, averaged over a short window: no overshoot, no corners.
    cycle = cycle[:, None] + np.linspace(-0.04, 0.04, 7)
    return np.stack([np.interp(cycle, keys[:, 0], v, period=1).mean(1) for v in keys.T[1:]], -1)


class Scene:
    """The pieces of a clip: hulls of balls and lines, their points [F, P, 3] in the figure's own frame.

    `look`: the group's actor, props and place (see `actions`); `cycle` [F]: phase of the action in cycles;
    `bob`, `pitch` and `yaw` [F] move everything at once: up, nose up, turn to the left.
    """

    def __init__(self, look: SimpleNamespace, cycle: np.ndarray) -> None:
        self.look, self.cycle, self.wave = look, cycle, 2 * np.pi * cycle
        self.pieces: list[SimpleNamespace] = []
        self.bob = self.pitch = self.yaw = np.zeros(len(cycle))

    def add(self, points, radii, colour, *, nudge=0.0, line=0.0, flat=False, prop=False) -> None:
        """Add the hull of balls with `radii` at `points` (each [3] or [F, 3]), or a `line` of that width.

        `colour`: RGB, 0..255; `nudge`: towards the viewer, in the drawing order only; `flat`: no highlight or
        shadow; `prop`: fades towards the ground's colour as far as the group's visibility asks.
        """
        points = np.stack([np.broadcast_to(p, (len(self.cycle), 3)) for p in points], 1)
        fade = self.look.visibility if prop else 1.0
        colour = fade * np.asarray(colour, float) + (1 - fade) * self.look.ground
        shape = {"points": points, "radii": np.broadcast_to(np.asarray(radii, float), points.shape[1]), "line": line}
        self.pieces.append(SimpleNamespace(**shape, colour=colour, nudge=nudge, flat=flat or line > 0))

    def body(self, pelvis, hands, feet, *, lean=0.0, tilt=0.0, twist=0.0, gaze=0.0) -> list[np.ndarray]:
        """Add the figure; returns the two hands, left first as in `hands` and `feet` (wrists and ankles).

        `lean` is forward, `tilt` to the left; `twist` turns the shoulders and `gaze` the head to the left.
        """
        look, n, nil = self.look, len(self.cycle), np.zeros(len(self.cycle))
        pelvis = np.broadcast_to(pelvis, (n, 3)) + (0, 0, 2 * THIGH * (look.leg - 1))
        lean, tilt, twist, gaze = lean + nil, tilt + nil, twist + nil, gaze + 0.6 * twist
        spine = unit(xyz(np.sin(lean), np.sin(tilt), np.cos(lean)))
        across = xyz(-np.sin(twist), np.cos(twist), nil)
        across = unit(across - (across * spine).sum(-1, keepdims=True) * spine)
        hip_line = xyz(-np.sin(0.4 * twist), np.cos(0.4 * twist), nil)
        face = unit(xyz(np.cos(gaze), np.sin(gaze), -0.5 * np.sin(lean)))
        neck, waist, bulk = pelvis + 0.30 * spine, pelvis + 0.10 * spine, look.bulk
        head = neck + 0.055 * spine + (0, 0, 0.05) + 0.012 * face
        shoulders = [neck + s * 0.098 * look.shoulder * across - 0.025 * spine for s in (1, -1)]
        hips = [pelvis + s * 0.05 * hip_line for s in (1, -1)]
        self.add([*hips, pelvis + 0.06 * spine], 0.062 * bulk, look.trousers, nudge=-0.01)
        chest = [*(s - 0.045 * spine for s in shoulders), *(waist + s * 0.03 * hip_line for s in (1, -1))]
        self.add([*shoulders, *chest], np.repeat((0.036, 0.052, 0.058), 2) * bulk, look.shirt)
        ends = []
        for i, s in enumerate((1, -1)):
            knee, ankle = bend(hips[i], feet[i], THIGH * look.leg, SHANK * look.leg, (1, 0.25 * s, 0.3))
            shin = unit(ankle - knee)
            toe = unit(xyz(1, 0, -0.1) - 0.8 * shin * shin[..., :1])  # the foot is square to the shin
            self.add((hips[i], knee), (0.062 * bulk, 0.043 * bulk), look.trousers)
            self.add((knee, ankle), (0.042 * bulk, 0.027 * bulk), look.shank)
            self.add((ankle + 0.012 * shin, ankle + 0.10 * toe), (0.030, 0.020), look.shoes)
            bones = UPPER_ARM * look.arm, FOREARM * look.arm
            elbow, wrist = bend(shoulders[i], hands[i], *bones, (-0.5, 0.5 * s, -0.6))
            ends.append(wrist + 0.035 * unit(wrist - elbow))
            self.add((wrist, ends[i]), (0.019, 0.022), look.skin, nudge=0.02)
            self.add((elbow, wrist), (0.029 * bulk, 0.021 * bulk), look.forearm, nudge=0.02)
            self.add((shoulders[i], elbow), (0.041 * bulk, 0.031 * bulk), look.shirt, nudge=0.01)
        crown = head - 0.022 * face + (0, 0, 0.034)
        self.add((neck - 0.01 * spine, head), (0.032, 0.030), look.skin)
        self.add((head - (0, 0, 0.022), head + (0, 0, 0.02)), (0.046, 0.056), look.skin, nudge=0.015)
        self.add((crown, crown - 0.022 * face - (0, 0, 0.028)), (0.056, 0.046), look.hair, nudge=0.012)
        if look.cap:
            brow, side = crown + 0.05 * face + (0, 0, 0.014), 0.04 * np.cross(face, (0, 0, 1))
            self.add((brow + side, brow - side, brow + 0.05 * face), 0.008, look.hair, nudge=0.02)
        return ends

    def pose(self, pose, hands, feet, *, gaze) -> list[np.ndarray]:
        """As `body`, with the pelvis, twist and lean of key poses [F, 4]; `gaze`: times the twist."""
        pelvis, twist = xyz(pose[:, 0], 0, pose[:, 1]), pose[:, 2]
        return self.body(pelvis, hands, feet, twist=twist * self.look.amplitude, lean=pose[:, 3], gaze=gaze * twist)

    def animal(self, base, size, girth, neck, muzzle, tail, gait, stride, colour, pace=1.0) -> np.ndarray:
        """Add a four-legged animal above the ground point `base`; returns its mouth, [F, 3].

        `size` and `girth`: height of the back, radius of the trunk; `neck`, `muzzle`, `tail`: vectors from
        withers to poll to mouth, and from croup to the tail's tip; `gait`: phases of left fore, right fore,
        left hind and right hind leg; `stride`: half a step; `pace`: its steps for one cycle of the action.
        """
        base, colour, wave = np.asarray(base, float), np.asarray(colour, float), pace * self.wave
        rock = 0.04 * size * np.sin(wave)
        chest, croup = (base + xyz(s * 0.40 * size, 0, size - girth + s * rock) for s in (1, -1))
        self.add((chest, croup), (girth, 0.95 * girth), colour)
        for i, (root, s) in enumerate(((chest, 1), (chest, -1), (croup, 1), (croup, -1))):
            turn, bone = wave + 2 * np.pi * gait[i], 0.53 * (size - 1.2 * girth)
            hip = root + (0, s * 0.45 * girth, -0.2 * girth)
            step = xyz(stride * np.cos(turn), 0, 0.02 + 0.5 * stride * np.maximum(-np.sin(turn), 0))
            knee, hoof = bend(hip, hip * (1, 1, 0) + step, bone, bone, (1 if i < 2 else -1, 0, 0))
            self.add((hip, knee), (0.42 * girth, 0.2 * girth), colour * (0.9 + 0.05 * s), nudge=-0.05 * s)
            self.add((knee, hoof), (0.2 * girth, 0.15 * girth), colour * 0.72, nudge=-0.05 * s)
        withers = chest + (0.1 * size, 0, 0.35 * girth)
        poll = withers + np.asarray(neck) + size * xyz(0.08 * np.sin(wave), 0, 0.05 * np.cos(wave))
        mouth, rump = poll + np.asarray(muzzle), croup + (-0.8 * girth, 0, 0.4 * girth)
        self.add((withers, poll), (0.62 * girth, 0.42 * girth), colour)
        self.add((poll, mouth), (0.46 * girth, 0.26 * girth), colour * 1.08, nudge=0.02)
        ear = poll + (-0.04 * size, 0, 0.3 * girth), poll + (-0.08 * size, 0, 0.8 * girth)
        self.add(ear, (0.15 * girth, 0.06 * girth), colour * 0.6)
        tip = rump + np.asarray(tail) + xyz(0, 0.3 * girth * np.sin(2 * wave), 0)
        self.add((rump, tip), (0.2 * girth, 0.12 * girth), colour * 0.6)
        return mouth


# --- The ten actions: each adds figure and props; those that travel return (forward, left) in heights / s ---
def mixing(scene, look):
    bowl, wave = np.array((0.30, -0.02, 0.60)), scene.wave
    wide = look.amplitude * (1 + 0.25 * np.sin(0.37 * wave))
    tip = bowl + xyz(0.055 * wide * np.cos(wave), 0.06 * wide * np.sin(wave), 0.02)
    grips = bowl + (-0.02, 0.125, 0.06), tip + (-0.05, -0.03, 0.15)
    pelvis, sway = xyz(0, 0.012 * np.sin(wave / 2), 0.5), np.sin(wave)
    hands = scene.body(pelvis, grips, pair(0, 0.08, 0.045), lean=0.22 + 0.03 * sway, twist=0.08 * sway)
    wood, edge = np.array((150, 118, 88)) * (0.7 + 0.6 * look.variant), pair(0.62, 1.9, 0.53)
    scene.add([*edge, *pair(0.14, 1.9, 0.53)], 0, wood * 1.15, nudge=-0.25, flat=True)  # table
    scene.add([*edge, *pair(0.62, 1.9, -0.3)], 0, wood * 0.8, nudge=0.05, flat=True)
    shell = np.concatenate([ring(14, 0.118, 0.05), ring(14, 0.10, 0), ring(14, 0.06, -0.055)])
    scene.add(bowl + shell, 0.004, look.gear, nudge=0.1, prop=True)
    scene.add(bowl + ring(14, 0.105, 0.05), 0, look.gear * 0.5, nudge=0.15, flat=True, prop=True)
    scene.add((hands[1], tip), 0, (215, 215, 220), line=0.012, nudge=0.2, prop=True)
    scene.add((tip, tip + (0, 0, 0.05)), (0.022, 0.012), (205, 205, 210), nudge=0.2, prop=True)  # whisk


# phase | pelvis x, z | twist, lean | right hand | racket points to | left hand | left and right foot x, y
TENNIS = (
    (0, 0, 45, 0, 25, 27, -6, 60, 60, 40, 60, 29, 4, 62, 0, 15, 0, -15),
    (28, -5, 47, -130, 5, -26, -26, 84, -30, -20, 90, 20, -8, 74, 6, 12, -5, -20),
    (40, -2, 45, -110, 10, -24, -34, 48, -90, -30, -30, 28, 4, 72, 20, 7, -6, -20),
    (50, 8, 46, 10, 15, 36, -28, 60, 30, -90, 10, 12, 26, 66, 24, 6, -4, -18),
    (58, 10, 48, 90, 10, 38, 16, 82, 20, 70, 70, 2, 28, 66, 24, 6, 0, -15),
    (70, 8, 48, 110, 10, 12, 28, 90, -70, 40, 30, 6, 24, 68, 22, 8, 6, -15),
)


def tennis_swing(scene, look):
    pose, lift = keyed(scene.cycle, TENNIS), 0.045 + 0.02 * np.abs(np.sin(scene.wave))
    feet = [xyz(pose[:, i], pose[:, i + 1], lift) for i in (13, 15)]
    hands = scene.pose(pose, (pose[:, 10:13], pose[:, 4:7]), feet, gaze=-0.5)
    grip, d = hands[1], unit(pose[:, 7:10])
    face, angles = unit(np.cross(d, (0.8, 0.35, -0.45))), np.arange(17) * np.pi / 8
    rim = [grip + (0.31 + 0.125 * np.cos(a)) * d + 0.10 * np.sin(a) * face for a in angles]
    scene.add((grip - 0.03 * d, grip + 0.19 * d), 0, (60, 50, 50), line=0.022, nudge=0.03, prop=True)
    scene.add(rim, 0, 0.5 * look.gear + 90, nudge=0.02, flat=True, prop=True)
    scene.add(rim, 0, look.gear * 0.6, line=0.018, nudge=0.04, prop=True)
    late = (scene.cycle % 1 - 0.5) / look.hertz  # seconds after the hit; the ball comes and goes forward
    away = 5 * np.abs(late)
    ball = xyz(0.36 + away, -0.56 + 0.1 * away, 0.62 + 0.15 * away - 0.6 * late**2)
    scene.add([ball], 0.032, (214, 232, 80), prop=True)


def horse_riding(scene, look):
    wave, a = scene.wave, look.amplitude
    scene.bob, scene.pitch = 0.035 * a * np.sin(wave), 0.07 * a * np.sin(wave + 1.2)
    coat = np.array(((96, 62, 40), (60, 46, 40), (150, 112, 76), (186, 180, 172))[int(look.variant * 4)])
    gait = (0, 0.5, 0.5, 0) if look.cap else (0.05, 0.2, 0.55, 0.7)  # trot or gallop
    neck, muzzle, tail = (0.24, 0, 0.30), (0.22, 0, -0.17), (-0.19, 0, -0.22)
    mouth = scene.animal((0, 0, 0), 0.86, 0.165, neck, muzzle, tail, gait, 0.24 * a, coat)
    scene.add([(0.42, 0, 0.98), (0.60, 0, 1.14)], (0.05, 0.04), coat * 0.5, nudge=-0.01)  # mane
    grips, lean = pair(0.24 + 0.03 * np.cos(wave), 0.05, 1.1), 0.12 + 0.12 * a * np.sin(wave - 1)
    seat = xyz(-0.02, 0, 0.94 + 0.035 * a * np.sin(wave - 0.8))
    for hand in scene.body(seat, grips, pair(0.08, 0.20, 0.52), lean=lean):
        scene.add((hand, mouth), 0, (50, 36, 30), line=0.008, nudge=0.05, prop=True)
    return 1.9 * a, 0.0


def jump_rope(scene, look):
    wave, turn = scene.wave, -scene.wave  # the rope is lowest when the jump is highest
    jump, dip = 0.085 * look.amplitude * np.maximum(np.sin(wave), 0), 0.03 * np.maximum(-np.sin(wave), 0)
    grips = pair(0.12 + 0.035 * np.cos(turn), 0.25, 0.52 + jump / 2 + 0.035 * np.sin(turn))
    feet = pair(-0.3 * jump, 0.045, 0.045 + jump)
    hands = scene.body(xyz(0, 0, 0.5 + jump - dip), grips, feet, lean=0.06 + dip)
    s = np.linspace(0, 1, 19)[:, None, None]
    sag = np.sin(np.pi * s) ** 0.65 * 0.56
    rope = hands[0] * (1 - s) + hands[1] * s + sag * xyz(np.cos(turn), 0, np.sin(turn))
    rope[..., 1] *= 1 + 0.5 * np.sin(np.pi * s[..., 0])
    scene.add(rope, 0, 0.5 * look.gear + (110 if look.variant > 0.4 else -20), line=0.018, prop=True)


def jumping_jack(scene, look):
    wide = (1 - np.cos(scene.wave)) / 2 * look.amplitude
    jump, angle = 0.05 * np.abs(np.sin(scene.wave)), 0.15 + 2.75 * wide
    grips = pair(0.03, 0.09 + 0.31 * np.sin(angle), 0.78 + jump - 0.31 * np.cos(angle))
    scene.body(xyz(0, 0, 0.5 + jump - 0.03 * wide), grips, pair(0, 0.05 + 0.17 * wide, 0.045 + jump))


# phase | pelvis x, z | twist, lean | right hand | left hand | left foot | right foot
PITCH = (
    (0, 0, 50, -60, 0, 14, -5, 68, 17, 0, 68, 2, 7, 4.5, -3, -8, 4.5),
    (20, -4, 50, -120, -5, 6, -13, 78, 10, -8, 80, 18, -2, 44, -5, -8, 4.5),
    (34, 12, 45, -140, 0, -34, -14, 62, 42, 3, 76, 46, 4, 16, -6, -8, 4.5),
    (42, 22, 42, -70, 5, -10, -26, 100, 50, 14, 72, 52, 5, 4.5, -4, -8, 6),
    (48, 32, 41, 60, 45, 76, -12, 94, 38, 22, 56, 52, 5, 4.5, 4, -10, 13),
    (56, 38, 41, 110, 95, 66, 16, 30, 30, 24, 58, 50, 5, 4.5, 16, -16, 30),
    (68, 42, 46, 50, 40, 66, 5, 52, 56, 20, 60, 50, 8, 4.5, 44, -12, 7),
    (84, 20, 49, 0, 10, 36, -10, 52, 34, 12, 58, 18, 8, 10, 26, -8, 4.5),
)


def baseball_pitch(scene, look):
    pose = keyed(scene.cycle, PITCH)
    right, left, *feet = np.split(pose[:, 4:], 4, 1)
    hands = scene.pose(pose, (left, right), feet, gaze=-0.6)
    scene.add(ring(20, 1.3), 0, 0.5 * look.ground + (90, 62, 40), nudge=-9, flat=True)  # mound
    scene.add(hands[:1], 0.055, (96, 58, 32), nudge=0.03, prop=True)  # glove
    late = ((scene.cycle - 0.485) % 1 / look.hertz)[:, None]  # seconds after the release
    ball = np.where(late < 0.8, (0.76, -0.12, 0.92) + late * (4.5, 0, 0) - late**2 * (0, 0, 0.6), hands[1])
    scene.add([ball], 0.026, (240, 240, 236), nudge=0.03, prop=True)


def rowing(scene, look):
    wave, height = scene.wave, 0.36 + 0.045 * np.sin(scene.wave)
    close, lag = (1 + np.cos(wave)) / 2, (1 + np.cos(wave - 0.35)) / 2  # 1 at the catch, knees bent
    seat = xyz(0.21 * close * look.amplitude, 0, 0.17)
    grips, feet = pair(0.06 + 0.6 * lag, 0.11 - 0.05 * lag, height), pair(0.47, 0.06, 0.18)
    hands = scene.body(seat, grips, feet, lean=-0.38 + 0.85 * lag)
    if look.surface != "water":  # a rowing machine: rail, flywheel, cable, handle
        scene.add([(-0.45, 0, 0.08), (0.75, 0, 0.12)], 0.025, (90, 90, 96), nudge=-0.02)
        scene.add([(0.75, 0, 0.22), (0.80, 0, 0.26)], (0.15, 0.13), look.gear * 0.6, nudge=-0.02, prop=True)
        scene.add((0.5 * (hands[0] + hands[1]), (0.70, 0, 0.30)), 0, (50, 50, 50), line=0.01, prop=True)
        scene.add(hands, 0, (40, 40, 44), line=0.026, nudge=0.05)
        return 0.0, 0.0
    scene.bob = 0.012 * np.sin(wave + 1)
    tips = (-1.6, 0, 0.11), (1.6, 0, 0.11)
    scene.add([*tips, *pair(-0.7, 0.15, 0.1), *pair(0.7, 0.15, 0.1)], 0, look.gear / 2, nudge=-0.4, flat=True)
    for hand, s in zip(hands, (1, -1), strict=True):
        near = look.side * s * np.cos(look.heading) < 0  # this flank faces the viewer
        flank = [(x, s * y, z) for x in (-0.9, 0.9) for y, z in ((0.15, 0.12), (0.09, -0.01))]
        scene.add([*tips, *flank], 0.006, look.gear * 0.9, nudge=0.03 if near else -0.3, flat=True)
        d = unit((0.28, s * 0.42, 0.24) - hand)
        blade = (0.28, s * 0.42, 0.24) + 0.80 * d
        scene.add((hand, blade), 0, (206, 190, 160), line=0.018, nudge=0.05 if near else 0, prop=True)
        scene.add((blade, blade + 0.22 * d), (0.02, 0.045), look.shirt, prop=True)
    return -0.9 * look.amplitude, 0.0


def skateboarding(scene, look):
    phase, a = scene.cycle % 1, look.amplitude

    def bump(start, end):
        return np.sin(np.pi * np.clip((phase - start) / (end - start), 0, 1)) ** 2

    push, air = bump(0.02, 0.24) + bump(0.24, 0.46), bump(0.62, 0.84) * a * (1 if look.variant > 0.3 else 0.4)
    crouch, tip = bump(0.50, 0.70) + 0.6 * bump(0.80, 0.98), 0.07 * bump(0.60, 0.74)
    reach = (phase - np.where(phase < 0.24, 0.13, 0.35)) / 0.22  # of the pushing foot, -0.5..0.5
    carve, off = 0.22 * np.sin(2 * scene.wave) * (1 - push), np.minimum(4 * push, 1)
    scene.bob = 0.22 * air
    right = xyz(0.10 * off, -0.15 + off * (0.23 - 0.55 * reach), 0.115 - off * (0.015 + 0.05 * push))
    pelvis = xyz(-0.03, 0.07 * push, 0.535 - 0.10 * crouch - 0.04 * push - 0.03 * air)
    high = 0.72 + 0.10 * crouch + 0.16 * air
    hands = [xyz(0.08 + 0.3 * carve * s, s * 0.30 + (0.07 - 0.04 * s) * push, high + 0.10 * s * carve) for s in (1, -1)]
    feet = xyz(0, 0.13, 0.115 + 0.04 * air), right
    lean, tilt, twist = 0.15 + 0.3 * crouch + 0.25 * push, 0.15 * push + 0.4 * carve, 0.9 * push + 0.3
    scene.body(pelvis, hands, feet, lean=lean, tilt=tilt, twist=twist, gaze=0.9)
    nose, tail, wide = xyz(0, 0.22, 0.062 + tip), np.array((0, -0.22, 0.062)), np.array((0.05, 0, 0))
    scene.add((nose - wide, nose + wide, tail - wide, tail + wide), 0.012, (172, 122, 76), prop=True)
    for end, back in ((nose, -0.07), (tail, 0.07)):
        scene.add((end, end + (0, -0.9 * back, 0.028)), (0.04, 0.03), (138, 98, 60), prop=True)
        for side in (-wide, wide):
            scene.add([end + side + (0, back, -0.03)], 0.026, (232, 226, 210), prop=True)
    return 0.0, 1.5 * a


def walking_with_dog(scene, look):
    swing, step, pull = np.cos(scene.wave), 0.18 * look.amplitude, 0.03 * np.sin(0.43 * scene.wave)
    lift = 0.42 * step * np.sin(scene.wave)
    feet = [xyz(s * step * swing, s * 0.045, 0.045 + np.maximum(-s * lift, 0)) for s in (1, -1)]
    hands = (xyz(0.17 + pull, 0.17, 0.55 + pull), xyz(0.17 * swing, -0.17, 0.49 + 0.03 * swing))
    hands = scene.body(xyz(0, 0, 0.483 + 0.024 * swing**2), hands, feet, lean=0.07, twist=-0.12 * swing)
    size, coats = 0.24 + 0.16 * look.variant, ((150, 104, 60), (52, 44, 40), (214, 200, 178), (120, 90, 70))
    ahead, aside = 0.06 * np.sin(0.31 * scene.wave), 0.05 * np.sin(0.53 * scene.wave)
    neck, muzzle, tail = np.array(((0.16, 0, 0.28), (0.34, 0, -0.07), (-0.22, 0, 0.32))) * size
    base, coat = xyz(0.58 + 0.22 * look.variant + ahead, 0.22 + aside, 0), coats[int(look.variant * 37) % 4]
    trot = (0, 0.5, 0.5, 0)
    mouth = scene.animal(base, size, 0.22 * size, neck, muzzle, tail, trot, 0.3 * size, coat, pace=1.7)
    collar = mouth - (0.40 * size, 0, 0.08 * size)
    scene.add((hands[0], collar), 0, (150, 40, 40), line=0.010, prop=True)
    return 4 * step * look.hertz, 0.0


def skijet(scene, look):
    wave, a, black, foam = scene.wave, look.amplitude, (46, 46, 52), np.array((228, 236, 242))
    scene.bob = a * (0.05 * np.sin(wave) + 0.025 * np.sin(2.3 * wave + 1))
    scene.pitch = 0.06 + a * (0.09 * np.cos(wave) + 0.04 * np.sin(1.7 * wave))
    swerve, stand = 0.23 * wave + 6 * look.variant, 0.10 if look.variant > 0.6 else 0.0
    scene.yaw = 0.35 * a * np.sin(swerve)
    wake = [p for x, y in ((0.3, 0.05), (-0.5, 0.2), (-2.2, 0.5)) for p in pair(x, y, 0)]
    scene.add(wake, 0, 0.6 * look.ground + 0.4 * foam, nudge=-5, flat=True, prop=True)
    hull = ((-0.5, 0.17, 0.15), (0.2, 0.16, 0.17), (-0.48, 0.13, 0.02), (0.3, 0.10, 0.04))
    scene.add([(0.62, 0, 0.20), *[p for point in hull for p in pair(*point)]], 0.02, look.gear * 0.75)
    scene.add([(-0.42, 0, 0.25), (0.02, 0, 0.24), (-0.40, 0, 0.18), (0.1, 0, 0.18)], 0.07, black)  # seat
    scene.add([(0.12, 0, 0.28), (0.24, 0, 0.32), (0.50, 0, 0.19)], (0.09, 0.07, 0.04), look.gear, nudge=0.02)
    bar = pair(0.20, 0.17, 0.42)
    scene.add(bar, 0, black, line=0.026)
    seat = xyz(-0.16, 0, 0.37 + stand + 0.03 * np.sin(wave - 1))
    scene.body(seat, bar, pair(0.06, 0.17, 0.17), lean=0.35 + 0.1 * np.sin(wave), tilt=0.2 * np.cos(swerve))
    for i, (sideways, up, birth) in enumerate(look.sparks):  # spray: streaks thrown up at stern and bow
        now = (0.9 * scene.cycle + birth) % 1
        x, y, rise = 0.25 if i % 4 == 0 else -0.5, 0.14 * np.sign(sideways), a * (0.4 + 0.9 * up)
        t = np.stack((now, np.maximum(now - 0.07, 0)))
        path = xyz(x - 1.2 * t, y + 0.6 * sideways * t, np.maximum(0.03 + rise * t - 0.95 * t**2, 0))
        scene.add(path, (0.012 + 0.02 * up, 0.005), foam * (0.86 + 0.14 * birth), flat=True, prop=True)
    return 2.6 * a, 0.0
