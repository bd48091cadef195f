"""A base URL is one, without secrets; the key comes from the environment and is shown to nobody."""

import pytest

from llava_video.errors import ConfigError
from llava_video.remote.address import read_address

VARIABLE = "A_KEY"


@pytest.mark.parametrize(
    ("typed", "base_url", "root_url"),
    [
        ("http://localhost:8000/v1", "http://localhost:8000/v1", "http://localhost:8000"),
        (" https://Host/v1/ ", "https://host/v1", "https://host"),
        ("http://[::1]:30000/v1", "http://[::1]:30000/v1", "http://[::1]:30000"),
        ("https://host/models/openai", "https://host/models/openai", "https://host/models/openai"),
    ],
)
def test_addresses(typed: str, base_url: str, root_url: str) -> None:
    address = read_address(typed, VARIABLE)
    assert (address.base_url, address.root_url, address.key) == (base_url, root_url, "")


@pytest.mark.parametrize(
    "typed", ["localhost:8000", "ftp://host/v1", "http://", "http://h:x/v1", ""]
)
def test_what_is_no_address_is_refused(typed: str) -> None:
    with pytest.raises(ConfigError, match="http://localhost:8000/v1"):
        read_address(typed, VARIABLE)


@pytest.mark.parametrize(
    "typed", ["http://me:sesame@host/v1", "http://sesame@host/v1", "http://host/v1?key=sesame"]
)
def test_secrets_in_an_address_are_refused_and_not_repeated(typed: str) -> None:
    with pytest.raises(ConfigError, match=VARIABLE) as raised:
        read_address(typed, VARIABLE)
    assert "sesame" not in str(raised.value)


def test_the_key_is_read_and_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, " sk-open-sesame\n")
    address = read_address("http://host/v1", VARIABLE)
    assert address.key == "sk-open-sesame"
    assert "sesame" not in repr(address)
    assert address.without_key("key sk-open-sesame is wrong") == "key [key] is wrong"


@pytest.mark.parametrize("key", ["clé-secrète", "two words", "a\nb"])
def test_a_key_that_no_header_holds_is_refused(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv(VARIABLE, key)
    with pytest.raises(ConfigError, match=VARIABLE) as raised:
        read_address("http://host/v1", VARIABLE)
    assert key not in str(raised.value)
