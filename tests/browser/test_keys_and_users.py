"""API keys and users, and the audit log, which knows of them."""

import csv
import io
import re

import pytest
from conftest import copied, fact
from playwright.sync_api import expect
from world import PASSWORD


@pytest.mark.parametrize("role", ["owner", "operator"])
def test_an_api_key_is_shown_once_works_and_is_revoked_by_name(world, browse, fresh, role, size):
    page = browse(fresh.owner if role == "owner" else world.operator, size)
    page.goto(f"{fresh.home}/api-keys")
    page.get_by_role("link", name="Create an API key").click()
    page.get_by_role("textbox", name="Name").fill("Billing service")
    page.get_by_role("checkbox", name="webhooks:read").check()
    page.get_by_role("combobox", name="Expires").select_option("90")
    page.get_by_role("button", name="Create the key").click()
    key = page.get_by_label("API key", exact=True).input_value()
    expect(page.get_by_text("It is not shown again.")).to_be_visible()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert copied(page) == key
    world.server.call("GET", "/v1/webhooks", key=key).expect(200)
    world.server.call("GET", "/v1/events", key=key).expect(403)
    page.reload()
    expect(page.get_by_text("The form was sent twice.")).to_be_visible()
    assert key not in page.content()
    page.get_by_role("link", name="Done").click()
    row = page.locator("tbody tr", has_text="Billing service")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("webhooks:read")
    assert key not in page.content() and key[-4:] in row.inner_text()

    row.get_by_role("link", name="Revoke Billing service").click()
    expect(page.locator(".danger-zone li")).not_to_have_count(0)
    revoke = page.get_by_role("button", name="Revoke the key")
    page.locator("#f-confirm").fill("billing")
    revoke.click()
    expect(page.locator("#f-confirm-error")).to_be_visible()
    world.server.call("GET", "/v1/webhooks", key=key).expect(200)
    page.locator("#f-confirm").fill("Billing service")
    revoke.click()
    expect(page.locator("tbody tr", has_text="the tests")).to_have_count(1)
    expect(row).to_have_count(0)
    world.server.call("GET", "/v1/webhooks", key=key).expect(401)


def test_a_portal_link_is_revoked_and_its_pages_are_gone(browse, fresh, size):
    portal = fresh.portal(brand="Example Pay")
    guest = browse("", size)
    assert guest.goto(portal).status == 200
    page = browse(fresh.owner, size)
    page.goto(f"{fresh.home}/portal-links")
    row = page.locator("tbody tr", has_text="Example Pay")
    expect(row).to_contain_text("webhooks:read")
    assert portal.rsplit("/", 1)[1] not in page.content()
    row.get_by_role("link", name=re.compile("^Revoke ")).click()
    expect(page.locator(".danger-zone li")).not_to_have_count(0)
    page.get_by_role("button", name="Revoke the link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Portal links")
    expect(row).to_have_count(0)
    assert browse("", size).goto(portal).status == 404


def test_a_key_without_permissions_is_refused_and_the_form_kept(browse, fresh, size):
    page = browse(fresh.owner, size)
    page.goto(f"{fresh.home}/api-keys/new")
    page.get_by_role("textbox", name="Name").fill("Nothing")
    page.get_by_role("button", name="Create the key").click()
    alert = page.get_by_role("alert")
    expect(alert).to_be_focused()
    alert.get_by_role("link").click()
    expect(page.locator("#f-permissions")).to_be_focused()
    expect(page.get_by_role("textbox", name="Name")).to_have_value("Nothing")


def test_a_key_that_may_do_everything_takes_the_password(world, browse, fresh, size):
    page = browse(fresh.owner, size)
    page.goto(f"{fresh.home}/api-keys/new")
    page.get_by_role("textbox", name="Name").fill("Migration")
    page.get_by_role("checkbox", name="Everything (*)").check()
    page.get_by_role("button", name="Create the key").click()
    expect(page.get_by_role("alert")).to_contain_text("The password or the code is wrong.")
    expect(page.get_by_role("textbox", name="Name")).to_have_value("Migration")
    expect(page.get_by_role("checkbox", name="Everything (*)")).to_be_checked()
    page.locator("#f-key-current").fill(PASSWORD)
    page.get_by_role("button", name="Create the key").click()
    key = page.get_by_label("API key", exact=True).input_value()
    world.server.call("GET", "/v1/webhooks", key=key).expect(200)


def test_a_developer_sees_keys_and_makes_none(world, browse):
    page = browse(world.cookies["developer"])
    page.goto(f"{world.acme.home}/api-keys")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.get_by_role("link", name="Create an API key")).to_have_count(0)
    expect(page.get_by_role("link", name="Revoke")).to_have_count(0)


