"""`llava-video doctor`: say what is installed here, what works, and what each gap costs."""

import json
import textwrap

import click

from llava_video.cli.checks import Finding, check_everything
from llava_video.cli.command import command, option
from llava_video.cli.console import Console
from llava_video.cli.inputs import ALL_WELL, FAILED
from llava_video.config import to_mapping

_MARKS = {"ok": ("ok", "green"), "absent": ("-", "yellow"), "broken": ("FAIL", "red")}
_WIDTH, _INDENT = 96, 26


@command("doctor")
@option("--json", "as_json", is_flag=True, help="The findings as JSON.")
@click.pass_obj
def doctor(console: Console, /, as_json: bool) -> int:
    """Check what is installed and what works.

    Packages are imported, a clip is written and read back frame by frame, the GPU is asked for its
    name. Exit status 1 when something is broken that a description needs.
    """
    del console
    findings = check_everything()
    if as_json:
        click.echo(json.dumps([to_mapping(finding) for finding in findings], indent=1))
    else:
        for group in dict.fromkeys(finding.group for finding in findings):
            click.echo(f"{group}")
            for finding in findings:
                if finding.group == group:
                    click.echo(_lines(finding))
        click.echo(f"\n{_verdict(findings)}")
    return FAILED if any(finding.is_fatal for finding in findings) else ALL_WELL


def _lines(finding: Finding) -> str:
    mark, colour = _MARKS[finding.state]
    head = f"  {mark:<5} {finding.name:<17} "
    words = " ".join(filter(None, (finding.found, finding.cost)))
    lines = textwrap.wrap(words, width=_WIDTH - _INDENT, break_on_hyphens=False) or [""]
    if finding.remedy:
        lines.append(finding.remedy)  # not wrapped: it is there to be copied
    text = ("\n" + " " * _INDENT).join(lines)
    return head.replace(mark, click.style(mark, fg=colour), 1) + text


def _verdict(findings: list[Finding]) -> str:
    fatal = [finding.name for finding in findings if finding.is_fatal]
    if fatal:
        return f"No video can be described here until this works: {', '.join(fatal)}."
    return "Everything that a description needs works."
