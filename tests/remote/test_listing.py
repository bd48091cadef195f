"""What a server lists is what it says of itself; a name it does not serve is refused."""

from collections.abc import Iterator

import pytest
from chat_server import MODEL, ChatServer, serving, silent, status

from llava_video.errors import ServerError, ServerRefusedError
from llava_video.remote.address import Address
from llava_video.remote.client import ChatClient
from llava_video.remote.facts import ServerFacts
from llava_video.remote.listing import read_facts
from llava_video.remote.settings import RemoteSettings


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving() as running:
        yield running


def facts_of(server: ChatServer, model: str = MODEL, silence_s: float = 5.0) -> ServerFacts:
    client = ChatClient(Address(server.url, "A_KEY"), RemoteSettings(silence_s=silence_s))
    try:
        return read_facts(client, model, {"picture": "png"})
    finally:
        client.close()


def test_what_vllm_says(server: ChatServer) -> None:
    server.version = "0.11.2"
    server.models[0] |= {"max_model_len": 8192, "root": "/models/m", "permission": [{"id": "x"}]}
    facts = facts_of(server)
    assert (facts.kind, facts.version, facts.context_tokens) == ("vllm", "0.11.2", 8192)
    assert facts.says == {"owned_by": "vllm", "root": "/models/m"}
    assert facts.frames == {"picture": "png"}
    server.models[0] |= {"created": 1, "permission": [{"id": "y"}]}  # as after another start
    assert facts_of(server) == facts


@pytest.mark.parametrize(
    ("owner", "kind"), [("sglang", "sglang"), ("organization-owner", "other"), (None, "other")]
)
def test_kinds(server: ChatServer, owner: str | None, kind: str) -> None:
    server.models[0]["owned_by"] = owner
    facts = facts_of(server)
    assert (facts.kind, facts.version, facts.context_tokens) == (kind, "", None)


def test_the_nearest_name_is_suggested(server: ChatServer) -> None:
    with pytest.raises(ServerRefusedError, match="did you mean 'served/model'"):
        facts_of(server, "served/modle")
    with pytest.raises(ServerRefusedError, match="it serves served/model") as raised:
        facts_of(server, "zebra")
    assert "did you mean" not in str(raised.value)
    server.models.clear()
    with pytest.raises(ServerRefusedError, match="it serves none"):
        facts_of(server)


def test_a_listing_that_is_none(server: ChatServer) -> None:
    server.get_fault = status(200, {"data": 3})
    with pytest.raises(ServerRefusedError, match="lists no models"):
        facts_of(server)
    server.get_fault = silent(6.0)
    with pytest.raises(ServerError, match=r"was silent for 0\.3 s"):
        facts_of(server, silence_s=0.3)
    server.get_fault = status(404, "<html>nothing here</html>")
    with pytest.raises(ServerRefusedError, match="with its /v1"):
        facts_of(server)
    server.get_fault = status(200, "<html>welcome</html>")
    with pytest.raises(ServerError, match="no JSON"):
        facts_of(server)
