"""Miniature benchmarks on disk, in the layouts in which their owners hand them out; values from the public files where
they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers import SAMPLES

CLIPS = ("dog.mp4", "drum.mp4")


@dataclass(frozen=True)
class Layout:
    """A benchmark as it may lie on disk.

    Attributes:
        file, content: annotation file below the folder, and what it holds: a text, or what JSON holds.
        videos: where the videos of CLIPS are, below the folder.
        first: what its first question must become: id, video (number in CLIPS), choices, answer, category.
        count: of questions.
        data: what ``--data`` is, below the folder.
    """

    name: str
    file: str
    content: Any
    videos: tuple[str, str]
    first: tuple[str, int, tuple[str, ...], str, str]
    count: int
    data: str = "."

    def write(self, folder: Path) -> Path:
        """Returns what ``--data`` is to be."""
        target = folder / self.file
        target.parent.mkdir(parents=True, exist_ok=True)
        if callable(self.content):
            self.content(target)
        else:
            target.write_text(
                self.content if isinstance(self.content, str) else json.dumps(self.content), encoding="utf-8"
            )
        for clip, place in zip(CLIPS, self.videos):
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(SAMPLES / clip, folder / place)
        return folder / self.data


def _parquet(rows: list[Mapping[str, Any]]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)

    return write


WORLD = {
    "dvOkwKAs": {
        "video_id": "dvOkwKAs", "video_duration": "60s", "duration": "<1min", "domain": "Music", "sub_category": "Covers",
        "audio_class": ["Speech", "Music"], "video_caption": "A band plays.",
        "task0": {
            "task_domain": "Understanding", "task_type": "Spatial Relation",
            "question": "What is the position of the metal roller door relative to the woman wearing white in the video?",
            "candidates": ["A. To the left of the woman wearing white.", "B. To the right of the woman wearing white.",
                           "C. In front of the woman wearing white.", "D. Behind the woman wearing white."],
            "answer": "B",
        },
        "task1": {"task_domain": "Recognition", "task_type": "Audio Recognition", "question": "What barks?",
                  "candidates": ["A. a dog", "B. a seal"], "answer": "A"},
    },
    "UYkFSXsh": {
        "video_id": "UYkFSXsh", "video_duration": "119s", "duration": "1-2min", "domain": "Performance", "sub_category": "Magic",
        "audio_class": ["Music"], "video_caption": "",
        "task0": {  # three choices, as in the real one
            "task_domain": "Recognition", "task_type": "Audio Change", "question": "How did the volume change {sic}?",
            "candidates": ["A. It is unclear to me.", "B. The volume increased from soft to loud.", "C. It did not."], "answer": "B",
        },
    },
}  # fmt: skip
WORLD_FIRST = (
    "dvOkwKAs/task0", 0,
    ("A. To the left of the woman wearing white.", "B. To the right of the woman wearing white.", "C. In front of the woman wearing white.",
     "D. Behind the woman wearing white."),
    "B", "Music",
)  # fmt: skip
WORLD_ROWS = [
    {"index": n, "video": video, "video_path": f"./videos/{video}.mp4", "candidates": str(task["candidates"]), "audio_class": str(entry["audio_class"]),
     **{key: entry[key] for key in ("duration", "domain", "sub_category")},
     **{key: task[key] for key in ("task_domain", "task_type", "question", "answer")}}
    for n, (video, entry, task) in enumerate((video, entry, entry[key]) for video, entry in WORLD.items() for key in entry if key.startswith("task"))
]  # fmt: skip

DAILY = [
    {
        "Question": "What visual elements were displayed immediately after the video concluded?",
        "Choice": ["A. Still product bottle → Price text overlay", "B. Facial treatment demonstration → Presenter holding product",
                   "C. Presenter's torso shot → Secondary screen", "D. Bookshelf backdrop → Close-up of string lights"],
        "Answer": "B", "video_id": "Ec_lQgZ9wlg", "Type": "Event Sequence", "content_parent_category": "Lifestyle",
        "content_fine_category": "Skincare Routines", "video_category": "Howto & Style", "video_duration": "30s",
    },
    {"Question": "Who speaks?", "Choice": ["A. x", "B. y", "C. z", "D. nobody"], "Answer": "D", "video_id": "-rieb8cBb2z",
     "Type": "Inference", "video_category": "News", "video_duration": "60s"},
]  # fmt: skip
DAILY_FIRST = ("0", 0, tuple(DAILY[0]["Choice"]), "B", "Event Sequence")
DAILY_VIDEOS = ("Videos/Ec_lQgZ9wlg/Ec_lQgZ9wlg_video.mp4", "Videos/-rieb8cBb2z/-rieb8cBb2z_video.mp4")

MME = [
    {
        "video_id": "001", "duration": "short", "domain": "Knowledge", "sub_category": "Humanity & History",
        "url": "https://www.youtube.com/watch?v=fFjv93ACGo8", "videoID": "fFjv93ACGo8", "question_id": "001-1", "task_type": "Counting Problem",
        "question": "Which kind of the decoration has the largest number?",
        "options": ["A. Apples.", "B. Candles.", "C. Berries.", "D. The three kinds are of the same number."], "answer": "C",
    },
    {"video_id": "601", "duration": "long", "domain": "Sports Competition", "sub_category": "Other", "url": "https://www.youtube.com/watch?v=_x",
     "videoID": "_x", "question_id": "601-1", "task_type": "OCR Problems", "question": "Who wins?", "options": ["A. a", "B. b", "C. c", "D. d"], "answer": "A"},
]  # fmt: skip
MME_NESTED = [
    {"video_id": "001", "duration_category": "short", "video_category": "Knowledge", "video_subcategory": "Humanity & History",
     "url": "https://www.youtube.com/watch?v=fFjv93ACGo8",
     "questions": [{"question_id": "001-1", "task_type": "Counting Problem", "question": "Which?", "choices": MME[0]["options"], "answer": "C"}]},
]  # fmt: skip
MME_FIRST = ("001-1", 0, tuple(MME[0]["options"]), "C", "short")
MME_VIDEOS = ("data/fFjv93ACGo8.mp4", "data/_x.mp4")

AVUT = [
    {"video_id": 1, "url": "https://www.youtube.com/shorts/aaaaaaaaaaa?si=x", "video_type": "vlog", "task_type": "Audio Information Extraction",
     "question": "What sound is heard?", "option_A": "dog", "option_B": "cat", "option_C": "bell", "option_D": "music", "answer": "A",
     "video_path": "data/aaaaaaaaaaa.mp4", "QA_id": 1},
    {"video_id": 2, "url": "", "video_type": "TED speech", "task_type": "Audio Content Counting", "question": "How often?", "option_A": "once",
     "option_B": "twice", "option_C": "", "option_D": "", "answer": "C", "video_path": "data/bbb.bbb.mp4", "QA_id": 455},
]  # fmt: skip
AVUT_FIRST = ("1", 0, ("A. dog", "B. cat", "C. bell", "D. music"), "A", "Audio Information Extraction")

OMNI = [
    {"video": "video_1", "video_type": "Vlog", "duration": "03:28", "questions": [
        {"question": "Which concepts can it be associated with?", "question_type": "reference reasoning", "audio_type": "Speech",
         "reasoning_steps": [{"modality": "vision", "evidence": "a kitten on 1:42.", "inference": "words"}],
         "answer": "Ancient Chinese stories and Japanese anime",
         "options": ["A.Ancient Chinese stories and Japanese anime", "B. Ancient myths", "C.A certain film", "D.Gardens"], "correct_option": "A"},
        {"question": "How many?", "question_type": "counting", "audio_type": "Sound", "reasoning_steps": [], "answer": "Two",
         "options": ["A.One", "B.Two", "C.Three", "D.Four"], "correct_option": "B"}]},
    {"video": "video_2", "video_type": "Documentary", "duration": "32:35", "questions": [
        {"question": "Why?", "question_type": "causal reasoning", "audio_type": "Music", "reasoning_steps": [], "answer": "x",
         "options": ["A.x", "B.y", "C.z", "D.w"], "correct_option": "A"}]},
]  # fmt: skip
OMNI_FIRST = ("video_1/0", 0, tuple(OMNI[0]["questions"][0]["options"]), "A", "reference reasoning")
OMNI_ROWS = [
    {**{key: entry[key] for key in ("video_type", "duration")}, "video": f"videos/{entry['video']}.mp4", **question}
    for entry in OMNI
    for question in entry["questions"]
]

HOLMES = [
    {"video ID": "RSmjqss0XKQ", "Question ID": 1, "Question Type": "SR", "Question": "What is the relationship between the woman and the man?",
     "Options": {"A": "Cleaners", "B": "Colleagues", "C": "Siblings", "D": "Strangers", "E": "Undercover police officers", "F": "Office coworkers"},
     "Answer": "A", "Explanation": "Both wear cleaning uniforms."},
    {"video ID": "zzz", "Question ID": 1, "Question Type": "TA", "Question": "In which order?\n1. a\n2. b",
     "Options": {"A": "1, 2", "B": "2, 1", "C": None}, "Answer": "B", "Explanation": ""},
]  # fmt: skip
HOLMES_FIRST = ("RSmjqss0XKQ/1", 0, tuple(f"{name}. {text}" for name, text in HOLMES[0]["Options"].items()), "A", "SR")

WORLD_VIDEOS = ("videos/dvOkwKAs.mp4", "videos/UYkFSXsh.mp4")
LAYOUTS = {
    "worldsense": Layout("worldsense", "worldsense_qa.json", WORLD, WORLD_VIDEOS, WORLD_FIRST, 3),
    "worldsense, rows": Layout("worldsense", "rows.json", WORLD_ROWS, WORLD_VIDEOS, ("dvOkwKAs/0", *WORLD_FIRST[1:]), 3, "rows.json"),
    "daily-omni": Layout("daily-omni", "qa.json", DAILY, DAILY_VIDEOS, DAILY_FIRST, 2),
    "daily-omni, in the videos' folder": Layout(
        "daily-omni", "qa.json", DAILY, tuple(v.removeprefix("Videos/") for v in DAILY_VIDEOS), DAILY_FIRST, 2, "qa.json"),
    "video-mme, rows": Layout("video-mme", "videomme/test.jsonl", "\n".join(map(json.dumps, MME)), MME_VIDEOS, MME_FIRST, 2),
    "video-mme, nested": Layout("video-mme", "answers.json", MME_NESTED, MME_VIDEOS, MME_FIRST, 1),
    "video-mme, VLMEvalKit's table": Layout(
        "video-mme", "Video-MME.tsv",
        "index\tvideo\tduration\tdomain\tcandidates\tsub_category\ttask_type\tquestion\tanswer\n"
        + "".join(f"{n}\t{r['videoID']}\t{r['duration']}\t{r['domain']}\t{r['options']}\t{r['sub_category']}\t{r['task_type']}\t{r['question']}\t{r['answer']}\n"
                  for n, r in enumerate(MME)),
        tuple(f"video/{Path(v).name}" for v in MME_VIDEOS), ("0", *MME_FIRST[1:]), 2),
    "avut, renamed": Layout("avut", "mine.json", AVUT, ("aaaaaaaaaaa.mp4", "bbb.bbb.mp4"), AVUT_FIRST, 2),
    "avut": Layout("avut", "AV_Human_data.json", AVUT, ("aaaaaaaaaaa.mp4", "bbb.bbb_fullsize.mp4"), AVUT_FIRST, 2),
    "avut, another file": Layout("avut", "AV_Gemini_data.json", AVUT, ("data/aaaaaaaaaaa.mp4", "data/bbb.bbb.mp4"), AVUT_FIRST, 2, "AV_Gemini_data.json"),
    "omnivideobench": Layout("omnivideobench", "data.json", OMNI, ("videos/video_1.mp4", "videos/video_2.mp4"), OMNI_FIRST, 3),
    "omnivideobench, rows": Layout(
        "omnivideobench", "data.jsonl", "\n".join(map(json.dumps, OMNI_ROWS)), ("videos/video_1.mp4", "videos/video_2.mp4"), OMNI_FIRST, 3),
    "video-holmes": Layout("video-holmes", "test_Video-Holmes.json", HOLMES, ("videos_cropped/RSmjqss0XKQ.mp4", "videos_cropped/zzz.mp4"), HOLMES_FIRST, 2),
    "video-holmes, as the hub unpacks": Layout(
        "video-holmes", "Benchmark/test_Video-Holmes.json", HOLMES, ("Benchmark/videos_cropped/RSmjqss0XKQ.mp4", "Benchmark/videos_cropped/zzz.MP4"),
        HOLMES_FIRST, 2),
}  # fmt: skip
PARQUET = {
    "video-mme": Layout("video-mme", "videomme/test-00000-of-00001.parquet", _parquet(MME), MME_VIDEOS, MME_FIRST, 2),
    "omnivideobench": Layout(
        "omnivideobench",
        "data.parquet",
        _parquet(OMNI_ROWS),
        ("videos/video_1.mp4", "videos/video_2.mp4"),
        OMNI_FIRST,
        3,
    ),
    "worldsense": Layout(
        "worldsense",
        "data/test-00000-of-00001.parquet",
        _parquet(WORLD_ROWS),
        WORLD_VIDEOS,
        ("dvOkwKAs/0", *WORLD_FIRST[1:]),
        3,
    ),
}
