"""What a test says of a certificate that is not as it should be."""

from __future__ import annotations

from onceward.conformance import Verdict
from onceward.conformance.certificate import Certificate


def broken(certificate: Certificate) -> str:
    """The results that are no pass, in full."""
    return "\n".join(str(result) for result in certificate.results if result.verdict is not Verdict.HOLDS)
