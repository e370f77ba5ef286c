"""The operator's own pages: accounts, the catalog, the log of everything."""

import json
import re

from conftest import fact
from playwright.sync_api import expect


def heading(page):
    return page.get_by_role("heading", level=1)


def test_an_account_is_made_found_by_its_id_changed_and_deleted_by_name(world, browse, size):
    name = f"Globex {size}"
    page = browse(world.operator, size)
    page.goto("/operator")
    page.get_by_role("link", name="Create an account").click()
    page.get_by_role("textbox", name="Name").fill(name)
    page.get_by_role("button", name="Create the account").click()
    expect(heading(page)).to_have_text("Overview")
    id = re.search(r"/accounts/([0-9a-f-]{36})", page.url).group(1)
    page.goto("/operator")
    page.get_by_role("textbox", name="Account id").fill("00000000-0000-4000-8000-000000000000")
    page.get_by_role("button", name="Open", exact=True).click()
    expect(page.locator("#f-open-error")).to_have_text("There is no account with this id.")
    page.get_by_role("textbox", name="Account id").fill(id)
    page.get_by_role("button", name="Open", exact=True).click()
    expect(heading(page)).to_have_text("Overview")

    page.goto("/operator")
    page.get_by_role("link", name=f"Settings {name}").click()
    page.get_by_role("textbox", name="Name").fill(f"{name} Ltd")
    page.get_by_label("Deliveries and events are kept").fill("0")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#f-deliveries_retention_days-error")).to_be_visible()
    page.get_by_label("Deliveries and events are kept").fill("90")
    page.get_by_role("button", name="Save").click()
    row = page.locator("tbody tr", has_text=f"{name} Ltd")
    expect(row).to_contain_text("90 d")
    row.get_by_role("link", name="Settings").click()
    page.get_by_role("link", name="Delete the account").click()
    expect(page.locator(".danger-zone li")).not_to_have_count(0)
    page.locator("#f-confirm").fill(name)
    page.get_by_role("button", name="Delete the account").click()
    expect(page.locator("#f-confirm-error")).to_be_visible()
    world.server.call("GET", f"/v1/accounts/{id}").expect(200)
    page.locator("#f-confirm").fill(f"{name} Ltd")
    page.get_by_role("button", name="Delete the account").click()
    expect(heading(page)).to_have_text("Accounts")
    world.server.call("GET", f"/v1/accounts/{id}").expect(404)


def test_an_event_type_is_added_changed_and_deleted_by_name(world, browse, size):
    name = f"parcel.lost_{size}"
    page = browse(world.operator, size)
    page.goto("/operator/event-types")
    page.get_by_role("link", name="Add an event type").click()
    page.get_by_role("textbox", name="Name").fill("Not A Name")
    page.get_by_role("textbox", name="JSON Schema of the data").fill("{")
    page.get_by_role("button", name="Add the event type").click()
    expect(page.locator("#f-schema-error")).to_contain_text("This is not JSON yet")
    page.get_by_role("textbox", name="JSON Schema of the data").fill('{"type": "object", "required": ["id"]}')
    page.get_by_role("textbox", name="Example of the data").fill('{"id": "P-1"}')
    page.get_by_role("button", name="Add the event type").click()
    expect(page.locator("#f-name-error")).not_to_be_empty()
    page.get_by_role("textbox", name="Name").fill(name)
    page.get_by_role("textbox", name="Description").fill("A parcel is gone.")
    page.get_by_role("button", name="Add the event type").click()
    expect(heading(page)).to_have_text(name)
    assert json.loads(page.get_by_role("textbox", name="Example of the data").input_value()) == {"id": "P-1"}
    page.get_by_role("textbox", name="Description").fill("A parcel was lost.")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("tbody tr", has_text=name)).to_contain_text("A parcel was lost.")
    page.get_by_role("link", name=name).click()
    page.get_by_role("link", name="Delete the event type").click()
    page.locator("#f-confirm").fill("parcel")
    page.get_by_role("button", name="Delete the event type").click()
    expect(page.locator("#f-confirm-error")).to_be_visible()
    page.locator("#f-confirm").fill(name)
    page.get_by_role("button", name="Delete the event type").click()
    expect(heading(page)).to_have_text("Event types")
    expect(page.locator("tbody tr", has_text=name)).to_have_count(0)


def test_the_operator_goes_into_an_account_and_back(world, browse, fresh, size):
    page = browse(world.operator, size)
    page.goto("/operator")
    page.get_by_role("link", name=fresh.name, exact=True).first.click()
    expect(heading(page)).to_have_text("Overview")
    if size == "phone":
        page.get_by_text("Menu", exact=True).click()
    expect(page.locator("header .account")).to_contain_text(fresh.name)
    expect(page.locator("header .account")).to_contain_text("Operator")
    page.get_by_role("link", name="All accounts").click()
    expect(heading(page)).to_have_text("Accounts")


def test_the_log_of_everything_leads_into_each_account(world, browse, fresh, size):
    page = browse(world.operator, size)
    page.goto(f"/operator/audit-log?account_id={fresh.id}&action=api_key.created")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.locator("tbody tr").get_by_role("link", name=fresh.id).click()
    expect(heading(page)).to_have_text("Overview")
    page.goto("/operator/audit-log")
    with page.expect_download() as download:
        page.get_by_role("link", name="Export as XLSX").click()
    assert download.value.path().read_bytes().startswith(b"PK")


def test_the_operators_pages_are_closed_to_everybody_else(world, browse):
    for role in ["owner", "developer", "viewer"]:
        page = browse(world.cookies[role])
        for path in ["/operator", "/operator/accounts/new", f"/operator/accounts/{world.acme.id}", "/operator/audit-log"]:
            assert page.goto(path).status in (403, 404)
            assert "Acme" not in page.content()


def test_what_the_operator_does_in_an_account_is_told_to_it_without_a_name(world, browse, fresh):
    id = fresh.endpoint(f"{world.receiver.url}/support")
    page = browse(world.operator)
    page.goto(f"{fresh.home}/endpoints/{id}")
    page.get_by_role("button", name="Pause endpoint").click()
    expect(fact(page, "Status")).to_have_text("Paused")
    owner = browse(fresh.owner)
    owner.goto(f"{fresh.home}/audit-log?action=webhook.updated")
    expect(owner.locator("tbody tr")).to_have_count(1)
    expect(owner.locator("tbody tr")).to_contain_text("Operator")
    assert "ops@example.com" not in owner.content()
