"""What differs from machine to machine: ``GRADMILL_*`` environment variables."""

import os
from datetime import timedelta
from functools import lru_cache
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Read anew at each use, so that a test or the command line may set the environment; often: ``read_settings``."""

    model_config = SettingsConfigDict(env_prefix="GRADMILL_", frozen=True, env_ignore_empty=True)

    artifacts: Path = Field(Path("artifacts"), description="where everything that runs produce is kept")
    fashion_mnist_dir: Path | None = Field(None, description="a folder with the four Fashion-MNIST IDX files")
    notify: str | None = Field(
        None, description="the Prefect block that alerts go to, such as slack-webhook/duty; or none"
    )
    notify_after: float | None = Field(None, gt=0, lt=1e5, description="hours without a success of a scheduled retrain")
    time_limit: timedelta | None = Field(None, gt=timedelta(), description="HH:MM:SS that a run may take")
    mirror: str | None = Field(
        None, description="fsspec URL of a folder that champions are copied to, kept with the store; or none"
    )


VARIABLES = tuple(f"GRADMILL_{name}".upper() for name in Settings.model_fields)


def read_settings() -> Settings:
    """The current settings, read anew only when one of these variables has changed: a store asks thousands of times."""
    return _settings(*map(os.environ.get, VARIABLES))


@lru_cache(1)
def _settings(*_: str | None) -> Settings:
    return Settings()
