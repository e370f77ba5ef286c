"""What the tests share: the server with its data, the browser, and an eye on everything that a page must not do."""

import os
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect, sync_playwright

sys.path.insert(0, str(Path(__file__).parent))

from pages import SIZES  # noqa: E402
from world import COOKIE, ROOT, World  # noqa: E402

# The shell has no windows, so that it takes a third of the time.
CHROMIUM = os.environ.get("CHROMIUM") or next(
    path for path in ("/usr/bin/chromium-headless-shell", "/usr/bin/chromium") if os.path.exists(path)
)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]

# How long a fact is waited for: a machine that others use may stand still for some seconds.
PATIENCE_MS = 30_000
expect.set_options(timeout=PATIENCE_MS)

# Tells of everything that the policy of a page has stopped.
VIOLATIONS = """addEventListener('securitypolicyviolation', (event) =>
    console.error('stopped by the policy: ' + event.violatedDirective + ' ' + event.blockedURI))"""


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """One server with 100,000 deliveries. Tests that change something make an account of their own."""
    world = World(tmp_path_factory.mktemp("aldaba"))
    yield world
    world.stop()


@pytest.fixture(scope="session")
def server(world):
    return world.server


@pytest.fixture(scope="session")
def playwright():
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="session")
def chromium(playwright):
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
    yield browser
    browser.close()


@pytest.fixture(params=list(SIZES))
def size(request):
    return request.param


class Browse:
    """Opens windows for somebody, and notes what goes wrong in them."""

    def __init__(self, chromium, base):
        self.chromium, self.base = chromium, base
        self.contexts, self.wrong = [], []

    def __call__(self, cookie="", size="desktop", locale="en-US", dark=False, script=True, watched=True, base=None):
        base = base or self.base
        context = self.chromium.new_context(
            base_url=base, viewport=SIZES[size], locale=locale, java_script_enabled=script,
            color_scheme="dark" if dark else "light", reduced_motion="reduce",
        )
        context.set_default_timeout(PATIENCE_MS)
        if script:
            context.add_init_script(VIOLATIONS)
            context.grant_permissions(["clipboard-read", "clipboard-write"], origin=base)
        if cookie:
            context.add_cookies([{"name": COOKIE, "value": cookie, "url": base}])
        self.contexts.append(context)
        page = context.new_page()
        if watched:
            self.watch(page, base)
        return page

    def watch(self, page, base):
        origin = urlsplit(base).netloc
        note = lambda what: self.wrong.append(f"{page.url}: {what}")  # noqa: E731

        def on_request(request):
            address = urlsplit(request.url)
            if address.scheme in ("http", "https", "ws", "wss") and address.netloc != origin:
                note(f"a request to {request.url}")

        def on_response(response):
            if response.status >= 400 and response.request.resource_type != "document":
                note(f"{response.status} for {response.url}")

        def on_console(message):
            # The page itself may be one that refuses.
            if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
                note(f"console: {message.text}")

        def on_dialog(dialog):
            note(f"a dialog: {dialog.message}")
            dialog.dismiss()

        page.on("request", on_request)
        page.on("response", on_response)
        page.on("console", on_console)
        page.on("pageerror", lambda error: note(f"an error of the script: {error}"))
        page.on("dialog", on_dialog)

    def close(self):
        for context in self.contexts:
            context.close()


@pytest.fixture
def browse(chromium, server):
    """Windows in which nothing may go wrong: no foreign request, no error, nothing that the policy had to stop."""
    browse = Browse(chromium, server.base)
    yield browse
    browse.close()
    assert browse.wrong == []


@pytest.fixture
def fresh(server, request):
    """An account of the test's own, in which there is nothing yet."""
    return server.account(re.sub(r"[\W_]+", " ", request.node.name.removeprefix("test_"))[:60].strip())


def picture(page, name):
    """Keeps what the page looks like, where somebody wants to look."""
    if os.environ.get("SCREENSHOTS") == "1":
        folder = ROOT / "target/screenshots"
        folder.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=folder / f"{name}.png", full_page=True)


# The pages at these addresses, read as the browser reads them but not drawn: what `look` finds in each.
READ = """async ([paths, language]) => {
  const found = {};
  for (const [name, path] of Object.entries(paths)) {
    const answer = await fetch(path, { headers: { 'accept': 'text/html', 'accept-language': language } });
    const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
    found[name] = (LOOK)(page, path);
  }
  return found;
}"""


def read_all(page, paths, look, language="en"):
    """What the function `look` finds in each of these pages."""
    return page.evaluate(READ.replace("LOOK", look), [paths, language])


def copied(page):
    """What is in the clipboard."""
    return page.evaluate("navigator.clipboard.readText()")


def fact(page, name):
    """What stands beside a name in the facts of a page."""
    return page.locator("dl.facts div", has=page.locator("dt", has_text=re.compile(f"^{name}$"))).locator("dd")
