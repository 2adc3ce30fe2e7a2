"""``DecodeOptions.frames``: as many frames in each case, whole grids with their true times, grids where it changes."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from helpers.media_files import beeps, number_of, steady, write
from test_frames import every_frame

from cg_cli.errors import UsageError
from cg_cli.media import DecodeOptions, pictures
from cg_cli.media.clip import CHANGE, PAIRS, UNIFORM
from cg_cli.media.decoding import decode_clip
from cg_cli.media.sizes import uncapped_count

FEW = 8  # frames


@pytest.fixture(scope="module")
def cuts(folder):
    """40 s at 8 frames a second: black, but from 17 to 18 s white, with a cut to stripes at 29 s."""
    path = folder / "cuts.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=8, options={"preset": "ultrafast", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 96, 48, "yuv420p", 400
        for number in range(320):
            second = number / 8
            pixels = np.full((48, 96, 3), 250 if 17 <= second < 18 else 8, np.uint8)
            if second >= 29:
                pixels[:, ::16] = 200
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def long(folder):
    """40 s at 8 frames a second."""
    return write(folder / "long_choice.mp4", times=steady(40, fps=8))


def read(path, **options):
    """(messages of the frames, their pixels, summary), in this process."""
    frames = []
    options = DecodeOptions(audio=False, **options)
    summary = decode_clip(str(path), str(path), options, lambda message, pixels: frames.append((message, pixels)))
    return [message for message, _ in frames], [pixels for _, pixels in frames], summary


@pytest.mark.parametrize("frames", [PAIRS, CHANGE])
def test_without_a_cap_all_are_the_evenly_spaced_frames(worker, talkie, frames):
    plain, other = (worker.decode(talkie, DecodeOptions(frames=choice)) for choice in (UNIFORM, frames))
    assert (plain.frames == other.frames).all() and (plain.frame_times == other.frame_times).all()
    assert other.grid_starts is None and plain.seconds_per_frame == other.seconds_per_frame


def test_pairs_are_half_a_second_apart_around_the_middles(worker, long):
    clip = worker.decode(long, DecodeOptions(max_frames=FEW, frames=PAIRS))
    assert clip.grid_starts == pytest.approx([4.5, 14.5, 24.5, 34.5], abs=0.1)
    assert clip.seconds_per_frame == pytest.approx(5, abs=0.1)
    assert [number_of(frame) for frame in clip.frames] == pytest.approx([38, 42, 118, 122, 198, 202, 278, 282], abs=1)
    assert (np.diff(clip.frame_times.reshape(4, 2)) == 0.5).all()


@pytest.mark.parametrize("frames", [PAIRS, CHANGE])
def test_a_grid_holds_the_frames_on_show_at_its_times(worker, folder, frames):
    path = write(folder / "show.mkv", times=sorted(np.random.default_rng(1).uniform(0, 30, 90).tolist()))
    clip = worker.decode(path, DecodeOptions(max_frames=FEW, frames=frames))
    every = every_frame(path)
    spacing = min(0.5, clip.duration_s / uncapped_count(Fraction(clip.duration_s), DecodeOptions()))
    for start, pair, times in zip(clip.grid_starts, clip.frames.reshape(4, 2, -1), clip.frame_times.reshape(4, 2)):
        for number in range(2):
            time, shown = max((f for f in every if f[0] <= start + (number + 0.5) * spacing), default=every[0])
            assert number_of(pair[number].reshape(clip.frames.shape[1:])) == shown
            assert times[number] == pytest.approx(float(time))


def test_what_shows_for_a_second_and_a_cut_get_grids(cuts):
    _, _, summary = read(cuts, max_frames=FEW, frames=CHANGE)
    starts = summary["grid_starts"]
    assert 17 in starts and any(start >= 29 for start in starts) and len(starts) == 4
    assert 17 not in read(cuts, max_frames=FEW, frames=PAIRS)[2]["grid_starts"]
    assert read(cuts, max_frames=FEW)[2]["grid_starts"] is None


def test_a_second_pass_gives_the_same_frames(cuts, monkeypatch):
    messages, frames, summary = read(cuts, max_frames=FEW, frames=CHANGE)
    monkeypatch.setattr(pictures, "MAX_WAITING_BYTES", 0)
    again, pixels, other = read(cuts, max_frames=FEW, frames=CHANGE)
    assert summary == other
    assert [m["time"] for m in again for _ in range(m["repeats"])] == [message["time"] for message in messages]
    repeated = [one for message, one in zip(again, pixels) for _ in range(message["repeats"])]
    assert (np.stack(repeated) == np.stack(frames)).all()


def test_frames_wait_as_they_were_decoded_or_resized_and_are_the_same(cuts, monkeypatch):
    as_decoded = read(cuts, max_frames=FEW, frames=CHANGE)
    monkeypatch.setattr(pictures, "MAX_DECODED_BYTES", 0)
    resized = read(cuts, max_frames=FEW, frames=CHANGE)
    assert as_decoded[0] == resized[0] and as_decoded[2] == resized[2]
    assert (np.stack(as_decoded[1]) == np.stack(resized[1])).all()


ODD = {
    "slow.mp4": dict(times=steady(40, fps=1)),
    "odd.gif": dict(times=steady(12, fps=1), codec="gif", pix_fmt="rgb8"),
    "sought.mp4": dict(times=steady(60, fps=8), gop=2),
    "one.mp4": dict(times=[0.0]),
    "short.mp4": dict(times=steady(0.3)),
    "raw.h264": dict(times=steady(20)),
}


@pytest.mark.parametrize("name", [*ODD, "cut_off.mkv", "damaged.mp4", "turned.mp4", "sound.wav"])
def test_any_file_gives_as_many_frames_in_each_case(worker, folder, name):
    path = folder / f"odd_{name}"
    if name in ODD:
        write(path, **ODD[name])
    elif name == "turned.mp4":
        write(path, times=steady(20, fps=8), rotation=90)
    elif name == "sound.wav":
        write(path, sound=beeps(3, 48_000), sound_codec="pcm_s16le")
    else:
        write(path, times=steady(40, fps=8), gop=100)
        data = bytearray(path.read_bytes())
        if name == "cut_off.mkv":
            del data[len(data) // 2 :]
        else:
            middle = len(data) // 2
            data[middle : middle + 600] = bytes(600)
        path.write_bytes(data)
    clips = [worker.decode(path, DecodeOptions(max_frames=FEW, frames=choice)) for choice in (UNIFORM, PAIRS, CHANGE)]
    if clips[0].frames is None:
        assert all(clip.frames is None and clip.grid_starts is None for clip in clips)
        return
    for clip in clips:
        assert clip.frames.shape == clips[0].frames.shape and clip.complete == clips[0].complete
        assert (clip.seconds_per_frame, clip.duration_s) == (clips[0].seconds_per_frame, clips[0].duration_s)
        assert (np.diff(clip.frame_times) >= 0).all()
        assert clip.grid_starts is None or (np.diff(clip.grid_starts) > 0).all()


def test_candidates_are_bounded_and_all_may_be_chosen(cuts, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_CELLS", 3)
    assert read(cuts, max_frames=FEW, frames=CHANGE)[2]["grid_starts"] == [4.5, 14.5, 24.5, 34.5]
    assert len(read(cuts, max_frames=4, frames=CHANGE, fps=1000)[2]["grid_starts"]) == 2


def test_another_word_is_refused():
    with pytest.raises(UsageError, match="frames must be uniform, pairs, change or linspace, not every"):
        DecodeOptions(frames="every")


def test_some_grids_of_a_clip(worker, long):
    clip = worker.decode(long, DecodeOptions(max_frames=FEW, frames=PAIRS))
    some = clip.with_grids([1, 3])
    kept = [2, 3, 6, 7]
    assert (some.frames == clip.frames[kept]).all() and (some.frame_times == clip.frame_times[kept]).all()
    assert (some.grid_starts == clip.grid_starts[[1, 3]]).all()
    assert some.seconds_per_frame == 2 * clip.seconds_per_frame
