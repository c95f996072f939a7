"""Certificates for tests of TLS."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def certificate(folder: Path, *, days: int = 2, host: str = "IP:127.0.0.1") -> tuple[Path, Path]:
    """A self-signed certificate for ``host``, and its key; with a negative number of days it has expired."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    made, key, request, extra = (folder / name for name in ("cert.pem", "key.pem", "request.pem", "extra"))
    extra.write_text(f"subjectAltName={host}\n")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    sign = ("-signkey", str(key), "-days", str(days), "-extfile", str(extra))
    for words in (
        ("req", "-new", *curve, "-nodes", "-keyout", str(key), "-out", str(request), "-subj", "/CN=server"),
        ("x509", "-req", "-in", str(request), "-out", str(made), *sign),
    ):
        subprocess.run(["openssl", *words], check=True, capture_output=True)
    return made, key
