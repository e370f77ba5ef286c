"""Portal links: one account's pages without signing in, alone or in a frame of a site that may hold them."""

import http.server
import re
import threading

import pytest
from conftest import fact, picture
from pages import NAVIGATION, SIZES, of_role
from playwright.sync_api import expect
from test_accessibility import violations
from test_reading import FAULTS, MOST_BYTES
from world import eventually


class Site:
    """A site of the operator's that holds a page in a frame."""

    def __init__(self):
        site = self
        self.framed = ""

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                frame = f'<iframe src="{site.framed}" title="Webhooks" width="100%" height="700"></iframe>'
                page = f"<!doctype html><title>Product</title>{frame}"
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(page.encode())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        # Another origin, and another site: 127.0.0.1 is not localhost.
        self.origin = f"http://localhost:{self.server.server_port}"

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def sites():
    sites = Site(), Site()
    yield sites
    for site in sites:
        site.stop()


def test_a_link_opens_the_pages_without_signing_in_under_the_operators_name(world, browse, size):
    portal = world.acme.portal(brand="Example Pay", color="#0b5cad")
    page = browse("", size)
    faults = []
    for name, path in of_role("portal", world.names, portal).items():
        answer = page.goto(path)
        if answer.status != 200:
            faults.append(f"{name}: {answer.status}")
        if len(answer.body()) > MOST_BYTES:
            faults.append(f"{name}: {len(answer.body())} bytes")
        faults += [f"{name}: {fault}" for fault in page.evaluate(FAULTS, SIZES[size]["width"])]
        if "Acme" in page.content() or "Aldaba" in page.title():
            faults.append(f"{name}: another name than the operator's")
        picture(page, f"portal-{name}-{size}")
    assert not faults, "\n".join(faults)
    if size == "phone":
        page.get_by_text("Menu", exact=True).click()
    assert page.get_by_role("navigation", name="Main menu").get_by_role("link").all_inner_texts() == NAVIGATION["portal"]
    expect(page.get_by_role("button", name="Sign out")).to_have_count(0)


@pytest.mark.parametrize("color", ["#0b5cad", "#ffee00", "#000000", "#ffffff", "#ff0000"])
def test_any_colour_can_be_read(world, browse, color):
    portal = world.acme.portal(brand="Example", color=color)
    page = browse()
    found = {}
    for path in [f"/endpoints/{world.names['paused']}", "/endpoints/new"]:
        page.goto(portal + path)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            found[f"{path} {scheme}"] = violations(page, ["color-contrast", "link-in-text-block"])
    left = {where: what for where, what in found.items() if what}
    assert not left, left
    accent = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--accent')").strip()
    page.goto(world.acme.portal())
    assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--accent')").strip() != accent


def test_a_customer_makes_changes_and_deletes_an_endpoint(world, browse, fresh, size):
    page = browse("", size)
    page.goto(fresh.portal())
    page.get_by_role("link", name="New endpoint").first.click()
    page.get_by_role("textbox", name="URL", exact=True).fill(f"{world.receiver.url}/customer")
    page.get_by_role("checkbox", name="order.created").check()
    page.get_by_role("button", name="Create endpoint").click()
    expect(page.get_by_label("Signing secret", exact=True)).to_have_value(re.compile("^[0-9a-f]{64}$"))
    page.get_by_role("button", name="Send a test").click()
    expect(page.get_by_text("Delivered.", exact=True)).to_be_visible()
    page.get_by_role("link", name="To the endpoint").first.click()
    page.get_by_role("button", name="Pause endpoint").click()
    expect(fact(page, "Status")).to_have_text("Paused")
    page.get_by_role("link", name="Delete", exact=True).click()
    page.locator("#f-confirm").fill(f"{world.receiver.url}/customer")
    page.get_by_role("button", name="Delete the endpoint").click()
    expect(page.get_by_text("No endpoints yet")).to_be_visible()
    done = [entry["attributes"] for entry in fresh.call("GET", "/v1/audit-log").data]
    assert {entry["actor_type"] for entry in done if entry["action"].startswith("webhook.")} == {"portal_link"}


