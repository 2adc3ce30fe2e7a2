"""Downmixing: the channels of a recording to one. Runs in the worker process only."""

from __future__ import annotations

import av
import numpy as np

from cg_cli.media.clip import SAMPLE_RATE

# Rec. ITU-R BS.775's shares relative to the centre: -3 dB for left and right, -6 dB for what surrounds, nothing of the
# low effects. So speech in the centre of 5.1 is as loud as in a mono file.
CENTRE, FRONT, SURROUND = 1.0, 0.7071, 0.5
SHARES = {"FC": CENTRE, "FL": FRONT, "FR": FRONT, "FLC": FRONT, "FRC": FRONT, "DL": FRONT, "DR": FRONT}
LOW = ("LFE", "LFE2")
USUAL = {3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}  # where the file names no channels
CANCELLED = 0.1  # a mix with less of its loudest channel's power than this (-10 dB) has cancelled itself
AUDIBLE = 1e-6  # mean square (-60 dB): quieter sound cannot cancel


def weights_of(layout: av.AudioLayout, stereo_gain: float) -> np.ndarray:
    """[C] float32: each channel's share in the mix; one channel is itself, of two each has ``stereo_gain``."""
    count = layout.nb_channels
    if count <= 2:
        return np.full(count, stereo_gain if count == 2 else 1, np.float32)
    names = [channel.name for channel in layout.channels]
    if not set(names) & set(SHARES):
        if count not in USUAL:
            return np.full(count, 1 / count, np.float32)
        names = [channel.name for channel in av.AudioLayout(USUAL[count]).channels]
    return np.array([0 if name in LOW else SHARES.get(name, SURROUND) for name in names], np.float32)


class Downmixer:
    """Mixes blocks of sound to one channel.

    Attributes:
        cancelled_s: seconds in which the channels cancelled each other, so that the loudest was taken alone.
    """

    def __init__(self) -> None:
        self.cancelled_s = 0.0

    def mix(self, channels: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """[C, S] float32 with ``weights`` [C] to [S]."""
        if len(channels) == 1:
            return channels[0]
        mixed = channels.sum(axis=0) * weights[0] if len(channels) == 2 else weights @ channels
        if not channels.shape[1]:
            return mixed
        power = np.where(weights > 0, np.square(channels).mean(axis=1), 0)
        loudest = int(power.argmax())
        if power[loudest] > AUDIBLE and np.square(mixed).mean() < CANCELLED * power[loudest]:
            self.cancelled_s += channels.shape[1] / SAMPLE_RATE
            return channels[loudest]
        return mixed
