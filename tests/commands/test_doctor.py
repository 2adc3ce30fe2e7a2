"""What `cg doctor` says, and that its self test can fail."""

from __future__ import annotations

import json

from cg_cli import doctor, media
from cg_cli.media.clip import DecodeOptions


def test_it_says_what_a_bug_report_needs(cg, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:password@proxy")
    monkeypatch.setenv("CG_KEEP", "0.3")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cg.yaml").write_text("sead: 3\n")
    code, out, _ = cg("doctor")
    assert code == 0
    for word in (
        "torch",
        "transformers",
        "av",
        "cores",
        "hub cache",
        "nano: here",
        "qwen2.5-omni-7b: not here",
        "CG_KEEP: 0.3",
        "did you mean 'seed'",
        "ok: ",
    ):
        assert word in out
    assert "secret" not in out and "password" not in out
    report = json.loads(cg("doctor", "--json")[1])
    assert (
        report["self_test"]["ok"]
        and report["self_test"]["seconds"] > 0
        and set(report) >= {"versions", "machine", "devices", "places", "models", "settings"}
    )


def test_a_self_test_that_fails_is_exit_1_and_says_why(cg, monkeypatch):
    monkeypatch.setattr(doctor, "write_clip", lambda path: path.write_bytes(b"nothing"))
    code, out, _ = cg("doctor")
    assert code == 1 and "FAILED: media:" in out
    monkeypatch.setattr(doctor, "write_clip", lambda path: 1 / 0)
    code, out, _ = cg("doctor")
    assert code == 1 and "FAILED: ZeroDivisionError" in out


def test_its_clip_has_picture_and_sound(tmp_path):
    doctor.write_clip(tmp_path / "clip.mp4")
    clip = media.decode(str(tmp_path / "clip.mp4"), DecodeOptions())
    assert len(clip.frames) == 4 and abs(clip.duration_s - 2) < 0.2 and len(clip.audio) > 30_000
    assert abs(clip.frames[0].astype(int) - clip.frames[-1]).max() > 50  # it moves
