"""Tables of conversations, compared with the templates, the tokenizer and the labels.

A table of templates does not say what was said in its conversations. Whatever it was, each template
must have written the same: so what stands at the places of the turns is read out of the texts, and
then all must agree on it and each template write its text again.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from parity_checks import Findings
from parity_model import Candidate

from llava_video.model.labels import label_conversation, turns_of_sample
from llava_video.model.prompt import Turn, render, stop_strings

Row = Mapping[str, Any]

# Conversations of tables, by the key of their text: who speaks.
_CONVERSATIONS = {"one_turn": ("user",), "two_turns": ("user", "assistant", "user")}
_PLACES = ("\ue000", "\ue001", "\ue002")


def compare_prompt(findings: Findings, candidate: Candidate, row: Row, at: str) -> None:
    """Compare a conversation's text and its ids."""
    turns = []
    for question, answer in row["history"]:
        turns += [Turn("user", question), Turn("assistant", answer)]
    prompt = render([*turns, Turn("user", row["user"])], row["template"])
    findings.same("prompts", f"{at} prompt", prompt, row["prompt"])
    ids = candidate.tokenizer.encode_ids(row["prompt"])
    findings.same("prompts", f"{at} input_ids", ids, row["input_ids"])


def compare_labels(findings: Findings, candidate: Candidate, row: Row, at: str) -> None:
    """Compare what a conversation is trained on: its ids, and which of them are learned."""
    turns = turns_of_sample(row["conversations"])
    ours = label_conversation(turns, candidate.tokenizer, row["template"])
    for key, value in (("input_ids", ours.ids), ("labels", ours.labels)):
        findings.same("labels", f"{at} {key}", value, row[key])


def compare_turns(findings: Findings, _: None, rows: Sequence[Row]) -> None:
    """Compare the texts that templates make of one and the same conversation, and their ends."""
    for key, roles in _CONVERSATIONS.items():
        told = [row for row in rows if key in row]
        said = [_said(row["template"], row[key], roles) for row in told]
        told_alike = [texts for texts in said if texts is not None]
        agreed = max(told_alike, key=told_alike.count, default=None)
        for row in told:
            at = f"[{row['template']}] {key}"
            if agreed is None:
                findings.fail("prompts", at, "no template has written it.")
                continue
            turns = [Turn(role, text) for role, text in zip(roles, agreed, strict=True)]
            findings.same("prompts", at, render(turns, row["template"]), row[key])
    for row in rows:
        if "sep" in row:
            end = (row.get("sep2") or row["sep"]).strip()
            at, ours = f"[{row['template']}] sep", stop_strings(row["template"])
            findings.same("prompts", at, ours, (end,) if end else ())


def _said(template: str, text: str, roles: Sequence[str]) -> tuple[str, ...] | None:
    """Read the turns' texts out of a prompt; None when the template has not written it."""
    turns = [Turn(role, place) for role, place in zip(roles, _PLACES, strict=False)]
    pattern = re.escape(render(turns, template))
    for place in _PLACES:
        pattern = pattern.replace(place, "(.+?)")
    found = re.fullmatch(pattern, text, re.DOTALL)
    return found.groups() if found else None
