"""How a figure moves in each of the ten UCF activities, and with which props.

Every action is one function that places pelvis, hands, feet and props over time in the figure's own frame:
x forward, y left, z up; unit: body height; angles in radians. Two-bone inverse kinematics finds elbows and
knees, so limbs keep their length. `actions` films the result.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

THIGH = SHANK = 0.235  # body heights
UPPER_ARM, FOREARM = 0.175, 0.155


def xyz(x, y, z) -> np.ndarray:
    """Points [..., 3] from coordinates that broadcast against one another."""
    return np.stack(np.broadcast_arrays(*(np.asarray(v, float) for v in (x, y, z))), -1)


def ring(points: int, radius: float = 1.0, height: float = 0.0) -> np.ndarray:
    """Horizontal circle, [points, 3]."""
    angle = np.arange(points) * 2 * np.pi / points
    return xyz(radius * np.cos(angle), radius * np.sin(angle), height)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / (np.linalg.norm(vector, axis=-1, keepdims=True) + 1e-9)


def bend(root, target, upper: float, lower: float, pole) -> tuple[np.ndarray, np.ndarray]:
    """Two-bone inverse kinematics: middle joint and end, [..., 3] each.

    The joint bends to the side of the vector `pole`; a target out of reach is approached as far as the
    bones allow.
    """
    along = np.asarray(target, float) - root
    length = np.linalg.norm(along, axis=-1, keepdims=True)
    reach = np.clip(length, abs(upper - lower) + 1e-3, (upper + lower) * 0.999)
    along = along / (length + 1e-9)
    foot = (upper**2 - lower**2 + reach**2) / (2 * reach)
    pole = np.asarray(pole, float)
    side = _unit(pole - (pole * along).sum(-1, keepdims=True) * along)
    return root + foot * along + np.sqrt(np.maximum(upper**2 - foot**2, 0)) * side, root + reach * along


def keyed(cycle: np.ndarray, keys) -> np.ndarray:
    """Smooth periodic curve [F, D] through key poses, rows of (phase in cycles, D values)."""
    keys = np.asarray(keys, float)
    # Straight lines between keys, averaged over a short window: no overshoot, no corners.
    return sum(np.stack([np.interp(cycle + shift, keys[:, 0], v, period=1) for v in keys.T[1:]], -1)
               for shift in np.linspace(-0.04, 0.04, 7)) / 7  # fmt: skip


class Scene:
    """The pieces of a clip: hulls of balls and lines, their points [F, P, 3] in the figure's own frame.

    Args:
        look: actor, props and place of the group (see `actions`).
        cycle: phase of the action in cycles, [F].

    Attributes:
        pieces: what `add` collected: points, radii [P], colour (RGB 0..255), nudge, line, flat.
        bob, pitch, yaw: motion of everything at once, [F]: up, nose up, turn to the left.
    """

    def __init__(self, look: SimpleNamespace, cycle: np.ndarray) -> None:
        self.look, self.cycle, self.wave = look, cycle, 2 * np.pi * cycle
        self.pieces: list[SimpleNamespace] = []
        self.bob = self.pitch = self.yaw = np.zeros(len(cycle))

    def add(self, points, radii, colour, *, nudge=0.0, line=0.0, flat=False, prop=False) -> None:
        """Add the convex hull of balls, or a line.

        Args:
            points: positions, each [3] or [F, 3].
            radii: one for each point or one for all.
            colour: RGB, 0..255.
            nudge: towards the viewer, in the drawing order only.
            line: width of a line through the points, instead of a hull.
            flat: neither highlight nor shadow.
            prop: fades towards the ground's colour as far as the group's visibility asks.
        """
        points = np.stack([np.broadcast_to(p, (len(self.cycle), 3)) for p in points], 1)
        fade = self.look.visibility if prop else 1.0
        colour = fade * np.asarray(colour, float) + (1 - fade) * self.look.ground
        radii = np.broadcast_to(np.asarray(radii, float), points.shape[1])
        self.pieces.append(SimpleNamespace(points=points, radii=radii, colour=colour, nudge=nudge, line=line,
                                           flat=flat or line > 0))  # fmt: skip

    def body(self, pelvis, hands, feet, *, lean=0.0, tilt=0.0, twist=0.0, gaze=0.0) -> list[np.ndarray]:
        """Add the figure; returns the two hands, left first as in `hands` and `feet` (wrists and ankles).

        `lean` is forward, `tilt` to the left; `twist` turns the shoulders and `gaze` the head to the left.
        """
        look, n, nil = self.look, len(self.cycle), np.zeros(len(self.cycle))
        pelvis = np.broadcast_to(pelvis, (n, 3)) + (0, 0, 2 * THIGH * (look.leg - 1))
        lean, tilt, twist, gaze = lean + nil, tilt + nil, twist + nil, gaze + 0.6 * twist
        spine = _unit(xyz(np.sin(lean), np.sin(tilt), np.cos(lean)))
        across = xyz(-np.sin(twist), np.cos(twist), nil)
        across = _unit(across - (across * spine).sum(-1, keepdims=True) * spine)
        hip_line = xyz(-np.sin(0.4 * twist), np.cos(0.4 * twist), nil)
        face = _unit(xyz(np.cos(gaze), np.sin(gaze), -0.5 * np.sin(lean)))
        neck, waist, bulk = pelvis + 0.30 * spine, pelvis + 0.10 * spine, look.bulk
        head = neck + 0.055 * spine + (0, 0, 0.05) + 0.012 * face
        shoulders = [neck + s * 0.098 * look.shoulder * across - 0.025 * spine for s in (1, -1)]
        hips = [pelvis + s * 0.05 * hip_line for s in (1, -1)]
        self.add([*hips, waist], np.array((0.062, 0.062, 0.07)) * bulk, look.trousers, nudge=-0.01)
        self.add([*shoulders, *(s - 0.045 * spine for s in shoulders), *(waist + s * 0.03 * hip_line for s in (1, -1))],
                 np.array((0.036, 0.036, 0.052, 0.052, 0.058, 0.058)) * bulk, look.shirt)
        ends = []
        for i, s in enumerate((1, -1)):
            knee, ankle = bend(hips[i], feet[i], THIGH * look.leg, SHANK * look.leg, (1, 0.25 * s, 0.3))
            shin = _unit(ankle - knee)
            toe = _unit(xyz(1, 0, -0.1) - 0.8 * shin * shin[..., :1])  # the foot is square to the shin
            self.add((hips[i], knee), (0.062 * bulk, 0.043 * bulk), look.trousers)
            self.add((knee, ankle), (0.042 * bulk, 0.027 * bulk), look.shank)
            self.add((ankle + 0.012 * shin, ankle + 0.10 * toe), (0.030, 0.020), look.shoes)
            elbow, wrist = bend(shoulders[i], hands[i], UPPER_ARM * look.arm, FOREARM * look.arm, (-0.5, 0.5 * s, -0.6))
            ends.append(wrist + 0.035 * _unit(wrist - elbow))
            self.add((wrist, ends[i]), (0.019, 0.022), look.skin, nudge=0.02)
            self.add((elbow, wrist), (0.029 * bulk, 0.021 * bulk), look.forearm, nudge=0.02)
            self.add((shoulders[i], elbow), (0.041 * bulk, 0.031 * bulk), look.shirt, nudge=0.01)
        crown = head - 0.022 * face + (0, 0, 0.034)
        self.add((neck - 0.01 * spine, head), (0.032, 0.030), look.skin)
        self.add((head - (0, 0, 0.022), head + (0, 0, 0.02)), (0.046, 0.056), look.skin, nudge=0.015)
        self.add((crown, crown - 0.022 * face - (0, 0, 0.028)), (0.056, 0.046), look.hair, nudge=0.012)
        if look.cap:
            brow, side = crown + (0, 0, 0.004), 0.04 * np.cross(face, (0, 0, 1))
            self.add((brow + 0.05 * face + side, brow + 0.05 * face - side, brow + 0.10 * face), 0.008, look.hair, nudge=0.02)
        return ends

    def animal(self, base, size, girth, neck, muzzle, tail, gait, stride, colour, pace=1.0) -> np.ndarray:
        """Add a four-legged animal; returns its mouth, [F, 3].

        Args:
            base: point on the ground below the trunk, [3] or [F, 3].
            size, girth: height of the back, radius of the trunk.
            neck, muzzle, tail: vectors from withers to poll, from poll to mouth, from croup to the tail's tip.
            gait: phases of left fore, right fore, left hind and right hind leg, in cycles.
            stride: half the length of a step.
            colour: RGB, 0..255.
            pace: its steps for one cycle of the action.
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
        self.add((poll + (-0.04 * size, 0, 0.3 * girth), poll + (-0.08 * size, 0, 0.8 * girth)),
                 (0.15 * girth, 0.06 * girth), colour * 0.6)
        wag = xyz(0, 0.3 * girth * np.sin(2 * wave), 0)
        self.add((rump, rump + np.asarray(tail) + wag), (0.2 * girth, 0.12 * girth), colour * 0.6)
        return mouth


