"""Without JavaScript everything can be read, and done by links and forms."""

import re

import pytest
from conftest import fact
from pages import of_role
from playwright.sync_api import expect


def heading(page):
    return page.get_by_role("heading", level=1)


def test_no_page_offers_what_only_a_script_can_do_or_asks_for_one(world):
    for name, path in of_role("operator", world.names).items():
        text = world.server.open(path, world.operator).text
        for button in re.findall(r"<button[^>]*data-(?:copy|live-toggle)[^>]*>", text):
            assert " hidden" in button, f"{name}: {button}"
        assert "<noscript" not in text, name


@pytest.mark.parametrize("name", ["overview", "endpoint", "endpoint-new", "endpoint-paused", "replay", "deliveries-failed",
                                  "delivery-failed", "event-type", "audit-log", "user", "me", "operator-accounts"])
def test_a_page_is_whole_without_a_script(world, browse, name):
    texts = []
    for script in (False, True):
        page = browse(world.operator, script=script)
        page.goto(of_role("operator", world.names)[name])
        text = re.sub(r"Live · Pause|\bCopy\b|just now|\d+ (min|h|d) ago|in \d+ \w+", "", page.locator("main").inner_text())
        texts.append(text.split())
    assert texts[0] == texts[1] and len(texts[0]) > 10


def test_an_endpoint_is_made_paused_and_deleted_without_a_script(world, browse, fresh, size):
    url = f"{world.receiver.url}/plain"
    page = browse(fresh.owner, size, script=False)
    page.goto(fresh.home)
    page.get_by_role("link", name="New endpoint").first.click()
    page.get_by_role("textbox", name="URL", exact=True).fill(url)
    page.get_by_role("checkbox", name="order.created").check()
    page.get_by_role("button", name="Create endpoint").click()
    expect(page.get_by_label("Signing secret", exact=True)).to_have_value(re.compile("^[0-9a-f]{64}$"))
    page.get_by_role("button", name="Send a test").click()
    expect(page.get_by_text("Delivered.", exact=True)).to_be_visible()
    page.get_by_role("link", name="To the endpoint").first.click()
    page.get_by_role("button", name="Pause endpoint").click()
    expect(fact(page, "Status")).to_have_text("Paused")
    page.get_by_role("button", name="Resume endpoint").click()
    expect(page.get_by_text("Resumed.")).to_be_visible()
    page.get_by_role("link", name="Rotate secret").click()
    page.get_by_role("button", name="Rotate secret").click()
    expect(heading(page)).to_have_text("The secret is rotated")
    page.get_by_role("link", name="To the endpoint").first.click()
    page.get_by_role("link", name="Delete", exact=True).click()
    page.locator("#f-confirm").fill(url)
    page.get_by_role("button", name="Delete the endpoint").click()
    expect(page.get_by_text("No endpoints yet")).to_be_visible()


def test_filters_and_publishing_work_without_a_script(world, browse, size):
    page = browse(world.cookies["owner"], size, script=False)
    page.goto(f"{world.acme.home}/deliveries")
    page.get_by_role("combobox", name="Status", exact=True).select_option("failed")
    page.get_by_role("button", name="Filter", exact=True).click()
    expect(page.locator("tbody tr")).to_have_count(10)
    # Empty fields stand in the address then, and change nothing.
    expect(page.get_by_role("combobox", name="Status", exact=True)).to_have_value("failed")
    page.locator("summary", has_text="More filters").click()
    expect(page.locator("#f-from")).to_be_visible()
    page.goto(f"{world.acme.home}/event-types/invoice.paid")
    expect(page.get_by_role("button", name="Publish")).to_be_visible()


def test_a_form_sent_twice_without_a_script_is_done_once(world, browse, fresh):
    page = browse(fresh.owner, script=False)
    page.goto(f"{fresh.home}/event-types/order.created")
    page.get_by_role("button", name="Publish").dblclick()
    expect(heading(page)).to_have_text("Event order.created")
    page.go_back()
    page.get_by_role("button", name="Publish").click()
    expect(heading(page)).to_have_text("Event order.created")
    assert fresh.call("GET", "/v1/events").total <= 2


def test_signing_in_and_out_works_without_a_script(world, browse, fresh, size):
    page = browse("", size, script=False)
    page.goto(fresh.home)
    page.get_by_label("E-mail address").fill(fresh.owner_email)
    page.locator("#f-password").fill("correct horse battery")
    page.get_by_role("button", name="Sign in").click()
    expect(heading(page)).to_have_text("Overview")
    if size == "phone":
        # The menu is a checkbox and its label.
        page.get_by_text("Menu", exact=True).click()
    page.get_by_role("button", name="Sign out").click()
    expect(heading(page)).to_have_text("Sign in")
