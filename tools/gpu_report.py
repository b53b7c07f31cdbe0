"""What ``gpu_check.py`` writes: one JSON file, and the same as a Markdown table beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

LIBRARIES = ("numbanorm", "torch", "torch.compile", "cupy")


def file_stem(device: str, date: str) -> str:
    """Of both files: the device and the day.

    >>> file_stem("NVIDIA H200", "2026-01-31")
    'nvidia-h200-2026-01-31'
    """
    return f"{re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')}-{date}"


def rates(least_bytes: int, microseconds: float, copy: float) -> dict[str, float]:
    """GB/s of the bytes that must move, and their share of the copy bandwidth (GB/s) of the same run.

    >>> rates(4_000_000, 2.0, 4000.0)
    {'GB/s': 2000.0, 'share of copy': 0.5}
    """
    bandwidth = least_bytes / microseconds / 1e3
    return {"GB/s": round(bandwidth, 1), "share of copy": round(bandwidth / copy, 3)}


def markdown(report: dict[str, Any]) -> str:
    """The report as tables: what it ran on, the tests, and a row for each case."""
    lines = [f"# {report['facts']['device']}, {report['facts']['date']}", ""]
    lines += [f"- {name}: {fact}" for name, fact in report["facts"].items()]
    lines += [f"- copy bandwidth: {report['copy GB/s']:.0f} GB/s"] if report.get("copy GB/s") else []
    lines += ["", "| tests | state | result | seconds |", "|---|---|---|---|"]
    for part in report["tests"]:
        cells = part["name"], part["state"], part["result"].replace("|", "/"), f"{part['seconds']:.0f}"
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *_benchmarks(report["benchmarks"])]
    if report["left out"]:
        lines += ["", f"Not measured, because time was up: {', '.join(report['left out'])}."]
    return "\n".join(lines) + "\n"


def _benchmarks(benchmarks: list[dict[str, Any]]) -> list[str]:
    """Microseconds on the device by library; bandwidth, its share of a copy's and host time are numbanorm's."""
    head = ["case", *(f"{library} us" for library in LIBRARIES), "GB/s", "share of copy", "host us", "torch / ours"]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    for row in benchmarks:
        by = row["libraries"]
        ours = by.get("numbanorm", {})
        wrong = "" if by else f" (not timed: {row.get('problem') or 'differs from torch'})"
        cells = [row["case"] + wrong, *(_number(by.get(library, {}).get("us")) for library in LIBRARIES)]
        cells += [_number(ours.get("GB/s"), 0), _number(ours.get("share of copy"), 2), _number(ours.get("host us"))]
        both = "us" in ours and "us" in by.get("torch", {})
        cells.append(_number(by["torch"]["us"] / ours["us"], 2) if both else "")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _number(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def write(report: dict[str, Any], folder: Path) -> tuple[Path, Path]:
    """Both files, replaced as a whole, so that a run that is cut off leaves what it had."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / file_stem(report["facts"]["device"], report["facts"]["date"])
    paths = stem.with_name(stem.name + ".json"), stem.with_name(stem.name + ".md")
    for path, text in zip(paths, (json.dumps(report, indent=1) + "\n", markdown(report)), strict=True):
        partial = path.with_name(path.name + ".partial")
        partial.write_text(text)
        partial.replace(path)
    return paths