# --- The ten actions: each adds figure and props and returns the speed (forward, left), heights / second -----
def mixing(scene, look):
    bowl, wave = np.array((0.30, -0.02, 0.60)), scene.wave
    wide = look.amplitude * (1 + 0.25 * np.sin(0.37 * wave))
    tip = bowl + xyz(0.055 * wide * np.cos(wave), 0.06 * wide * np.sin(wave), 0.02)
    hands = scene.body(xyz(0, 0.012 * np.sin(wave / 2), 0.5), (bowl + (-0.02, 0.125, 0.06), tip + (-0.05, -0.03, 0.15)),
                       ((0, 0.08, 0.045), (0, -0.08, 0.045)), lean=0.22 + 0.03 * np.sin(wave), twist=0.08 * np.sin(wave))
    wood = np.array((150, 118, 88)) * (0.7 + 0.6 * look.variant)
    scene.add([(x, y, 0.53) for x in (0.14, 0.62) for y in (-1.9, 1.9)], 0, wood * 1.15, nudge=-0.25, flat=True)
    scene.add([(0.62, y, z) for z in (-0.3, 0.53) for y in (-1.9, 1.9)], 0, wood * 0.8, nudge=0.05, flat=True)
    for x, y in ((0.42, 0.45), (0.36, -0.5)):  # jars
        scene.add([(x, y, 0.56), (x, y, 0.57 + 0.12 * look.variant)], (0.04, 0.035), look.gear * 0.7)
    shell = np.concatenate([ring(14, 0.118, 0.05), ring(14, 0.10, 0), ring(14, 0.06, -0.055)])
    scene.add(bowl + shell, 0.004, look.gear, nudge=0.1, prop=True)
    scene.add(bowl + ring(14, 0.105, 0.05), 0, look.gear * 0.5, nudge=0.15, flat=True, prop=True)
    scene.add((hands[1], tip), 0, (215, 215, 220), line=0.012, nudge=0.2, prop=True)
    scene.add((tip, tip + (0, 0, 0.05)), (0.022, 0.012), (205, 205, 210), nudge=0.2, prop=True)
    return 0.0, 0.0


