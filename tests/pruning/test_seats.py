"""SEATS: its schedule, what enters, and which rows a layer lets go, on cases worked out by hand and against loops."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.hand import at_angles, shared
from helpers.synthetic_stream import make_stream

from cg_cli.pruning.budget import Budget, plan
from cg_cli.pruning.decoder import LayerView
from cg_cli.pruning.methods.seats import Seats, best_of_chunks, schedule
from cg_cli.pruning.stream import AUDIO, TEXT, VIDEO


def test_the_schedule_of_the_papers_model():
    """1000 tokens at 35 %: 490 enter and read 16 layers. With d going first, e d and e2 d next, 16 * 490 + 2 (490 - d)
    +
    2 (490 - 3.718 d) + 4 (490 - 11.107 d) = 28 * 350, so d = 36.4."""
    read = schedule(490, 350, 28)
    assert read[:16] == [490] * 16 and read[24:] == [0] * 4
    assert read[16] == read[17] == 454 and read[18] == read[19] == 355 and len({*read[20:24]}) == 1
    assert read[20] == pytest.approx(490 - 36.4 * (1 + math.e + math.e**2), abs=1.5)
    assert (read[18] - read[20]) / (read[16] - read[18]) == pytest.approx(math.e, abs=0.1)


@pytest.mark.parametrize("layers", [2, 3, 4, 5, 6, 8, 28, 36, 48])
def test_the_mean_over_layers_is_the_budget_in_models_of_any_depth(layers: int):
    for total in (1, 2, 3, 7, 40, 333, 5000):
        for count in {
            1,
            total,
            *(max(1, round(share * total)) for share in (0.05, 0.1, 0.3, 0.45, 0.7, 0.86, 0.9, 0.99)),
        }:
            read = schedule(sum(Seats.entering(total, 0, count)), count, layers)
            assert math.floor(sum(read) / layers + 0.5) == count, (total, count)
            assert read == sorted(read, reverse=True) and read[0] <= total and len(read) == layers
    assert schedule(100, 100, layers) == [100] * layers


def test_the_layers_above_the_papers_bare_ones_fill_up_when_nothing_else_is_left():
    assert schedule(1000, 850, 28)[24] == 0 < schedule(1000, 860, 28)[24]


@pytest.mark.parametrize(("keep", "video", "audio"), [(0.35, 30, 65), (0.25, 20, 55), (0.15, 10, 45), (0.10, 6, 35)])
def test_what_enters_is_the_published_pair(keep: float, video: int, audio: int):
    v, a = 8640, 1500  # a minute at 144 tokens a grid, as published: R is of all of them, about
    count = round(v * video / 100 + a * audio / 100)
    video_count, audio_count = Seats.entering(v, a, count)
    assert video_count + audio_count == round(1.4 * count)
    assert audio_count / (1.4 * a) == pytest.approx(audio / 100, abs=0.012) and video_count / (
        1.4 * v
    ) == pytest.approx(video / 100, abs=0.01)


def test_what_enters_never_exceeds_what_there_is():
    assert (
        Seats.entering(100, 50, 150) == (100, 50)
        and Seats.entering(0, 50, 40) == (0, 50)
        and Seats.entering(100, 0, 40) == (56, 0)
    )
    assert Seats.entering(10, 200, 160) == (10, 200)
    with pytest.raises(ValueError, match="asks for 151 tokens of a stream that holds 150"):
        Seats.entering(100, 50, 151)


def test_tokens_far_from_each_other_enter_by_hand():
    """Of 12 video tokens in two windows of two grids and 4 of audio, 7 enter for a budget of 5: 61 % of the audio,
    times 1.4, are 3, which leaves two of video a window.

    In the first window 90 is the farthest from its nearest neighbour, then -60 from 90; in the second 120, which is 50
    away from
    70, and then 0.
    """
    video = at_angles([[0, 10, 20], [90, 15, -60], [0, 5, 30], [40, 70, 120]])
    stream = make_stream(grids=4, height=1, width=3, text=(1, 1), video=video, audio_per_chunk=2)
    assert Seats.entering(12, 4, 5) == (4, 3)
    chosen = Seats().select(stream, Budget(1, 4)).indices
    kept = [(int(stream.grid[i]), int(stream.column[i])) for i in chosen if stream.modality[i] == VIDEO]
    assert kept == [(1, 0), (1, 2), (2, 0), (3, 2)]


def view(layer: int, entered: int, attention: list[float], kinds: list[int], time_s: list[float]) -> LayerView:
    """28 layers; media rows with the attention that the last row pays them, between a text row and a question of
    two."""
    n = len(attention)
    paid = torch.tensor([0.2, *attention, 0.9, 0.1])

    def look(rows):
        assert rows.tolist() == [n + 2]  # the last row alone
        return paid[None]

    modality, time = torch.tensor([TEXT, *kinds, TEXT, TEXT]), torch.tensor([-1.0, *time_s, -1.0, -1.0])
    return LayerView(
        layer,
        28,
        (entered + 3,) * (layer + 1),
        modality,
        torch.zeros(n + 3).long(),
        time,
        2,
        torch.zeros(n + 3, 4),
        look,
    )


def test_a_layer_drops_by_hand():
    """14 entered for a budget of 10: 16 x 14 + 2 x 13 + 2 x 10 + 4 x 2 is 278 of 280. Before layer 18 three of thirteen
    go, weights e^(score / 0.1): chunk 0 has video .30 and audio .02, chunk 1 video .10 and audio .02."""
    assert schedule(14, 10, 28)[14:25] == [14, 14, 13, 13, 10, 10, 2, 2, 2, 2, 0]
    attention = [0.30, 0.31, 0.29, 0.30, 0.02, 0.02, 0.03, 0.10, 0.12, 0.08, 0.10, 0.01, 0.03]
    kinds = [VIDEO] * 4 + [AUDIO] * 3 + [VIDEO] * 4 + [AUDIO] * 2
    times = [0.0] * 4 + [0.5] * 3 + [2.0] * 4 + [2.5] * 2
    pruner, budget = Seats(), Budget(7, 3)
    # Video weights e3/(e3+e1) = .881 and .119, audio .508 and .492 (means .0233 and .02): chunks 1.389 and .611, of
    # which chunk 0 can hold 7 at most: 6.94 and 3.06 of 10, so 7 and 3. In chunk 1 video is .119 * 6.15 : .492 * 3.85,
    # 28 % of 3: one.
    stays = pruner.after(view(17, 14, attention, kinds, times), budget).tolist()
    assert stays == [0, 1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 14, 15]
    assert pruner.after(view(16, 14, attention, kinds, times), budget) is None  # 13 again
    assert pruner.after(view(23, 14, attention[:3], kinds[:3], times[:3]), budget).tolist() == [0, 4, 5]  # all media
    assert pruner.after(view(27, 14, [], [], []), budget) is None


def reference(score, kinds, chunk, video, count) -> list[int]:
    """The rows that stay, chunk by chunk."""
    members = {
        (c, k): [i for i in range(len(score)) if chunk[i] == c and kinds[i] == k]
        for c in set(chunk)
        for k in (VIDEO, AUDIO)
    }
    weight = {}
    for kind in (VIDEO, AUDIO):
        e = {
            c: math.exp(sum(score[i] for i in members[c, kind]) / len(members[c, kind]) / 0.1)
            for c in set(chunk)
            if members[c, kind]
        }
        weight |= {(c, kind): e.get(c, 0.0) / sum(e.values()) if e else 0.0 for c in set(chunk)}
    order = sorted(set(chunk))
    quota = shared(
        [weight[c, VIDEO] + weight[c, AUDIO] for c in order],
        [len(members[c, VIDEO]) + len(members[c, AUDIO]) for c in order],
        count,
    )
    out = []
    for c, n in zip(order, quota, strict=True):
        both = weight[c, VIDEO] * video, weight[c, AUDIO] * (count - video)
        video_count = round(n * both[0] / sum(both)) if sum(both) else 0
        video_count = min(max(video_count, n - len(members[c, AUDIO])), len(members[c, VIDEO]), n)
        for kind, m in ((VIDEO, video_count), (AUDIO, n - video_count)):
            out += sorted(members[c, kind], key=lambda i: (-score[i], i))[:m]
    return sorted(out)


@pytest.mark.parametrize("seed", range(6))
def test_as_chunk_by_chunk(seed: int):
    random = torch.Generator().manual_seed(seed)
    n, chunks = 60, 5
    kinds = [VIDEO if x < 0.7 else AUDIO if x < 0.95 else TEXT for x in torch.rand(n, generator=random).tolist()]
    chunk = torch.randint(chunks, (n,), generator=random).sort().values.tolist()
    if seed == 3:
        kinds = [VIDEO if c == 2 else k for c, k in zip(chunk, kinds)]  # a chunk without sound
    if seed == 4:
        kinds = [TEXT if k == AUDIO else k for k in kinds]  # none at all
    score = (torch.rand(n, generator=random) * 0.4).tolist()
    media = [i for i in range(n) if kinds[i] != TEXT]
    for count in (1, 7, len(media) // 2, len(media) - 1):
        video = count * sum(kinds[i] == VIDEO for i in media) / len(media)
        flags = torch.tensor([[k == VIDEO for k in kinds], [k == AUDIO for k in kinds]])
        stays = best_of_chunks(torch.tensor(score), flags, torch.tensor(chunk), video, count)
        ours = stays.nonzero()[:, 0].tolist()
        expected = reference(
            [score[i] for i in media], [kinds[i] for i in media], [chunk[i] for i in media], video, count
        )
        assert ours == [media[i] for i in expected] and len(ours) == count


def test_selection_is_what_entering_says():
    stream = make_stream(grids=8, height=4)
    for keep in (0.1, 0.45, 0.8, 1.0):
        chosen = Seats().select(stream, plan(stream, keep)).indices
        kinds = stream.modality[chosen]
        expected = Seats.entering(
            *(int((stream.modality == kind).sum()) for kind in (VIDEO, AUDIO)), plan(stream, keep).count
        )
        assert tuple(int((kinds == kind).sum()) for kind in (VIDEO, AUDIO)) == expected
        assert (chosen[1:] > chosen[:-1]).all() and (kinds == TEXT).sum() == (stream.modality == TEXT).sum()


def test_what_counts_as_kept():
    assert Seats.kept([(6, 4), (6, 4), (3, 2), (0, 0)]) == (4, 2)  # 3.75 and 2.5: 6.25 in all
