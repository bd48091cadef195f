"""`llava-video plan`: the table, or the plan itself."""

from pathlib import Path

import overlay_cases as cases

from llava_video.plan_table import plan_table
from llava_video.planning.plan_json import plan_from_json
from llava_video.preview import plan_video


def test_the_table_is_the_plans(run, tiny_folder: Path, tiny_clip: Path) -> None:
    outcome = run("plan", tiny_clip, "Why?", "-m", tiny_folder, "--fps", "2")
    own = plan_video(tiny_clip, "Why?", model=str(tiny_folder), fps=2.0)
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out == plan_table(own) + "\n"


def test_the_json_can_be_run(run, tiny_folder: Path, tiny_clip: Path, tiny_model) -> None:
    arguments = ("--json", "--num-frames", "3", "--max-new-tokens", "4")
    text = run("plan", tiny_clip, "-m", tiny_folder, *arguments).out
    plan = plan_from_json(text)
    assert plan == plan_video(tiny_clip, model=str(tiny_folder), num_frames=3, max_new_tokens=4)
    assert tiny_model.run(plan).usage.visual_tokens == plan.visual_tokens


def test_no_prompt_is_a_request_for_a_description(run, tiny_folder, tiny_clip) -> None:
    assert "Please describe this video" in run("plan", tiny_clip, "-m", tiny_folder, "--json").out


def test_the_template_may_be_named(run, refused, tiny_folder, tiny_clip) -> None:
    asked = ("plan", tiny_clip, "Why?", "-m", tiny_folder, "--json", "--template")
    assert "Why? ASSISTANT:" in run(*asked, "vicuna_v1").out
    assert "mistral_instruct" in refused(*asked, "mistral")


def test_memory_and_scale_stand_in_the_table(run, tiny_folder, tiny_clip) -> None:
    outcome = run("plan", tiny_clip, "-m", tiny_folder, "--memory", "2GiB", "--quantize", "int4",
                  "--kv-cache", "int8", "--position-scale", "2")  # fmt: skip
    assert outcome.status == 0
    assert "(int4), cache" in outcome.out
    assert "(int8), activations about" in outcome.out
    assert "workspace about 358.4 MiB" in outcome.out
    assert "(of 32,768 x 2)" in outcome.out
    assert "because   Positions are divided by 2" in outcome.out
    assert "warning   At --position-scale 2" not in outcome.out  # the plan's own words, unchanged
    assert "warning   At position_scale=2 positions lie closer" in outcome.out


def test_what_does_not_fit_is_refused_with_options(refused, tiny_folder, tiny_clip) -> None:
    words = refused("plan", tiny_clip, "-m", tiny_folder, "--memory", "300MiB")
    assert "--memory 300.0 MiB" in words
    assert "hint:  --memory 3" in words
    assert "lots" in refused("plan", tiny_clip, "-m", tiny_folder, "--memory", "lots")


def test_a_rule_and_its_look_stand_in_the_table(run, refused, tiny_folder, tiny_clip) -> None:
    scene = run("plan", tiny_clip, "-m", tiny_folder, "--sampling", "scene", "--scan-fps", "5")
    assert "because   Looked at 8 frames before the plan, at 5 per second" in scene.out
    keys = run("plan", tiny_clip, "-m", tiny_folder, "--sampling", "keyframe")
    assert "lie nearest to 2 keyframes" in " ".join(keys.out.split())
    words = refused("plan", tiny_clip, "-m", tiny_folder, "--scan-fps", "5")
    assert "--sampling uniform makes nothing of --scan-fps 5.0" in words


def test_an_overlay_is_planned_over_its_base(
    run, refused, tiny_folder, tiny_clip, tmp_path
) -> None:
    overlay = cases.write_projector(tiny_folder, tmp_path / "overlay", {}, _name_or_path=None)
    words = refused("plan", tiny_clip, "-m", overlay)
    assert "holds a projector alone" in words
    assert "pass --base with the folder or hub id" in words
    # Alone it is asked for captions, without a conversation around them.
    asked = ("plan", tiny_clip, "-m", overlay, "--base", tiny_folder, "--json")
    assert plan_from_json(run(*asked).out).prompt.startswith("<image>\n")
    over = run(*asked, "--template", "qwen_1_5").out
    plain = run("plan", tiny_clip, "-m", tiny_folder, "--json").out
    assert plan_from_json(over).text_tokens == plan_from_json(plain).text_tokens
    assert "leave --base out" in refused(
        "plan", tiny_clip, "-m", tiny_folder, "--base", tiny_folder
    )