# Rows: phase | pelvis x, z | twist, lean | right hand | racket points to | left hand | left foot x, y | right foot x, y
TENNIS = ((0.00, 0.00, 0.45, 0.0, 0.25, 0.27, -0.06, 0.60, 0.6, 0.4, 0.6, 0.29, 0.04, 0.62, 0.00, 0.15, 0.00, -0.15),
          (0.28, -0.05, 0.47, -1.3, 0.05, -0.26, -0.26, 0.84, -0.3, -0.2, 0.9, 0.20, -0.08, 0.74, 0.06, 0.12, -0.05, -0.20),
          (0.40, -0.02, 0.45, -1.1, 0.10, -0.24, -0.34, 0.48, -0.9, -0.3, -0.3, 0.28, 0.04, 0.72, 0.20, 0.07, -0.06, -0.20),
          (0.50, 0.08, 0.46, 0.1, 0.15, 0.36, -0.28, 0.60, 0.3, -0.9, 0.1, 0.12, 0.26, 0.66, 0.24, 0.06, -0.04, -0.18),
          (0.58, 0.10, 0.48, 0.9, 0.10, 0.38, 0.16, 0.82, 0.2, 0.7, 0.7, 0.02, 0.28, 0.66, 0.24, 0.06, 0.00, -0.15),
          (0.70, 0.08, 0.48, 1.1, 0.10, 0.12, 0.28, 0.90, -0.7, 0.4, 0.3, 0.06, 0.24, 0.68, 0.22, 0.08, 0.06, -0.15))


