"""Code of the user's own that runs between epochs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .network import Network


class Callback:
    """Subclass it and define `on_epoch_end`.

    A network with callbacks comes back to Python after every epoch, else only at the end."""

    def on_epoch_end(self, network: "Network", epoch: int, logs: Mapping[str, float]) -> bool | None:
        """Called after each epoch, counting from 1, with its losses and metrics. Returning True ends the
        training.

        `network.predict` and `network.evaluate` may be called, `network.fit` may not."""
        raise NotImplementedError(f"{type(self).__name__} must define on_epoch_end(network, epoch, logs)")
