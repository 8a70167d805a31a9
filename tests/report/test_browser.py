"""report.html in a headless browser without a network: its tables and pictures are there, and nothing is complained of."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import nonsmooth as ns

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REQUIRED = bool(os.environ.get("NONSMOOTH_REQUIRE_BROWSER"))

needs_browser = pytest.mark.skipif(
    BROWSER is None and not REQUIRED, reason="no Chromium is installed; .ci/run installs it and requires it"
)


def opened(page: Path, profile: Path) -> tuple[str, str]:
    """Open a page as a browser does; give the document that it made of it, and what it logged."""
    assert BROWSER is not None, "NONSMOOTH_REQUIRE_BROWSER is set, and no Chromium is installed"
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--proxy-server=127.0.0.1:9",
        f"--user-data-dir={profile}",
        "--enable-logging=stderr",
        "--v=0",
        "--dump-dom",
        page.as_uri(),
    ]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return found.stdout, found.stderr


@needs_browser
def test_the_report_opens_without_a_network(tmp_path: Path) -> None:
    hostile = "</script><img src=x onerror=alert(1)>"
    point = {hostile: torch.zeros(3, dtype=torch.float64), "b": torch.ones(2, dtype=torch.float64)}
    audit = ns.audit(lambda p: torch.relu(p[hostile]).sum() - torch.relu(-p[hostile]).sum() + p["b"].sum(), point)
    audit.save(tmp_path / "report")
    document, log = opened(tmp_path / "report" / "report.html", tmp_path / "profile")
    assert document.count("<table") >= 4 and document.count("<svg") == 3
    assert "one-sided slopes" in document and "test_browser.py" in document
    assert "CONSOLE" not in log and "Content Security Policy" not in log
    assert "<img" not in document


@needs_browser
def test_a_complaint_would_be_seen(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\"><img src='http://127.0.0.1:9/x.png'>"
    )
    _, log = opened(page, tmp_path / "profile")
    assert "CONSOLE" in log and "Content Security Policy" in log