def tennis_swing(scene, look):
    pose = keyed(scene.cycle, TENNIS)
    lift = 0.045 + 0.02 * np.abs(np.sin(scene.wave))
    hands = scene.body(xyz(pose[:, 0], 0, pose[:, 1]), (pose[:, 10:13], pose[:, 4:7]),
                       [xyz(pose[:, i], pose[:, i + 1], lift) for i in (13, 15)],
                       twist=pose[:, 2] * look.amplitude, lean=pose[:, 3], gaze=-0.5 * pose[:, 2])
    grip, d = hands[1], _unit(pose[:, 7:10])
    face = _unit(np.cross(d, (0.8, 0.35, -0.45)))
    rim = [grip + 0.31 * d + 0.125 * np.cos(a) * d + 0.10 * np.sin(a) * face for a in np.arange(17) * np.pi / 8]
    scene.add((grip - 0.03 * d, grip + 0.19 * d), 0, (60, 50, 50), line=0.022, nudge=0.03, prop=True)
    scene.add(rim, 0, 0.5 * look.gear + 90, nudge=0.02, flat=True, prop=True)
    scene.add(rim, 0, look.gear * 0.6, line=0.018, nudge=0.04, prop=True)
    late = (scene.cycle % 1 - 0.5) / look.hertz  # seconds after the hit; the ball comes and goes forward
    away = 5 * np.abs(late)
    scene.add([xyz(0.36 + away, -0.56 + 0.1 * away, 0.62 + 0.15 * away - 0.6 * late**2)], 0.032, (214, 232, 80), prop=True)
    return 0.0, 0.0


def horse_riding(scene, look):
    wave, a = scene.wave, look.amplitude
    scene.bob, scene.pitch = 0.035 * a * np.sin(wave), 0.07 * a * np.sin(wave + 1.2)
    coat = np.array(((96, 62, 40), (60, 46, 40), (150, 112, 76), (186, 180, 172))[int(look.variant * 4)])
    gait = (0, 0.5, 0.5, 0) if look.cap else (0.05, 0.2, 0.55, 0.7)  # trot or gallop
    mouth = scene.animal((0, 0, 0), 0.86, 0.165, (0.24, 0, 0.30), (0.22, 0, -0.17), (-0.19, 0, -0.22), gait, 0.24 * a, coat)
    scene.add([(0.42, 0, 0.98), (0.60, 0, 1.14)], (0.05, 0.04), coat * 0.5, nudge=-0.01)  # mane
    scene.add([(-0.14, 0, 0.85), (0.10, 0, 0.86)], (0.06, 0.05), (70, 44, 30), nudge=0.01)  # saddle
    hands = scene.body(xyz(-0.02, 0, 0.94 + 0.035 * a * np.sin(wave - 0.8)),
                       [xyz(0.24 + 0.03 * np.cos(wave), s * 0.05, 1.10) for s in (1, -1)],
                       ((0.08, 0.20, 0.52), (0.08, -0.20, 0.52)), lean=0.12 + 0.12 * a * np.sin(wave - 1))
    for hand in hands:
        scene.add((hand, mouth), 0, (50, 36, 30), line=0.008, nudge=0.05, prop=True)
    return 1.9 * a, 0.0


def jump_rope(scene, look):
    wave, turn = scene.wave, -scene.wave  # the rope is lowest when the jump is highest
    jump, dip = 0.085 * look.amplitude * np.maximum(np.sin(wave), 0), 0.03 * np.maximum(-np.sin(wave), 0)
    hands = scene.body(xyz(0, 0, 0.5 + jump - dip),
                       [xyz(0.12 + 0.035 * np.cos(turn), s * 0.25, 0.52 + jump / 2 + 0.035 * np.sin(turn)) for s in (1, -1)],
                       [xyz(-0.3 * jump, s * 0.045, 0.045 + jump) for s in (1, -1)], lean=0.06 + dip)
    s = np.linspace(0, 1, 19)[:, None, None]
    rope = hands[0] * (1 - s) + hands[1] * s + np.sin(np.pi * s) ** 0.65 * 0.56 * xyz(np.cos(turn), 0, np.sin(turn))
    rope[..., 1] *= 1 + 0.5 * np.sin(np.pi * s[..., 0])
    scene.add(rope, 0, 0.5 * look.gear + (110 if look.variant > 0.4 else -20), line=0.018, prop=True)
    return 0.0, 0.0


