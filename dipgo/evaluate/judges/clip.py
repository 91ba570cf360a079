"""CLIP score: how well a picture fits its prompt, by a CLIP model on disk or on the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from dipgo.common.errors import DipgoError, setting
from dipgo.evaluate.metrics import to_tensor


class ClipScore:
    """The CLIP score: 100 x the cosine of picture and prompt, at least 0.

    Source:
        Hessel et al. 2021, with w = 100.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self._model, self._processor = model, processor

    @torch.no_grad()
    def __call__(self, pictures: NDArray[np.uint8], prompts: Sequence[str]) -> NDArray[np.float64]:
        """Returns the scores f64[N] of pictures u8[N, H, W, 3] and N prompts.

        A prompt that is longer than the model's text is cut.
        """
        pairs = zip(to_tensor(pictures), prompts, strict=True)
        return np.array([self._cosine(*pair).clamp(min=0).mul(100).item() for pair in pairs])

    def _cosine(self, picture: torch.Tensor, prompt: str) -> torch.Tensor:
        """Returns a tensor of one element, by the model's own call, alike in all releases."""
        inputs = self._processor(
            text=[prompt],
            images=[picture],
            return_tensors="pt",
            truncation=True,
            max_length=self._model.config.text_config.max_position_embeddings,
        )
        result = self._model(**inputs)
        return torch.cosine_similarity(result.image_embeds, result.text_embeds)


def load_clip(name: str) -> ClipScore:
    """Loads a CLIP model from a folder that save_pretrained has written, or by its Hub id.

    Raises:
        DipgoError: There is no such model.
    """
    from transformers import CLIPModel, CLIPProcessor

    local = Path(name).exists()
    try:
        model = CLIPModel.from_pretrained(name, local_files_only=local)
        processor = CLIPProcessor.from_pretrained(name, local_files_only=local)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise DipgoError(
            f"{setting('clip_model')} {name}",
            found=f"no CLIP model ({type(error).__name__}: {str(error).strip().splitlines()[0]})",
            expected="a folder with a CLIPModel and its CLIPProcessor, or a Hub id that can be "
            "reached",
            remedy="check the name and the network, or download the model and give its path",
        ) from None
    return ClipScore(model.eval().float(), processor)