def test_a_link_that_only_looks_changes_nothing(world, browse):
    portal = world.acme.portal(permissions=["webhooks:read"])
    page = browse()
    page.goto(portal)
    names = page.get_by_role("navigation", name="Main menu").get_by_role("link").all_inner_texts()
    assert names == ["Overview", "Endpoints", "Deliveries"]
    for path in ["", "/endpoints", f"/endpoints/{world.names['paused']}", f"/deliveries/{world.names['failed']}"]:
        page.goto(portal + path)
        expect(page.locator("main form[method=post]")).to_have_count(0)
    for path in ["/events", "/event-types", "/api-keys", "/users", "/audit-log"]:
        assert page.goto(portal + path).status == 403


def test_a_link_opens_nothing_else(world, browse, fresh):
    portal = fresh.portal()
    page = browse()
    for path in [f"/deliveries/{world.names['success']}", f"/endpoints/{world.names['warehouse']}"]:
        assert page.goto(portal + path).status == 404
    page.goto(fresh.home)
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    assert page.context.cookies() == []


def test_a_link_that_is_over_says_what_to_do(browse, size):
    page = browse("", size)
    assert page.goto("/portal/0000000000000000000000000000000000000000000").status == 404
    expect(page.get_by_role("heading", level=1)).to_have_text("This link has expired")
    expect(page.locator("main p").first).to_contain_text("open it again")


def test_the_pages_stand_and_work_in_a_frame_of_a_site_that_may_hold_them(world, browse, fresh, sites, size):
    allowed, other = sites
    portal = fresh.portal(brand="Example Pay", frame_origins=[allowed.origin])
    allowed.framed = other.framed = world.server.base + portal
    # The holder is the page here, so what the frame does is looked at by hand.
    page = browse("", size, watched=False)
    errors = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(allowed.origin)
    frame = page.frame_locator("iframe")
    expect(frame.get_by_role("heading", level=1)).to_have_text("Overview")
    expect(frame.get_by_role("navigation", name="Main menu")).to_be_visible()
    frame.get_by_role("link", name="Endpoints", exact=True).click()
    frame.get_by_role("link", name="New endpoint").first.click()
    frame.get_by_role("textbox", name="URL", exact=True).fill(f"{world.receiver.url}/framed")
    frame.get_by_role("checkbox", name="order.created").check()
    frame.get_by_role("button", name="Create endpoint").click()
    expect(frame.get_by_label("Signing secret", exact=True)).to_be_visible()
    frame.get_by_role("button", name="Copy").click()
    # Whether a frame may write to the clipboard is the holder's to say: either it is copied, or it is selected.
    expect(frame.get_by_role("button", name="Copied").or_(frame.get_by_label("Signing secret", exact=True))).to_have_count(1)
    frame.get_by_role("link", name="To the endpoint").click()
    frame.get_by_role("button", name="Pause endpoint").click()
    expect(frame.get_by_role("button", name="Resume endpoint")).to_be_visible()
    wide = page.frames[1].evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1]
    picture(page, f"framed-{size}")
    assert [text for text in errors if "clipboard" not in text.lower()] == []


@pytest.mark.parametrize("what", ["another site", "no site named", "sign-in", "a page of a user"])
def test_no_other_site_may_hold_a_page_in_a_frame(world, browse, fresh, sites, what):
    allowed, other = sites
    page = browse(fresh.owner, watched=False)
    path = {
        "another site": fresh.portal(frame_origins=[allowed.origin]),
        "no site named": fresh.portal(),
        "sign-in": "/sign-in",
        "a page of a user": fresh.home,
    }[what]
    other.framed = world.server.base + path
    refusals = []
    page.on("console", lambda message: refusals.append(message.text))
    page.goto(other.origin)
    assert any("frame-ancestors" in text for text in refusals), refusals
    # The browser is asked something, so that it tells what it knows of its frames.
    eventually(lambda: page.evaluate("true") and page.frames[1].url.startswith("chrome-error://"), "the refusal")
    world.server.open(path, "" if what == "sign-in" else fresh.owner).expect(200)