def jumping_jack(scene, look):
    wide = (1 - np.cos(scene.wave)) / 2 * look.amplitude
    jump, angle = 0.05 * np.abs(np.sin(scene.wave)), 0.15 + 2.75 * wide
    scene.body(xyz(0, 0, 0.50 + jump - 0.03 * wide),
               [xyz(0.03, s * (0.09 + 0.31 * np.sin(angle)), 0.78 + jump - 0.31 * np.cos(angle)) for s in (1, -1)],
               [xyz(0, s * (0.05 + 0.17 * wide), 0.045 + jump) for s in (1, -1)], lean=0.03)
    return 0.0, 0.0


# Rows: phase | pelvis x, z | twist, lean | right hand | left hand | left foot | right foot
PITCH = ((0.00, 0.00, 0.50, -0.6, 0.00, 0.14, -0.05, 0.68, 0.17, 0.00, 0.68, 0.02, 0.07, 0.045, -0.03, -0.08, 0.045),
         (0.20, -0.04, 0.50, -1.2, -0.05, 0.06, -0.13, 0.78, 0.10, -0.08, 0.80, 0.18, -0.02, 0.44, -0.05, -0.08, 0.045),
         (0.34, 0.12, 0.45, -1.4, 0.00, -0.34, -0.14, 0.62, 0.42, 0.03, 0.76, 0.46, 0.04, 0.16, -0.06, -0.08, 0.045),
         (0.42, 0.22, 0.42, -0.7, 0.05, -0.10, -0.26, 1.00, 0.50, 0.14, 0.72, 0.52, 0.05, 0.045, -0.04, -0.08, 0.06),
         (0.48, 0.32, 0.41, 0.6, 0.45, 0.76, -0.12, 0.94, 0.38, 0.22, 0.56, 0.52, 0.05, 0.045, 0.04, -0.10, 0.13),
         (0.56, 0.38, 0.41, 1.1, 0.95, 0.66, 0.16, 0.30, 0.30, 0.24, 0.58, 0.50, 0.05, 0.045, 0.16, -0.16, 0.30),
         (0.68, 0.42, 0.46, 0.5, 0.40, 0.66, 0.05, 0.52, 0.56, 0.20, 0.60, 0.50, 0.08, 0.045, 0.44, -0.12, 0.07),
         (0.84, 0.20, 0.49, 0.0, 0.10, 0.36, -0.10, 0.52, 0.34, 0.12, 0.58, 0.18, 0.08, 0.10, 0.26, -0.08, 0.045))


def baseball_pitch(scene, look):
    pose = keyed(scene.cycle, PITCH)
    hands = scene.body(xyz(pose[:, 0], 0, pose[:, 1]), (pose[:, 7:10], pose[:, 4:7]), (pose[:, 10:13], pose[:, 13:]),
                       twist=pose[:, 2] * look.amplitude, lean=pose[:, 3], gaze=-0.6 * pose[:, 2])
    scene.add(ring(20, 1.3), 0, 0.5 * look.ground + (90, 62, 40), nudge=-9, flat=True)  # mound
    scene.add((hands[0], hands[0] + (0.03, 0, 0.03)), (0.05, 0.045), (96, 58, 32), nudge=0.03, prop=True)  # glove
    late = ((scene.cycle - 0.485) % 1 / look.hertz)[:, None]  # seconds after the release
    ball = np.where(late < 0.8, (0.76, -0.12, 0.92) + late * (4.5, 0, 0) - late**2 * (0, 0, 0.6), hands[1])
    scene.add([ball], 0.026, (240, 240, 236), nudge=0.03, prop=True)
    return 0.0, 0.0


