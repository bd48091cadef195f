"""Importing the library costs nothing, and what is said to do without torch does."""

import json
import subprocess
import sys
import time
from pathlib import Path

import house_rules as rules
import pytest

import llava_video

PACKAGE = Path(llava_video.__file__).parent
FILES = rules.read_package(PACKAGE)
LIGHT = [
    module
    for module, file in FILES.items()
    if file.parts
    and (file.parts[0] in rules.TORCH_FREE or file.parts[-1] in rules.TORCH_FREE_FILES)
    and not file.parts[-1].startswith("decode_")  # a reader's own package decides
]


def loaded_by(code: str) -> set[str]:
    """Return the top-level modules in a fresh interpreter after running some code."""
    code += "\nimport json, sys; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    run = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120
    )
    return set(json.loads(run.stdout.splitlines()[-1]))


def test_the_root_loads_no_other_package():
    heavy = {"torch", "transformers", "numpy", "yaml", "PIL", "av", "decord", "click"}
    assert loaded_by("import llava_video") & heavy == set()
    assert "numpy" in loaded_by("import llava_video; llava_video.Plan")  # the test can see them


def test_the_root_loads_in_a_tenth_of_a_second():
    code = (
        "import time; t = time.perf_counter(); import llava_video; print(time.perf_counter() - t)"
    )
    took_s = []
    for _ in range(5):  # the least of five: the machine may be busy
        started = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
        )
        took_s.append(float(started.stdout))
        time.sleep(0.01)
    assert min(took_s) <= 0.1


def test_light_files_are_found():
    assert {"llava_video.errors", "llava_video.values", "llava_video.planning"} <= set(LIGHT)


def test_light_files_load_neither_torch_nor_transformers():
    code = "import importlib\n" + "\n".join(f"importlib.import_module({m!r})" for m in LIGHT)
    assert loaded_by(code) & {"torch", "transformers"} == set()


@pytest.mark.parametrize("name", sorted(set(llava_video._DEFINED_IN)))
def test_public_names_come_from_their_defining_module(name: str):
    value = getattr(llava_video, name)
    assert value.__module__ == llava_video._DEFINED_IN[name]
    assert value.__name__ == name


def test_public_names_are_listed():
    assert set(llava_video.__all__) == {*llava_video._DEFINED_IN, "__version__"}
    assert set(llava_video.__all__) <= set(dir(llava_video))


def test_what_a_public_result_holds_of_judging_is_public():
    assert {"Comparison", "Preference", "Verdict"} <= set(llava_video.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'llava_video' has no attribute 'nothing'"):
        _ = llava_video.nothing


def test_the_version_has_one_source():
    import importlib.metadata

    assert importlib.metadata.version("llava_video") == llava_video.__version__


def test_package_data_is_there():
    assert (PACKAGE / "py.typed").is_file()


def test_importing_the_main_module_runs_nothing():
    # A spawned worker process imports __main__ again under another name.
    assert "llava_video" in loaded_by("import llava_video.__main__")


def test_alerts_are_told_and_scored_without_torch():
    code = "import llava_video.monitor.alerts, llava_video.monitor.delivery"
    assert not loaded_by(f"{code}, llava_video.monitor.scoring") & {"torch", "transformers", "av"}
