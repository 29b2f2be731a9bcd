"""What a figure must travel with: the machine, the commit, versions."""

import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["Cpu", "describe_cpu", "describe_run"]

FLAGS = (
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512_bf16",
    "amx_bf16",
    "asimd",
    "sve",
    "bf16",
)
SOME_CACHE_BYTES = 32 << 20


@dataclass(frozen=True)
class Cpu:
    """What decides the speed: model, instruction sets, cores, last-level cache."""

    model: str
    flags: tuple[str, ...]
    count: int
    cache_bytes: int


def describe_cpu() -> Cpu:
    """Describe this machine's CPU, as far as it tells."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    first: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        first.setdefault(key.strip(), value.strip())
    present = (first.get("flags") or first.get("Features") or "").split()
    caches = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    sizes = [int(c.read_text().strip().removesuffix("K")) << 10 for c in caches]
    return Cpu(
        first.get("model name") or platform.processor() or platform.machine(),
        tuple(flag for flag in FLAGS if flag in present),
        os.cpu_count() or 1,
        max(sizes, default=SOME_CACHE_BYTES),
    )


def describe_run(packages: Iterable[str]) -> dict[str, Any]:
    """Tell what a figure must travel with: commit, date, machine, versions."""
    versions = {"python": platform.python_version()}
    for name in ("din-infer", "numpy", *packages):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "commit": _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": asdict(describe_cpu()),
        "versions": versions,
    }


def _commit() -> str:
    """Name the commit, with "-dirty" when files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(
            [*git, "--abbrev=40", "--exclude=*"],
            capture_output=True,
            check=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()
