"""By keyboard and by screen reader: axe finds nothing, in light and in dark; everything can be reached; focus can be seen."""

from pathlib import Path

import axe_playwright_python
import pytest
from conftest import picture
from pages import OF_ACCOUNT, OF_OPERATOR, OF_USER, OUTSIDE, of_role
from playwright.sync_api import expect
from world import PASSWORD

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()

RUN = """async (rules) => {
  const asked = rules ? { runOnly: { type: 'rule', values: rules } } : {};
  const found = await axe.run(document, { ...asked, resultTypes: ['violations'] });
  return found.violations.map((v) => v.id + ': ' + v.nodes.slice(0, 3).map((n) =>
    n.target.join(' ') + ' (' + (n.any[0]?.message ?? n.all[0]?.message ?? n.none[0]?.message ?? '') + ')').join('; '));
}"""

PAGES = [*OF_ACCOUNT, *OF_USER, *OF_OPERATOR]

# Both sizes, both languages, light and dark.
LOOKS = {"desktop-english-light": ("desktop", "en-US", False), "phone-spanish-dark": ("phone", "es-MX", True)}


@pytest.fixture(scope="module", params=LOOKS)
def eye(request, world, chromium):
    """A window in which axe looks at page after page. The operator sees every page."""
    from conftest import Browse

    browse = Browse(chromium, world.server.base)
    page = browse(world.operator, *LOOKS[request.param])
    page.look = request.param
    yield page
    browse.close()


def violations(page, rules=None):
    # Evaluated by the tool: the page's policy lets no script in.
    page.evaluate(AXE)
    return page.evaluate(RUN, rules)


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(world, eye, name):
    eye.goto(of_role("operator", world.names)[name])
    picture(eye, f"{eye.look}-{name}")
    # What is folded away has to be right too.
    eye.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    found = violations(eye)
    assert not found, "\n".join(found)


def test_axe_finds_nothing_on_pages_for_strangers_and_refusals(world, browse, size):
    page = browse(size=size)
    found = {}
    for path in [*OUTSIDE.values(), "/join/nothing", "/portal/nothing", "/docs"]:
        page.goto(path.format(**world.names))
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            found[f"{path} {scheme}"] = violations(page)
    page.goto("/sign-in")
    page.get_by_label("E-mail address").fill("nobody@example.com")
    page.locator("#f-password").fill("wrong password")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    found["refused"] = violations(page)
    owner = browse(world.cookies["owner"], size)
    owner.goto(f"{world.acme.home}/moon")
    found["missing"] = violations(owner)
    owner.goto(f"{world.acme.home}/deliveries?min_attempt=x&from=yesterday")
    found["a filter that is refused"] = violations(owner)
    left = {where: what for where, what in found.items() if what}
    assert not left, left


def test_axe_finds_nothing_on_pages_that_come_after_an_action(world, browse, fresh, size):
    page = browse(fresh.owner, size)
    found = {}

    def look(name):
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            found[f"{name} {scheme}"] = violations(page)
        picture(page, f"after-{name}-{size}")

    page.goto(f"{fresh.home}/endpoints/new")
    page.locator("#f-url").fill("ftp://example.com/hooks")
    page.get_by_role("button", name="Create endpoint").click()
    look("endpoint-refused")
    page.locator("#f-url").fill(f"{world.receiver.url}/axe")
    page.get_by_role("checkbox", name="order.created").check()
    page.get_by_role("button", name="Create endpoint").click()
    look("endpoint-created")
    page.get_by_role("button", name="Send a test").click()
    look("test-delivered")
    page.get_by_role("link", name="To the endpoint").first.click()
    endpoint = page.url
    look("endpoint-new-born")
    page.goto(f"{endpoint}/rotate")
    page.get_by_role("button", name="Rotate secret").click()
    look("secret-rotated")
    page.goto(f"{endpoint}/delete")
    page.locator("#f-confirm").fill("something else")
    page.get_by_role("button", name="Delete the endpoint").click()
    look("delete-mistyped")
    hostile = fresh.endpoint(f"{world.receiver.url}/hostile", "refund.created")
    page.goto(f"{fresh.home}/endpoints/{hostile}")
    page.get_by_role("button", name="Send a test").click()
    look("test-not-delivered")
    page.goto(f"{fresh.home}/api-keys/new")
    page.get_by_role("button", name="Create the key").click()
    look("api-key-refused")
    page.get_by_role("checkbox", name="webhooks:read").check()
    page.get_by_role("button", name="Create the key").click()
    look("api-key-created")
    page.goto(f"{fresh.home}/users/invite")
    page.locator("#f-email").fill(fresh.address("guest"))
    page.get_by_role("button", name="Create the invitation").click()
    look("invitation-refused")
    page.locator("#f-invite-current").fill(PASSWORD)
    page.get_by_role("button", name="Create the invitation").click()
    look("user-invited")
    page.goto(f"{fresh.home}/event-types/order.created")
    page.locator("#f-data").fill("{")
    page.get_by_role("button", name="Publish").click()
    look("event-refused")
    left = {where: what for where, what in found.items() if what}
    assert not left, left