def rowing(scene, look):
    wave = scene.wave
    close, lag = (1 + np.cos(wave)) / 2, (1 + np.cos(wave - 0.35)) / 2  # 1 at the catch, knees bent
    hands = scene.body(xyz(0.21 * close * look.amplitude, 0, 0.17),
                       [xyz(0.06 + 0.60 * lag, s * (0.11 - 0.05 * lag), 0.36 + 0.045 * np.sin(wave)) for s in (1, -1)],
                       ((0.47, 0.06, 0.18), (0.47, -0.06, 0.18)), lean=-0.38 + 0.85 * lag)
    if look.surface != "water":  # a rowing machine: rail, flywheel, foot, cable, handle
        scene.add([(-0.45, 0, 0.08), (0.75, 0, 0.12)], 0.025, (90, 90, 96), nudge=-0.02)
        scene.add([(0.75, 0, 0.22), (0.80, 0, 0.26)], (0.15, 0.13), look.gear * 0.6, nudge=-0.02, prop=True)
        scene.add([(-0.42, -0.1, 0.02), (-0.42, 0.1, 0.02)], 0.02, (70, 70, 74))
        scene.add((0.5 * (hands[0] + hands[1]), (0.70, 0, 0.30)), 0, (50, 50, 50), line=0.01, prop=True)
        scene.add((hands[0] + (0, 0.05, 0), hands[1] - (0, 0.05, 0)), 0, (40, 40, 44), line=0.026, nudge=0.05)
        return 0.0, 0.0
    scene.bob = 0.012 * np.sin(wave + 1)
    tips = [(x, 0, 0.11) for x in (-1.6, 1.6)]
    scene.add([*tips, *[(x, y, 0.10) for x in (-0.7, 0.7) for y in (-0.15, 0.15)]], 0, look.gear * 0.5, nudge=-0.4, flat=True)
    for s in (1, -1):
        near = look.side * s * np.cos(look.heading) < 0  # this flank faces the viewer
        scene.add([*tips, *[(x, s * y, z) for x in (-0.9, 0.9) for y, z in ((0.15, 0.12), (0.09, -0.01))]], 0.006,
                  look.gear * (0.9 if near else 0.7), nudge=0.03 if near else -0.3, flat=True)
        hand, pivot = hands[(1 - s) // 2], np.array((0.28, s * 0.42, 0.24))
        d = _unit(pivot - hand)
        blade = pivot + 0.80 * d
        scene.add(((0.28, s * 0.14, 0.11), pivot), 0, (60, 60, 64), line=0.012)
        scene.add((hand, blade), 0, (206, 190, 160), line=0.018, nudge=0.05 if near else 0, prop=True)
        scene.add((blade, blade + 0.22 * d), (0.02, 0.045), look.shirt, prop=True)
    return -0.9 * look.amplitude, 0.0


def skateboarding(scene, look):
    phase, a = scene.cycle % 1, look.amplitude

    def bump(start, end):
        return np.sin(np.pi * np.clip((phase - start) / (end - start), 0, 1)) ** 2

    push, air = bump(0.02, 0.24) + bump(0.24, 0.46), bump(0.62, 0.84) * a * (1.0 if look.variant > 0.3 else 0.4)
    crouch, tip = bump(0.50, 0.70) + 0.6 * bump(0.80, 0.98), 0.07 * bump(0.60, 0.74)
    reach = (phase - np.where(phase < 0.24, 0.13, 0.35)) / 0.22  # of the pushing foot, -0.5..0.5
    carve, near = 0.22 * np.sin(2 * scene.wave) * (1 - push), np.minimum(4 * push, 1)
    scene.bob = 0.22 * air
    right = xyz(0.10 * near, -0.15 + near * (0.23 - 0.55 * reach), 0.115 - near * (0.065 - 0.05 * (1 - push)))
    pelvis = xyz(-0.03, 0.07 * push, 0.535 - 0.10 * crouch - 0.04 * push - 0.03 * air)
    hands = [xyz(0.08 + 0.3 * carve * s, s * (0.30 - 0.04 * push) + pelvis[:, 1],
                 0.72 + 0.10 * crouch + 0.16 * air + 0.10 * s * carve) for s in (1, -1)]
    scene.body(pelvis, hands, (xyz(0, 0.13, 0.115 + 0.04 * air), right), lean=0.15 + 0.3 * crouch + 0.25 * push,
               tilt=0.15 * push + 0.4 * carve, twist=0.9 * push + 0.3, gaze=0.9)
    deck, nose = np.array((172, 122, 76)), xyz(0, 0, 0.062 + tip)
    ends = nose + (0, 0.22, 0), np.array((0, -0.22, 0.062))
    scene.add([e + (x, 0, 0) for e in ends for x in (-0.05, 0.05)], 0.012, deck, prop=True)
    for end, s in zip(ends, (1, -1), strict=True):
        scene.add((end, end + (0, s * 0.06, 0.028)), (0.04, 0.03), deck * 0.8, prop=True)
        for x in (-0.05, 0.05):
            scene.add([end + (x, -s * 0.07, -0.03)], 0.026, (232, 226, 210), prop=True)
    return 0.0, 1.5 * a


def walking_with_dog(scene, look):
    wave, step, pull = scene.wave, 0.18 * look.amplitude, 0.03 * np.sin(0.43 * scene.wave)
    feet = [xyz(s * step * np.cos(wave), s * 0.045, 0.045 + 0.42 * step * np.maximum(-s * np.sin(wave), 0)) for s in (1, -1)]
    hands = scene.body(xyz(0, 0, 0.495 + 0.012 * np.cos(2 * wave)),
                       (xyz(0.17 + pull, 0.17, 0.55 + pull), xyz(0.17 * np.cos(wave), -0.17, 0.49 + 0.03 * np.cos(wave))),
                       feet, lean=0.07, twist=-0.12 * np.cos(wave))
    size = 0.24 + 0.16 * look.variant
    coat = ((150, 104, 60), (52, 44, 40), (214, 200, 178), (120, 90, 70))[int(look.variant * 37) % 4]
    base = xyz(0.58 + 0.22 * look.variant + 0.06 * np.sin(0.31 * wave), 0.22 + 0.05 * np.sin(0.53 * wave), 0)
    mouth = scene.animal(base, size, 0.22 * size, (0.16 * size, 0, 0.28 * size), (0.34 * size, 0, -0.07 * size),
                         (-0.22 * size, 0, 0.32 * size), (0, 0.5, 0.5, 0), 0.30 * size, coat, pace=1.7)
    collar = mouth - (0.40 * size, 0, 0.08 * size)
    scene.add((hands[0], 0.5 * (hands[0] + collar) - (0, 0, 0.04), collar), 0, (150, 40, 40), line=0.010, prop=True)
    return 4 * step * look.hertz, 0.0


def skijet(scene, look):
    wave, a, sides, black = scene.wave, look.amplitude, (1, -1), (46, 46, 52)
    scene.bob = a * (0.05 * np.sin(wave) + 0.025 * np.sin(2.3 * wave + 1))
    scene.pitch = 0.06 + a * (0.09 * np.cos(wave) + 0.04 * np.sin(1.7 * wave))
    swerve = 0.23 * wave + 6 * look.variant
    scene.yaw = 0.35 * a * np.sin(swerve)
    scene.add([(x, s * y, 0) for s in sides for x, y in ((0.3, 0.05), (-0.5, 0.2), (-2.2, 0.5))], 0,
              0.6 * look.ground + 0.4 * np.array((236, 242, 246)), nudge=-5, flat=True, prop=True)  # wake
    flank = ((-0.5, 0.17, 0.15), (0.2, 0.16, 0.17), (-0.48, 0.13, 0.02), (0.3, 0.10, 0.04))
    scene.add([(0.62, 0, 0.20), *[(x, s * y, z) for s in sides for x, y, z in flank]], 0.02, look.gear * 0.75)
    scene.add([(-0.42, 0, 0.25), (0.02, 0, 0.24), (-0.40, 0, 0.18), (0.1, 0, 0.18)], (0.07, 0.06, 0.08, 0.08), black)
    scene.add([(0.12, 0, 0.28), (0.24, 0, 0.32), (0.50, 0, 0.19)], (0.09, 0.07, 0.04), look.gear, nudge=0.02)
    bar = [np.array((0.20, s * 0.17, 0.42)) for s in sides]
    scene.add(bar, 0, black, line=0.026)
    scene.add([(0.22, 0, 0.32), (0.20, 0, 0.42)], (0.03, 0.02), black)
    stand = 0.10 if look.variant > 0.6 else 0.0
    scene.body(xyz(-0.16, 0, 0.37 + stand + 0.03 * np.sin(wave - 1)), bar, ((0.06, 0.17, 0.17), (0.06, -0.17, 0.17)),
               lean=0.35 + 0.10 * np.sin(wave), tilt=0.2 * np.cos(swerve))
    for i, (sideways, up, birth) in enumerate(look.sparks):  # spray: streaks thrown up at stern and bow
        age = (0.9 * scene.cycle + birth) % 1
        path = [xyz((0.25 if i % 4 == 0 else -0.5) - 1.2 * t, 0.14 * np.sign(sideways) + 0.6 * sideways * t,
                    np.maximum(0.03 + (0.4 + 0.9 * up) * t * a - 0.95 * t**2, 0)) for t in (age, np.maximum(age - 0.07, 0))]
        scene.add(path, (0.012 + 0.02 * up, 0.005), np.array((228, 236, 242)) * (0.86 + 0.14 * birth), flat=True, prop=True)
    return 2.6 * a, 0.0
