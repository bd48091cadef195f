"""Names of models for lmms-eval → classes, each in the module of its name under `models/`.

lmms-eval imports `PLUGIN.models` for every PLUGIN in LMMS_EVAL_PLUGINS and looks for this table
there (lmms_eval/models/__init__.py); where this library is installed beside it, 0.7 and later also
ask the entry points of "lmms_eval.models" for a manifest (registry_v2.py).
"""

from typing import Any

AVAILABLE_MODELS = {"llava_video_worker": "LlavaVideoWorker"}


def manifests() -> list[Any]:
    """Return what lmms-eval's entry point asks for; called by lmms-eval, which is then there."""
    from lmms_eval.models.registry_v2 import ModelManifest

    folder = __name__.rpartition(".")[0]
    return [
        ModelManifest(model_id=name, simple_class_path=f"{folder}.models.{name}.{class_name}")
        for name, class_name in AVAILABLE_MODELS.items()
    ]
