"""Import every module of the packages that are named, from what is installed; end with 1 if one is missing or fails.

With ``--without-drivers`` no driver of a store may be there, and modules that need one must say so by name. A runner's
package itself is imported without its driver.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import sysconfig
from pathlib import Path


def modules(package: str) -> list[str]:
    """The package and every module below it."""
    root = importlib.import_module(package)
    found = pkgutil.walk_packages(root.__path__, f"{package}.", onerror=lambda name: None)
    return [package, *(module.name for module in found)]


#: The packages that the extras of the runners bring.
DRIVERS = {"redis", "hiredis", "pymongo", "bson", "grpc", "kazoo"}


def lacks_driver(module: str, error: Exception) -> bool:
    """True if the module is a part of a runner, and nothing but a driver is missing."""
    inside = module.startswith("onceward.runners.") and module.count(".") > 2
    return inside and isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in DRIVERS


def main(names: list[str]) -> int:
    """Import all; say how many."""
    driverless = "--without-drivers" in names
    names = [name for name in names if name != "--without-drivers"]
    site = Path(sysconfig.get_path("purelib")).resolve()
    failed = 0
    for package in (f"onceward.{name}" for name in names):
        found = modules(package)
        for name in found:
            try:
                place = getattr(importlib.import_module(name), "__file__", None)
                if place and not Path(place).resolve().is_relative_to(site):
                    raise ImportError(f"comes from {place}, not from what is installed in {site}")
            except Exception as error:  # a module may fail in any way; all of them are to be told
                if driverless and lacks_driver(name, error):
                    continue
                print(f"FAILED {name}: {type(error).__name__}: {error}")
                failed += 1
        if len(found) < 2:
            print(f"FAILED {package}: holds no module")
            failed += 1
        print(f"{package}: {len(found)} modules")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
