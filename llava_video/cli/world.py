"""`llava-video world`: a seed → videos whose truth is known, with questions and answers."""

import click

from llava_video.cli.command import command, option, progress_option
from llava_video.cli.console import Console


@command("world")
@click.argument("folder", metavar="DIR")
@option("--clips", "num_clips", type=int, default=100, help="How many.  [default: 100]")
@option("--seed", type=int, default=0, help="Another one gives other clips.  [default: 0]")
@option(
    "--split",
    metavar="NAME",
    default="train",
    help="train, val, heldout, long or monitor; they share no clip.  [default: train]",
)
@option("--config", metavar="FILE", help="YAML: what clips are like, instead of the split's own.")
@option("--preferences", is_flag=True, help="Write pairs of a right and a wrong answer too.")
@option("--workers", "num_workers", type=int, default=1, help="Processes.  [default: 1]")
@progress_option()
@click.pass_obj
def world(
    console: Console,
    /,
    folder: str,
    num_clips: int,
    seed: int,
    split: str,
    config: str | None,
    preferences: bool,
    num_workers: int,
) -> int:
    """Write clips of a small world whose truth is known.

    Videos of coloured shapes that move, change and hide, with captions, questions and answers in
    the JSON that LLaVA trains on. What is there already is kept: a run that was stopped goes on.
    """
    from llava_video.config import read_yaml  # a tenth of a second that `--help` need not pay
    from llava_video.world.dataset import read_records, write_world
    from llava_video.world.preference import write_preferences
    from llava_video.world.settings import WorldSettings

    path = write_world(
        folder,
        num_clips,
        split=split,
        seed=seed,
        settings=None if config is None else read_yaml(WorldSettings, config),
        num_workers=num_workers,
        progress=console.progress.on_video,
    )
    console.progress.close()
    num_records = num_turns = 0
    for record in read_records(path):
        num_records += 1
        num_turns += len(record["answers"])
    click.echo(f"{path}: {num_clips:,} clips, {num_records:,} records, {num_turns:,} answers.")
    if preferences:
        pairs_path, num_pairs = write_preferences(path)
        click.echo(f"{pairs_path}: {num_pairs:,} pairs.")
    return 0
