"""What lmms-eval is told of this library: LMMS_EVAL_PLUGINS=llava_video.eval.lmms."""
