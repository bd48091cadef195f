"""Names stand for secrets, and what is written out is refused without being repeated."""

import pytest

from llava_video.errors import ConfigError
from llava_video.monitor.secret import filled, names_in, refuse_written_out


def test_a_name_in_an_address_is_encoded_and_alone_it_is_as_it_is() -> None:
    environ = {"P": "a/b@c:d%", "URL": "rtsp://u:p@h/"}
    assert filled("rtsp://me:${P}@host/1", environ) == "rtsp://me:a%2Fb%40c%3Ad%25@host/1"
    assert filled("${URL}", environ) == "rtsp://u:p@h/"
    assert filled("${P}", environ) == "a/b@c:d%"
    assert filled("plain $P {P} $(P)", environ) == "plain $P {P} $(P)"
    assert names_in("a${P}b${URL}${1x}") == ["P", "URL"]


def test_what_a_name_stands_for_is_not_filled_again() -> None:
    assert filled("${A}", {"A": "${B}", "B": "b"}) == "${B}"


@pytest.mark.parametrize("environ", [{}, {"P": ""}])
def test_a_name_that_is_not_set_is_told(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"no P\..*export P"):
        filled("x${P}", environ)


@pytest.mark.parametrize(
    "address",
    [
        "rtsp://me:hunter2@host/1",
        "rtsp://me:12345@host",
        "https://:hunter2@host",
        "rtsp://me:hun/ter2@host",
        "rtsp://me:hun?ter2@host",
        "rtsp://me:hunter2${P}@host",
        "rtsp://me:${P}:hunter2@host",
    ],
)
def test_a_password_is_refused_by_its_place_alone(address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_written_out({"cameras": [{"name": "a"}, {"address": address}]})
    assert "cameras[1].address has a password" in str(caught.value)
    for secret in ("hunter2", "12345", "ter2", "host"):
        assert secret not in str(caught.value).replace("@host/", "")


@pytest.mark.parametrize("secret", ["hunter2", 482915, "x${P}", ["hunter2"], 3.25])
def test_a_secret_is_refused_by_its_place_alone(secret: object) -> None:
    values = {"sinks": [{"name": "a", "secret": secret}]}
    with pytest.raises(ConfigError, match=r"sinks\[0\]\.secret.* is written out") as caught:
        refuse_written_out(values)
    for part in (str(secret).strip("[']"), "hunter"):
        assert part not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    ["rtsp://me:${P}@host/1", "rtsp://me@host/1", "http://host:8080/a@b", "a@b", "${P}", "x:y@z"],
)
def test_what_is_no_password_passes(address: str) -> None:
    refuse_written_out({"cameras": [{"address": address}], "n": 3, "x": None})
