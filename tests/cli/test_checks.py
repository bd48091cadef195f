"""What works on this machine, found out by trying."""

from pathlib import Path

import pytest

from llava_video import backends
from llava_video.backends import BACKENDS
from llava_video.cli import checks
from llava_video.cli.checks import Finding, check_everything
from llava_video.errors import BackendMissingError, DecodeError


def find(findings: list[Finding], group: str, name: str) -> Finding:
    return next(one for one in findings if (one.group, one.name) == (group, name))


def without(monkeypatch: pytest.MonkeyPatch, *missing: str, found: str | None = None) -> None:
    """Let some packages be missing, or be there in a version that does not import."""
    version, require = backends.version, backends.require

    def require_some(name: str):
        if name in missing:
            raise BackendMissingError(f"{name} does not work.", f"pip install {name}")
        return require(name)

    monkeypatch.setattr(backends, "require", require_some)
    monkeypatch.setattr(
        backends, "version", lambda name: found if name in missing else version(name)
    )
    monkeypatch.setattr("llava_video.video.decoder.backends.require", require_some)


@pytest.fixture(scope="module")
def findings() -> list[Finding]:
    return check_everything()


def test_every_package_of_the_table_is_checked(findings: list[Finding]) -> None:
    names = [one.name for one in findings if one.group == "packages"]
    assert names == [backend.distribution for backend in BACKENDS.values()]
    assert set(checks._COSTS) == set(BACKENDS)


def test_what_the_tests_need_works(findings: list[Finding]) -> None:
    for group, name in (("packages", "torch"), ("packages", "av"), ("readers", "PyAV")):
        assert find(findings, group, name).state == "ok"
    assert find(findings, "readers", "PyAV").found.startswith("24 of 24 frames")
    assert not any(one.is_fatal for one in findings)


def test_what_is_there_costs_nothing(findings: list[Finding]) -> None:
    assert all(not one.cost and not one.remedy for one in findings if one.state == "ok")


def test_a_missing_extra_costs_what_it_gives(monkeypatch) -> None:
    without(monkeypatch, "llguidance")
    finding = find(check_everything(), "packages", "llguidance")
    assert (finding.state, finding.is_fatal) == ("absent", False)
    assert "JSON schema" in finding.cost
    assert finding.remedy == "pip install llguidance"


def test_a_broken_package_is_no_missing_one(monkeypatch) -> None:
    without(monkeypatch, "transformers", found="1.0")
    finding = find(check_everything(), "packages", "transformers")
    assert (finding.state, finding.found) == ("broken", "transformers does not work.")


def test_without_torch_nothing_is_described(monkeypatch) -> None:
    without(monkeypatch, "torch")
    found = check_everything()
    assert find(found, "packages", "torch").is_fatal
    assert find(found, "machine", "GPU").state == "absent"
    assert find(found, "machine", "Triton").state == "absent"


def test_without_the_hub_there_is_no_cache(monkeypatch) -> None:
    without(monkeypatch, "huggingface_hub")
    assert find(check_everything(), "machine", "model cache").state == "absent"


def test_the_packaged_model_is_looked_for(demo_checkpoint: Path, monkeypatch, tmp_path) -> None:
    found = checks._check_demo_model()
    assert (found.state, found.found) == ("ok", str(demo_checkpoint))
    monkeypatch.setattr("llava_video.model.packaged.packaged_folder", lambda: tmp_path)
    found = checks._check_demo_model()
    assert (found.state, found.is_fatal) == ("absent", False)
    assert "lacks config.json" in found.found
    assert "llava-video demo" in found.cost


def test_every_reader_is_tried(findings: list[Finding]) -> None:
    names = [one.name for one in findings if one.group == "readers"]
    assert names == ["PyAV", "decord", "torchcodec"]


@pytest.mark.parametrize(("found", "state"), [(None, "absent"), ("9.9", "broken")])
def test_a_reader_that_is_not_there_or_does_not_load(monkeypatch, found, state) -> None:
    """As torchcodec without the libraries of a GPU."""
    without(monkeypatch, "torchcodec", found=found)
    finding = find(list(checks._check_readers()), "readers", "torchcodec")
    assert (finding.state, finding.found) == (state, "torchcodec does not work.")
    assert "used only where it is named" in finding.cost
    assert not finding.is_fatal


def test_a_reader_that_shows_other_frames_is_broken(monkeypatch) -> None:
    monkeypatch.setattr(checks, "read_index", lambda frame: 3)
    finding = find(list(checks._check_readers()), "readers", "PyAV")
    assert (finding.state, finding.is_fatal) == ("broken", True)
    assert finding.found.startswith("1 of 24 frames")


def test_a_reader_that_fails_says_why(monkeypatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise DecodeError("the codec is odd.")

    monkeypatch.setattr(checks, "open_decoder", fail)
    decord = find(list(checks._check_readers()), "readers", "decord")
    assert (decord.state, decord.is_fatal) == ("broken", False)
    assert decord.found == "the codec is odd."


def test_the_native_part_says_what_it_runs_on(monkeypatch) -> None:
    def missing() -> str:
        raise BackendMissingError("the native part cannot be used.", "build it.")

    monkeypatch.setattr(checks, "native_words", lambda: "AVX2")
    finding = checks._check_native()
    assert (finding.state, finding.found, finding.cost) == ("ok", "runs on AVX2.", "")
    monkeypatch.setattr(checks, "native_words", lambda: None)
    finding = checks._check_native()
    assert (finding.state, finding.is_fatal) == ("absent", False)
    assert "take longer" in finding.cost
    monkeypatch.setattr(checks, "native_words", missing)
    finding = checks._check_native()
    assert (finding.state, finding.remedy, finding.is_fatal) == ("broken", "build it.", False)


def test_no_encoder_is_no_fault_of_the_readers(monkeypatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise ValueError("unknown encoder")

    monkeypatch.setattr(checks, "write_clip", fail)
    (finding,) = checks._check_readers()
    assert (finding.state, finding.is_fatal) == ("absent", False)