def test_a_colleague_is_invited_joins_gets_another_role_and_is_deleted(world, browse, fresh, size):
    email = fresh.address("luis")
    page = browse(fresh.owner, size)
    page.goto(f"{fresh.home}/users")
    page.get_by_role("link", name="Invite a user").click()
    page.get_by_role("textbox", name="E-mail").fill(email)
    page.get_by_role("combobox", name="Role").select_option("viewer")
    page.get_by_role("button", name="Create the invitation").click()
    expect(page.get_by_role("alert")).to_contain_text("The password or the code is wrong.")
    expect(page.get_by_role("textbox", name="E-mail")).to_have_value(email)
    page.locator("#f-invite-current").fill(PASSWORD)
    page.get_by_role("button", name="Create the invitation").click()
    link = page.get_by_label("Invitation link").input_value()
    assert link.startswith(f"{world.server.base}/join/")
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert copied(page) == link
    page.get_by_role("link", name="Done").click()
    expect(page.locator("tbody tr", has_text=email)).to_contain_text("Invited")
    assert link not in page.content()

    guest = browse("", size)
    guest.goto(link)
    expect(guest.get_by_text(email)).to_be_visible()
    guest.locator("#f-password").fill("short")
    guest.locator("#f-again").fill("short")
    guest.get_by_role("button", name="Set the password and sign in").click()
    expect(guest.get_by_role("alert")).to_contain_text("A password has 10 to")
    guest.locator("#f-password").fill(PASSWORD)
    guest.locator("#f-again").fill(PASSWORD + "!")
    guest.get_by_role("button", name="Set the password and sign in").click()
    expect(guest.get_by_role("alert")).to_have_text("The two passwords differ.")
    guest.locator("#f-password").fill(PASSWORD)
    guest.locator("#f-again").fill(PASSWORD)
    guest.get_by_role("button", name="Set the password and sign in").click()
    expect(guest.get_by_role("heading", level=1)).to_have_text("Overview")
    assert guest.url.rstrip("/") == world.server.base + fresh.home
    spent = browse("", size)
    assert spent.goto(link).status == 404
    expect(spent.get_by_role("heading", level=1)).to_have_text("This invitation cannot be used")

    page.reload()
    page.get_by_role("link", name=email).click()
    page.get_by_role("combobox", name="Role").select_option("developer")
    page.locator("#f-role-current").fill(PASSWORD)
    page.get_by_role("button", name="Change the role").click()
    expect(page.locator("dd", has_text="Developer").first).to_be_visible()
    guest.reload()
    expect(guest.get_by_role("link", name="New endpoint").first).to_be_visible()

    page.get_by_role("link", name="Delete the user").click()
    expect(page.locator(".danger-zone li")).not_to_have_count(0)
    page.locator("#f-confirm").fill("luis")
    page.get_by_role("button", name="Delete the user").click()
    expect(page.locator("#f-confirm-error")).to_be_visible()
    page.locator("#f-confirm").fill(email)
    page.get_by_role("button", name="Delete the user").click()
    expect(page.get_by_role("alert")).to_contain_text("The password or the code is wrong.")
    page.locator("#f-delete-current").fill(PASSWORD)
    page.get_by_role("button", name="Delete the user").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Users")
    expect(page.locator("tbody tr", has_text=email)).to_have_count(0)
    guest.reload()
    expect(guest.get_by_role("heading", level=1)).to_have_text("Sign in")


def test_a_new_invitation_link_kills_the_one_before(world, browse, fresh):
    id, first = fresh.invite("viewer")
    page = browse(fresh.owner)
    page.goto(f"{fresh.home}/users/{id}")
    page.locator("#f-link-current").fill(PASSWORD)
    page.get_by_role("button", name="Make a new link").click()
    second = page.get_by_label("Invitation link").input_value()
    assert second != first
    guest = browse()
    assert guest.goto(first).status == 404
    assert guest.goto(second).status == 200


def test_the_last_owner_stays(browse, fresh, size):
    page = browse(fresh.owner, size)
    page.goto(f"{fresh.home}/users")
    page.get_by_role("link", name=fresh.owner_email).click()
    page.get_by_role("combobox", name="Role").select_option("viewer")
    page.locator("#f-role-current").fill(PASSWORD)
    page.get_by_role("button", name="Change the role").click()
    expect(page.get_by_role("alert")).to_contain_text("owner")
    page.get_by_role("link", name="Delete the user").click()
    page.locator("#f-confirm").fill(fresh.owner_email)
    page.locator("#f-delete-current").fill(PASSWORD)
    page.get_by_role("button", name="Delete the user").click()
    expect(page.get_by_role("alert")).to_contain_text("owner")
    page.goto(f"{fresh.home}/users")
    expect(page.locator("tbody tr", has_text=fresh.owner_email)).to_contain_text("Owner")


def test_an_address_that_is_taken_is_told_beside_its_field(browse, fresh, size):
    page = browse(fresh.owner, size)
    page.goto(f"{fresh.home}/users/invite")
    page.get_by_role("textbox", name="E-mail").fill(fresh.owner_email)
    page.locator("#f-invite-current").fill(PASSWORD)
    page.get_by_role("button", name="Create the invitation").click()
    expect(page.locator("#f-email-error")).not_to_be_empty()
    expect(page.get_by_role("textbox", name="E-mail")).to_have_value(fresh.owner_email)


@pytest.mark.parametrize("role", ["owner", "developer"])
def test_the_audit_log_says_who_did_what(world, browse, fresh, role, size):
    owner = browse(fresh.owner, size)
    id = fresh.endpoint(f"{world.receiver.url}/audited")
    owner.goto(f"{fresh.home}/endpoints/{id}")
    owner.get_by_role("button", name="Pause endpoint").click()
    expect(fact(owner, "Status")).to_have_text("Paused")
    page = owner if role == "owner" else browse(fresh.user(role), size)
    page.goto(f"{fresh.home}/audit-log")
    row = page.locator("tbody tr", has_text="Endpoint changed")
    expect(row).to_contain_text(fresh.owner_email)
    expect(row).to_contain_text("status")
    expect(row).to_contain_text("127.0.0.1")
    page.get_by_role("combobox", name="Action").select_option("webhook.created")
    page.get_by_role("button", name="Filter", exact=True).click()
    page.wait_for_url("**action=webhook.created")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody tr")).to_contain_text("the tests")
    with page.expect_download() as download:
        page.get_by_role("link", name="Export as CSV").click()
    table = list(csv.reader(io.StringIO(download.value.path().read_text("utf-8-sig"))))
    assert len(table) == 2 and any("webhook.created" in cell for cell in table[1])
    page.get_by_role("link", name="Clear filters").click()
    page.locator("tbody tr", has_text="Endpoint changed").get_by_role("link", name=re.compile(id)).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"{world.receiver.url}/audited")
