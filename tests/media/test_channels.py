"""Channels and tracks: what a listener hears is in the one channel that the model gets."""

from __future__ import annotations

import math
from fractions import Fraction

import av
import numpy as np
import pytest
from helpers.media_files import steady, write

from cg_cli.errors import ItemError
from cg_cli.media import SAMPLE_RATE, DecodeOptions, decoding
from cg_cli.media.decode_errors import DecodeErrors

RATE = 48_000


def tone(hertz: float, seconds: float = 2.0, amplitude: float = 0.5) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def recording(path, *tracks: tuple[str, np.ndarray], codec: str = "flac", video: bool = False):
    """Tracks (layout, [C, S] float32), each a stream of its own."""
    with av.open(str(path), "w") as output:
        if video:
            picture = output.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
            picture.width, picture.height, picture.pix_fmt = 96, 48, "yuv420p"
        streams = [output.add_stream(codec, rate=RATE, layout=layout) for layout, _ in tracks]
        if video:
            for _ in steady(2):
                output.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((48, 96, 3), np.uint8), format="rgb24")))
            output.mux(picture.encode(None))
        for stream, (layout, samples) in zip(streams, tracks):
            resampler = av.AudioResampler(format=stream.format.name, layout=layout, rate=RATE)
            for begin in range(0, samples.shape[1], 4096):
                block = samples[:, begin : begin + 4096].T.reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="flt", layout=layout)
                frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), begin
                for converted in resampler.resample(frame):
                    output.mux(stream.encode(converted))
            output.mux(stream.encode(None))
    return path


def level(audio: np.ndarray) -> float:
    return float(np.sqrt(np.square(audio[2000:-2000]).mean()))


def pitch(audio: np.ndarray) -> float:
    """Hz of the loudest frequency."""
    return float(np.abs(np.fft.rfft(audio)).argmax() * SAMPLE_RATE / len(audio))


@pytest.mark.parametrize("layout", ["5.1", "5.1(side)", "7.1", "5.0", "3.0"])
def test_speech_in_the_centre_is_as_loud_as_in_a_mono_file(worker, folder, layout):
    names = [channel.name for channel in av.AudioLayout(layout).channels]
    samples = np.zeros((len(names), 2 * RATE), np.float32)
    samples[names.index("FC")] = tone(440)
    clip = worker.decode(recording(folder / f"centre_{layout}.mka", (layout, samples)))
    mono = worker.decode(recording(folder / "mono.mka", ("mono", tone(440)[None])))
    assert level(clip.audio) == pytest.approx(level(mono.audio), rel=0.01) and clip.warnings == ()


@pytest.mark.parametrize(("name", "share"), [("FL", 0.7071), ("SR", 0.5), ("LFE", 0.0)])
def test_the_other_channels_have_the_standard_shares(worker, folder, name, share):
    names = [channel.name for channel in av.AudioLayout("5.1(side)").channels]
    samples = np.zeros((6, 2 * RATE), np.float32)
    samples[names.index(name)] = tone(100)
    samples[names.index("FC")] = tone(1000)
    audio = worker.decode(recording(folder / f"share_{name}.mka", ("5.1(side)", samples))).audio
    spectrum = np.abs(np.fft.rfft(audio))
    ratio = spectrum[200] / spectrum[2000]  # 100 and 1000 Hz in 2 s
    assert ratio == pytest.approx(share, abs=0.01)


def test_an_inverted_channel_is_noticed(worker, folder):
    left = tone(440)
    clip = worker.decode(recording(folder / "inverted.mka", ("stereo", np.stack([left, -0.9 * left]))))
    assert level(clip.audio) == pytest.approx(level(left), rel=0.02) and pitch(clip.audio) == pytest.approx(440, abs=1)
    assert clip.complete and len(clip.warnings) == 1 and "cancel" in clip.warnings[0] and "2.0 s" in clip.warnings[0]


def test_one_silent_channel_and_two_different_ones_are_mixed(worker, folder):
    for name, right in (("silent", 0 * tone(440)), ("other", tone(700))):
        clip = worker.decode(recording(folder / f"{name}.mka", ("stereo", np.stack([tone(440), right]))))
        mixed = (tone(440) + right)[::3] / 2
        assert level(clip.audio) == pytest.approx(level(mixed), rel=0.01) and clip.warnings == ()


def test_a_sound_track_can_be_chosen(worker, folder):
    path = recording(
        folder / "dubbed.mkv", ("mono", tone(300)[None]), ("stereo", np.stack([tone(900)] * 2)), video=True
    )
    heard = {}
    for number in (0, 1, 2):
        clip = worker.decode(path, DecodeOptions(audio_track=number))
        heard[number] = (round(pitch(clip.audio)), clip.audio_track)
    assert heard[1] == (300, 1) and heard[2] == (900, 2) and heard[0] in (heard[1], heard[2])
    with pytest.raises(ItemError, match="2 sound tracks: sound track 3") as caught:
        worker.decode(path, DecodeOptions(audio_track=3))
    assert caught.value.kind == "no_track"
    off = worker.decode(path, DecodeOptions(audio=False, audio_track=3))
    assert off.audio_status == "off" and off.audio_track is None


