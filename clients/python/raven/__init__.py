"""Posts training jobs to a Raven coordinator and fetches the models."""

from .client import Client
from .errors import ApiError, JobFailed, RavenError, TransportError
from .idx import read_idx, write_idx
from .safetensors import read_safetensors
from .sse import Event

__all__ = [
    "ApiError",
    "Client",
    "Event",
    "JobFailed",
    "RavenError",
    "TransportError",
    "read_idx",
    "read_safetensors",
    "write_idx",
]
