from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.media_files import beeps, number_of, steady, write
from helpers.processes import wait_until

from cg_cli.errors import ItemError
from cg_cli.media import DecodeOptions, DecodeWorker, client
from cg_cli.util import ipc
from cg_cli.util.ipc import Reader, send

pytestmark = pytest.mark.slow

MIB = 1 << 20


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def peak_memory(pid: int) -> int:
    """Bytes; not ru_maxrss, which a child takes over from its parent."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def gone_within(pid: int, seconds: float) -> bool:
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not alive(pid), seconds)
    return not alive(pid)


def test_the_worker_never_imports_torch_and_the_parent_never_imports_av(worker, talkie):
    worker.decode(talkie)
    mapped = Path(f"/proc/{worker.pid}/maps").read_text()
    assert "libavcodec" in mapped and "torch" not in mapped
    code = "import sys, cg_cli.media; sys.exit(bool({'av', 'torch'} & set(sys.modules)))"
    root = Path(ipc.PACKAGE_ROOT)
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=60).returncode == 0


def test_a_deadline_takes_the_process_and_the_next_file_works(talkie):
    with DecodeWorker() as own:
        own.decode(talkie)
        first = own.pid
        start = time.monotonic()
        with pytest.raises(ItemError, match="within 0.005 s") as caught:
            own.decode(talkie, DecodeOptions(fps=25.0, timeout_s=0.005))
        assert caught.value.kind == "timeout" and time.monotonic() - start < 5
        assert not alive(first)
        with pytest.raises(ItemError) as caught:
            own.probe(talkie, timeout_s=0.0)
        assert caught.value.kind == "timeout"
        assert number_of(own.decode(talkie).frames[0]) == 6 and own.pid != first


@pytest.mark.parametrize("blow", [signal.SIGSEGV, signal.SIGKILL])
def test_a_crash_is_one_line_and_the_next_file_works(talkie, blow, monkeypatch):
    with DecodeWorker() as own:
        own.decode(talkie)
        victim = own.pid

        def strike(self, message, payload):  # the answer does not fit the pipe, so the process is still at work
            os.kill(victim, blow)

        with monkeypatch.context() as patched:
            patched.setattr(client._ClipBuilder, "add", strike)
            with pytest.raises(ItemError, match=blow.name) as caught:
                own.decode(talkie, DecodeOptions(fps=25.0))
        assert caught.value.kind == "crashed" and "\n" not in str(caught.value)
        assert own.decode(talkie).complete and own.pid != victim


def test_an_idle_death_is_not_noticed_by_the_user(talkie):
    with DecodeWorker() as own:
        own.decode(talkie)
        os.kill(own.pid, signal.SIGKILL)
        assert own.decode(talkie).complete


def test_an_interrupt_leaves_no_half_answer(talkie, monkeypatch):
    def interrupt(self, message, payload):
        raise KeyboardInterrupt

    with DecodeWorker() as own:
        with monkeypatch.context() as patched:
            patched.setattr(client._ClipBuilder, "add", interrupt)
            with pytest.raises(KeyboardInterrupt):
                own.decode(talkie)
        assert own.pid is None
        assert own.decode(talkie).complete


def test_the_process_is_renewed_after_many_files(talkie, monkeypatch):
    monkeypatch.setattr(client, "REQUESTS_BEFORE_RENEWAL", 2)
    with DecodeWorker() as own:
        pids = []
        for _ in range(4):
            own.decode(talkie)
            pids.append(own.pid)
        assert pids[0] == pids[1] != pids[2] == pids[3]
    assert gone_within(pids[-1], 5) and own.pid is None


def test_the_process_ends_with_its_parent_and_has_its_own_session(talkie):
    code = (
        "from cg_cli.media import DecodeWorker; import signal, sys; own = DecodeWorker(); "
        "own.decode(sys.argv[1]); print(own.pid, flush=True); signal.pause()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(talkie)],
        cwd=ipc.PACKAGE_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as parent:
        pid = int(parent.stdout.readline())
        assert os.getsid(pid) == pid
        parent.kill()
        assert gone_within(pid, 5)
        assert parent.stderr.read() == ""


def test_nothing_of_libav_reaches_stderr(folder, talkie, capfd):
    data = bytearray(talkie.read_bytes())
    data[len(data) // 3 : len(data) // 2] = os.urandom(len(data) // 2 - len(data) // 3)
    broken = folder / "noisy.mp4"
    broken.write_bytes(data)
    with DecodeWorker() as own:
        assert not own.decode(broken).complete
    assert capfd.readouterr() == ("", "")


def test_a_4k_film_stays_below_1_gib(folder):
    film = write(folder / "4k.mp4", times=steady(5 / 25), size=(3840, 2160), codec_options={"bf": "2", "refs": "4"})
    with DecodeWorker() as own:
        clip = own.decode(film, DecodeOptions(fps=25.0))
        assert (clip.source_width, clip.source_height) == (3840, 2160) and len(clip.frames) == 6
        assert clip.frames[0].shape[0] * clip.frames[0].shape[1] <= 128 * 28 * 28
        assert [number_of(frame) for frame in clip.frames] == [0, 1, 2, 2, 3, 4]
        assert peak_memory(own.pid) < 512 * MIB


def test_the_memory_of_the_process_does_not_grow_with_the_sound(folder):
    with DecodeWorker() as own:
        own.decode(write(folder / "short.wav", sound=beeps(1, 16_000), sound_codec="pcm_s16le", sound_rate=16_000))
        before = peak_memory(own.pid)
        clip = own.decode(write(folder / "long.wav", sound=beeps(600, 8_000), sound_codec="pcm_u8", sound_rate=8_000))
        assert clip.audio_s == pytest.approx(600, abs=0.01)
        assert peak_memory(own.pid) - before < 12 * MIB  # the sound itself is 37 MiB


def test_probe_agrees_with_decode(worker, talkie):
    probe, clip = worker.probe(talkie), worker.decode(talkie)
    assert (probe.width, probe.height, probe.rotation) == (clip.source_width, clip.source_height, 0)
    assert probe.duration_s == pytest.approx(clip.duration_s, abs=0.05)
    assert (probe.video_codec, probe.audio_codec) == ("h264", "aac") and probe.has_video and probe.has_audio
    assert [stream.type for stream in probe.streams] == ["video", "audio"] and probe.complete


def test_messages_survive_the_wire_in_any_pieces():
    pipe = io.BytesIO()
    sent = [({"name": "\udcff\n日"}, b""), ({"n": 1}, bytes(range(256)) * 5)]
    for message, payload in sent:
        send(pipe, message, payload)
    whole = io.BytesIO(pipe.getvalue())
    reader = Reader(lambda size: whole.read(min(size, 3)))
    assert [reader.receive() for _ in sent] == [(message, bytearray(payload)) for message, payload in sent]
    cut = io.BytesIO(pipe.getvalue()[:-1])
    reader = Reader(cut.read)
    reader.receive()
    with pytest.raises(EOFError):
        reader.receive()