def test_sound_is_bounded(folder, monkeypatch):
    path = recording(folder / "long.flac", ("mono", tone(440, 9)[None]))
    monkeypatch.setattr(decoding, "MAX_AUDIO_S", 3)
    blocks = []
    summary = decoding.decode_clip(str(path), "long.flac", DecodeOptions(), lambda message, array: blocks.append(array))
    assert sum(map(len, blocks)) == 3 * SAMPLE_RATE and summary["duration_s"] == pytest.approx(9, abs=0.1)
    assert not summary["complete"] and any("longer than" in line for line in summary["warnings"])


def test_what_does_not_fit_the_memory_is_refused(folder):
    path = write(folder / "still.mp4", times=steady(2))
    with pytest.raises(ItemError, match="--max-frames") as caught:
        decoding.decode_clip(str(path), "still.mp4", DecodeOptions(), lambda *_: None, max_bytes=20_000)
    assert caught.value.kind == "too_large"


def test_a_kind_of_warning_is_one_line():
    errors = DecodeErrors()
    for seconds in (1.0, 2.5):
        errors.count("the sound overlaps itself{times}: {sum:.2f} s of it were left out", seconds)
    errors.notes += ["once"] * 3
    assert errors.warnings == ["the sound overlaps itself 2 times: 3.50 s of it were left out", "once"]


def test_a_film_read_thinly_says_so(worker, folder):
    path = write(folder / "hour.mp4", times=steady(600, fps=1))
    (line,) = worker.decode(path, DecodeOptions(max_frames=100)).warnings
    assert "one frame in 6.0 s" in line
    assert worker.decode(path, DecodeOptions(max_frames=200)).warnings == ()


@pytest.mark.parametrize("layout", ["mono", "stereo", "3.0", "5.1", "7.1"])
def test_with_the_power_kept_the_mix_is_libswresamples(worker, folder, layout):
    count = av.AudioLayout(layout).nb_channels
    samples = np.stack([tone(200 + 130 * channel, amplitude=0.1) for channel in range(count)])
    path = recording(folder / f"mixed_{layout}.mka", (layout, samples))
    resampler, mixed = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE), []
    with av.open(str(path)) as container:
        for frame in [*container.decode(audio=0), None]:
            mixed += [part.to_ndarray()[0] for part in resampler.resample(frame)]
    clip = worker.decode(path, DecodeOptions(stereo_gain=math.sqrt(0.5)))
    assert clip.audio == pytest.approx(np.concatenate(mixed), abs=1e-4)
    usual = worker.decode(path).audio
    assert usual == pytest.approx(clip.audio * (math.sqrt(0.5) if layout == "stereo" else 1), abs=1e-6)


def test_a_quarter_on_both_channels(worker, folder):
    path = recording(folder / "quarters.mka", ("stereo", np.full((2, RATE), 0.25, np.float32)))
    for options, wanted in ((DecodeOptions(), 0.25), (DecodeOptions(stereo_gain=math.sqrt(0.5)), 0.3536)):
        middle = worker.decode(path, options).audio[2000:-2000]
        assert middle == pytest.approx(np.full(len(middle), wanted), abs=1e-4)


@pytest.mark.parametrize(("picture_s", "sound_s"), [(0, 1.5), (1.5, 0), (0, 0)])
def test_off_the_clock_the_sound_begins_with_its_first_sample(worker, folder, picture_s, sound_s):
    times = steady(4, start_s=picture_s)
    sound = np.concatenate([tone(440, 0.5), np.zeros(RATE, np.float32), tone(880, 1)])
    path = write(folder / f"off_{picture_s}_{sound_s}.mkv", times=times, sound=sound, sound_start_s=sound_s)
    own, shared = (worker.decode(path, DecodeOptions(audio_on_clock=on)) for on in (False, True))
    assert own.audio_s == pytest.approx(2.5, abs=0.05) and not own.warnings
    assert level(own.audio[:8000]) > 0.3 > 0.01 > level(own.audio[10_000:22_000]) and own.audio_status == "used"
    late = sound_s - picture_s
    assert shared.audio_s == pytest.approx(2.5 + late, abs=0.05) and own.duration_s == pytest.approx(4, abs=0.05)
    start = round(abs(late) * SAMPLE_RATE)
    one, other = (own.audio, shared.audio[start:]) if late >= 0 else (own.audio[start:], shared.audio)
    assert len(one) == pytest.approx(len(other), abs=2000)
    # In whole milliseconds, as Matroska has times.
    assert np.abs(one[4000:-4000]).mean() == pytest.approx(np.abs(other[4000 : len(one) - 4000]).mean(), rel=0.02)
