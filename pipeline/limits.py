"""Limits of decoding as an operator sets them in a profile, and as a job lowers them."""

from dataclasses import replace

from pydantic import Field

from pipeline.config import DecodeLimits
from pipeline.errors import ConfigError
from pipeline.settings import Settings, plain

_BUILT_IN = DecodeLimits()


class LimitOptions(Settings):
    """What one video may cost before it is refused; what is not given stays as it is.

    A profile sets limits, higher or lower than the built-in ones: it is the operator's word about
    the machine. A job lowers them further, and is refused where it would raise one.
    """

    max_bytes: int | None = Field(
        default=None, ge=1, description=f"Of a video; {_BUILT_IN.max_bytes} are built in."
    )
    max_pixels: int | None = Field(
        default=None, ge=1, description=f"Of one coded frame; {_BUILT_IN.max_pixels} are built in."
    )
    memory_bytes: int | None = Field(
        default=None,
        ge=1,
        description="Address space of the process that decodes a video; "
        f"{_BUILT_IN.memory_bytes} are built in.",
    )
    wall_s: float | None = Field(
        default=None,
        gt=0,
        description=f"Seconds that reading a video may take; {_BUILT_IN.wall_s:g} are built in.",
    )

    def over(self, limits: DecodeLimits) -> DecodeLimits:
        """These in place of the same ones."""
        return replace(limits, **self.model_dump(exclude_none=True))

    def below(self, limits: DecodeLimits, *, profile: str) -> DecodeLimits:
        """Lowered to these. ConfigError where one of them is higher than the profile's."""
        for name, value in self.model_dump(exclude_none=True).items():
            most = getattr(limits, name)
            if value > most:
                raise ConfigError(
                    f"the limit {name} is {plain(most)} in profile {profile}, got {plain(value)}: "
                    "a job lowers limits, a profile raises them"
                )
        return self.over(limits)
