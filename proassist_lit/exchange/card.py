"""The model card of an assistant."""

from __future__ import annotations

from proassist_lit.exchange.description import Description
from proassist_lit.model.config import TrainMode

_SHOWN = (
    "utterance_f1", "utterance_precision", "utterance_recall", "content_accuracy", "speak_f1",
    "dst_update_f1", "dst_joint_goal_accuracy",
)  # fmt: skip
"""Metrics of the card, where they are known."""


def model_card(about: Description, *, as_adapter: bool) -> str:
    """The text of ``README.md``.

    Args:
        about: what is known of the assistant.
        as_adapter: whether the folder holds an adapter in the place of a backbone.
    """
    config = about.config
    base = config.model.backbone
    front = ["---", "library_name: peft" if as_adapter else "library_name: transformers"]
    if "/" in base and not base.startswith((".", "/", "~")):  # an id of the hub
        front.append(f"base_model: {base}")
    front += ["tags:", "- video", "- proactive-assistant", "- proassist-lit", "---"]
    thetas = [
        f"{name} {theta:.3f}" if theta is not None else f"{name} is chosen on val"
        for name, theta in (
            ("speak", config.stream.theta_speak), ("update", config.stream.theta_dst)
        )
    ]  # fmt: skip
    rule = ""
    if config.stream.rule.looks_back:
        rule = f" (speak by stream.rule={config.stream.rule.value})"
    elif config.stream.rise is not None:
        rule = f" (not that to speak: by stream.rise={config.stream.rise:g})"
    additions = " with the low-rank additions of this folder" if as_adapter else ""
    if as_adapter and about.train == TrainMode.QLORA:
        additions += (
            ", trained over it in 4 bits: whole, as it is read here, answers differ a little "
            "(`proassist-lit export --merge` writes the weights that they were trained with)"
        )
    facts = [
        ("backbone", f"`{base}`{additions}"),
        ("training", f"{about.train}, objective {config.objective.kind.value}"),
        ("data", f"{config.data.source}, {about.fps:g} frames per second"),
        ("features", f"`{config.data.encoder}`, {about.vision_size} wide, "
                     f"{config.data.num_tokens_per_img} a frame"),
        ("chat format", f"`{config.model.chat}`"),
        ("thresholds", f"{', '.join(thetas)}{rule}"),
        ("command", f"`{about.command}`" if about.command else "not known"),
        ("from", f"`{about.origin}`" if about.origin else "not known"),
    ]  # fmt: skip
    lines = [
        *front, "", f"# {config.name}", "",
        "An assistant that watches a video as it arrives, decides at every frame whether to speak"
        + (" and whether to update the state of the task" if config.model.dst else "")
        + ", and writes the words.",
        "", *(f"- {name}: {text}" for name, text in facts), "", *_results(about), "",
        "## Use", "", "```bash", "proassist-lit evaluate THIS_FOLDER",
        "python train.py trainer=finetune model.init_from=THIS_FOLDER", "```", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _results(about: Description) -> list[str]:
    rows = []
    for name in _SHOWN:
        values = [about.metrics.get(f"{split}/{name}") for split in ("val", "test")]
        if any(isinstance(value, float) for value in values):
            cells = [f"{value:.3f}" if isinstance(value, float) else "–" for value in values]
            rows.append(f"| {name} | {' | '.join(cells)} |")
    if not rows:
        return ["## Results", "", "Not measured."]
    return ["## Results", "", "| metric | val | test |", "| --- | ---: | ---: |", *rows]
