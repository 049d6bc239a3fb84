"""The configuration that is in force: what a reload may change is read here, each time anew."""

from kitd.config.model import Config


class InForce:
    """Holds one configuration after the other. Read and replaced on the event loop only."""

    def __init__(self, config: Config) -> None:
        self.config = config
