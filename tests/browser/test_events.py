"""Event types, and publishing by hand."""

import json
import re

import pytest
from playwright.sync_api import expect
from world import EXAMPLE, eventually


@pytest.mark.parametrize("role", ["owner", "developer", "operator"])
def test_the_example_of_a_type_is_published_and_its_deliveries_followed(world, browse, fresh, role, size):
    fresh.endpoint(f"{world.receiver.url}/published-{fresh.id}")
    page = browse({"owner": fresh.owner, "operator": world.operator}.get(role) or fresh.user(role), size)
    page.goto(f"{fresh.home}/event-types")
    page.get_by_role("link", name="order.created").click()
    expect(page.get_by_text("An order was placed and paid.")).to_be_visible()
    data = page.get_by_role("textbox", name="Data")
    assert json.loads(data.input_value()) == EXAMPLE
    page.get_by_role("button", name="Publish").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Event order.created")
    expect(page.locator("#sent tbody tr")).to_have_count(1)
    expect(page.locator("#sent tbody tr")).to_contain_text("Success")
    body = eventually(lambda: world.receiver.came[f"/published-{fresh.id}"], "the delivery")[0][1]
    assert json.loads(body)["data"] == EXAMPLE
    page.get_by_role("navigation", name="Where you are").get_by_role("link").last.click()
    expect(page.locator("#events tbody tr")).to_have_count(1)


def test_what_is_no_event_is_refused_and_kept_in_the_form(world, browse, fresh, size):
    page = browse(fresh.owner, size)
    for written, told in [
        ('{"id": }', "This is not JSON: there is a mistake at line 1, column 8."),
        ('{"id": "a"', "This is not JSON yet: it ends early"),
        ('{"id": 7}', None),
        ("[]", None),
    ]:
        page.goto(f"{fresh.home}/event-types/order.created")
        data = page.get_by_role("textbox", name="Data")
        data.fill(written)
        page.get_by_role("button", name="Publish").click()
        expect(page.locator("#f-data-error")).to_contain_text(told or re.compile("."))
        expect(data).to_have_value(written)
    fresh.call("GET", "/v1/events").expect(200)
    assert fresh.call("GET", "/v1/events").total == 0


def test_an_event_that_goes_to_nobody_says_so(browse, fresh):
    event = fresh.publish("stock.low")
    page = browse(fresh.owner)
    page.goto(f"{fresh.home}/events/{event}")
    expect(page.get_by_text("It went to no endpoint")).to_be_visible()


def test_a_form_that_is_sent_twice_publishes_once(browse, fresh, size):
    page = browse(fresh.owner, size)
    page.goto(f"{fresh.home}/event-types/order.created")
    page.get_by_role("button", name="Publish").dblclick()
    expect(page.get_by_role("heading", level=1)).to_have_text("Event order.created")
    # Going back and sending the same form once more is still the same wish.
    page.go_back()
    page.get_by_role("button", name="Publish").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Event order.created")
    assert fresh.call("GET", "/v1/events").total <= 2


def test_a_viewer_reads_a_type_and_cannot_publish(world, browse, size):
    page = browse(world.cookies["viewer"], size)
    page.goto(f"{world.acme.home}/event-types/order.created")
    expect(page.get_by_role("heading", name="Example of the data")).to_be_visible()
    expect(page.get_by_role("heading", name="Schema of the data")).to_be_visible()
    expect(page.get_by_role("button", name="Publish")).to_have_count(0)


def test_the_deliveries_of_a_type_are_one_click_away(world, browse):
    page = browse(world.cookies["owner"])
    page.goto(f"{world.acme.home}/event-types/refund.created")
    page.get_by_role("link", name="Its deliveries").click()
    assert page.url.endswith("event_type=refund.created")
    expect(page.locator("#deliveries tbody tr")).to_have_count(4)