# What can be reached by keyboard, as a selector and a number for each, and what has the focus now.
REACHABLE = """() => {
  const all = [...document.querySelectorAll('a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex="0"]')];
  const shown = all.filter((e) => !e.disabled && e.checkVisibility({ visibilityProperty: true, contentVisibilityAuto: true }));
  shown.forEach((e, at) => e.setAttribute('data-reach', at));
  return shown.length;
}"""

FOCUSED = """() => {
  const e = document.activeElement;
  const seen = (e, style = getComputedStyle(e)) =>
    style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0 || style.boxShadow !== 'none';
  const box = e.getBoundingClientRect();
  return {
    reach: e.getAttribute('data-reach'), what: e.outerHTML.slice(0, 120), body: e === document.body,
    visible: seen(e) || e.id === 'menu' && seen(e.nextElementSibling),
    inside: box.bottom > 0 && box.top < innerHeight,
  };
}"""


@pytest.mark.parametrize("name", ["overview", "endpoint", "endpoint-edit", "endpoint-delete", "deliveries", "delivery-failed",
                                  "event-type", "api-key-new", "user", "operator-account", "two-factor"])
def test_tab_reaches_everything_and_focus_can_be_seen(world, browse, name, size):
    page = browse(world.operator, size)
    page.goto(of_role("operator", world.names)[name])
    count = page.evaluate(REACHABLE)
    reached, unseen = set(), []
    for _ in range(count + 60):
        page.keyboard.press("Tab")
        focused = page.evaluate(FOCUSED)
        if focused["body"] or focused["reach"] in reached and len(reached) == count:
            break
        if focused["reach"] is not None:
            reached.add(focused["reach"])
        if not focused["visible"] or not focused["inside"]:
            unseen.append(focused["what"])
    missing = [page.locator(f'[data-reach="{n}"]').evaluate("(e) => e.outerHTML.slice(0, 120)")
               for n in range(count) if str(n) not in reached]
    assert (missing, unseen) == ([], [])


def test_the_first_tab_offers_to_skip_to_the_content(world, browse, size):
    page = browse(world.cookies["owner"], size)
    page.goto(f"{world.acme.home}/deliveries")
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)")


def test_an_endpoint_is_made_by_keyboard_alone(world, browse, fresh):
    page = browse(fresh.owner)
    page.goto(f"{fresh.home}/endpoints")

    def tab_to(locator):
        for _ in range(80):
            if locator.evaluate("(e) => e === document.activeElement"):
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"{locator} is not reached")

    tab_to(page.get_by_role("link", name="New endpoint"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("New endpoint")
    tab_to(page.get_by_role("textbox", name="URL", exact=True))
    page.keyboard.type(f"{world.receiver.url}/keys")
    tab_to(page.get_by_role("checkbox", name="order.created"))
    page.keyboard.press("Space")
    tab_to(page.get_by_role("button", name="Create endpoint"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("The endpoint is created")
    tab_to(page.get_by_role("button", name="Copy"))
    page.keyboard.press("Enter")
    # A screen reader hears of it.
    expect(page.locator("#said")).to_have_text("Copied")


def test_faults_of_a_form_are_announced_and_lead_to_their_fields(world, browse, fresh):
    page = browse(fresh.owner)
    page.goto(f"{fresh.home}/endpoints/new")
    page.locator("#f-url").fill("ftp://example.com/hooks")
    page.get_by_role("button", name="Create endpoint").click()
    summary = page.get_by_role("alert")
    expect(summary).to_be_focused()
    url = page.get_by_role("textbox", name="URL", exact=True)
    expect(url).to_have_attribute("aria-invalid", "true")
    expect(url).to_have_value("ftp://example.com/hooks")
    expect(page.locator("#f-url-error")).not_to_be_empty()
    assert "f-url-error" in url.get_attribute("aria-describedby")
    links = summary.get_by_role("link")
    assert links.count() == 2, "the URL and the event types"
    for link in links.all():
        link.click()
        assert page.evaluate("'#' + document.activeElement.id") == link.get_attribute("href")


@pytest.mark.parametrize("name", ["overview", "endpoint", "endpoint-new", "deliveries", "delivery", "api-keys", "audit-log"])
def test_text_can_be_twice_as_large(world, browse, name):
    # WCAG 1.4.4: 200 % of 1280 px are as wide as 640 px.
    page = browse(world.cookies["owner"])
    page.set_viewport_size({"width": 640, "height": 400})
    page.goto(of_role("owner", world.names)[name])
    assert page.evaluate("document.documentElement.scrollWidth") <= 640


def test_charts_have_their_numbers_in_words_and_as_a_table(world, browse):
    page = browse(world.cookies["viewer"])
    page.goto(world.acme.home)
    chart = page.get_by_role("img", name="Attempts over time by outcome")
    expect(chart).to_be_visible()
    page.locator("summary", has_text="The numbers as a table").first.click()
    table = page.locator("details.numbers").first.get_by_role("table")
    expect(table.get_by_role("columnheader")).to_have_text(["Time", "Success", "Retrying", "Failed"])
