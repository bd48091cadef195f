"""What a server says of itself, in plain values."""

import json

from llava_video.remote.facts import ServerFacts


def test_facts_are_plain() -> None:
    facts = ServerFacts(base_url="http://host/v1", model="m", says={"owned_by": "me"})
    told = facts.to_mapping()
    assert json.loads(json.dumps(told)) == told
    assert (told["engine"], told["base_url"], told["kind"]) == ("openai", "http://host/v1", "other")
