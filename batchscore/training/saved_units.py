"""What goes into the last layer of a classifier that was saved: the unit of numbers, and the temperature."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchscore.errors import ModelError, printable
from batchscore.model.last_layer import rescale_logits
from batchscore.training.examination import open_saved
from batchscore.training.objectives import AS_IT_IS

if TYPE_CHECKING:
    from batchscore.model.bundle import Bundle
    from batchscore.training.context import Tell
    from batchscore.training.objectives import Standard


def in_its_unit(saved: Bundle, standard: Standard, base: Bundle) -> Bundle:
    """The saved folder, whose numbers are no longer standardised.

    Raises:
        ModelError: the architecture does not allow it.
    """
    if standard == AS_IT_IS:
        return saved
    if not rescale_logits(saved, *standard):
        raise ModelError(
            f"{printable(base.path)}: a regression of this architecture cannot give numbers in their own unit. Use another base "
            "model."
        )
    return open_saved(saved.path, base)


def in_the_weights(saved: Bundle, temperature: float, tell: Tell) -> float:
    """Divide the temperature into the last layer; returns what is still to be divided by."""
    if temperature == 1 or rescale_logits(saved, 1 / temperature):
        return 1.0
    tell(
        f"the temperature, {temperature:.4f}, does not go into the weights of this architecture: batchscore applies it, plain "
        "transformers does not"
    )
    return temperature
