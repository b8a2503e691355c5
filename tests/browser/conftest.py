"""A headless Chromium, where one is installed, and the checks that every page must pass."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
AXE = Path(sys.prefix) / "other-libraries" / "axe_playwright_python" / "axe.min.js"
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip
WIDTHS = (390, 1200)
SCHEMES = ("light", "dark")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of this folder where no browser is installed."""
    reason = "needs Debian's packages chromium and chromium-driver"
    for item in items:
        if Path(__file__).parent in item.path.parents and not (CHROMIUM and DRIVER and AXE.exists()):
            item.add_marker(pytest.mark.skip(reason=reason))


@dataclass(frozen=True)
class Browser:
    """One window of Chromium."""

    driver: Any

    def open(self, address: str, width: int = 1200, scheme: str = "light") -> None:
        """Open a page in a width, in CSS pixels, and a color scheme."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get(address)

    def run(self, script: str, *arguments: object) -> Any:
        """Return the value of a script in the page."""
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        """Return the first element of a CSS selector."""
        return self.driver.find_element("css selector", selector)

    def errors(self) -> list[str]:
        """Return the errors in the console since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def findings(self) -> list[str]:
        """Return the serious findings of axe-core in the page."""
        self.driver.execute_script(AXE.read_text(encoding="utf-8"))
        result = self.driver.execute_async_script("axe.run().then(arguments[0])")
        serious = [one for one in result["violations"] if one["impact"] in {"serious", "critical"}]
        return [f"{one['id']}: {json.dumps([node['html'] for node in one['nodes'][:3]])}" for one in serious]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Return a browser that asks nobody but the pages' own servers."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=str(DRIVER)))
    driver.set_script_timeout(300)  # long pages take half a minute on a busy machine
    try:
        yield Browser(driver)
    finally:
        driver.quit()


def check_page(browser: Browser, address: str, width: int, scheme: str, picture: Path) -> None:
    """Open a page and check it: no error, no serious finding of axe-core, no sideways scrolling, a picture of it."""
    browser.errors()
    browser.open(address, width, scheme)
    assert browser.errors() == []
    assert browser.findings() == []
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.driver.save_screenshot(str(picture))
    assert picture.stat().st_size > 2000
