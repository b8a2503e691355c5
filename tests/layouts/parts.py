"""Models inside of the classes of transformers: what the sweep over all of them finds."""

from __future__ import annotations

FEWEST_PARTS = 390
"""Parts that are found in their place, at least."""

EQUAL_PARTS = (
    ("clvp", "text_encoder_model"),
    ("clvp", "speech_encoder_model"),
    ("depth_pro", "encoder.patch_encoder.model"),
    ("depth_pro", "encoder.image_encoder.model"),
    ("t5gemma", "encoder"),
    ("video_llava", "video_tower"),
    ("video_llava", "image_tower"),
)
"""Parts that are refused, because another part of the model has the same type, names and shapes."""
